"""The connections to one origin: bounded, last in first out, and fair to those who wait.

Rules:
1. A place in the pool is held from `acquire` until `release` or `discard`, and given back once.
2. A place that becomes free goes to whoever has waited longest.
3. A pool belongs to one process, and under asyncio to one event loop.
"""

import contextlib
import ssl
import threading
import time
from collections import deque
from concurrent.futures import Future, InvalidStateError

from apitokenproxy._colour import ASYNC, Colour
from apitokenproxy.errors import ConnectTimeout, PoolTimeout, UpstreamUnreachable
from apitokenproxy.forwarders.asyncio_stream import open_asyncio_stream
from apitokenproxy.forwarders.connection import Connection, Stream
from apitokenproxy.forwarders.dial import tls_context
from apitokenproxy.forwarders.socket_stream import open_socket_stream
from apitokenproxy.messages import Origin

IDLE_SECONDS = 30.0


class Pool:
    """The connections to one origin, for one process and event loop."""

    def __init__(self, origin: Origin, colour: Colour) -> None:
        self._origin = origin
        self._colour = colour
        self._lock = threading.Lock()
        self._idle: list[tuple[Connection, float]] = []
        self._waiting: deque[Future[Connection | None]] = deque()
        self._open = 0
        self._tls: ssl.SSLContext | None = None
        self._closed = False

    async def acquire(self) -> tuple[Connection, bool]:
        """Return a connection and whether it was used before. Raises PoolTimeout, UpstreamFailure."""
        connection, waiter = self._take()
        if waiter is not None:
            connection = await self._wait(waiter)
        if connection is None:
            return await self._new(), False
        if connection.is_quiet():  # something may have arrived while it was handed over
            return connection, True
        return await self.replace(connection), False

    async def replace(self, connection: Connection) -> Connection:
        """Close a connection and return a new one in its place. Raises UpstreamFailure."""
        connection.abort()
        return await self._new()

    async def _new(self) -> Connection:
        try:
            return Connection(await self._dial())
        except BaseException:
            self._hand_over(None)
            raise

    def _take(self) -> "tuple[Connection | None, Future[Connection | None] | None]":
        """Take the connection used last, or a free place, or a place in the queue."""
        now = time.monotonic()
        with self._lock:
            while self._idle:
                connection, since = self._idle.pop()
                if now - since < IDLE_SECONDS and connection.is_quiet():
                    return connection, None
                self._open -= 1
                connection.abort()
            if self._open < self._origin.max_connections:
                self._open += 1
                return None, None
            waiter: Future[Connection | None] = Future()
            self._waiting.append(waiter)
            return None, waiter

    async def _wait(self, waiter: "Future[Connection | None]") -> Connection | None:
        seconds = self._origin.timeouts.pool
        try:
            return await self._colour.wait(waiter, seconds)
        except TimeoutError:
            if not waiter.cancel():  # it came at the last moment
                return waiter.result()
            self._forget(waiter)
            raise PoolTimeout(f"{self._origin.max_connections} connections were busy for {seconds:g} seconds") from None
        except BaseException:
            if waiter.cancel():
                self._forget(waiter)
            else:
                self._hand_over(waiter.result())
            raise

    def _forget(self, waiter: "Future[Connection | None]") -> None:
        with self._lock, contextlib.suppress(ValueError):  # it may have been passed over already
            self._waiting.remove(waiter)

    async def _dial(self) -> Stream:
        origin = self._origin
        try:
            if self._tls is None:
                self._tls = tls_context(origin)
            if self._colour is ASYNC:
                return await open_asyncio_stream(origin, self._tls)
            return open_socket_stream(origin, self._tls)
        except TimeoutError:
            raise ConnectTimeout(f"{origin.host} took longer than {origin.timeouts.connect:g} seconds") from None
        except UnicodeError:
            raise UpstreamUnreachable(f"{origin.host} cannot be a host's name") from None
        except OSError as error:  # also name resolution and TLS
            raise UpstreamUnreachable(f"{origin.host}: {_why(error)}") from None

    def release(self, connection: Connection) -> None:
        """Give back a connection whose answer was read to its end."""
        if connection.make_ready() and not self._closed:
            self._hand_over(connection)
        else:
            self.discard(connection)

    def discard(self, connection: Connection) -> None:
        """Close a connection and free its place."""
        connection.abort()
        self._hand_over(None)

    def _hand_over(self, connection: Connection | None) -> None:
        """Give a connection, or the place of one, to whoever has waited longest; otherwise keep it."""
        with self._lock:
            while self._waiting:
                try:
                    self._waiting.popleft().set_result(connection)
                except InvalidStateError:
                    continue  # gave up waiting
                return
            if connection is None:
                self._open -= 1
            else:
                self._idle.append((connection, time.monotonic()))

    def close(self) -> None:
        """Close what is idle; what is in use is closed when it is given back."""
        with self._lock:
            self._closed = True
            while self._idle:
                self._idle.pop()[0].abort()
                self._open -= 1


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    return error.strerror or type(error).__name__
