"""SDKs in a script: the proxy is their httpx transport, there is no server, and their key is a placeholder."""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing

import anthropic
import httpx
import httpx2
import openai
import pytest
from api_calls import SAID, anthropic_stream, openai_chat, openai_client, openai_stream
from api_upstream import KEYS, ApiUpstream, places_of_the_key, running_apis

from apitokenproxy import Bearer, Header, Proxy, Rule, Upstream
from apitokenproxy.testing import MemoryAudit
from leaks.forms import assert_clean

WORDS = ["one ", "two ", "three "]
PLACEHOLDER = "sk-placeholder-0000"
BASE = "http://proxy"


@pytest.fixture
def apis(loopback_only: None) -> Iterator[ApiUpstream]:
    with running_apis() as server:
        yield server


@pytest.fixture
def proxy(apis: ApiUpstream, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    monkeypatch.setenv("REAL_OPENAI", KEYS["openai"])
    monkeypatch.setenv("REAL_ANTHROPIC", KEYS["anthropic"])
    proxy = Proxy(
        upstreams=[
            Upstream("openai", f"{apis.url}/openai", credential=Bearer("env:REAL_OPENAI"), allow_private=True),
            Upstream(
                "anthropic",
                f"{apis.url}/anthropic",
                credential=Header("X-Api-Key", "env:REAL_ANTHROPIC"),
                allow_private=True,
            ),
        ],
        rules=[Rule("all", effect="allow")],
        audit=MemoryAudit(),
    )
    yield proxy
    proxy.close()


@pytest.fixture
def token(proxy: Proxy) -> str:
    return proxy.tokens.issue(tenant="script").token


def assert_only_the_real_key_went_out(apis: ApiUpstream, api: str, token: str) -> None:
    """Neither the token nor the placeholder reached the API."""
    assert [places_of_the_key(received, KEYS[api]) for received in apis.requests] == [1] * len(apis.requests)
    assert_clean({"client token": token, "placeholder": PLACEHOLDER}, {"requests": repr(apis.requests).encode()})


def test_openai_over_a_transport(proxy: Proxy, token: str, apis: ApiUpstream) -> None:
    """Chat and stream; the SDK's key is a placeholder that goes nowhere."""
    with openai_client(
        f"{BASE}/openai", PLACEHOLDER, http_client=httpx.Client(transport=proxy.transport(token))
    ) as client:
        assert openai_chat(client) == "one two three "
        assert openai_stream(client) == WORDS
        with pytest.raises(openai.NotFoundError):
            openai_chat(client, "missing")
    assert len(apis.requests) == 3
    assert_only_the_real_key_went_out(apis, "openai", token)


def test_async_openai_over_a_transport(proxy: Proxy, token: str, apis: ApiUpstream) -> None:
    """The other colour."""

    async def stream() -> list[str | None]:
        http_client = httpx.AsyncClient(transport=proxy.async_transport(token))
        async with (
            aclosing(proxy),
            openai.AsyncOpenAI(
                api_key=PLACEHOLDER, base_url=f"{BASE}/openai/v1", max_retries=0, http_client=http_client
            ) as client,
        ):
            chunks = await client.chat.completions.create(model="gpt-x", messages=SAID, stream=True)
            return [chunk.choices[0].delta.content async for chunk in chunks]

    assert asyncio.run(stream()) == WORDS
    assert_only_the_real_key_went_out(apis, "openai", token)


def test_anthropic_over_a_transport(proxy: Proxy, token: str, apis: ApiUpstream) -> None:
    """This SDK insists on httpx2, httpx's successor, whose transports have the same methods."""
    http_client = httpx2.Client(transport=proxy.transport(token))  # type: ignore[arg-type]
    with anthropic.Anthropic(
        api_key=PLACEHOLDER, base_url=f"{BASE}/anthropic", max_retries=0, http_client=http_client
    ) as client:
        assert anthropic_stream(client) == (WORDS, "end_turn")
        with pytest.raises(anthropic.RateLimitError):
            anthropic_stream(client, "busy")
    assert_only_the_real_key_went_out(apis, "anthropic", token)


def test_async_anthropic_over_a_transport(proxy: Proxy, token: str, apis: ApiUpstream) -> None:
    """The other colour."""

    async def stream() -> list[str]:
        http_client = httpx2.AsyncClient(transport=proxy.async_transport(token))  # type: ignore[arg-type]
        async with (
            aclosing(proxy),
            anthropic.AsyncAnthropic(
                api_key=PLACEHOLDER, base_url=f"{BASE}/anthropic", max_retries=0, http_client=http_client
            ) as client,
            client.messages.stream(model="claude-x", max_tokens=9, messages=SAID) as messages,
        ):
            return [word async for word in messages.text_stream]

    assert asyncio.run(stream()) == WORDS
    assert_only_the_real_key_went_out(apis, "anthropic", token)


def test_a_revoked_token_is_the_sdks_authentication_error(proxy: Proxy, apis: ApiUpstream) -> None:
    """Without a server too."""
    issued = proxy.tokens.issue(tenant="script")
    proxy.tokens.revoke(issued.id)
    http_client = httpx.Client(transport=proxy.transport(issued.token))
    with (
        openai_client(f"{BASE}/openai", PLACEHOLDER, http_client=http_client) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        openai_chat(client)
    assert apis.requests == []
