"""Secret providers of a user's own: as the documentation shows them, in every way of writing."""

import asyncio
import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from secret_calls import COLOURS, MATERIAL, Hand, read, refusal, revealed

from apitokenproxy import Bearer, ConfigurationError, Proxy, Rule, Secret, SecretUnavailable, Upstream, nonblocking
from apitokenproxy.secrets.cache import Secrets
from apitokenproxy.testing import FixedSecrets, MemoryAudit

PAGE = Path(__file__).parents[2] / "docs" / "secrets.md"


def documented() -> Any:
    """Return the class of the page's own provider, taken from its code block."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    [block] = [block for block in blocks if "class JsonFile" in block]
    namespace: dict[str, Any] = {"__name__": "a_page"}
    exec(block, namespace)  # noqa: S102 - running it is the point
    namespace["proxy"].close()
    return namespace["JsonFile"]


def ask(proxy: Proxy, colour: str) -> httpx.Response:
    """Call through the proxy once, with a token of its own."""
    token = proxy.tokens.issue(tenant="acme").token
    if colour == "sync":
        with httpx.Client(transport=proxy.transport(token)) as client:
            return client.get("http://proxy/api/x")

    async def get() -> httpx.Response:
        async with httpx.AsyncClient(transport=proxy.async_transport(token)) as client:
            return await client.get("http://proxy/api/x")

    return asyncio.run(get())


def a_proxy(colour: str, reference: str, sent: list[str], audit: MemoryAudit, **providers: Any) -> Proxy:
    """Return a proxy before an upstream that writes down which credential it was sent."""

    def upstream(request: httpx.Request) -> httpx.Response:
        sent.append(request.headers["Authorization"])
        return httpx.Response(200)

    async def aupstream(request: httpx.Request) -> httpx.Response:
        return upstream(request)

    transport = httpx.MockTransport(upstream if colour == "sync" else aupstream)
    return Proxy(
        upstreams=[Upstream("api", "https://api.example.com", credential=Bearer(reference), transport=transport)],
        rules=[Rule("all", effect="allow")],
        audit=audit,
        secret_providers=providers,
    )


@pytest.mark.parametrize("colour", COLOURS)
def test_the_documented_provider_works(tmp_path: Path, colour: str) -> None:
    """The class that docs/secrets.md shows puts its secret on a request, and says why when it cannot."""
    file = tmp_path / "secrets.json"
    file.write_text(json.dumps({"github": MATERIAL, "empty": "", "number": 5}))
    provider = documented()(str(file))
    sent: list[str] = []
    for name, status in {"github": 200, "gitlab": 503, "empty": 503, "number": 503}.items():
        audit = MemoryAudit()
        proxy = a_proxy(colour, f"jsonfile:{name}", sent, audit, jsonfile=provider)
        assert (name, status) == (name, ask(proxy, colour).status_code)
        [record] = audit.records
        told = {"github": "", "gitlab": f"{file} has no secret gitlab"}
        assert record.reason == told.get(name, f"{file} cannot be read, or {name} in it is no secret")
        assert record.code == {"github": "", "gitlab": "secret_missing"}.get(name, "secret_unavailable")
        proxy.close()
    assert sent == [f"Bearer {MATERIAL}"]


@pytest.mark.parametrize("colour", COLOURS)
def test_the_documented_time_to_live_holds(tmp_path: Path, colour: str) -> None:
    """The page says 30 seconds."""
    file = tmp_path / "secrets.json"
    clock = Hand()
    secrets = Secrets({"jsonfile": documented()(str(file))}, clock=clock)
    seen = []
    for moment, material in [(0.0, "a"), (23.9, "b"), (30.0, "b")]:
        clock.now = moment
        file.write_text(json.dumps({"x": material}))
        seen.append(revealed(secrets, colour, "jsonfile:x"))
    assert seen == [b"a", b"a", b"b"]


class AsyncProvider:
    async def fetch(self, reference: str) -> Secret:
        await asyncio.sleep(0)
        return Secret(reference)


class PlainProvider:
    def fetch(self, reference: str) -> Secret:
        return Secret(reference)


class NonblockingProvider:
    @nonblocking
    def fetch(self, reference: str) -> Secret:
        return Secret(reference)


WRITINGS = [
    ("async", AsyncProvider),
    *[(colour, provider) for colour in COLOURS for provider in (PlainProvider, NonblockingProvider)],
]


@pytest.mark.parametrize(("colour", "provider"), WRITINGS)
def test_a_provider_is_written_as_its_author_likes(colour: str, provider: Callable[[], Any]) -> None:
    """`def`, `async def` and `@nonblocking def`."""
    sent: list[str] = []
    proxy = a_proxy(colour, f"mine:{MATERIAL}", sent, MemoryAudit(), mine=provider())
    assert ask(proxy, colour).status_code == 200
    proxy.close()
    assert sent == [f"Bearer {MATERIAL}"]


def test_an_async_provider_is_refused_where_nothing_can_await_it() -> None:
    """When the WSGI app or a script's transport is taken, not at the first request."""
    proxy = a_proxy("async", "mine:x", [], MemoryAudit(), mine=AsyncProvider())
    for mount in (lambda: proxy.wsgi, lambda: proxy.transport("atp_x")):
        with pytest.raises(ConfigurationError, match=r"AsyncProvider\.fetch is async def and cannot run under WSGI"):
            mount()
    proxy.close()


class Forgetful:
    """Hands back a coroutine that it forgot to await."""

    def fetch(self, reference: str) -> Any:
        return AsyncProvider().fetch(reference)


@pytest.mark.parametrize("colour", COLOURS)
def test_a_forgotten_await_is_no_secret(colour: str) -> None:
    """A coroutine is neither sent nor kept, and Python has nothing to warn about."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refusal(Secrets({"mine": Forgetful()}), colour, "mine:x")


RAISED = {
    "a refusal": (SecretUnavailable("no such key in the vault"), "no such key in the vault"),
    "a ValueError with the material": (ValueError(MATERIAL), "the provider of mine: raised ValueError"),
    "an error with the material in its URL": (
        httpx.ConnectError(f"GET https://vault/?token={MATERIAL}"),
        "the provider of mine: raised ConnectError",
    ),
    "an assertion": (AssertionError(f"{MATERIAL} == x"), "the provider of mine: raised AssertionError"),
    "a group": (ExceptionGroup(MATERIAL, [ValueError(MATERIAL)]), "the provider of mine: raised ExceptionGroup"),
}


class Raising:
    def __init__(self, error: Exception) -> None:
        self._error = error

    @nonblocking
    def fetch(self, reference: str) -> Secret:
        raise self._error


@pytest.mark.parametrize("raised", RAISED)
@pytest.mark.parametrize("colour", COLOURS)
def test_what_a_provider_raises_is_told_by_its_type_only(colour: str, raised: str) -> None:
    """Its text could hold the secret; SecretUnavailable is the way to say more."""
    error, expected = RAISED[raised]
    audit = MemoryAudit()
    sent: list[str] = []
    proxy = a_proxy(colour, "mine:x", sent, audit, mine=Raising(error))
    answer = ask(proxy, colour)
    proxy.close()
    assert (answer.status_code, answer.headers["X-Proxy-Error"], sent) == (503, "secret_unavailable", [])
    assert expected not in answer.text
    assert [expected] == [record.reason for record in audit.records]


@pytest.mark.parametrize("colour", COLOURS)
def test_a_provider_may_replace_a_built_in_one(colour: str) -> None:
    """A test, or a program that keeps its environment elsewhere, names its own `env:`."""
    sent: list[str] = []
    proxy = a_proxy(colour, "env:KEY", sent, MemoryAudit(), env=FixedSecrets(KEY=MATERIAL))
    assert ask(proxy, colour).status_code == 200
    proxy.close()
    assert sent == [f"Bearer {MATERIAL}"]


@pytest.mark.parametrize("colour", COLOURS)
def test_the_fake_counts_what_it_is_asked(colour: str) -> None:
    """`FixedSecrets` shows how often each reference was fetched, also in vain."""
    fake = FixedSecrets(a="1")
    secrets = Secrets({"fixed": fake})
    for _ in range(3):
        read(secrets, colour, "fixed:a")
        assert refusal(secrets, colour, "fixed:b") == "the fixed secrets have no b"
    assert fake.fetched == {"a": 1, "b": 3}
