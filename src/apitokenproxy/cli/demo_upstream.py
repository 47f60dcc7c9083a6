"""The demo's upstream: a real HTTP server that refuses whatever does not carry the real key."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from attrs import Factory, define


@define
class DemoUpstream:
    """What the upstream is and what it received: one text for each request, head and all."""

    key: str
    port: int = 0
    received: list[str] = Factory(list)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Say nothing: a proxy that hangs up in the middle is free to."""


@contextmanager
def running(key: str) -> Iterator[DemoUpstream]:
    """Run the upstream on loopback until the block ends."""
    upstream = DemoUpstream(key)
    server = _Server(("127.0.0.1", 0), _handler(upstream))
    upstream.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield upstream
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(upstream: DemoUpstream) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_: Any) -> None:
            """Say nothing: the demo prints what matters."""

        def do_GET(self) -> None:
            upstream.received.append(f"{self.requestline}\n{self.headers}")
            if self.headers.get_all("Authorization") != [f"Bearer {upstream.key}"]:
                self._answer(401, b'{"message": "Bad credentials"}')
            elif self.path.startswith("/events"):
                self._stream()
            else:
                self._answer(200, json.dumps({"name": "hello-world", "private": True}).encode())

        do_DELETE = do_POST = do_GET  # noqa: N815 - the names that http.server calls

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _stream(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for word in ("tokens", "in,", "keys", "out"):
                event = f"data: {word}\n\n".encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
                time.sleep(0.15)
            self.wfile.write(b"0\r\n\r\n")

    return Handler
