"""One HTTP/1.1 connection: what is sent, what the bytes mean, and whether it may be used again.

Rules:
1. Framing headers are only ever written here, from the length that the guard read.
2. A connection is used again only if it is proven clean: both sides done by their own framing, not a
   byte left over, nothing arrived since. A surplus byte would be the next caller's answer.
3. Errors of h11, sockets and TLS become ours here, and lose their text: it can hold header values.
"""

import contextlib
from typing import Protocol, TypeAlias

import h11

from apitokenproxy.errors import (
    BadFraming,
    BadHeader,
    ReadTimeout,
    UpstreamFailure,
    WriteTimeout,
)
from apitokenproxy.messages import Headers, Outbound

MAX_HEAD = 100 * 1024
"""Bytes of an answer's head."""
_MAX_INFORMATIONAL = 16
_SWITCHING_PROTOCOLS = 101
_Parsed: TypeAlias = h11.Event | type[h11.NEED_DATA | h11.PAUSED]
_WITH_EMPTY_BODY = frozenset({b"POST", b"PUT", b"PATCH"})


class Stream(Protocol):
    """The bytes of one connection, in either colour."""

    async def read(self, timeout: float) -> bytes:
        """Return what has arrived; empty at the end. Raises TimeoutError, OSError."""

    async def write(self, data: bytes, timeout: float) -> None:
        """Send. Raises TimeoutError, OSError."""

    def is_quiet(self) -> bool:
        """Tell whether nothing has arrived, not even the end."""

    def abort(self) -> None:
        """Close at once, without waiting."""


class _Broken(Exception):
    """The upstream took no more of the body. Not an OSError: the body's own source may raise those."""


class Connection:
    """One connection to one origin, for one request at a time."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        self._read_timeout = 0.0
        self._pending: _Parsed | None = None
        self.wrote = False
        self.received = False

    async def send(self, outbound: Outbound) -> tuple[int, Headers]:
        """Send a request and return status and headers of its answer. Raises UpstreamFailure, BadFraming."""
        self.wrote = self.received = False
        self._read_timeout = outbound.origin.timeouts.read
        timeout = outbound.origin.timeouts.write
        await self._write(_head(outbound), timeout)
        with contextlib.suppress(_Broken):  # the upstream may have answered before it closed
            await self._send_body(outbound, timeout)
        return await self._answer_head()

    async def _send_body(self, outbound: Outbound, timeout: float) -> None:
        body = outbound.body
        if body is None:
            pass
        elif hasattr(body, "__aiter__"):
            async for chunk in body:
                await self._write(h11.Data(data=chunk), timeout)
        else:
            for chunk in body:
                await self._write(h11.Data(data=chunk), timeout)
        await self._write(h11.EndOfMessage(), timeout)

    async def _write(self, event: h11.Event, timeout: float) -> None:
        try:
            data = self._http.send(event)
        except h11.LocalProtocolError:
            if isinstance(event, h11.Request):
                raise BadHeader("a header that cannot be sent") from None
            raise BadFraming("the body is not as long as was stated") from None
        if not data:
            return
        try:
            await self._stream.write(data, timeout)
            self.wrote = True
        except TimeoutError:
            if not self._stream.is_quiet():  # it has answered instead of reading on
                raise _Broken from None
            raise WriteTimeout(f"no room for {timeout:g} seconds") from None
        except OSError as error:
            if isinstance(event, h11.Request):
                raise UpstreamFailure(f"the connection broke while sending: {type(error).__name__}") from None
            raise _Broken from None

    async def _answer_head(self) -> tuple[int, Headers]:
        for _ in range(_MAX_INFORMATIONAL):
            event = await self._next_event()
            if isinstance(event, h11.Response):
                self._pending = self._parse()
                return event.status_code, event.headers.raw_items()
            if not isinstance(event, h11.InformationalResponse) or event.status_code == _SWITCHING_PROTOCOLS:
                break
        raise UpstreamFailure("no final answer, or a change of protocol that nobody asked for")

    def is_complete(self) -> bool:
        """Tell whether the answer's end has already been read."""
        return isinstance(self._pending, h11.EndOfMessage)

    async def next_chunk(self) -> bytes | None:
        """Return the next bytes of the answer's body, None at its end. Raises UpstreamFailure."""
        event, self._pending = self._pending, None
        if event is None or event is h11.NEED_DATA:
            event = await self._next_event()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        if isinstance(event, h11.EndOfMessage):
            self._pending = event
            return None
        raise UpstreamFailure("the answer is not a message")

    async def _next_event(self) -> _Parsed:
        while (event := self._parse()) is h11.NEED_DATA:
            # The bytes get no name: a traceback that shows local values must not show an answer.
            self._http.receive_data(await self._read())
        return event

    async def _read(self) -> bytes:
        try:
            data = await self._stream.read(self._read_timeout)
        except TimeoutError:
            raise ReadTimeout(f"nothing for {self._read_timeout:g} seconds") from None
        except OSError as error:
            raise UpstreamFailure(f"the connection broke while reading: {type(error).__name__}") from None
        if data:
            self.received = True
        elif not self.received:
            raise UpstreamFailure("the connection was closed without an answer")
        return data

    def _parse(self) -> _Parsed:
        try:
            return self._http.next_event()
        except h11.RemoteProtocolError:
            raise UpstreamFailure("the answer is malformed or was cut off") from None

    def make_ready(self) -> bool:
        """Prepare for the next request; False when the connection is not proven clean."""
        http = self._http
        if http.our_state is not h11.DONE or http.their_state is not h11.DONE:
            return False
        if http.trailing_data[0] or not self._stream.is_quiet():
            return False
        http.start_next_cycle()
        self._pending = None
        return True

    def is_quiet(self) -> bool:
        """Tell whether nothing has arrived since the last answer."""
        return self._stream.is_quiet()

    def abort(self) -> None:
        """Close at once, without waiting."""
        self._stream.abort()


def _head(outbound: Outbound) -> h11.Request:
    headers = outbound.headers
    if outbound.length is None:
        headers = [*headers, (b"Transfer-Encoding", b"chunked")]
    elif outbound.length or outbound.method in _WITH_EMPTY_BODY:
        headers = [*headers, (b"Content-Length", str(outbound.length).encode())]
    try:
        return h11.Request(method=outbound.method, target=bytes(outbound.target), headers=headers)
    except h11.LocalProtocolError:
        raise BadHeader("a header that cannot be sent") from None
