"""Bytes to and from an upstream under asyncio."""

import asyncio
import select
import ssl
from typing import cast

from apitokenproxy.forwarders.tls import TlsBytes

HIGH_WATER = 256 * 1024
"""Bytes that may wait to be read before the upstream is asked to pause."""


class AsyncioStream(asyncio.Protocol):
    """One connection, used by one task at a time. What arrives waits in a bounded buffer.

    One timer serves all deadlines: when it rings too early it is set again, so that a request that
    is answered in time needs none of its own.
    """

    def __init__(self, tls: TlsBytes | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._poll = select.poll()
        self._tls = tls
        self._chunks: list[bytes] = []
        self._size = 0
        self._paused = False
        self._full = False
        self._ended = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None

    # --- called by the transport ------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast("asyncio.Transport", transport)
        self._poll.register(transport.get_extra_info("socket"), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        """Keep what arrives, and ask for a pause above the high-water mark."""
        if self._tls is not None:
            data = self._decrypted(self._tls, data)
        if data:
            self._chunks.append(data)
            self._size += len(data)
            if self._size > HIGH_WATER and not self._paused and self._transport is not None:
                self._paused = True
                self._transport.pause_reading()
        self._wake()

    def _decrypted(self, tls: TlsBytes, data: bytes) -> bytes:
        said = b""
        try:
            said = tls.receive(data)
            self._ended = tls.ended
        except OSError as error:
            self._ended, self._error = True, error
        self._flush(tls)
        return said

    def eof_received(self) -> bool:
        """Note the end; the transport closes itself."""
        self.connection_lost(None)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end, and wake whoever waits."""
        if self._error is None and exc is None and self._tls is not None and not self._tls.ended:
            exc = ConnectionAbortedError()
        self._ended = True
        self._error = self._error or exc
        self._wake()

    def pause_writing(self) -> None:
        """Note that the upstream takes no more for now."""
        self._full = True

    def resume_writing(self) -> None:
        """Note that there is room again."""
        self._full = False
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- called by the connection -----------------------------------------------------------

    @property
    def session(self) -> ssl.SSLSession | None:
        """What may shorten the next TLS handshake."""
        return None if self._tls is None else self._tls.session

    async def shake_hands(self, timeout: float) -> None:
        """Complete the TLS handshake, if there is one to make. Raises TimeoutError, OSError."""
        if self._tls is not None:
            deadline = self._loop.time() + timeout
            self._tls.start()
            self._flush(self._tls)
            while not self._tls.established:
                if self._ended:
                    raise self._error or ConnectionAbortedError
                await self._wait(deadline)

    def _flush(self, tls: TlsBytes) -> None:
        if self._transport is not None and (data := tls.to_send()):
            self._transport.write(data)

    async def read(self, timeout: float) -> bytes:
        """Return what has arrived, waiting for it at most `timeout` seconds; empty at the end.

        Raises TimeoutError, OSError.
        """
        if not self._chunks:
            deadline = self._loop.time() + timeout
            while not self._chunks:
                if self._error is not None:
                    raise ConnectionError(type(self._error).__name__)
                if self._ended:
                    return b""
                await self._wait(deadline)
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._size = 0
        if self._paused and self._transport is not None and not self._ended:
            self._paused = False
            self._transport.resume_reading()
        return data

    def write(self, data: bytes, _timeout: float) -> bool:
        """Send, or keep to be sent; True when there is no more room for now. Raises OSError."""
        if self._transport is None or self._transport.is_closing():
            raise ConnectionError("closed")
        if self._tls is not None:
            self._tls.say(data)
            data = self._tls.to_send()
        self._transport.write(data)
        return self._full

    async def wait_for_room(self, timeout: float) -> None:
        """Wait at most `timeout` seconds until more can be sent. Raises TimeoutError, OSError."""
        deadline = self._loop.time() + timeout
        while self._full:
            if self._ended:
                raise ConnectionError("closed")
            await self._wait(deadline)

    def _wait(self, deadline: float) -> asyncio.Future[None]:
        """Return what is done when something happens. It raises TimeoutError."""
        self._waiter = waiter = self._loop.create_future()
        self._deadline = deadline
        if self._timer is None:
            self._timer = self._loop.call_at(deadline, self._ring)
        elif self._timer.when() > deadline:
            self._timer.cancel()
            self._timer = self._loop.call_at(deadline, self._ring)
        return waiter

    def _ring(self) -> None:
        self._timer = None
        if self._waiter is None or self._waiter.done():
            return
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._ring)
        else:
            self._waiter.set_exception(TimeoutError())

    def is_quiet(self) -> bool:
        """Tell whether nothing has arrived, as far as this event loop has come to read it, not even the end."""
        return not self._chunks and not self._ended

    def is_silent(self) -> bool:
        """Tell whether nothing has arrived, not even the end, and nothing waits in the socket either."""
        return not self._chunks and not self._ended and not self._poll.poll(0)

    def abort(self) -> None:
        """Close at once, without waiting."""
        if self._loop.is_closed():
            return
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
