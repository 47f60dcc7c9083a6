"""The built-in forwarder: a bounded, last-in-first-out pool of connections per origin.

Written once for both colours: all that differs is how a stream is opened and how a thread or task
waits. Under SYNC nothing here suspends.

Rules:
1. A place in the pool is held from `_acquire` until the body's end or `abort`, and given back once.
2. A place that becomes free goes to whoever has waited longest.
3. Pools belong to one process, and under asyncio to one event loop.
4. A request is sent a second time only on a new connection, only after a kept-alive one turned out
   to be dead before any byte of an answer, and only if nothing was written or the method is
   idempotent and there is no body (RFC 9110 section 9.2.2).
"""

import asyncio
import contextlib
import os
import ssl
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, InvalidStateError
from typing import Any

from apitokenproxy._colour import ASYNC, Colour, run
from apitokenproxy.errors import (
    ConnectTimeout,
    PoolTimeout,
    UpstreamFailure,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from apitokenproxy.forwarders.asyncio_stream import open_asyncio_stream
from apitokenproxy.forwarders.connection import Connection, Stream
from apitokenproxy.forwarders.dial import tls_context
from apitokenproxy.forwarders.socket_stream import open_socket_stream
from apitokenproxy.messages import Origin, Outbound, Reply

IDLE_SECONDS = 30.0
_IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"})


class PoolForwarder:
    """Forwards over kept-alive HTTP/1.1 connections; for ASGI, WSGI and scripts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._pools: dict[object, dict[Origin, _Pool]] = {}

    def bind(self, colour: Colour) -> Callable[[Outbound], Awaitable[Reply]]:
        """Return the function that sends a request. It raises UpstreamFailure, PoolTimeout."""

        async def forward(outbound: Outbound) -> Reply:
            return await _forward(self._pool(outbound.origin, colour), outbound)

        return forward

    def _pool(self, origin: Origin, colour: Colour) -> "_Pool":
        loop = asyncio.get_running_loop() if colour is ASYNC else None
        if self._pid == os.getpid():
            try:
                return self._pools[loop][origin]
            except KeyError:
                pass
        self._forget_parent()
        with self._lock:
            for other in [key for key in self._pools if isinstance(key, asyncio.AbstractEventLoop) and key.is_closed()]:
                del self._pools[other]
            return self._pools.setdefault(loop, {}).setdefault(origin, _Pool(origin, colour))

    def _forget_parent(self) -> None:
        if self._pid != os.getpid():  # a forked child: the parent's connections stay the parent's
            # The pid last: another thread that sees it must not see the parent's pools any more.
            self._lock, self._pools, self._pid = threading.Lock(), {}, os.getpid()

    async def aclose(self) -> None:
        """Close the idle connections of this event loop."""
        self._forget_parent()
        self._close(asyncio.get_running_loop())
        await asyncio.sleep(0)  # lets the transports finish

    def close(self) -> None:
        """Close the idle connections of the sync side."""
        self._forget_parent()
        self._close(None)

    def _close(self, loop: object) -> None:
        with self._lock:
            pools = self._pools.pop(loop, {})
        for pool in pools.values():
            pool.close()


async def _forward(pool: "_Pool", outbound: Outbound) -> Reply:
    connection, used_before = await pool.acquire()
    try:
        status, headers = await connection.send(outbound)
    except UpstreamFailure as error:
        nothing_came = not connection.received and not isinstance(error, UpstreamTimeout)
        harmless = not connection.wrote or (outbound.method in _IDEMPOTENT and outbound.length == 0)
        if not (used_before and nothing_came and harmless):
            pool.discard(connection)
            raise
    except BaseException:
        pool.discard(connection)
        raise
    else:
        return _reply(pool, connection, status, headers)
    connection = await pool.replace(connection)
    try:
        status, headers = await connection.send(outbound)
    except BaseException:
        pool.discard(connection)
        raise
    return _reply(pool, connection, status, headers)


def _reply(pool: "_Pool", connection: Connection, status: int, headers: Any) -> Reply:
    body = _Body(pool, connection)
    return Reply(status, headers, body, body.abort)


class _Body:
    """The answer's body, as an iterator of either colour. At its end the connection goes back."""

    def __init__(self, pool: "_Pool", connection: Connection) -> None:
        self._pool = pool
        self._connection = connection
        self._lock = threading.Lock()
        self._held = True
        if connection.is_complete():
            self._end(pool.release)

    async def _next(self) -> bytes | None:
        if not self._held:
            return None
        try:
            chunk = await self._connection.next_chunk()
        except BaseException:
            self.abort()
            raise
        if chunk is None:
            self._end(self._pool.release)
        return chunk

    def abort(self) -> None:
        """Close the connection unless the body was read to its end. Once; never waits."""
        self._end(self._pool.discard)

    def _end(self, give_back: Callable[[Connection], None]) -> None:
        with self._lock:
            held, self._held = self._held, False
        if held:
            give_back(self._connection)

    def __aiter__(self) -> "_Body":
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._next()
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    def __iter__(self) -> "_Body":
        return self

    def __next__(self) -> bytes:
        chunk = run(self._next())
        if chunk is None:
            raise StopIteration
        return chunk


class _Pool:
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
