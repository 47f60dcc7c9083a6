"""Places that do not answer as they should: closed, silent, slow, broken; and one that answers what a test says."""

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from attrs import Factory, define

from apitokenproxy.testing.scripted import ScriptedUpstream, answering, scripted

Answers = Callable[["Asked"], "tuple[Any, ...]"]


@define
class Asked:
    """A request that a stand-in received."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@define
class StandIn:
    """An HTTP server on loopback that answers as a function says: a status, JSON or bytes, and maybe headers."""

    url: str
    answers: Answers
    asked: list[Asked] = Factory(list)


@contextmanager
def standing_in(answers: Answers, context: ssl.SSLContext | None = None) -> Iterator[StandIn]:
    """Run one, over TLS with a context."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(self.command, self.path, headers, self.rfile.read(length))
            stand_in.asked.append(asked)
            status, said, *more = stand_in.answers(asked)
            body = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.send_response(status)
            for field in more:
                self.send_header(*field)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = handle_any  # noqa: N815 - http.server asks for these names

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    stand_in = StandIn(f"{'https' if context else 'http'}://127.0.0.1:{server.server_port}", answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield stand_in
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def closed_port() -> int:
    """Return a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _silent(upstream: ScriptedUpstream, _peer: socket.socket) -> None:
    upstream.go.wait(30)


def _slow(upstream: ScriptedUpstream, peer: socket.socket) -> None:
    """Send a byte at a time, so that no single wait is ever long."""
    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{")
    while not upstream.go.wait(0.05):
        peer.sendall(b" ")


def _status(status: bytes) -> Any:
    body = b'{"errors":["away"]}'
    return answering(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))


@pytest.fixture
def away() -> Iterator[list[str]]:
    """Return the URLs of places that are away, each in another way."""
    with ExitStack() as stack:
        places = [
            stack.enter_context(scripted(script)) for script in (_silent, _slow, _status(b"503 Service Unavailable"))
        ]
        yield [f"http://127.0.0.1:{port}" for port in (closed_port(), *(place.port for place in places))]
        for place in places:
            place.go.set()
