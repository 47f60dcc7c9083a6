"""Tracebacks with local variables, as error reporters send them, of what is raised inside the pipeline's stages."""

import asyncio
import json
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest
from attrs import define
from reflecting_upstream import running_reflection

from apitokenproxy import (
    Bearer,
    Caller,
    ConfigurationError,
    Denial,
    Grant,
    Operation,
    Proxy,
    Query,
    Rule,
    Secret,
    Upstream,
    narrow,
    nonblocking,
)
from apitokenproxy.exchange import Exchange
from apitokenproxy.identity.authority import TokenAuthority
from apitokenproxy.identity.derived import DERIVED_REGEX
from apitokenproxy.identity.format import SCAN_REGEX
from apitokenproxy.identity.memory import MemoryStore
from apitokenproxy.identity.sql import SqlStore
from apitokenproxy.identity.stores import name_of
from apitokenproxy.identity.verified import Verified
from apitokenproxy.messages import Admission, Credential, Hidden
from apitokenproxy.policy.rules import Rules
from apitokenproxy.testing import MemoryAudit
from leaks.forms import assert_clean
from loopback import UpstreamServer

PASSWORD = "hunter2/of~the-database_77"
REAL = "real/traceback+key~4f8a1c9e7b3d5062"
STAGES = ["store", "policy", "limiter", "provider", "credential", "transport", "reply", "unreachable", "settle"]


class Stop(BaseException):
    """What a server or a person ends a worker with: it passes through everything."""


@define
class Breaking:
    """Every kind of part at once; the one at `stage` raises `error`."""

    stage: str
    error: BaseException
    inner: Any = None
    ttl: float = 0.0

    def _reach(self, stage: str) -> None:
        if stage == self.stage:
            raise self.error

    # a TokenStore
    @nonblocking
    def find(self, token_id: str) -> Any:
        self._reach("store")
        return self.inner.find(token_id)

    @nonblocking
    def changes(self) -> int:
        return self.inner.changes()

    def note(self, uses: Any) -> None:
        self.inner.note(uses)

    def add(self, token: Any, event: Any) -> None:
        self.inner.add(token, event)

    def close(self) -> None:
        self.inner.close()

    # a PolicyEngine
    @nonblocking
    def decide(self, caller: Caller, operation: Operation) -> Grant | Denial:
        self._reach("policy")
        return Rules([Rule("all", effect="allow")]).decide(caller, operation)

    # a Limiter
    @nonblocking
    def admit(self, grant: Grant) -> Admission:
        self._reach("limiter")
        return Admission(settle=lambda: self._reach("settle"))

    # a SecretProvider
    @nonblocking
    def fetch(self, reference: str) -> Secret:
        self._reach("provider")
        return Secret(REAL)

    # a TokenProvider
    @nonblocking
    def credential(self, caller: Caller) -> Credential:
        self._reach("credential")
        return Credential(headers=((b"X-Second", Hidden(REAL.encode())),))


class BreakingTransport(httpx.BaseTransport):
    """A user's own transport that fails with the request in its hands."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        raise self._error


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list in which every error that ends an exchange is reported with its locals."""
    reported: list[str] = []
    refuse = Exchange.refuse

    def reporting(self: Exchange, error: Any) -> Any:
        reported.extend(rendered(each) for each in (error, sys.exception()) if each is not None)
        return refuse(self, error)

    monkeypatch.setattr(Exchange, "refuse", reporting)
    return reported


def rendered(error: BaseException) -> str:
    """Return the traceback with locals of every frame but this file's own, which are no part of the product.

    Nor is a WSGI environ, with the client's headers in it: every frame of the server shows that already.
    """
    report = traceback.TracebackException.from_exception(error, capture_locals=True)
    waiting = [report]
    while waiting:
        one = waiting.pop()
        one.stack = traceback.StackSummary.from_list([frame for frame in one.stack if frame.filename != __file__])
        for frame in one.stack:
            frame.locals.pop("environ", None)
        waiting += [other for other in (one.__cause__, one.__context__) if other is not None]
    return "".join(report.format(chain=True))


@pytest.fixture(scope="module")
def upstream_url() -> Iterator[str]:
    with running_reflection() as url:
        yield url


def build(stage: str, error: BaseException, url: str, folder: Path) -> Proxy:
    from apitokenproxy.identity.stores import open_store  # noqa: PLC0415 - only for this

    parts = Breaking(stage, error, open_store(f"sqlite:///{folder / 'tokens.db'}"))
    place = "http://127.0.0.1:1" if stage == "unreachable" else url
    return Proxy(
        upstreams=[
            Upstream(
                "api",
                place,
                credential=[Bearer("kept:x"), Query("key", "kept:x"), parts],
                allow_private=True,
                transport=BreakingTransport(error) if stage == "transport" else None,
            )
        ],
        rules=parts,
        limits=parts,
        store=parts,
        audit=MemoryAudit(),
        secret_providers={"kept": parts},
    )


def exercise(proxy: Proxy, token: str, path: str) -> None:
    """Call through WSGI, where the token stands among the headers, and through a script's transport."""
    environ = {
        "REQUEST_METHOD": "GET",
        "RAW_URI": f"/api{path}",
        "HTTP_HOST": "x",
        "HTTP_AUTHORIZATION": f"Bearer {token}",
        "wsgi.url_scheme": "http",
    }
    answer = proxy.wsgi(environ, lambda *_: None)
    try:
        b"".join(answer)
    finally:
        answer.close()  # type: ignore[attr-defined]
    with httpx.Client(transport=proxy.transport(token)) as client:
        client.get(f"http://proxy/api{path}")


@pytest.mark.parametrize("stage", STAGES)
def test_an_error_report_with_locals_shows_neither_key_nor_token(
    stage: str, reports: list[str], upstream_url: str, tmp_path: Path
) -> None:
    """Whichever stage fails, and whatever its exception says."""
    error = RuntimeError("a fault")
    proxy = build(stage, error, upstream_url, tmp_path)
    token = proxy.tokens.issue(tenant="acme").token
    try:
        exercise(proxy, token, "/field" if stage == "reply" else "/ok")
    except RuntimeError as escaped:
        assert stage == "settle"
        reports.append(rendered(escaped))
    proxy.close()
    assert reports != []
    assert_clean({"real key": REAL, "client token": token}, {stage: "\n".join(reports).encode()})


@pytest.mark.parametrize("stage", ["store", "policy", "limiter", "credential", "transport"])
def test_what_ends_a_worker_shows_neither_key_nor_token(
    stage: str, upstream_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """KeyboardInterrupt and its like reach sys.excepthook with every frame of ours in their traceback.

    But for a provider, whose fetch runs by itself: what ends that is no worker, and nobody's traceback.
    """
    proxy = build(stage, Stop(), upstream_url, tmp_path)
    token = proxy.tokens.issue(tenant="acme").token
    hooked: list[str] = []
    monkeypatch.setattr(sys, "excepthook", lambda _kind, error, _place: hooked.append(rendered(error)))
    try:
        exercise(proxy, token, "/ok")
    except Stop as stop:
        sys.excepthook(type(stop), stop, stop.__traceback__)
    proxy.close()
    assert len(hooked) == 1
    assert "pipeline.py" in hooked[0]
    assert_clean({"real key": REAL, "client token": token}, {stage: hooked[0].encode()})


def test_a_refusal_told_to_the_log_says_where_but_not_what(
    reports: list[str], upstream: UpstreamServer, tmp_path: Path
) -> None:
    """The detail of a fault names the exception's type and place, never its text."""
    error = RuntimeError(f"I was holding {REAL}")
    proxy = build("policy", error, upstream.url, tmp_path)
    token = proxy.tokens.issue(tenant="acme").token
    exercise(proxy, token, "/ok")
    proxy.close()
    reasons = [record.reason for record in proxy._audit.records]
    assert [reason.startswith("RuntimeError at ") for reason in reasons] == [True, True]
    assert_clean({"real key": REAL, "client token": token}, {"audit": "\n".join(reasons).encode()})


class FailingStore(MemoryStore):
    """A store that fails at whatever it is asked once it is told to."""

    failing = False

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_") and name != "failing" and self.failing:
            return _fail
        return super().__getattribute__(name)


def _fail(*_: object) -> NoReturn:
    raise RuntimeError("the store fails")


CALLS: dict[str, Callable[[TokenAuthority, str], object]] = {
    "issue": lambda authority, _: authority.issue(tenant="acme"),
    "rotate": lambda authority, token: authority.rotate(token[4:16]),
    "revoke_leaked": lambda authority, token: authority.revoke_leaked(token),
    "arevoke_leaked": lambda authority, token: asyncio.run(authority.arevoke_leaked(token)),
    "derive": lambda authority, token: authority.derive(token[4:16]),
}
ANY_TOKEN = re.compile(f"{SCAN_REGEX}|{DERIVED_REGEX}")


@pytest.mark.parametrize("call", CALLS)
def test_a_store_that_fails_shows_no_token_that_is_handed_out_or_taken_back(call: str) -> None:
    """Neither the new one, which the store may have kept all the same, nor the one that was found in a leak."""
    store = FailingStore()
    authority = TokenAuthority(store, Verified(bound=1.0))
    token = authority.issue(tenant="acme").token
    store.failing = True
    with pytest.raises(RuntimeError) as caught:
        CALLS[call](authority, token)
    report = rendered(caught.value)
    assert "authority.py" in report or "deriving.py" in report
    assert ANY_TOKEN.findall(report) == []


@pytest.mark.parametrize("terms", [{"paths": ["a"]}, {"paths": ["/" + "x" * 4000]}, {}])
def test_a_token_that_cannot_be_narrowed_is_not_shown(terms: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong terms, a token that is full, nothing to narrow by: the holder's token is in no frame."""
    monkeypatch.setenv("SIGNING", "k" * 32)
    proxy = Proxy(
        upstreams=[Upstream("api", "https://api.example.com", credential=Bearer("env:SIGNING"))],
        rules=[Rule("all", effect="allow")],
        signing_keys=["env:SIGNING"],
    )
    token = proxy.tokens.derive(proxy.tokens.issue(tenant="acme").id).token
    with pytest.raises(ConfigurationError) as caught:
        narrow(token, **terms)
    proxy.close()
    report = rendered(caught.value)
    assert "narrowing.py" in report
    assert_clean({"derived token": token}, {"report": report.encode()})


@pytest.mark.parametrize("opened", ["proxy", "file", "store", "name"])
@pytest.mark.parametrize("place", ["127.0.0.1:1/tokens", "127.0.0.1:x/tokens", "127.0.0.1"])
def test_a_database_that_cannot_be_opened_does_not_show_its_password(opened: str, place: str, tmp_path: Path) -> None:
    """Whether it does not answer or is named wrongly, and whoever opens it."""
    url = f"postgresql://user:{PASSWORD}@{place}"
    file = tmp_path / "a.toml"
    text = f'[proxy]\nstore = "{url}"\n[upstreams.api]\nurl = "https://api.example.com"\n'
    file.write_text(text + 'credential = { type = "bearer", secret = "env:X" }\n')
    opening: dict[str, Callable[[], object]] = {
        "proxy": lambda: Proxy(
            upstreams=[Upstream("api", "https://x.example", credential=Bearer("env:X"))], rules=[], store=url
        ),
        "file": lambda: Proxy.from_toml(file),
        "store": lambda: SqlStore(url),
        "name": lambda: name_of(url),
    }
    if opened == "name" and place.endswith(":1/tokens"):
        assert name_of(url) == "postgresql://127.0.0.1/tokens"
        return
    with pytest.raises(ConfigurationError) as caught:
        opening[opened]()
    report = rendered(caught.value)
    assert ".py" in report
    assert_clean({"password": PASSWORD}, {"report": report.encode()})


def test_the_report_would_show_a_local() -> None:
    """The rendering does show local variables, so a clean one says something."""
    with pytest.raises(ValueError, match="Expecting value") as caught:
        json.loads(REAL)
    with pytest.raises(AssertionError):
        assert_clean({"real key": REAL}, {"report": rendered(caught.value).encode()})
