"""The wire forwarder: HTTP/1.1 over a pool of connections per origin, process and event loop.

Written once for both colours: all that differs is how a stream is opened and how a thread or task
waits. Under SYNC nothing here suspends.

Rules:
1. A connection is held until the body's end or `abort`, and given back once. It is not taken before the
   first chunk of the request's body is there: whoever announces a body and sends none holds nothing.
2. Pools are made when they are first needed; a forked child begins with none. Where each tenant shows a
   certificate of its own, each has a pool of its own: connections and TLS sessions are never another tenant's.
3. A request is sent a second time only on a new connection, only after a kept-alive one turned out
   to be dead before any byte of an answer, and only if nothing was written or the method is
   idempotent and there is no body (RFC 9110 section 9.2.2). Dead is one that ends at once: an upstream
   that thought about a request for longer has got it, and may have done it. Both attempts share `total`.
"""

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from attrs import evolve

from apitokenproxy._colour import ASYNC, Colour, run
from apitokenproxy.errors import NoSecretForCaller, PoolFull, UpstreamFailure, UpstreamTimeout
from apitokenproxy.forwarders.connection import Connection, next_of
from apitokenproxy.forwarders.http1 import Answer
from apitokenproxy.forwarders.pool import IDLE_SECONDS, Pool
from apitokenproxy.forwarders.resolver import Resolver
from apitokenproxy.messages import IDEMPOTENT, Origin, Outbound, Reply
from apitokenproxy.places import fill_in

MAX_POOLS = 256
"""Pools that a forwarder keeps in one event loop: there is one, or one for each of so many tenants."""
STALE_SECONDS = 1.0
"""Within how long of a request a kept-alive connection that had been dropped already ends."""


class WireForwarder:
    """Forwards over kept-alive HTTP/1.1 connections; for ASGI, WSGI and scripts.

    `per_tenant` says that the origin's client certificate names a file for each tenant.
    """

    def __init__(self, *, per_tenant: bool = False) -> None:
        self._per_tenant = per_tenant
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._pools: dict[object, dict[Origin, Pool]] = {}

    def bind(self, colour: Colour) -> Callable[[Outbound], Awaitable[Reply]]:
        """Return the function that sends a request. It raises what `Forwarder.forward` raises."""
        return partial(self._forward_as_tenant if self._per_tenant else self._forward, colour)

    def _pool(self, origin: Origin, colour: Colour) -> Pool:
        loop = asyncio.get_running_loop() if colour is ASYNC else None
        if loop is not None or self._pid == os.getpid():  # a forked child has loops of its own
            try:
                return self._pools[loop][origin]
            except KeyError:
                pass
        self._forget_parent()
        with self._lock:
            for other in [key for key in self._pools if isinstance(key, asyncio.AbstractEventLoop) and key.is_closed()]:
                del self._pools[other]
            pools = self._pools.setdefault(loop, {})
            if origin not in pools:
                _make_room(pools)
                pools[origin] = Pool(origin, colour, _names(pools, origin, colour))
            return pools[origin]

    async def _forward_as_tenant(self, colour: Colour, outbound: Outbound) -> Reply:
        outbound.origin = _own_origin(outbound.origin, outbound.tenant)
        return await self._forward(colour, outbound)

    async def _forward(self, colour: Colour, outbound: Outbound) -> Reply:
        body = outbound.body
        first = None if body is None or isinstance(body, bytes) else await next_of(body)
        pool = self._pool(outbound.origin, colour)
        connection, used_before = await pool.acquire(outbound.tenant)
        total, began = outbound.origin.timeouts.total, time.monotonic()
        ends = None if total is None else began + total
        try:
            answer = await connection.send(outbound, first, ends)
        except UpstreamFailure as error:
            nothing_came = not connection.received and not isinstance(error, UpstreamTimeout)
            harmless = not connection.wrote or (outbound.method in IDEMPOTENT and outbound.length == 0)
            if not (used_before and nothing_came and harmless and time.monotonic() - began < STALE_SECONDS):
                pool.discard(connection)
                raise
        except BaseException:
            pool.discard(connection)
            raise
        else:
            return _reply(pool, connection, answer, ends)
        connection = await pool.replace(connection)
        try:
            answer = await connection.send(outbound, first, ends)
        except BaseException:
            pool.discard(connection)
            raise
        return _reply(pool, connection, answer, ends)

    def _forget_parent(self) -> None:
        if self._pid != os.getpid():  # a forked child: the parent's connections stay the parent's
            # The pid last: another thread that sees it must not see the parent's pools any more.
            self._lock, self._pools, self._pid = threading.Lock(), {}, os.getpid()

    async def warm_up(self, origin: Origin, colour: Colour) -> None:
        """Open the connections that are wanted ahead of the first request. Raises Unavailable, UpstreamFailure."""
        if origin.warm_connections:
            await self._pool(origin, colour).warm_up()

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


def _own_origin(origin: Origin, tenant: str) -> Origin:
    """Return an origin to which a tenant shows its own certificate. Raises NoSecretForCaller when it has none."""
    file = fill_in(origin.client_certificate or "", tenant=tenant)
    try:
        there = Path(file).is_file()  # asked each time: whose file is taken away is refused at once
    except OSError:
        there = False
    if not there:
        raise NoSecretForCaller(f"the tenant has no client certificate: {file} cannot be found")
    return evolve(origin, client_certificate=file)


def _names(pools: dict[Origin, Pool], origin: Origin, colour: Colour) -> Resolver:
    """Return what looks up an origin's host: the same for all tenants, so that one name has one thread."""
    same = (pool.names for other, pool in pools.items() if (other.host, other.port) == (origin.host, origin.port))
    return next(same, None) or Resolver(origin.host, origin.port, colour)


def _make_room(pools: dict[Origin, Pool]) -> None:
    """Close pools that were not used for long, or for longest if there are too many.

    One that a thread has found but taken nothing of yet serves that request, and then keeps nothing.
    Raises PoolFull when all of them are in use.
    """
    now = time.monotonic()
    idle = {origin: since for origin, pool in pools.items() if (since := pool.idle_since()) is not None}
    for origin in sorted(idle, key=idle.__getitem__):
        if now - idle[origin] > IDLE_SECONDS or len(pools) >= MAX_POOLS:
            pools.pop(origin).close()
    if len(pools) >= MAX_POOLS:
        raise PoolFull(f"{MAX_POOLS} tenants have connections of their own in use")


def _reply(pool: Pool, connection: Connection, answer: Answer, ends: float | None) -> Reply:
    if answer.complete:
        pool.release(connection)
        return Reply(answer.status, answer.headers, answer.first, _nothing_to_abort, ends)
    body = _Body(pool, connection, answer)
    return Reply(answer.status, answer.headers, body, body.abort, ends)


def _nothing_to_abort() -> None:
    """Do nothing: the answer is here, and its connection was given back."""


class _Body:
    """The answer's body, as an iterator of either colour. At its end the connection goes back."""

    def __init__(self, pool: Pool, connection: Connection, answer: Answer) -> None:
        self._pool = pool
        self._connection = connection
        self._answer = answer
        self._first = answer.first
        self._lock = threading.Lock()
        self._held = True

    async def _next(self) -> bytes:
        if self._first:
            chunk, self._first = self._first, b""
            return chunk
        if not self._held:
            return b""
        try:
            chunk = await self._connection.next_chunk()
        except BaseException:
            self.abort()
            raise
        if self._answer.complete:
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
        if not chunk:
            raise StopAsyncIteration
        return chunk

    def __iter__(self) -> "_Body":
        return self

    def __next__(self) -> bytes:
        chunk = run(self._next())
        if not chunk:
            raise StopIteration
        return chunk
