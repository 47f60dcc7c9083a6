"""Clients that stall, in either direction, hold nothing of the upstream for longer than they may."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from attrs import frozen

from apitokenproxy import Bearer, Proxy, Rule, Timeouts, Upstream
from apitokenproxy.testing import MemoryAudit
from loopback import REAL_KEY, Answer, UpstreamServer, call, running_asgi, running_upstream, wait_until

LONG, SHORT = 10.0, 0.2


@frozen
class Served:
    """A proxy under uvicorn that may have one connection to its upstream."""

    url: str
    audit: MemoryAudit
    upstream: UpstreamServer
    token: str

    def begin(self, head: str, body: bytes = b"") -> socket.socket:
        """Begin a request and leave it at that. Little of the answer fits into what the client has room for."""
        client = socket.socket()
        client.settimeout(LONG)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        host, port = self.url.removeprefix("http://").split(":")
        client.connect((host, int(port)))
        lines = f"{head} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.token}\r\n"
        framing = "Content-Length: 10\r\n" if head.startswith("POST") else ""
        client.sendall(f"{lines}{framing}\r\n".encode() + body)
        return client

    def get(self) -> Answer:
        return call(self.url, "GET", "/api/x", [("Authorization", f"Bearer {self.token}")])

    def codes(self) -> list[str]:
        return [record.code for record in self.audit.records]


@pytest.fixture(params=["h11", "httptools"])
def serve(request: pytest.FixtureRequest) -> Iterator[Callable[..., Served]]:
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("DEMO_KEY", REAL_KEY)
        upstream = stack.enter_context(running_upstream())

        def make(**seconds: Any) -> Served:
            audit = MemoryAudit()
            terms = {"pool": LONG, "client": LONG, **seconds}
            proxy = Proxy(
                upstreams=[
                    Upstream(
                        "api",
                        upstream.url,
                        credential=Bearer("env:DEMO_KEY"),
                        allow_private=True,
                        max_connections=1,
                        timeouts=Timeouts(**terms),
                    )
                ],
                rules=[Rule("all", effect="allow")],
                audit=audit,
            )
            stack.callback(proxy.close)
            url = stack.enter_context(running_asgi(proxy.asgi, http=request.param))
            return Served(url, audit, upstream, proxy.tokens.issue(tenant="acme").token)

        yield make


def test_a_body_that_does_not_begin_holds_no_connection(serve: Callable[..., Served]) -> None:
    """Whoever announces a body and sends none keeps nobody else from the one connection."""
    served = serve(pool=SHORT)
    with served.begin("POST /api/x"):
        wait_until(lambda: served.audit.reserved == 1)
        assert served.get().status == 200


@pytest.mark.parametrize("body", [b"", b"12345"], ids=["before the body", "within the body"])
def test_a_client_that_stalls_is_refused(serve: Callable[..., Served], body: bytes) -> None:
    """After the client timeout the answer is 408, and the connection is another's."""
    served = serve(client=SHORT)
    with served.begin("POST /api/x", body) as client:
        answer = client.recv(65536)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"x-proxy-error: client_too_slow" in answer.lower()
        assert served.get().status == 200
    wait_until(lambda: served.codes() == ["client_too_slow", ""])


def test_the_total_timeout_ends_an_upload_that_stalls(serve: Callable[..., Served]) -> None:
    """It counts while the client is waited for, as long as that may be."""
    served = serve(total=SHORT)
    with served.begin("POST /api/x", b"12345") as client:
        assert client.recv(65536).startswith(b"HTTP/1.1 504 ")
    wait_until(lambda: served.codes() == ["upstream_total_timeout"])


@pytest.mark.parametrize(("timeout", "code"), [("client", "client_too_slow"), ("total", "upstream_total_timeout")])
def test_an_answer_that_is_not_read_gives_its_connection_back(
    serve: Callable[..., Served], timeout: str, code: str
) -> None:
    """A client that takes nothing more of an answer ends the exchange by not doing so."""
    served = serve(**{timeout: SHORT})
    with served.begin("GET /api/bytes/100000000"):
        wait_until(lambda: len(served.upstream.requests) == 1)
        assert served.get().status == 200
        assert code in served.codes()
