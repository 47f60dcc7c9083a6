"""Bytes to and from an upstream under asyncio."""

import asyncio
import socket
from typing import Any, cast

from apitokenproxy.forwarders.dial import check_addresses
from apitokenproxy.messages import Origin

HIGH_WATER = 256 * 1024
"""Bytes that may wait to be read before the upstream is asked to pause."""


class AsyncioStream(asyncio.Protocol):
    """One connection. What arrives waits in a bounded buffer; `abort` needs no await."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._chunks: list[bytes] = []
        self._size = 0
        self._paused = False
        self._ended = False
        self._error: Exception | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._full = False

    # --- called by the transport ------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Keep what arrives, and ask for a pause above the high-water mark."""
        self._chunks.append(data)
        self._size += len(data)
        if self._size > HIGH_WATER and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        _wake(self._reader)

    def eof_received(self) -> bool:
        """Note the end; the transport closes itself."""
        self._ended = True
        _wake(self._reader)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end, and wake whoever waits."""
        self._ended = True
        self._error = exc
        _wake(self._reader)
        _wake(self._writer)

    def pause_writing(self) -> None:
        """Note that the upstream takes no more for now."""
        self._full = True

    def resume_writing(self) -> None:
        """Note that there is room again."""
        self._full = False
        _wake(self._writer)

    # --- called by the connection -----------------------------------------------------------

    async def read(self, timeout: float) -> bytes:
        """Return what has arrived, waiting for it at most `timeout` seconds; empty at the end.

        Raises TimeoutError, OSError.
        """
        if not self._chunks:
            if not self._ended:
                self._reader = self._loop.create_future()
                await self._within(self._reader, timeout)
            if not self._chunks:
                if self._error is not None:
                    raise ConnectionError(type(self._error).__name__)
                return b""
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._size = 0
        if self._paused and self._transport is not None and not self._ended:
            self._paused = False
            self._transport.resume_reading()
        return data

    async def write(self, data: bytes, timeout: float) -> None:
        """Send, waiting at most `timeout` seconds until there is room. Raises TimeoutError, OSError."""
        if self._transport is None or self._transport.is_closing():
            raise ConnectionError("closed")
        self._transport.write(data)
        if self._full:
            self._writer = self._loop.create_future()
            await self._within(self._writer, timeout)
            if self._full:
                raise ConnectionError("closed")

    async def _within(self, waiter: "asyncio.Future[None]", timeout: float) -> None:
        timer = self._loop.call_later(timeout, _time_out, waiter)
        try:
            await waiter
        finally:
            timer.cancel()

    def is_quiet(self) -> bool:
        """Tell whether nothing has arrived, not even the end."""
        return not self._chunks and not self._ended

    def abort(self) -> None:
        """Close at once, without waiting."""
        if self._transport is not None and not self._loop.is_closed():
            self._transport.abort()


def _wake(waiter: "asyncio.Future[None] | None") -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


def _time_out(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError())


async def open_asyncio_stream(origin: Origin, tls: Any) -> AsyncioStream:
    """Connect to an origin, name by name and address by address. Raises TimeoutError, OSError, ForbiddenAddress."""
    async with asyncio.timeout(origin.timeouts.connect):
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
        check_addresses(addresses, allow_private=origin.allow_private)
        failure: OSError = ConnectionError("no address")
        for address in addresses:
            try:
                _, stream = await loop.create_connection(
                    AsyncioStream, address, origin.port, ssl=tls, server_hostname=origin.host if tls else None
                )
            except TimeoutError:
                raise
            except OSError as error:
                failure = error
            else:
                return stream
        raise failure
