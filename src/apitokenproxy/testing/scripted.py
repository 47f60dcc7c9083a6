"""An upstream on loopback that follows a script, byte for byte."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from attrs import Factory, define

from apitokenproxy.messages import Headers, Hidden, Origin, Outbound, Timeouts

WITHIN = 5.0
"""Seconds after which what must happen has not happened."""

Script = Callable[["ScriptedUpstream", socket.socket], None]


@define
class ScriptedUpstream:
    """An upstream that runs a script on each connection. It keeps what was received and who has left."""

    script: Script
    port: int = 0
    received: list[bytes] = Factory(list)
    ended: threading.Event = Factory(threading.Event)
    go: threading.Event = Factory(threading.Event)
    _open: list[socket.socket] = Factory(list)

    def read_until(self, peer: socket.socket, end: bytes) -> None:
        """Receive until the bytes end so, and keep them."""
        got = b""
        while not got.endswith(end):
            got += peer.recv(1) or self._leave()
        self.received.append(got)

    def _leave(self) -> bytes:
        raise EOFError

    def serve(self, listener: socket.socket) -> None:
        """Accept until the listener is closed."""
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            self._open.append(peer)
            threading.Thread(target=self._follow, args=(peer,), daemon=True).start()

    def _follow(self, peer: socket.socket) -> None:
        with peer, suppress(OSError, EOFError):
            peer.settimeout(WITHIN)
            self.script(self, peer)

    def finish(self) -> None:
        """Break every connection that is left."""
        for peer in self._open:
            with suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)


@contextmanager
def scripted(script: Script) -> Iterator[ScriptedUpstream]:
    """Run an upstream on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        upstream = ScriptedUpstream(script, listener.getsockname()[1])
        thread = threading.Thread(target=upstream.serve, args=(listener,), daemon=True)
        thread.start()
        try:
            yield upstream
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(WITHIN)
            upstream.finish()


def answering(raw: bytes, *, end: bytes = b"\r\n\r\n", requests: int = 100) -> Script:
    """Answer each request, which ends as is said, with these bytes."""

    def script(upstream: ScriptedUpstream, peer: socket.socket) -> None:
        for _ in range(requests):
            upstream.read_until(peer, end)
            peer.sendall(raw)

    return script


def to(port: int, target: bytes = b"/", method: bytes = b"GET", **terms: Any) -> Outbound:
    """Return a request as the guard makes them."""
    seconds = {"first_byte": WITHIN, "read": WITHIN, **terms.pop("seconds", {})}
    origin = Origin("http", "127.0.0.1", port, allow_private=True, timeouts=Timeouts(**seconds))
    headers: Headers = [(b"Host", b"api.example.com"), *terms.pop("headers", [])]
    return Outbound(origin, method, Hidden(target), headers, terms.pop("body", None), terms.pop("length", 0))
