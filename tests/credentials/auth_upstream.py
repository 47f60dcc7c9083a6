"""A real upstream whose judge decides who is let in, and what a proxy with one credential says of it."""

import asyncio
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
from attrs import Factory, define, field

from apitokenproxy import Proxy, Rule, Upstream
from apitokenproxy.testing import FixedSecrets, MemoryAudit
from loopback import Received

PASSWORD = "s3cret-0f7a9c2e51d8"
Answered = tuple[int, dict[str, str], bytes]
OK: Answered = (200, {}, b"ok")


@define
class Judging:
    """An upstream that keeps what it received and answers as its judge says."""

    judge: Callable[[Received], Answered]
    url: str = ""
    requests: list[Received] = Factory(list)

    def headers(self, name: str) -> list[list[str]]:
        return [received.header(name) for received in self.requests]


@contextmanager
def judging(judge: Callable[[Received], Answered]) -> Iterator[Judging]:
    """Run an upstream on loopback."""
    upstream = Judging(judge)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def answer(self) -> None:
            body = self.body()
            received = Received(self.command, self.requestline.split(" ")[1], list(self.headers.items()), body)
            upstream.requests.append(received)
            status, headers, content = upstream.judge(received)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = answer  # noqa: N815

        def body(self) -> bytes:
            if "chunked" not in self.headers.get("transfer-encoding", ""):
                return self.rfile.read(int(self.headers.get("content-length", 0)))
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    upstream.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield upstream
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@define
class Digest:
    """Lets in who knows the password, by RFC 7616 with qop=auth; a nonce is good for `uses` requests."""

    algorithm: str = "SHA-256"
    uses: int = 100
    nonces: dict[str, int] = field(factory=dict)

    def __call__(self, received: Received) -> Answered:
        if self.lets_in(received):
            return OK
        nonce = f"nonce-{len(self.nonces)}"
        self.nonces[nonce] = 0
        challenge = f'Digest realm="api", qop="auth", algorithm={self.algorithm}, nonce="{nonce}", opaque="o"'
        return 401, {"WWW-Authenticate": challenge}, b"who?"

    def lets_in(self, received: Received) -> bool:
        said = dict(re.findall(r'(\w+)="?([^",]+)"?', " ".join(received.header("authorization"))))
        last = self.nonces.get(said.get("nonce", ""))
        if last is None or said["uri"] != received.target or not last < int(said["nc"], 16) <= self.uses:
            return False
        self.nonces[said["nonce"]] = int(said["nc"], 16)
        who, what = self.digest(f"me:api:{PASSWORD}"), self.digest(f"{received.method}:{received.target}")
        return said["response"] == self.digest(f"{who}:{said['nonce']}:{said['nc']}:{said['cnonce']}:auth:{what}")

    def digest(self, text: str) -> str:
        return hashlib.new(self.algorithm.replace("-", "").lower(), text.encode()).hexdigest()


@define
class Tokens:
    """A token endpoint at `/token` and an API that lets in its last token; `end` ends that one."""

    issued: int = 0

    def end(self) -> None:
        self.issued += 1

    def token(self) -> str:
        return f"token-{self.issued:04}-8f1c2d3e4b5a"

    def __call__(self, received: Received) -> Answered:
        if received.target == "/token":
            known = json.loads(received.body) == {"key": PASSWORD}
            return (200, {}, json.dumps({"token": self.token()}).encode()) if known else (403, {}, b"{}")
        if received.header("authorization") != [f"Bearer {self.token()}"]:
            return 401, {}, b"{}"
        return 200, {"X-Echo": self.token(), "X-Other": "1"}, b"ok"


@define
class Calls:
    """A proxy with one upstream, called in one colour."""

    colour: str
    proxy: Proxy
    audit: MemoryAudit
    token: str

    def __call__(self, method: str = "GET", target: str = "/x", **more: Any) -> httpx.Response:
        url = f"http://proxy/api{target}"
        if self.colour == "sync":
            with httpx.Client(transport=self.proxy.transport(self.token)) as client:
                return client.request(method, url, **more)

        async def send() -> httpx.Response:
            async with httpx.AsyncClient(transport=self.proxy.async_transport(self.token)) as client:
                return await client.request(method, url, **more)

        return asyncio.run(send())

    def told(self) -> str:
        """Return the reason in the last record."""
        return str(self.audit.records[-1].reason)


def calling(colour: str, url: str, credential: Any, secrets: Any = None, **terms: Any) -> Calls:
    """Build a proxy before an upstream, with the secrets `fixed:key` and `fixed:id`, and others."""
    audit = MemoryAudit()
    proxy = Proxy(
        upstreams=[Upstream("api", url, credential=credential, **{"allow_private": True, **terms})],
        rules=[Rule("all", effect="allow")],
        audit=audit,
        secret_providers={"fixed": secrets or FixedSecrets(key=PASSWORD, id="an-id-5d20c7f4")},
    )
    return Calls(colour, proxy, audit, proxy.tokens.issue(tenant="acme").token)
