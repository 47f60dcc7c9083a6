"""A strict authorization server for the tests, and the API that its access tokens open.

Refresh tokens are rotated: each is good once, and one that is presented again ends all that came of the same
consent (RFC 9700, section 4.14), unless the server allows that for `grace` seconds after the first time. What is
done to it, it counts.
"""

import base64
import json
import secrets
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote

from attrs import Factory, define, field, frozen

CLIENT, SECRET = "me:1", "s3cret/+0f7a9c2e51d8"


@frozen
class Fault:
    """What is wrong with one answer of the token endpoint.

    `status` is answered in the place of a token, `wait` (seconds) is waited, or until `gate` opens. What is `late`
    is decided after that, and not at all when the client has left by then and the server is `attentive`. `body`
    is said instead: bytes, a document, or what makes one of the document that would be said.
    """

    status: int = 0
    wait: float = 0.0
    gate: threading.Event | None = None
    late: bool = False
    attentive: bool = False
    retry_after: str = ""
    body: Any = None

    def go_on(self, ends: threading.Event) -> None:
        """Wait as long as this answer is to be waited for."""
        if self.gate is None:
            ends.wait(self.wait)
        else:
            self.gate.wait(50)


@define
class Consent:
    """What a person allowed: all tokens that came of it end together."""

    scope: str = "read"
    revoked: bool = False


@define
class Refresh:
    """A refresh token, and when it was used."""

    consent: Consent
    used: float | None = None


@define
class AuthorizationServer:
    """A running server. `lasts` is how long access tokens live, in seconds; `pace` how much faster its seconds are.

    `auth` is how the client must show itself, or `public`.
    """

    url: str = ""
    lasts: float = 3600.0
    pace: float = 1.0
    rotates: bool = True
    grace: float = 0.0
    auth: str = "basic"
    faults: "deque[Fault]" = Factory(deque)
    counts: "Counter[str]" = Factory(Counter)
    asked: "list[dict[str, str]]" = Factory(list)
    refreshes: "dict[str, Refresh]" = field(factory=dict, repr=False)
    accesses: "dict[str, tuple[Consent, float]]" = field(factory=dict, repr=False)
    ends: threading.Event = Factory(threading.Event)
    _lock: Any = Factory(threading.Lock)

    @property
    def token_url(self) -> str:
        return f"{self.url}/token"

    def authorise(self) -> str:
        """Return the first refresh token of a new consent."""
        return self._new_refresh(Consent())

    def revoke(self) -> None:
        """End all that there is."""
        for each in self.refreshes.values():
            each.consent.revoked = True

    def _new_refresh(self, consent: Consent) -> str:
        token = f"refresh-{secrets.token_urlsafe(24)}"
        self.refreshes[token] = Refresh(consent)
        return token

    def decide(self, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        """Return the answer to a token request: its status and its document."""
        with self._lock:
            self.counts["asked"] += 1
            presented = self.refreshes.get(form.get("refresh_token", ""))
            if form.get("grant_type") != "refresh_token" or presented is None or presented.consent.revoked:
                self.counts["refused"] += 1
                return 400, {"error": "invalid_grant", "error_description": form.get("refresh_token")}
            now = time.monotonic()
            if presented.used is not None and now - presented.used > self.grace:
                self.counts["reuse"] += 1
                presented.consent.revoked = True
                return 400, {"error": "invalid_grant"}
            self.counts["refreshes"] += 1
            said: dict[str, Any] = {"token_type": "Bearer", "expires_in": self.lasts}
            said["access_token"] = f"access-{secrets.token_urlsafe(24)}"
            self.accesses[said["access_token"]] = presented.consent, now + self.lasts / self.pace
            if self.rotates:
                presented.used = presented.used or now
                said["refresh_token"] = self._new_refresh(presented.consent)
            return 200, said

    def knows(self, authorization: str, form: dict[str, str]) -> bool:
        """Tell whether the client says rightly who it is."""
        if self.auth == "basic":
            name, _, password = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
            return (unquote(name), unquote(password)) == (CLIENT, SECRET) and "client_id" not in form
        said = {name for name in form if name.startswith("client_")}
        if self.auth == "post":
            return said == {"client_id", "client_secret"} and form["client_secret"] == SECRET
        if self.auth == "private-key-jwt":  # whether it is signed well is tested where JWTs are
            return said >= {"client_assertion", "client_assertion_type"} and "client_secret" not in said
        return said == {"client_id"} and form["client_id"] == CLIENT and not authorization

    def admits(self, authorization: str) -> bool:
        """Tell whether a request to the API carries a good access token, and count it."""
        with self._lock:
            consent, ends = self.accesses.get(authorization.removeprefix("Bearer "), (None, 0.0))
            what = (
                "unauthenticated"
                if consent is None
                else "expired"
                if time.monotonic() >= ends
                else "revoked"
                if consent.revoked
                else "served"
            )
            self.counts[what] += 1
            return what == "served"


def _is_left(connection: socket.socket) -> bool:
    """Tell whether the client of a connection has closed it."""
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _handler(server: AuthorizationServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def reply(self, status: int, document: Any, headers: dict[str, str] | None = None) -> None:
            body = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self.reply(200 if server.admits(self.headers.get("Authorization", "")) else 401, {})

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = {name: values[0] for name, values in parse_qs(raw).items()}
            with server._lock:
                server.asked.append(form)
                fault = server.faults.popleft() if server.faults else Fault()
            if not server.knows(self.headers.get("Authorization", ""), form):
                self.reply(401, {"error": "invalid_client"})
                return
            answer = None if fault.late or fault.status else server.decide(form)
            fault.go_on(server.ends)
            if fault.attentive and _is_left(self.connection):
                server.counts["left"] += 1
            elif fault.status:
                server.counts[str(fault.status)] += 1
                self.reply(fault.status, fault.body, {"Retry-After": fault.retry_after} if fault.retry_after else {})
            else:
                status, said = answer or server.decide(form)
                self.reply(status, fault.body(said) if callable(fault.body) else fault.body or said)

    return Handler


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *args: Any) -> None:
        pass


@contextmanager
def running_server(**terms: Any) -> Iterator[AuthorizationServer]:
    """Run a server until the block ends."""
    server = AuthorizationServer(**terms)
    listening = _Quiet(("127.0.0.1", 0), _handler(server))
    server.url = f"http://127.0.0.1:{listening.server_port}"
    thread = threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.ends.set()
        listening.shutdown()
        listening.server_close()
        thread.join()
