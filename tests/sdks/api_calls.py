"""What programs do with each API's SDK, given nothing but a base URL and something to use as the key.

Retries are off wherever an SDK has them: a refusal is to be seen at once, and requests are counted.
"""

import asyncio
import subprocess
from collections.abc import Callable
from typing import Any

import aiohttp
import anthropic
import boto3
import botocore.config
import botocore.exceptions
import github
import httpx
import openai
import requests
import slack_sdk
import slack_sdk.errors
import stripe
from attrs import frozen

SAID = [{"role": "user", "content": "one two three"}]


@frozen
class Call:
    """`make(base, key)` returns `expected` after `requests` requests to `api`."""

    api: str
    make: Callable[[str, str], Any]
    expected: Any
    requests: int = 1


@frozen
class Failure:
    """`make(base, key)` raises `error` with `status` where the SDK keeps it."""

    api: str
    make: Callable[[str, str], Any]
    error: type[Exception]
    status: Callable[[Any], int]
    expected: int


# --- openai ---------------------------------------------------------------------------------


def openai_client(base: str, key: str, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(api_key=key, base_url=f"{base}/v1", max_retries=0, **options)


def openai_chat(client: openai.OpenAI, model: str = "gpt-x") -> str | None:
    return client.chat.completions.create(model=model, messages=SAID).choices[0].message.content


def openai_stream(client: openai.OpenAI) -> list[str | None]:
    chunks = client.chat.completions.create(model="gpt-x", messages=SAID, stream=True)
    return [chunk.choices[0].delta.content for chunk in chunks]


def openai_async_stream(base: str, key: str) -> list[str | None]:
    async def stream() -> list[str | None]:
        async with openai.AsyncOpenAI(api_key=key, base_url=f"{base}/v1", max_retries=0) as client:
            chunks = await client.chat.completions.create(model="gpt-x", messages=SAID, stream=True)
            return [chunk.choices[0].delta.content async for chunk in chunks]

    return asyncio.run(stream())


def with_openai(use: Callable[..., Any], *arguments: Any) -> Callable[[str, str], Any]:
    def make(base: str, key: str) -> Any:
        with openai_client(base, key) as client:
            return use(client, *arguments)

    return make


# --- anthropic ------------------------------------------------------------------------------


def anthropic_stream(client: anthropic.Anthropic, model: str = "claude-x") -> tuple[list[str], str | None]:
    with client.messages.stream(model=model, max_tokens=9, messages=SAID) as stream:
        words = list(stream.text_stream)
        return words, stream.get_final_message().stop_reason


def with_anthropic(use: Callable[..., Any], *arguments: Any) -> Callable[[str, str], Any]:
    def make(base: str, key: str) -> Any:
        with anthropic.Anthropic(api_key=key, base_url=base, max_retries=0) as client:
            return use(client, *arguments)

    return make


# --- stripe ---------------------------------------------------------------------------------


def stripe_client(base: str, key: str) -> stripe.StripeClient:
    http_client = stripe.RequestsClient(timeout=10, session=requests.Session())
    return stripe.StripeClient(key, base_addresses={"api": base}, max_network_retries=0, http_client=http_client)


def stripe_create(base: str, key: str, email: str = "a@example.com") -> tuple[str, str | None]:
    customer = stripe_client(base, key).v1.customers.create({"email": email, "name": "Ada"})
    return customer.id, customer.email


def stripe_list(base: str, key: str) -> list[str]:
    return [customer.id for customer in stripe_client(base, key).v1.customers.list().auto_paging_iter()]


def stripe_missing(base: str, key: str) -> None:
    stripe_client(base, key).v1.customers.retrieve("cus_missing")


# --- github ---------------------------------------------------------------------------------


def github_client(base: str, key: str) -> github.Github:
    return github.Github(
        auth=github.Auth.Token(key),
        base_url=base,
        retry=None,
        seconds_between_requests=None,
        seconds_between_writes=None,
        lazy=True,
    )


def github_issues(base: str, key: str, repository: str = "acme/app") -> list[tuple[int, str]]:
    with github_client(base, key) as client:
        issues = client.get_repo(repository).get_issues(state="open")
        return [(issue.number, issue.title) for issue in issues]


def github_create(base: str, key: str) -> tuple[int, str]:
    with github_client(base, key) as client:
        issue = client.get_repo("acme/app").create_issue("a new one")
        return issue.number, issue.title


def github_user(base: str, key: str) -> str:
    with github_client(base, key) as client:
        return client.get_user().login


# --- slack ----------------------------------------------------------------------------------


def slack_client(base: str, key: str) -> slack_sdk.WebClient:
    return slack_sdk.WebClient(token=key, base_url=f"{base}/api/", timeout=10, retry_handlers=[])


def slack_post(base: str, key: str, channel: str = "C1") -> tuple[bool, str]:
    answer = slack_client(base, key).chat_postMessage(channel=channel, text="Grüße & mehr")
    return answer["ok"], answer["message"]["text"]


def slack_channels(base: str, key: str) -> list[str]:
    pages = slack_client(base, key).conversations_list(limit=2)
    return [channel["id"] for page in pages for channel in page["channels"]]


# --- s3 -------------------------------------------------------------------------------------


def s3_client(base: str, key: str) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=base,
        region_name="eu-central-1",
        aws_access_key_id=key,
        aws_secret_access_key="placeholder",
        config=botocore.config.Config(
            retries={"total_max_attempts": 1},
            s3={"addressing_style": "path"},
            connect_timeout=10,
            read_timeout=10,
        ),
    )


def s3_get(base: str, key: str, name: str = "dir/object one") -> tuple[int, str]:
    answer = s3_client(base, key).get_object(Bucket="bucket", Key=name)
    return len(answer["Body"].read()), answer["ETag"]


def s3_put(base: str, key: str) -> str:
    return s3_client(base, key).put_object(Bucket="bucket", Key="new", Body=b"x" * 100_000)["ETag"]


def s3_list(base: str, key: str) -> list[str]:
    pages = s3_client(base, key).get_paginator("list_objects_v2").paginate(Bucket="bucket")
    return [found["Key"] for page in pages for found in page["Contents"]]


# --- plain HTTP clients ---------------------------------------------------------------------


def with_httpx(base: str, key: str, path: str = "/things?a=1") -> tuple[str, str]:
    with httpx.Client(base_url=base, headers={"Authorization": f"Bearer {key}"}, trust_env=False) as client:
        answer = client.get(path).raise_for_status().json()
    return answer["method"], answer["target"]


def with_async_httpx(base: str, key: str, path: str = "/things?a=1") -> tuple[str, int]:
    async def post() -> tuple[str, int]:
        headers = {"X-Api-Key": key}
        async with httpx.AsyncClient(base_url=base, headers=headers, trust_env=False) as client:
            answer = (await client.post(path, content=b"x" * 70_000)).raise_for_status().json()
        return answer["method"], answer["length"]

    return asyncio.run(post())


def with_requests(base: str, key: str, path: str = "/things?a=1") -> tuple[str, str]:
    with requests.Session() as session:
        session.trust_env = False
        answer = session.get(base + path, auth=(key, ""), timeout=10)
        answer.raise_for_status()
        return answer.json()["method"], answer.json()["target"]


def with_aiohttp(base: str, key: str, path: str = "/stream") -> str:
    async def stream() -> str:
        headers = {"Authorization": f"token {key}"}
        async with aiohttp.ClientSession(headers=headers) as session, session.get(base + path) as answer:
            answer.raise_for_status()
            return (await answer.read()).decode()

    return asyncio.run(stream())


def curl(*options: str, body: bytes = b"") -> str:
    """Run curl. Raises CalledProcessError with exit code 22 for a status of 400 or above."""
    command = ["curl", "-q", "-sS", "--fail", "--noproxy", "*", "--max-time", "10", *options]
    return subprocess.run(command, check=True, capture_output=True, input=body).stdout.decode()


def curl_header(base: str, key: str, path: str = "/stream") -> str:
    return curl("-N", "-H", f"Authorization: Bearer {key}", base + path)


def curl_user(base: str, key: str, path: str = "/stream") -> str:
    return curl("-u", f"{key}:", base + path)


def curl_upload(base: str, key: str) -> bool:
    said = curl("-H", f"Private-Token: {key}", "-T", "-", f"{base}/up", body=b"x" * 200_000)
    return '"length": 200000' in said


# --- the tables -----------------------------------------------------------------------------

_WORDS = ["one ", "two ", "three "]
_STREAM = "".join(f"data: {number}\n\n" for number in range(5))
_SAID_BY = {"target": "/plain/things?a=1"}

CALLS = {
    "openai chat": Call("openai", with_openai(openai_chat), "one two three "),
    "openai stream": Call("openai", with_openai(openai_stream), _WORDS),
    "openai async stream": Call("openai", openai_async_stream, _WORDS),
    "anthropic stream": Call("anthropic", with_anthropic(anthropic_stream), (_WORDS, "end_turn")),
    "stripe create": Call("stripe", stripe_create, ("cus_new", "a@example.com")),
    "stripe auto-pagination": Call("stripe", stripe_list, [f"cus_{number}" for number in range(1, 7)], requests=3),
    "github pagination": Call(
        "github", github_issues, [(number, f"issue {number}") for number in range(1, 7)], requests=3
    ),
    "github create": Call("github", github_create, (99, "a new one")),
    "github user": Call("github", github_user, "octo"),
    "slack post": Call("slack", slack_post, (True, "Grüße & mehr")),
    "slack pagination": Call(
        "slack", slack_channels, [f"C{page}{number}" for page in (1, 2, 3) for number in (0, 1)], requests=3
    ),
    "boto3 get": Call("s3", s3_get, (18_000, '"e1"')),
    "boto3 put": Call("s3", s3_put, '"100000"'),
    "boto3 pagination": Call("s3", s3_list, ["key-1", "key-2", "key-3"], requests=3),
    "httpx": Call("plain", with_httpx, ("GET", _SAID_BY["target"])),
    "httpx async": Call("plain", with_async_httpx, ("POST", 70_000)),
    "requests": Call("plain", with_requests, ("GET", _SAID_BY["target"])),
    "aiohttp": Call("plain", with_aiohttp, _STREAM),
    "curl header": Call("plain", curl_header, _STREAM),
    "curl user": Call("plain", curl_user, _STREAM),
    "curl upload": Call("plain", curl_upload, True),
}


def _boto_status(error: botocore.exceptions.ClientError) -> int:
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"])


FAILURES = {
    "openai 404": Failure(
        "openai", with_openai(openai_chat, "missing"), openai.NotFoundError, lambda e: e.status_code, 404
    ),
    "openai 429": Failure(
        "openai", with_openai(openai_chat, "busy"), openai.RateLimitError, lambda e: e.status_code, 429
    ),
    "anthropic 404": Failure(
        "anthropic", with_anthropic(anthropic_stream, "missing"), anthropic.NotFoundError, lambda e: e.status_code, 404
    ),
    "anthropic 429": Failure(
        "anthropic", with_anthropic(anthropic_stream, "busy"), anthropic.RateLimitError, lambda e: e.status_code, 429
    ),
    "stripe 404": Failure("stripe", stripe_missing, stripe.InvalidRequestError, lambda e: e.http_status, 404),
    "stripe 429": Failure(
        "stripe",
        lambda base, key: stripe_create(base, key, "busy@example.com"),
        stripe.RateLimitError,
        lambda e: e.http_status,
        429,
    ),
    "github 404": Failure(
        "github",
        lambda base, key: github_issues(base, key, "acme/none"),
        github.UnknownObjectException,
        lambda e: e.status,
        404,
    ),
    "github 429": Failure(
        "github",
        lambda base, key: github_issues(base, key, "acme/busy"),
        github.GithubException,
        lambda e: e.status,
        429,
    ),
    "slack error": Failure(
        "slack",
        lambda base, key: slack_post(base, key, "nowhere"),
        slack_sdk.errors.SlackApiError,
        lambda e: e.response.status_code,
        200,
    ),
    "slack 429": Failure(
        "slack",
        lambda base, key: slack_post(base, key, "busy"),
        slack_sdk.errors.SlackApiError,
        lambda e: e.response.status_code,
        429,
    ),
    "boto3 404": Failure(
        "s3", lambda base, key: s3_get(base, key, "none"), botocore.exceptions.ClientError, _boto_status, 404
    ),
    "boto3 503": Failure(
        "s3", lambda base, key: s3_get(base, key, "busy"), botocore.exceptions.ClientError, _boto_status, 503
    ),
    "httpx 404": Failure(
        "plain",
        lambda base, key: with_httpx(base, key, "/status/404"),
        httpx.HTTPStatusError,
        lambda e: e.response.status_code,
        404,
    ),
    "httpx async 429": Failure(
        "plain",
        lambda base, key: with_async_httpx(base, key, "/status/429"),
        httpx.HTTPStatusError,
        lambda e: e.response.status_code,
        429,
    ),
    "requests 404": Failure(
        "plain",
        lambda base, key: with_requests(base, key, "/status/404"),
        requests.HTTPError,
        lambda e: e.response.status_code,
        404,
    ),
    "aiohttp 429": Failure(
        "plain",
        lambda base, key: with_aiohttp(base, key, "/status/429"),
        aiohttp.ClientResponseError,
        lambda e: e.status,
        429,
    ),
    "curl 404": Failure(
        "plain",
        lambda base, key: curl_header(base, key, "/status/404"),
        subprocess.CalledProcessError,
        lambda e: e.returncode,
        22,
    ),
}

REFUSALS = {
    "openai": Failure("openai", with_openai(openai_chat), openai.AuthenticationError, lambda e: e.status_code, 401),
    "openai stream": Failure(
        "openai", with_openai(openai_stream), openai.AuthenticationError, lambda e: e.status_code, 401
    ),
    "anthropic": Failure(
        "anthropic", with_anthropic(anthropic_stream), anthropic.AuthenticationError, lambda e: e.status_code, 401
    ),
    "stripe": Failure("stripe", stripe_create, stripe.AuthenticationError, lambda e: e.http_status, 401),
    # BadCredentialsException is for a body that says "Bad credentials" in GitHub's own words.
    "github": Failure("github", github_issues, github.GithubException, lambda e: e.status, 401),
    "slack": Failure("slack", slack_post, slack_sdk.errors.SlackApiError, lambda e: e.response.status_code, 401),
    "boto3": Failure("s3", s3_get, botocore.exceptions.ClientError, _boto_status, 401),
    "httpx": Failure("plain", with_httpx, httpx.HTTPStatusError, lambda e: e.response.status_code, 401),
    "httpx async": Failure("plain", with_async_httpx, httpx.HTTPStatusError, lambda e: e.response.status_code, 401),
    "requests": Failure("plain", with_requests, requests.HTTPError, lambda e: e.response.status_code, 401),
    "aiohttp": Failure("plain", with_aiohttp, aiohttp.ClientResponseError, lambda e: e.status, 401),
    "curl": Failure("plain", curl_user, subprocess.CalledProcessError, lambda e: e.returncode, 22),
}
