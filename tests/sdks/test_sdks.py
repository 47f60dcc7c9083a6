"""Real SDKs through a real server with nothing but a client token, before APIs that insist on their real key."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import stripe
from api_calls import CALLS, FAILURES, REFUSALS, s3_client, with_httpx
from api_upstream import KEYS, ApiUpstream, places_of_the_key, running_apis
from attrs import define, frozen

from apitokenproxy import Basic, Bearer, Header, Proxy, Rule, Upstream
from apitokenproxy.testing import MemoryAudit
from leaks.forms import assert_clean
from loopback import Received, call, running_asgi, running_wsgi

UNDER_WSGI = ["openai stream", "github pagination", "boto3 put", "curl upload"]


@frozen
class Upstreams:
    """The APIs, running, and the proxy's upstreams for them."""

    apis: ApiUpstream
    values: list[Upstream]


@define
class Behind:
    """A proxy under a server, one client token, and what the APIs have seen through it."""

    proxy: Proxy
    url: str
    apis: ApiUpstream
    token: str
    token_id: str
    before: int

    def base(self, api: str) -> str:
        return f"{self.url}/{api}"

    def seen(self) -> list[Received]:
        return self.apis.requests[self.before :]


@pytest.fixture(scope="module")
def upstreams() -> Iterator[Upstreams]:
    with pytest.MonkeyPatch.context() as environment, running_apis() as apis:
        for api, key in KEYS.items():
            environment.setenv(f"REAL_{api.upper()}", key)
        credentials = {
            "openai": Bearer("env:REAL_OPENAI"),
            "anthropic": Header("X-Api-Key", "env:REAL_ANTHROPIC"),
            "stripe": Basic("env:REAL_STRIPE"),
            "github": Header("Authorization", "env:REAL_GITHUB", template="token {secret}"),
            "slack": Bearer("env:REAL_SLACK"),
            "s3": Bearer("env:REAL_S3"),
            "plain": Bearer("env:REAL_PLAIN"),
        }
        yield Upstreams(
            apis,
            [
                Upstream(api, f"{apis.url}/{api}", credential=credential, allow_private=True)
                for api, credential in credentials.items()
            ],
        )


def _running(upstreams: Upstreams, stack: ExitStack, *, wsgi: bool) -> tuple[Proxy, str]:
    proxy = Proxy(upstreams=upstreams.values, rules=[Rule("all", effect="allow")], audit=MemoryAudit())
    stack.callback(proxy.close)
    return proxy, stack.enter_context(running_wsgi(proxy.wsgi) if wsgi else running_asgi(proxy.asgi))


@pytest.fixture(scope="module")
def served(upstreams: Upstreams) -> Iterator[tuple[Proxy, str]]:
    with ExitStack() as stack:
        yield _running(upstreams, stack, wsgi=False)


@pytest.fixture(scope="module")
def served_by_wsgi(upstreams: Upstreams) -> Iterator[tuple[Proxy, str]]:
    with ExitStack() as stack:
        yield _running(upstreams, stack, wsgi=True)


def _behind(served: tuple[Proxy, str], upstreams: Upstreams) -> Behind:
    proxy, url = served
    issued = proxy.tokens.issue(tenant="acme")
    return Behind(proxy, url, upstreams.apis, issued.token, issued.id, len(upstreams.apis.requests))


@pytest.fixture
def behind(served: tuple[Proxy, str], upstreams: Upstreams) -> Behind:
    return _behind(served, upstreams)


@pytest.fixture
def behind_wsgi(served_by_wsgi: tuple[Proxy, str], upstreams: Upstreams) -> Behind:
    return _behind(served_by_wsgi, upstreams)


@pytest.fixture(autouse=True)
def _sdks_by_themselves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, loopback_only: None) -> None:
    """Nothing of the machine's own set-up, no telemetry."""
    monkeypatch.setattr(stripe, "enable_telemetry", False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_PROFILE", "AWS_CONFIG_FILE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("OPENAI_BASE_URL", "OPENAI_ORG_ID", "ANTHROPIC_BASE_URL", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def assert_only_the_real_key_went_out(behind: Behind, api: str) -> None:
    """Each request carries the real key once, and the client token in no form and no place."""
    seen = behind.seen()
    assert [places_of_the_key(received, KEYS[api]) for received in seen] == [1] * len(seen)
    assert_clean({"client token": behind.token}, {received.target: as_bytes(received) for received in seen})


def as_bytes(received: Received) -> bytes:
    lines = [f"{received.method} {received.target}", *(f"{name}: {value}" for name, value in received.headers), "", ""]
    return "\r\n".join(lines).encode("latin-1") + received.body


@pytest.mark.parametrize("name", CALLS)
def test_an_sdk_works_with_only_a_client_token(behind: Behind, name: str) -> None:
    """It gets its objects, and the API gets its real key and nothing of the client's."""
    sdk = CALLS[name]
    assert sdk.make(behind.base(sdk.api), behind.token) == sdk.expected
    assert len(behind.seen()) == sdk.requests
    assert_only_the_real_key_went_out(behind, sdk.api)


@pytest.mark.parametrize("name", UNDER_WSGI)
def test_an_sdk_works_under_wsgi_too(behind_wsgi: Behind, name: str) -> None:
    """The same calls, the other adapter."""
    sdk = CALLS[name]
    assert sdk.make(behind_wsgi.base(sdk.api), behind_wsgi.token) == sdk.expected
    assert len(behind_wsgi.seen()) == sdk.requests
    assert_only_the_real_key_went_out(behind_wsgi, sdk.api)


@pytest.mark.parametrize("name", FAILURES)
def test_an_error_of_the_api_is_the_sdks_own_exception(behind: Behind, name: str) -> None:
    """Status and body pass through, so the program handles what it would have handled without the proxy."""
    sdk = FAILURES[name]
    with pytest.raises(sdk.error) as caught:
        sdk.make(behind.base(sdk.api), behind.token)
    assert sdk.status(caught.value) == sdk.expected
    assert len(behind.seen()) == 1
    assert_only_the_real_key_went_out(behind, sdk.api)


@pytest.mark.parametrize("name", REFUSALS)
def test_a_revoked_token_is_the_sdks_authentication_error(behind: Behind, name: str) -> None:
    """The SDK says that its key is not good any more; the API is not asked."""
    sdk = REFUSALS[name]
    behind.proxy.tokens.revoke(behind.token_id)
    with pytest.raises(sdk.error) as caught:
        sdk.make(behind.base(sdk.api), behind.token)
    assert sdk.status(caught.value) == sdk.expected
    assert behind.seen() == []


@pytest.mark.parametrize("name", ["openai", "boto3", "httpx"])
def test_the_real_key_is_no_client_token(behind: Behind, name: str) -> None:
    """Whoever holds an API's key does not get through with it."""
    sdk = REFUSALS[name]
    with pytest.raises(sdk.error) as caught:
        sdk.make(behind.base(sdk.api), KEYS[sdk.api])
    assert sdk.status(caught.value) == 401
    assert behind.seen() == []


@pytest.mark.parametrize("api", KEYS)
def test_the_apis_refuse_whatever_is_not_the_real_key(behind: Behind, api: str) -> None:
    """The other tests mean something only because of this."""
    keys = [[], [f"Bearer {behind.token}"], [f"Bearer {KEYS[api]}x"], [f"Bearer {KEYS[api]}", f"Bearer {KEYS[api]}"]]
    statuses = [
        call(behind.apis.url, "GET", f"/{api}/x", [("Authorization", value) for value in values]).status
        for values in keys
    ]
    assert statuses == [401] * len(keys)


def test_pages_are_fetched_through_the_proxy(behind: Behind) -> None:
    """PyGithub follows Link headers that name the repository by its number, and stays behind the proxy."""
    issues = CALLS["github pagination"].make(behind.base("github"), behind.token)
    targets = [received.target for received in behind.seen()]
    assert len(issues) == 6
    assert targets == [
        "/github/repos/acme/app/issues?state=open",
        "/github/repositories/7/issues?page=2&state=open",
        "/github/repositories/7/issues?page=3&state=open",
    ]


def test_a_presigned_url_is_refused(behind: Behind) -> None:
    """It would carry the client token in the URL, where logs keep it."""
    sign = s3_client(behind.base("s3"), behind.token).generate_presigned_url
    target = sign("get_object", Params={"Bucket": "bucket", "Key": "key"}).removeprefix(behind.url)
    answer = call(behind.url, "GET", target)
    assert (answer.status, answer.json["code"]) == (400, "token_in_target")
    assert behind.seen() == []


def test_two_callers_of_one_api_are_told_apart(behind: Behind) -> None:
    """The audit record names the token that called, though both reached the API with the same key."""
    other = behind.proxy.tokens.issue(tenant="other")
    with_httpx(behind.base("plain"), behind.token)
    with_httpx(behind.base("plain"), other.token)
    records: list[Any] = behind.proxy._audit.records[-2:]
    assert [(record.tenant, record.token_id) for record in records] == [("acme", behind.token_id), ("other", other.id)]


def test_the_guard_of_this_file_stops_traffic_that_leaves_the_machine() -> None:
    """Telemetry of an SDK would fail its test."""
    with socket.socket() as client, pytest.raises(AssertionError):
        client.connect(("192.0.2.1", 80))


def test_every_sdk_is_in_all_tables() -> None:
    """Success, the API's errors, and a revoked token."""
    programs: Callable[[Any], set[str]] = lambda table: {name.split()[0] for name in table}  # noqa: E731 - thrice below
    assert programs(CALLS) == programs(FAILURES) == programs(REFUSALS)
