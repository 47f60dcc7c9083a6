"""Real servers on loopback for the tests: an upstream that insists on its key, and ways into the proxy."""

import asyncio
import hashlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import uvicorn
import waitress
from attrs import Factory, define, frozen

REAL_KEY = "real-key-7f3a9c2e51d84b06"


@frozen
class Received:
    """One request as the upstream saw it."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]


@frozen
class Answer:
    """One answer as the client saw it. Header names are in lower case."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name.lower()]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@define
class UpstreamServer:
    """A real HTTP/1.1 server that answers 401 to whatever does not carry the real key."""

    url: str = ""
    requests: list[Received] = Factory(list)
    gone: threading.Event = Factory(threading.Event)
    """Set when a client left `/endless` before its end."""
    authorised: Callable[[Received], bool] = lambda received: received.header("authorization") == [f"Bearer {REAL_KEY}"]

    @property
    def last(self) -> Received:
        return self.requests[-1]


def _handler(upstream: UpstreamServer) -> type[BaseHTTPRequestHandler]:  # noqa: C901 - a list of small answers
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        server_version = "secret-server/1.2.3"

        def log_message(self, *args: Any) -> None:
            pass

        def answer(self) -> None:
            target = self.requestline.split(" ")[1]
            body = self.read_body()
            received = Received(self.command, target, list(self.headers.items()), body)
            upstream.requests.append(received)
            if not upstream.authorised(received):
                self.reply(401, [], b"who are you?")
                return
            path = target.partition("?")[0]
            route, _, argument = path.rpartition("/")
            special = getattr(self, f"do_special_{route.rpartition('/')[2]}", None)
            if special is not None:
                special(argument)
                return
            echo = {
                "method": self.command,
                "target": target,
                "headers": self.headers.items(),
                "length": len(body),
                "sha256": hashlib.sha256(body).hexdigest(),
            }
            self.reply(200, [("Content-Type", "application/json")], json.dumps(echo).encode())

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = answer  # noqa: N815

        def read_body(self) -> bytes:
            if self.headers.get("transfer-encoding") == "chunked":
                chunks = []
                while size := int(self.rfile.readline(), 16):
                    chunks.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(chunks)
            return self.rfile.read(int(self.headers.get("content-length", 0)))

        def reply(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            if status not in {204, 304}:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD" and status not in {204, 304}:
                self.wfile.write(body)

        def chunk(self, data: bytes) -> None:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()

        def do_special_status(self, argument: str) -> None:
            self.reply(int(argument), [], b"as asked")

        def do_special_headers(self, argument: str) -> None:
            headers = [
                ("Content-Type", "text/plain"),
                ("Set-Cookie", "session=upstream"),
                ("Strict-Transport-Security", "max-age=1"),
                ("X-Powered-By", "PHP/4"),
                ("Clear-Site-Data", '"*"'),
                ("Access-Control-Allow-Origin", "*"),
                ("X-RateLimit-Remaining", "59"),
                ("X-Request-Id", "upstream-id"),
                ("X-Reflected", f"Bearer {REAL_KEY}"),
                ("Link", f'<{upstream.url}/items?page=2>; rel="next", <https://docs.example.com/>; rel="help"'),
                ("Repeated", "one"),
                ("Repeated", "two"),
            ]
            self.reply(200, headers, b"x")

        def do_special_redirect(self, argument: str) -> None:
            places = {
                "absolute": f"{upstream.url}/elsewhere?x=1",
                "path": "/elsewhere",
                "foreign": "https://elsewhere.example.com/",
                "relative": "sibling",
            }
            self.reply(302, [("Location", places[argument])], b"")

        def do_special_bytes(self, argument: str) -> None:
            self.send_response(200)
            self.send_header("Content-Length", argument)
            self.end_headers()
            left = int(argument)
            block = b"0123456789abcdef" * 4096
            while left and self.command != "HEAD":
                left -= self.wfile.write(block[:left])

        def do_special_events(self, argument: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for number in range(int(argument)):
                self.chunk(b"data: %d\n\n" % number)
                time.sleep(0.02)
            self.wfile.write(b"0\r\n\r\n")

        def do_special_truncated(self, argument: str) -> None:
            self.send_response(200)
            if argument == "chunked":
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.chunk(b"only this")
            else:
                self.send_header("Content-Length", "100")
                self.end_headers()
                self.wfile.write(b"only this")
            self.close_connection = True

        def do_special_slow(self, argument: str) -> None:
            time.sleep(float(argument))
            self.reply(200, [], b"at last")

        def do_special_endless(self, argument: str) -> None:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            try:
                for _ in range(2000):
                    self.chunk(b"tick\n")
                    time.sleep(0.01)
            except OSError:
                upstream.gone.set()
            self.close_connection = True

    return Handler


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *args: Any) -> None:
        pass


@contextmanager
def running_upstream() -> Iterator[UpstreamServer]:
    """Run an upstream until the block ends."""
    upstream = UpstreamServer()
    server = _Quiet(("127.0.0.1", 0), _handler(upstream))
    upstream.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield upstream
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def running_asgi(app: Any, **options: Any) -> Iterator[str]:
    """Run an ASGI application under uvicorn in a thread; yields its URL."""
    # asyncio sends small answers at once only on sockets that say that they are TCP's.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(256)
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1, **options))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


@contextmanager
def running_wsgi(app: Any) -> Iterator[str]:
    """Run a WSGI application under waitress in a thread; yields its URL."""
    server = waitress.create_server(app, host="127.0.0.1", port=0, threads=8)

    def serve() -> None:
        with suppress(OSError, ValueError):  # its sockets are closed under it at the end
            server.run()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.effective_port}"
    finally:
        server.task_dispatcher.shutdown()
        server.close()
        server.asyncore.close_all(server._map)
        thread.join(10)


def call(
    url: str,
    method: str,
    target: str,
    headers: Sequence[tuple[str, str]] = (),
    body: Any = None,
) -> Answer:
    """Send exactly this target and these headers, and nothing else but Host and the framing."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
    try:
        connection.putrequest(
            method, target, skip_accept_encoding=True, skip_host=any(k.lower() == "host" for k, _ in headers)
        )
        for name, value in headers:
            connection.putheader(name, value)
        if isinstance(body, bytes):
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
        elif body is not None:
            connection.putheader("Transfer-Encoding", "chunked")
            connection.endheaders(iter(body), encode_chunked=True)
        else:
            connection.endheaders()
        response = connection.getresponse()
        content = response.read()
        return Answer(response.status, [(k.lower(), v) for k, v in response.getheaders()], content)
    finally:
        connection.close()


def answer_of(response: httpx.Response) -> Answer:
    """Read an httpx response to its end."""
    headers = [(name.decode().lower(), value.decode("latin-1")) for name, value in response.headers.raw]
    return Answer(response.status_code, headers, response.content)


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for something that another thread or process brings about; fail when it does not come."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("it did not happen in time")
        time.sleep(0.01)
