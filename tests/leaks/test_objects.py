"""What the library's objects show of themselves: to repr, str, format and pickle, and to tools that walk them."""

import json
import pickle
import pprint
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from attrs import define, evolve

from apitokenproxy import (
    Basic,
    Bearer,
    Caller,
    Denial,
    Grant,
    Header,
    Operation,
    Proxy,
    Query,
    Rule,
    Secret,
    Upstream,
    nonblocking,
)
from apitokenproxy.messages import Outbound
from apitokenproxy.policy.rules import Rules
from apitokenproxy.testing import MemoryAudit
from leaks.forms import assert_clean
from loopback import REAL_KEY, UpstreamServer, running_upstream


@define(repr=False)
class Keeping:
    """A policy engine that keeps what it was given."""

    rules: Rules
    caller: Caller | None = None
    operation: Operation | None = None
    grant: Any = None

    @nonblocking
    def decide(self, caller: Caller, operation: Operation) -> Grant | Denial:
        self.caller, self.operation = caller, operation
        self.grant = self.rules.decide(caller, operation)
        return self.grant


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Return every object that a program, a part or a debugger can hold, after a request that passed."""
    with pytest.MonkeyPatch.context() as environment, running_upstream() as upstream:
        environment.setenv("DEMO_KEY", REAL_KEY)
        yield _objects(upstream, tmp_path_factory.mktemp("objects"))


def _objects(upstream: UpstreamServer, folder: Path) -> dict[str, Any]:
    policy = Keeping(Rules([Rule("all", effect="allow")]))
    up = Upstream("api", upstream.url, credential=Bearer("env:DEMO_KEY"), allow_private=True)
    proxy = Proxy(upstreams=[up], rules=policy, audit=MemoryAudit(), store=f"sqlite:///{folder / 'tokens.db'}")
    issued = proxy.tokens.issue(tenant="acme")
    sent: list[Outbound] = []
    pipeline = proxy._sync_pipeline
    route = pipeline.routes["api"]

    async def keep(outbound: Outbound) -> Any:
        sent.append(outbound)
        return await route.forward(outbound)

    pipeline.routes["api"] = evolve(route, forward=keep)  # type: ignore[index]
    transport = proxy.transport(issued.token)
    with httpx.Client(transport=transport) as client:
        headers = {"Authorization": f"Bearer {issued.token}", "X-Api-Key": issued.token}
        assert client.get("http://proxy/api/status/200", headers=headers).status_code == 200
    assert policy.operation is not None
    assert len(sent) == 1
    secret = Secret(REAL_KEY)
    found = {
        "Proxy": proxy,
        "Proxy.tokens": proxy.tokens,
        "Pipeline": pipeline,
        "Transport": transport,
        "Upstream": up,
        "Bearer": Bearer("env:DEMO_KEY"),
        "Basic": Basic("env:DEMO_KEY", username="me"),
        "Header": Header("X-Key", "env:DEMO_KEY"),
        "Query": Query("key", "env:DEMO_KEY"),
        "Credential": _result(Bearer("env:DEMO_KEY").bind(_Reader(secret))(policy.caller)),
        "Secret": secret,
        "IssuedToken": issued,
        "TokenInfo": proxy.tokens.get(issued.id),
        "StoredToken": proxy._store.find(issued.id),
        "Request": policy.operation.request,
        "Presented": policy.operation.presented,
        "Operation": policy.operation,
        "Caller": policy.caller,
        "Grant": policy.grant,
        "Outbound": sent[0],
        "AuditRecord": proxy._audit.records[-1],
    }
    proxy.close()
    found["what must not be shown"] = {"real key": REAL_KEY, "client token": issued.token}
    return found


class _Reader:
    def __init__(self, secret: Secret) -> None:
        self._secret = secret

    def reader(self, _reference: str) -> Callable[[Any], Any]:
        async def read(_caller: Any) -> Secret:
            return self._secret

        return read


def _result(coroutine: Any) -> Any:
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it suspended")


NAMES = [
    *["Proxy", "Proxy.tokens", "Pipeline", "Transport", "Upstream", "Bearer", "Basic", "Header", "Query"],
    *["Credential", "Secret", "IssuedToken", "TokenInfo", "StoredToken"],
    *["Request", "Presented", "Operation", "Caller", "Grant", "Outbound", "AuditRecord"],
]


def _shown(show: Callable[[Any], Any], value: Any) -> bytes:
    try:
        shown = show(value)
    except Exception as refusal:  # noqa: BLE001 - refusing is right, if the refusal tells nothing
        shown = f"{type(refusal).__name__}: {refusal}"
    return shown if isinstance(shown, bytes) else str(shown).encode()


WAYS: dict[str, Callable[[Any], Any]] = {
    "repr": repr,
    "str": str,
    "format": lambda value: f"{value}",
    "percent": lambda value: "%s %r" % (value, value),  # noqa: UP031 - as logging does it
    "ascii": ascii,
    "pprint": pprint.pformat,
    "json default": lambda value: json.dumps(value, default=repr),
    "vars": lambda value: repr(vars(value)),
    "in a list": lambda value: repr([value, {"key": value}]),
}


@pytest.mark.parametrize("name", NAMES)
def test_an_object_shows_neither_key_nor_token(objects: dict[str, Any], name: str) -> None:
    """A log line, a debugger or an error report with the object in it is no leak."""
    shown = {f"{way} of {name}": _shown(show, objects[name]) for way, show in WAYS.items()}
    assert_clean(objects["what must not be shown"], shown)


@pytest.mark.parametrize("name", NAMES)
def test_a_pickled_object_holds_neither_key_nor_token(objects: dict[str, Any], name: str) -> None:
    """It is refused, or what comes out is clean: pickles go to caches, queues and crash reports."""
    protocols = range(pickle.HIGHEST_PROTOCOL + 1)
    pickled = {
        f"{name}, protocol {protocol}": _shown(partial(pickle.dumps, protocol=protocol), objects[name])
        for protocol in protocols
    }
    assert_clean(objects["what must not be shown"], pickled)
