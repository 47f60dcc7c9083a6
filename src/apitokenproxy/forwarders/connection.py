"""One HTTP/1.1 connection: a request goes out, its answer comes in, within the deadlines.

Rules:
1. A connection is used again only if it is proven clean: both sides done by their own framing, not a
   byte left over, nothing arrived since. A surplus byte would be the next caller's answer. So at the last
   moment before it is used again the socket itself is looked into: an event loop that was held up has not
   read yet what waits there.
2. Errors of sockets and TLS become ours here, and lose their text: it can hold header values.
"""

import ssl
import time
from collections.abc import AsyncIterator
from typing import Protocol

from apitokenproxy._colour import within
from apitokenproxy.errors import (
    FirstByteTimeout,
    ReadTimeout,
    TotalTimeout,
    UpstreamFailure,
    UpstreamTimeout,
    WriteTimeout,
)
from apitokenproxy.forwarders.http1 import Answer, Malformed, RequestBody, request_head
from apitokenproxy.forwarders.trust import Trust
from apitokenproxy.messages import Body, Outbound


class Stream(Protocol):
    """The bytes of one connection, in either colour."""

    @property
    def session(self) -> ssl.SSLSession | None:
        """What may shorten the next TLS handshake."""

    async def read(self, timeout: float) -> bytes:
        """Return what has arrived; empty at the end. Raises TimeoutError, OSError."""

    def write(self, data: bytes, timeout: float) -> bool:
        """Send; True when there is no more room for now. Raises TimeoutError, OSError."""

    async def wait_for_room(self, timeout: float) -> None:
        """Wait until more can be sent. Raises TimeoutError, OSError."""

    def is_quiet(self) -> bool:
        """Tell whether nothing has arrived, as far as is known, not even the end."""

    def is_silent(self) -> bool:
        """Tell whether nothing has arrived, not even the end, and nothing waits in the socket: a system call."""

    def abort(self) -> None:
        """Close at once, without waiting."""


async def next_of(body: Body) -> bytes | None:
    """Return the next chunk of a request's body of either colour, None at its end. Raises what the body raises."""
    try:
        return await anext(body) if isinstance(body, AsyncIterator) else next(body)
    except (StopIteration, StopAsyncIteration):
        return None


class _Broken(Exception):
    """The upstream took no more of the body. Not an OSError: the body's own source may raise those."""


class Connection:
    """One connection to one origin, for one request at a time."""

    def __init__(self, stream: Stream, trust: Trust | None = None) -> None:
        self.tenant: str | None = None  # whose request it carries
        self._stream = stream
        self._trust = trust
        self._answer = Answer(b"")
        self._sent = False
        self._end: float | None = None
        self._idle = 0.0
        self._told = False
        self.wrote = False
        self.received = False

    async def send(self, outbound: Outbound, first: bytes | None, ends: float | None) -> Answer:
        """Send a request and return its answer, of which the head is read.

        `first` is what was taken of the body already, None when there is no more; all must be over when
        the monotonic clock says `ends`. Raises UpstreamFailure, BadFraming, BadHeader, and what the body raises.
        """
        timeouts = outbound.origin.timeouts
        self.wrote = self.received = self._sent = False
        self._idle = timeouts.read
        self._end = ends
        answer = self._answer = Answer(outbound.method)
        body = outbound.body
        try:
            if body is None or isinstance(body, bytes):
                framed = RequestBody(outbound.length)
                sent = framed.frame(body) if body else b""
                await self._write(request_head(outbound) + sent + framed.end(), timeouts.write, taken=bool(body))
            else:
                await self._send_body(outbound, body, first, timeouts.write)
            self._sent = True
        except _Broken:
            pass  # the upstream may have answered before it closed
        if not self.wrote:
            raise UpstreamFailure("the connection broke while sending")
        # The bytes get no name: a traceback that shows local values must not show a credential or an answer.
        try:
            if not answer.read_head(await self._read(timeouts.first_byte, FirstByteTimeout)):
                end = time.monotonic() + timeouts.first_byte
                while not answer.read_head(await self._read(end - time.monotonic(), FirstByteTimeout)):
                    pass
        except Malformed as error:
            raise UpstreamFailure(str(error)) from None
        return answer

    async def _send_body(self, outbound: Outbound, body: Body, chunk: bytes | None, timeout: float) -> None:
        """Send head and body, the head with the first chunk."""
        framed, data = RequestBody(outbound.length), request_head(outbound)
        while chunk is not None:
            await self._write(data + framed.frame(chunk), timeout, taken=True)
            data = b""
            chunk = await self._next_of(body)
        await self._write(data + framed.end(), timeout)

    async def _next_of(self, body: Body) -> bytes | None:
        if self._end is None or not isinstance(body, AsyncIterator):
            return await next_of(body)
        try:
            return await within(next_of(body), None, self._end)
        except TimeoutError:
            raise TotalTimeout("the client was still sending when the total timeout was over") from None

    async def next_chunk(self) -> bytes:
        """Return the next bytes of the answer's body, empty at its end. Raises UpstreamFailure."""
        answer = self._answer
        try:
            while not answer.complete:
                if chunk := answer.read_body(await self._read(self._idle, ReadTimeout)):
                    return chunk
        except Malformed as error:
            raise UpstreamFailure(str(error)) from None
        return b""

    async def _write(self, data: bytes, timeout: float, *, taken: bool = False) -> None:
        """Write. `taken`: something of the body is in it, and may get through even where the rest does not."""
        self.wrote = self.wrote or taken
        if not data:
            return
        try:
            if self._stream.write(data, self._within(timeout)):
                await self._stream.wait_for_room(self._within(timeout))
            self.wrote = True
        except TimeoutError:
            if not self._stream.is_quiet():  # it has answered instead of reading on
                raise _Broken from None
            raise self._late(WriteTimeout(f"no room for {timeout:g} seconds")) from None
        except OSError:
            raise _Broken from None

    async def _read(self, timeout: float, late: type[UpstreamTimeout]) -> bytes:
        try:
            data = await self._stream.read(self._within(timeout))
        except TimeoutError:
            raise self._late(late(f"nothing for {timeout:g} seconds")) from None
        except OSError as error:
            raise UpstreamFailure(f"the connection broke while reading: {type(error).__name__}") from None
        if data:
            self.received = True
        elif not self.received:
            raise UpstreamFailure("the connection was closed without an answer")
        elif not self._answer.close():
            raise UpstreamFailure("the answer was cut off")
        return data

    def _within(self, timeout: float) -> float:
        """Return the seconds that are left. Raises TimeoutError when none are."""
        if self._end is not None:
            timeout = min(timeout, self._end - time.monotonic())
        if timeout <= 0:
            raise TimeoutError
        return timeout

    def _late(self, error: UpstreamTimeout) -> UpstreamTimeout:
        if self._end is None or time.monotonic() < self._end:
            return error
        return TotalTimeout("the exchange took longer than its total timeout")

    def make_ready(self) -> bool:
        """Tell whether the connection is proven clean, so that the next request may use it."""
        return self._sent and self._answer.reusable and self._stream.is_quiet()

    def is_outdated(self) -> bool:
        """Tell whether it was made under TLS settings that hold no more."""
        return self._trust is not None and self._trust.is_outdated()

    def keep_session(self) -> None:
        """Keep, once, what may shorten the next TLS handshake under the same settings."""
        if self._trust is not None and not self._told:
            self._told = True
            self._trust.session = self._stream.session or self._trust.session

    def is_silent(self) -> bool:
        """Tell whether nothing has arrived since the last answer: asked just before the next request."""
        return self._stream.is_silent()

    def abort(self) -> None:
        """Close at once, without waiting."""
        self._stream.abort()
