"""An upstream that follows a script, byte for byte, and ways to send it requests in both colours."""

import asyncio
import socket
import ssl
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from attrs import Factory, define

from apitokenproxy._colour import ASYNC, SYNC, Colour, run
from apitokenproxy.forwarders.wire import WireForwarder
from apitokenproxy.messages import Hidden, Origin, Outbound, Reply, Timeouts

BOUND = 5.0
"""Seconds after which a test gives up waiting for what must happen."""
COLOURS = {"async": ASYNC, "sync": SYNC}


@define
class Conversation:
    """One connection as the upstream sees it. `requests` is shared by all connections."""

    peer: socket.socket
    number: int
    requests: list[tuple[int, bytes]]
    kept: bytes = b""
    target: bytes = b""

    def until(self, end: bytes) -> bytes:
        while end not in self.kept:
            data = self.peer.recv(65536)
            if not data:
                raise EOFError
            self.kept += data
        head, _, self.kept = self.kept.partition(end)
        return head + end

    def exactly(self, size: int) -> bytes:
        while len(self.kept) < size:
            data = self.peer.recv(65536)
            if not data:
                raise EOFError
            self.kept += data
        body, self.kept = self.kept[:size], self.kept[size:]
        return body


Step = Callable[[Conversation], None]


def head(conversation: Conversation) -> None:
    """Read a request's head."""
    received = conversation.until(b"\r\n\r\n")
    conversation.target = received.split(b" ")[1]
    conversation.requests.append((conversation.number, received))


def body(size: int) -> Step:
    """Read a body of so many bytes, and note it."""
    return lambda conversation: conversation.requests.append((conversation.number, conversation.exactly(size)))


def chunked(conversation: Conversation) -> None:
    """Read a chunked body, and note it as it was framed."""
    conversation.requests.append((conversation.number, conversation.until(b"0\r\n\r\n")))


def send(data: bytes) -> Step:
    """Send bytes."""
    return lambda conversation: conversation.peer.sendall(data)


def echo_target(conversation: Conversation) -> None:
    """Answer with the target that was asked for."""
    conversation.peer.sendall(answer(conversation.target))


def echo_in_halves(go: threading.Event) -> Step:
    """Answer with the target that was asked for, the last byte only when the test says so."""

    def echo(conversation: Conversation) -> None:
        whole = answer(conversation.target)
        conversation.peer.sendall(whole[:-1])
        _must(go)
        conversation.peer.sendall(whole[-1:])

    return echo


def echo_forever(conversation: Conversation) -> None:
    """Answer each request with its target until the connection ends."""
    while True:
        head(conversation)
        echo_target(conversation)


def wait(event: threading.Event) -> Step:
    """Go on when the test says so."""
    return lambda conversation: _must(event)


def tell(event: threading.Event) -> Step:
    """Tell the test that this point is reached."""
    return lambda conversation: event.set()


def pause(seconds: float) -> Step:
    """Do nothing for a while."""
    return lambda conversation: time.sleep(seconds)


def until_end(conversation: Conversation) -> None:
    """Read until the proxy closes."""
    with suppress(OSError):
        while conversation.peer.recv(65536):
            pass


def reset(conversation: Conversation) -> None:
    """Break the connection with a reset instead of an end."""
    conversation.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    conversation.peer.close()


def _must(event: threading.Event) -> None:
    assert event.wait(BOUND)


def answer(content: bytes, status: bytes = b"200 OK") -> bytes:
    """Return a whole answer."""
    return b"HTTP/1.1 " + status + b"\r\nContent-Length: " + str(len(content)).encode() + b"\r\n\r\n" + content


@define
class Hostile:
    """A listening upstream: connection n follows script n, later ones the last script."""

    scripts: tuple[list[Step], ...]
    tls: ssl.SSLContext | None = None
    port: int = 0
    requests: list[tuple[int, bytes]] = Factory(list)
    accepted: list[socket.socket] = Factory(list)
    most: int = 0
    open: int = 0
    _threads: list[threading.Thread] = Factory(list)
    _lock: Any = Factory(threading.Lock)

    @property
    def connections(self) -> int:
        return len(self.accepted)

    def targets(self) -> list[bytes]:
        return [received.split(b" ")[1] for _, received in self.requests]

    def serve(self, listener: socket.socket) -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            number = len(self.accepted)
            self.accepted.append(peer)
            thread = threading.Thread(target=self._follow, args=(peer, number))
            self._threads.append(thread)
            thread.start()

    def _follow(self, peer: socket.socket, number: int) -> None:
        with self._lock:
            self.open += 1
            self.most = max(self.most, self.open)
        try:
            peer.settimeout(BOUND)
            if self.tls is not None:
                peer = self.tls.wrap_socket(peer, server_side=True)
            conversation = Conversation(peer, number, self.requests)
            for step in self.scripts[min(number, len(self.scripts) - 1)]:
                step(conversation)
        except (OSError, EOFError):
            pass
        finally:
            with self._lock:
                self.open -= 1
            peer.close()

    def finish(self) -> None:
        for peer in self.accepted:
            with suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(BOUND)
            assert not thread.is_alive()
        for peer in self.accepted:
            peer.close()


@contextmanager
def silent(address: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """Listen with a full queue, so that whoever connects is answered by nobody. Yields the port."""
    with ExitStack() as closing:
        listener = closing.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(0)
        for _ in range(4):
            filler = closing.enter_context(socket.socket())
            filler.setblocking(False)
            with suppress(BlockingIOError):
                filler.connect(listener.getsockname())
        yield listener.getsockname()[1]


@contextmanager
def hostile(*scripts: list[Step], tls: ssl.SSLContext | None = None) -> Iterator[Hostile]:
    """Run an upstream with these scripts."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        upstream = Hostile(scripts, tls, listener.getsockname()[1])
        thread = threading.Thread(target=upstream.serve, args=(listener,))
        thread.start()
        try:
            yield upstream
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join(BOUND)
            upstream.finish()


def origin(port: int, *, host: str = "127.0.0.1", scheme: str = "http", **terms: Any) -> Origin:
    """Return the terms of a loopback upstream, with short timeouts that a test may change."""
    seconds = {
        "pool": BOUND,
        "connect": BOUND,
        "tls": BOUND,
        "first_byte": BOUND,
        "read": BOUND,
        "write": BOUND,
        **terms.pop("seconds", {}),
    }
    return Origin(scheme, host, port, **{"allow_private": True, **terms}, timeouts=Timeouts(**seconds))


def request(
    to: Origin,
    target: bytes = b"/",
    method: bytes = b"GET",
    *,
    headers: list[tuple[bytes, bytes]] | None = None,
    content: Any = None,
    length: int | None = 0,
    tenant: str = "",
) -> Outbound:
    """Return a request as the guard would make it."""
    fields = [(b"Host", b"api.example.com"), *(headers or [])]
    return Outbound(to, method, Hidden(target), fields, content, length, tenant)


@define
class Asker:
    """Sends through a forwarder in one colour."""

    colour: Colour
    forward: Callable[[Outbound], Awaitable[Reply]]

    async def whole(self, outbound: Outbound) -> tuple[int, bytes]:
        """Return status and body."""
        reply = await self.forward(outbound)
        return reply.status, await self.rest(reply)

    async def rest(self, reply: Reply) -> bytes:
        return b"".join(await self.chunks(reply))

    async def chunks(self, reply: Reply) -> list[bytes]:
        if isinstance(reply.body, bytes):  # all of it came with the head
            return [reply.body]
        if self.colour is ASYNC:
            return [chunk async for chunk in reply.body]
        return list(reply.body)

    async def first(self, reply: Reply) -> bytes:
        return await anext(reply.body) if self.colour is ASYNC else next(reply.body)

    async def pause(self, condition: Callable[[], bool]) -> None:
        """Wait until something has happened elsewhere."""
        tick = threading.Event()
        for _ in range(int(BOUND * 100)):
            if condition():
                return
            if self.colour is ASYNC:
                await asyncio.sleep(0.01)
            else:
                tick.wait(0.01)
        message = "it did not happen"
        raise AssertionError(message)

    def source(self, *chunks: bytes) -> Any:
        """Return a request body of this colour."""
        if self.colour is SYNC:
            return iter(chunks)

        async def source() -> Any:
            for chunk in chunks:
                yield chunk

        return source()


def drive(colour: Colour, scenario: Callable[[Asker], Awaitable[Any]], forwarder: Any = None) -> Any:
    """Run a scenario in a colour with a forwarder of its own, and see that no task is left behind."""
    forwarder = forwarder or WireForwarder()
    if colour is SYNC:
        try:
            return run(scenario(Asker(colour, forwarder.bind(colour))))
        finally:
            forwarder.close()

    async def main() -> Any:
        try:
            return await scenario(Asker(colour, forwarder.bind(colour)))
        finally:
            await forwarder.aclose()
            await asyncio.sleep(0)
            assert {asyncio.current_task()} == asyncio.all_tasks()

    return asyncio.run(main())
