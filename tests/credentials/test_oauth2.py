"""OAuth 2.0 client credentials, against a token endpoint on loopback, in both colours."""

import asyncio
import base64
import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import pytest
from attrs import Factory, define
from credential_calls import ACME, COLOURS, call, credential

from apitokenproxy import ConfigurationError, Credential, Header, OAuth2ClientCredentials
from apitokenproxy._colour import ASYNC, SYNC, run
from apitokenproxy.errors import SecretUnavailable
from apitokenproxy.secrets.cache import Secrets
from apitokenproxy.testing import FixedSecrets

KEY = "fixed:key"
MATERIAL = "s3cret/+0f7a9c2e51d8"


@define
class Endpoint:
    """A running token endpoint. `asked` holds forms and Authorization headers; `answer` is what it says."""

    url: str = ""
    asked: list[tuple[dict[str, list[str]], str]] = Factory(list)
    status: int = 200
    answer: Any = None
    lasts: float = 3600
    pause: threading.Event | None = None

    def say(self) -> bytes:
        if self.answer is not None:
            return self.answer if isinstance(self.answer, bytes) else json.dumps(self.answer).encode()
        token = f"token-{len(self.asked)}-{'x' * 20}"
        return json.dumps({"access_token": token, "token_type": "Bearer", "expires_in": self.lasts}).encode()


@contextmanager
def running_endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            endpoint.asked.append((form, self.headers.get("Authorization", "")))
            body = endpoint.say()
            if endpoint.pause is not None:
                endpoint.pause.wait(10)
            self.send_response(endpoint.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        endpoint.url = f"http://127.0.0.1:{server.server_address[1]}/token"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield endpoint
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with running_endpoint() as endpoint:
        yield endpoint


@pytest.fixture(params=COLOURS)
def colour(request: pytest.FixtureRequest) -> str:
    return request.param


def kind(endpoint: Endpoint, **terms: Any) -> OAuth2ClientCredentials:
    return OAuth2ClientCredentials(endpoint.url, "me:1", KEY, **({"allow_private": True} | terms))


def obtained(one: OAuth2ClientCredentials, colour: str, times: int = 1) -> list[Credential]:
    secrets = Secrets({"fixed": FixedSecrets(key=MATERIAL)})
    if colour == "sync":
        obtain = one.bind(secrets.bind(SYNC))
        with ThreadPoolExecutor(min(times, 32)) as pool:
            return list(pool.map(lambda _: run(obtain(ACME)), range(times)))  # type: ignore[arg-type]

    async def ask() -> list[Credential]:
        obtain = one.bind(secrets.bind(ASYNC))
        return await asyncio.gather(*(obtain(ACME) for _ in range(times)))

    return asyncio.run(ask())


def test_a_request_carries_the_token_that_was_given(endpoint: Endpoint, colour: str) -> None:
    """The secret goes to the token endpoint alone; the audit record names the token without telling it."""
    done = call(colour, kind(endpoint, scope="read write", audience="api"), key=MATERIAL)
    [(form, authorization)] = endpoint.asked
    assert form == {"grant_type": ["client_credentials"], "scope": ["read write"], "audience": ["api"]}
    assert base64.b64decode(authorization.removeprefix("Basic ")) == b"me%3A1:s3cret%2F%2B0f7a9c2e51d8"
    assert done.sent[0].values(b"authorization") == [b"Bearer token-1-" + b"x" * 20]
    assert re.fullmatch(r"fixed#[0-9a-f]{12}\+[0-9a-f]{8}", done.record.credential)


def test_a_token_among_other_credentials_is_named_after_the_secrets(endpoint: Endpoint) -> None:
    """So that each secret's version stands where it stood."""
    made = credential("sync", Header("X-Partner", "fixed:partner"), kind(endpoint), key=MATERIAL, partner="p")
    assert re.fullmatch(r"fixed#[0-9a-f]{12},fixed#[0-9a-f]{12}", made.version)
    assert made.name == f"{made.version}+{made.token}"
    assert len(made.token) == 8


def test_the_secret_may_go_into_the_form(endpoint: Endpoint, colour: str) -> None:
    """RFC 6749, section 2.3.1, for servers that do not take Basic."""
    call(colour, kind(endpoint, auth="post", resource="https://api.example.com"), key=MATERIAL)
    [(form, authorization)] = endpoint.asked
    assert (form["client_id"], form["client_secret"], authorization) == (["me:1"], [MATERIAL], "")
    assert form["resource"] == ["https://api.example.com"]


def test_a_thousand_requests_are_one_fetch(endpoint: Endpoint, colour: str) -> None:
    """All of them get the same credential."""
    found = obtained(kind(endpoint), colour, 1000)
    assert len(endpoint.asked) == 1
    assert len(set(map(id, found))) == 1


def test_another_secret_is_another_token(endpoint: Endpoint, colour: str) -> None:
    """A rotated secret is used as soon as it is read."""
    one = kind(endpoint)
    assert call(colour, one, key=MATERIAL).answer.status_code == 200
    assert call(colour, one, key=MATERIAL).answer.status_code == 200
    assert call(colour, one, key="another").answer.status_code == 200
    assert len(endpoint.asked) == 2


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (400, {"error": "invalid_client", "error_description": MATERIAL}),
        (401, {"error": "invalid_client"}),
        (302, {}),
        (429, {}),
        (500, MATERIAL.encode()),
        (200, b"nonsense"),
        (200, []),
        (200, {}),
        (200, {"access_token": ""}),
        (200, {"access_token": 7}),
        (200, {"access_token": "x", "token_type": "mac"}),
        (200, {"access_token": "x", "expires_in": 0}),
        (200, {"access_token": "x", "expires_in": "soon"}),
        (200, {"access_token": "x", "expires_in": True}),
        (200, {"access_token": "x", "expires_in": "9" * 5000}),
        (200, {"access_token": "x\r\ny"}),
        (200, {"access_token": "\u00fc"}),
        (200, b"x" * 100_000),
    ],
)
def test_without_a_token_nothing_is_forwarded(endpoint: Endpoint, colour: str, status: int, answer: Any) -> None:
    """503, and what the endpoint said is told nowhere, for it may repeat the secret."""
    endpoint.status, endpoint.answer = status, answer
    done = call(colour, kind(endpoint), key=MATERIAL)
    assert (done.answer.headers.get("x-proxy-error"), done.sent) == ("secret_unavailable", [])
    assert MATERIAL not in done.answer.text + repr(done.record)


def test_an_endpoint_that_is_not_there_is_a_fault(colour: str) -> None:
    """The reason names it."""
    done = call(colour, OAuth2ClientCredentials("http://127.0.0.1:9/t", "me", KEY, allow_private=True), key=MATERIAL)
    assert (done.answer.status_code, done.sent) == (503, [])
    assert "http://127.0.0.1:9/t cannot be asked" in done.record.reason


def test_a_token_that_does_not_say_how_long_it_lasts_is_used_for_minutes(endpoint: Endpoint) -> None:
    """RFC 6749, section 5.1: expires_in is recommended only."""
    endpoint.answer = {"access_token": "x" * 20, "token_type": "bearer"}
    assert len(obtained(kind(endpoint), "sync", 3)) == 3
    assert len(endpoint.asked) == 1


@pytest.mark.parametrize(
    ("terms", "sentence"),
    [
        ({"allow_private": False}, "must be an https URL"),
        ({"auth": "digest"}, "basic or post"),
    ],
)
def test_what_is_wrong_is_said_when_it_is_built(endpoint: Endpoint, terms: Any, sentence: str) -> None:
    """In one sentence."""
    with pytest.raises(ConfigurationError, match=sentence):
        kind(endpoint, **terms)


@pytest.mark.parametrize("status", [401, 500])
def test_an_endpoint_is_not_flooded_with_what_it_refuses(endpoint: Endpoint, colour: str, status: int) -> None:
    """A fault is told to all who wait, and to whoever comes within the next second."""
    one = kind(endpoint)
    endpoint.status = status
    for _ in range(3):
        with pytest.raises(SecretUnavailable, match=f"status {status}"):
            obtained(one, colour, 300)
    assert len(endpoint.asked) == 1
    assert call(colour, one, key="another").answer.status_code == 503
    assert len(endpoint.asked) == 2


def test_a_code_of_the_standard_is_told(endpoint: Endpoint, colour: str) -> None:
    """It says what to mend; any other text does not get into the record."""
    endpoint.status, endpoint.answer = 400, {"error": "invalid_scope", "error_description": MATERIAL}
    assert call(colour, kind(endpoint), key=MATERIAL).record.reason.endswith("status 400, invalid_scope")
    endpoint.answer = {"error": MATERIAL}
    assert call(colour, kind(endpoint), key=MATERIAL).record.reason.endswith("status 400")
