"""Whatever a server does with an answer, the exchange ends: connection, limits and record are given back."""

import asyncio
import io
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
from attrs import frozen

from apitokenproxy import Bearer, Limit, Proxy, Rule, Timeouts, Upstream
from apitokenproxy.testing import MemoryAudit
from loopback import REAL_KEY, UpstreamServer, running_upstream


class Refusal(Exception):
    """What a server raises that does not like an answer."""


@frozen
class Ends:
    """A proxy with one connection and one request in flight."""

    proxy: Proxy
    audit: MemoryAudit
    token: str
    upstream: UpstreamServer

    def environ(self, **changes: Any) -> dict[str, Any]:
        return {
            "REQUEST_METHOD": "GET",
            "RAW_URI": "/api/bytes/1000000",
            "HTTP_HOST": "proxy",
            "HTTP_AUTHORIZATION": f"Bearer {self.token}",
            "REMOTE_ADDR": "192.0.2.1",
            "wsgi.input": io.BytesIO(),
            **changes,
        }

    def wsgi(self, fails: bool) -> None:
        def start_response(*_: Any) -> None:
            if fails:
                raise Refusal

        answer: Any = self.proxy.wsgi(self.environ(), start_response)
        try:
            assert len(b"".join(answer)) == 1_000_000
        finally:
            answer.close()

    def asgi(self, fails: bool) -> None:
        scope = {
            "type": "http",
            "method": "GET",
            "raw_path": b"/api/bytes/1000000",
            "path": "/api/bytes/1000000",
            "headers": [(b"host", b"proxy"), (b"authorization", b"Bearer " + self.token.encode())],
            "client": ("192.0.2.1", 1),
        }

        async def send(_: Any) -> None:
            if fails:
                raise Refusal

        async def main() -> None:
            await self.proxy.asgi(scope, asyncio.Event().wait, send)
            await self.proxy.aclose()

        asyncio.run(main())

    def transport(self, fails: bool) -> None:
        with pytest.MonkeyPatch.context() as patch, httpx.Client(transport=self.proxy.transport(self.token)) as client:
            if fails:
                patch.setattr(httpx, "Response", self.refuse)
            assert len(client.get("http://proxy/api/bytes/1000000").content) == 1_000_000

    def refuse(self, *_: Any, **__: Any) -> None:
        raise Refusal


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ends]:
    monkeypatch.setenv("DEMO_KEY", REAL_KEY)
    with running_upstream() as upstream:
        audit = MemoryAudit()
        proxy = Proxy(
            upstreams=[
                Upstream(
                    "api",
                    upstream.url,
                    credential=Bearer("env:DEMO_KEY"),
                    allow_private=True,
                    max_connections=1,
                    timeouts=Timeouts(pool=0.2),
                )
            ],
            rules=[Rule("all", effect="allow")],
            limits=[Limit("one", per=["tenant"], concurrency=1)],
            audit=audit,
        )
        yield Ends(proxy, audit, proxy.tokens.issue(tenant="acme").token, upstream)
        proxy.close()


@pytest.mark.parametrize("way", ["wsgi", "asgi", "transport"])
def test_an_answer_that_the_server_refuses_ends_its_exchange(ends: Ends, way: str) -> None:
    """The next request finds the one connection free and the one place in flight; each has its record."""
    go = getattr(ends, way)
    for _ in range(2):
        with suppress(Refusal):
            go(True)
    go(False)
    assert [record.code for record in ends.audit.records] == ["client_gone", "client_gone", ""]


@pytest.mark.parametrize("length", ["1" * 5000, "1" * 19, "\u0664"])
def test_a_length_that_is_no_number_for_all_is_refused(ends: Ends, length: str) -> None:
    """Under WSGI as elsewhere: bad_framing, with a record, whatever Python makes of so many digits."""
    statuses: list[str] = []
    environ = ends.environ(REQUEST_METHOD="POST", CONTENT_LENGTH=length.encode().decode("latin-1"))
    answer: Any = ends.proxy.wsgi(environ, lambda status, _: statuses.append(status))
    answer.close()
    assert statuses == ["400 Bad Request"]
    assert [record.code for record in ends.audit.records] == ["bad_framing"]
    assert ends.upstream.requests == []
