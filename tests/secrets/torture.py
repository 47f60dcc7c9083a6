"""Answers as they must not be: what a place, or whatever stands in its way, may do to each call."""

import gzip
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import shake_128
from typing import Any

from attrs import Factory, define, frozen

GARBAGE = "g4rbage-7e20-c91f05d8b36a-g4rbage"
"""Stands in every answer that is not as it should be, and must stand nowhere else."""
_RANDOM = shake_128(b"1").digest(500) + GARBAGE.encode() + b"\r\n\x00" + shake_128(b"2").digest(500)
_PAGE = f"<!doctype html><title>{GARBAGE}</title>".encode()
_HUGE = 2 << 20


@frozen
class Good:
    """The right answer to one call."""

    said: Any
    status: int = 200
    fields: tuple[tuple[str, str], ...] = ()

    @property
    def body(self) -> bytes:
        """It as JSON."""
        return json.dumps(self.said).encode()


def http(status: int, body: bytes, *fields: tuple[str, str], length: int | None = None, kind: str = "json") -> bytes:
    """Return an answer as it stands on the wire; `length` is what it says of its body."""
    head = [
        f"HTTP/1.1 {status} x",
        f"Content-Type: application/{kind}",
        *(f"{name}: {value}" for name, value in fields),
    ]
    if ("Transfer-Encoding", "chunked") not in fields:
        head.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join([*head, "", ""]).encode() + body


Way = Callable[[Good], bytes | None]
"""What is sent in the place of the right answer, before the connection is closed; None: nothing, ever."""


def reset(_: Good) -> bytes:
    """Stand for a connection that is cut without a word."""
    return b""


WAYS: dict[str, Way] = {
    "reset": reset,
    "hang": lambda _: None,
    "500": lambda _: http(500, json.dumps({"errors": [GARBAGE], "message": GARBAGE}).encode()),
    "503": lambda _: http(503, _PAGE, kind="html"),
    "400": lambda _: http(400, json.dumps({"__type": GARBAGE, "error": {"code": GARBAGE, "status": GARBAGE}}).encode()),
    "403 and the secret": lambda good: http(403, good.body),
    "a page": lambda _: http(200, _PAGE, kind="html"),
    "a page that is not there": lambda _: http(404, _PAGE, kind="html"),
    "a page that is not there, as JSON": lambda _: http(404, _PAGE),
    "nothing": lambda _: http(200, b""),
    "no content": lambda _: b"HTTP/1.1 204 No Content\r\n\r\n",
    "random bytes": lambda _: http(200, _RANDOM),
    "no HTTP": lambda _: _RANDOM,
    "no status": lambda _: f"HTTP/1.1 {GARBAGE}\r\n\r\n".encode(),
    "cut in the head": lambda _: b"HTTP/1.1 200 OK\r\nContent-Le",
    "no end of the head": lambda good: http(200, good.body).replace(b"\r\n\r\n", f"\r\n{GARBAGE}\r\n".encode(), 1),
    "cut in the body": lambda good: http(200, good.body[: len(good.body) // 2], length=len(good.body)),
    "shorter than it says": lambda good: http(200, good.body, length=len(good.body) + 10),
    "a huge body": lambda _: http(200, b'{"pad": "%b"}' % (GARBAGE.encode() * (_HUGE // len(GARBAGE)))),
    "a huge body of nothing": lambda _: http(200, b" " * _HUGE),
    "a huge head": lambda good: http(200, good.body, ("X-Pad", GARBAGE * 10_000)),
    "very many fields": lambda good: http(200, good.body, *[("X-Pad", GARBAGE)] * 5000),
    "deep lists": lambda _: http(200, b"[" * 200_000),
    "deep objects": lambda _: http(200, b'{"a":' * 200_000),
    "a deep secret": lambda good: http(200, good.body.replace(b'": "', b'": ' + b"[" * 100_000 + b'"', 1)),
    "invalid UTF-8": lambda good: http(200, good.body.replace(b'": "', b'": "\xff\xfe')),
    "UTF-16": lambda good: http(200, good.body.decode().encode("utf-16")[:-1]),
    "no JSON": lambda good: http(200, good.body[1:]),
    "a list": lambda good: http(200, b"[%b]" % good.body),
    "a text": lambda _: http(200, json.dumps(GARBAGE).encode()),
    "a number": lambda _: http(200, b"5"),
    "null": lambda _: http(200, b"null"),
    "an empty object": lambda _: http(200, b"{}"),
    "no gzip": lambda _: http(200, _RANDOM, ("Content-Encoding", "gzip")),
    "half a gzip": lambda good: http(200, gzip.compress(good.body)[:-12], ("Content-Encoding", "gzip")),
    "a gzip bomb": lambda _: http(200, gzip.compress(b" " * (16 << 20)), ("Content-Encoding", "gzip")),
    "no chunks": lambda _: http(200, _RANDOM, ("Transfer-Encoding", "chunked")),
    "half a chunk": lambda good: http(
        200, b"%x\r\n" % (len(good.body) + 5) + good.body, ("Transfer-Encoding", "chunked")
    ),
}

_OTHERS: tuple[Any, ...] = (5, -1, 1e308, None, True, "", [], {}, [GARBAGE], {GARBAGE: GARBAGE}, f"\x00{GARBAGE}\n")


def mutations(said: Any) -> Iterator[Any]:
    """Yield an answer once for each of its parts and each other thing that may stand there, or nothing."""
    if isinstance(said, dict):
        for key, value in said.items():
            yield {name: other for name, other in said.items() if name != key}
            for changed in mutations(value):
                yield said | {key: changed}
    if isinstance(said, list):
        for changed in mutations(said[0]):
            yield [changed, *said[1:]]
    yield from _OTHERS


@define
class Hostile:
    """A server whose `calls` are answered by name as they should be, but for the one named `bad`, by `way`.

    `calls` tells a request's name from its method and target, and knows the right answers.
    """

    name_of: Callable[[str, str, dict[str, str]], str]
    calls: dict[str, Good]
    url: str = ""
    bad: str = ""
    way: Way = reset
    asked: list[str] = Factory(list)
    released: threading.Event = Factory(threading.Event)

    def spoil(self, call: str, way: Way) -> None:
        """Answer this call so from now on."""
        self.bad, self.way = call, way

    def recover(self) -> None:
        """Answer every call as it should be."""
        self.bad = ""

    def serve(self, peer: socket.socket) -> None:
        """Answer the requests of one connection."""
        with suppress(OSError), peer:
            peer.settimeout(20)
            reading = peer.makefile("rb")
            while line := reading.readline():
                method, target, _ = line.decode().split(" ")
                fields = {}
                while (field := reading.readline().decode().strip()) != "":
                    name, _, value = field.partition(":")
                    fields[name.lower()] = value.strip()
                reading.read(int(fields.get("content-length", 0)))
                call = self.name_of(method, target, fields)
                self.asked.append(call)
                good = self.calls.get(call, Good({"errors": []}, 404))
                if call != self.bad:
                    peer.sendall(http(good.status, good.body, *good.fields))
                    continue
                raw = self.way(good)
                if raw is None:
                    self.released.wait(20)
                elif raw:
                    peer.sendall(raw.replace(b"\r\nContent-Type", b"\r\nConnection: close\r\nContent-Type", 1))
                else:
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return


@contextmanager
def serving(hostile: Hostile, context: ssl.SSLContext | None = None) -> Iterator[Hostile]:
    """Run it on loopback, over TLS with a context."""
    listener = socket.create_server(("127.0.0.1", 0))
    hostile.url = f"{'https' if context else 'http'}://127.0.0.1:{listener.getsockname()[1]}"

    def follow(peer: socket.socket) -> None:
        with suppress(OSError):
            hostile.serve(context.wrap_socket(peer, server_side=True) if context else peer)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=follow, args=(listener.accept()[0],), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield hostile
    finally:
        hostile.released.set()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)
