"""The connections to one origin: bounded, last in first out, and fair to those who wait.

Rules:
1. A place in the pool is held from `acquire` until `release` or `discard`, and given back once.
2. A place that becomes free goes to the tenants in turn, and within one to whoever has waited longest:
   one that asks a thousand times at once delays another by one request.
3. So many may wait, and no more. When one more comes, the tenant with the most of them gives way with its
   newest: one that fills all the places keeps nobody else out.
4. Where one tenant may hold only so many places, those that wait at that bound are passed over. So a place is
   free only while each that waits is at its bound, and whoever gives one back wakes one of them at the most.
5. A pool belongs to one process, and under asyncio to one event loop.
"""

import contextlib
import threading
import time
from collections import OrderedDict, deque
from concurrent.futures import Future, InvalidStateError

from apitokenproxy._colour import ASYNC, Colour
from apitokenproxy.errors import PoolFull, PoolTimeout
from apitokenproxy.forwarders.connection import Connection
from apitokenproxy.forwarders.dial import open_asyncio_stream, open_socket_stream
from apitokenproxy.forwarders.resolver import Resolver
from apitokenproxy.forwarders.trust import Trusting
from apitokenproxy.messages import Origin

IDLE_SECONDS = 30.0
"""How long a connection is kept that nobody uses."""
MAX_WAITING = 1000
"""Requests that may wait for a connection; when one more comes, one is refused at once."""


_Waiter = Future[Connection | None]


class Pool:
    """The connections to one origin, for one process and event loop. `names` looks up its host."""

    def __init__(self, origin: Origin, colour: Colour, names: Resolver) -> None:
        self._origin = origin
        self._colour = colour
        self.names = names
        self._lock = threading.Lock()
        self._idle: deque[tuple[Connection, float]] = deque()
        self._queues: OrderedDict[str | None, deque[_Waiter]] = OrderedDict()
        self._waiting = 0
        self._open = 0
        self._share = origin.max_connections_per_tenant
        self._held: dict[str | None, int] = {}  # by tenant, where there is a share; those that hold none are not in it
        self._used = time.monotonic()
        self._trusting = Trusting(origin, colour)
        self._closed = False

    async def acquire(self, tenant: str | None) -> tuple[Connection, bool]:
        """Return a connection for a tenant (None: for all) and whether it was used before.

        Raises PoolTimeout, PoolFull, SecretUnavailable, UpstreamFailure.
        """
        connection, waiter = self._take(tenant)
        if waiter is not None:
            connection = await self._wait(waiter, tenant)
        if connection is None:
            return await self._new(tenant), False
        connection.tenant = tenant
        if waiter is None or connection.is_silent():  # something may have arrived while it was handed over
            return connection, True
        return await self.replace(connection), False

    async def replace(self, connection: Connection) -> Connection:
        """Close a connection and return a new one in its place. Raises SecretUnavailable, UpstreamFailure."""
        connection.abort()
        return await self._new(connection.tenant)

    async def warm_up(self) -> None:
        """Open the connections that are wanted ahead of the first request. Raises UpstreamFailure."""
        ready = []
        try:
            for _ in range(self._origin.warm_connections):
                connection, used_before = await self.acquire(None)
                ready.append(connection)
                if used_before:
                    break
        finally:
            for connection in ready:
                self._hand_over(connection, None)

    async def _new(self, tenant: str | None) -> Connection:
        try:
            connection = await self._dial()
        except BaseException:
            self._hand_over(None, tenant)
            raise
        connection.tenant = tenant
        return connection

    async def _dial(self) -> Connection:
        trust = await self._trusting.now()
        context, session = (None, None) if trust is None else (trust.context, trust.session)
        if self._colour is ASYNC:
            return Connection(await open_asyncio_stream(self._origin, self.names, context, session), trust)
        return Connection(open_socket_stream(self._origin, self.names, context, session), trust)

    def _take(self, tenant: str | None) -> "tuple[Connection | None, _Waiter | None]":
        """Take the connection used last, or a free place, or a place in the tenant's queue. Raises PoolFull."""
        now = time.monotonic()
        with self._lock:
            if self._may_hold(tenant):
                while self._idle:
                    connection, since = self._idle.pop()
                    if now - since < IDLE_SECONDS and connection.is_silent() and not connection.is_outdated():
                        self._count(tenant, 1)
                        return connection, None
                    self._open -= 1
                    connection.abort()
                if self._open < self._origin.max_connections:
                    self._open += 1
                    self._count(tenant, 1)
                    return None, None
            if self._waiting >= MAX_WAITING:
                self._make_room(tenant)
            waiter: _Waiter = Future()
            self._queues.setdefault(tenant, deque()).append(waiter)
            self._waiting += 1
            return None, waiter

    def _may_hold(self, tenant: str | None) -> bool:
        return self._share is None or tenant is None or self._held.get(tenant, 0) < self._share

    def _count(self, tenant: str | None, change: int) -> None:
        if self._share is None:
            return
        held = self._held.get(tenant, 0) + change
        if held:
            self._held[tenant] = held
        else:
            del self._held[tenant]

    def _make_room(self, tenant: str | None) -> None:
        """Refuse the newest of the tenant that has most waiting. Raises PoolFull when that is the one that asks."""
        greediest = max(self._queues, key=lambda name: len(self._queues[name]))
        full = PoolFull(f"{self._waiting} requests wait for a connection already, most of them of this tenant")
        if len(self._queues[greediest]) <= len(self._queues.get(tenant, ())) + 1:
            raise full
        newest = self._queues[greediest].pop()
        self._waiting -= 1
        with contextlib.suppress(InvalidStateError):  # it had given up waiting
            newest.set_exception(full)

    async def _wait(self, waiter: _Waiter, tenant: str | None) -> Connection | None:
        seconds = self._origin.timeouts.pool
        try:
            return await self._colour.wait(waiter, seconds)
        except PoolFull:
            raise
        except TimeoutError:
            if not waiter.cancel():  # it came at the last moment
                return waiter.result()
            self._forget(waiter, tenant)
            raise PoolTimeout(f"{self._busy(tenant)} were busy for {seconds:g} seconds") from None
        except BaseException:
            if waiter.cancel():
                self._forget(waiter, tenant)
            elif waiter.exception() is None:
                self._hand_over(waiter.result(), tenant)
            raise

    def _busy(self, tenant: str | None) -> str:
        if self._may_hold(tenant):
            return f"{self._origin.max_connections} connections"
        return f"the {self._share} connections that one tenant may hold"

    def _forget(self, waiter: _Waiter, tenant: str | None) -> None:
        with self._lock:
            queue = self._queues.get(tenant)
            if queue is not None and waiter in queue:  # it may have been passed over already
                self._waiting -= 1
                queue.remove(waiter)
                if not queue:
                    del self._queues[tenant]

    def _next_waiter(self) -> tuple[str | None, _Waiter] | None:
        """Take the first of the tenant whose turn it is, and send the tenant to the end of the line."""
        for tenant, queue in self._queues.items():
            if self._may_hold(tenant):
                waiter = queue.popleft()
                self._waiting -= 1
                if queue:
                    self._queues.move_to_end(tenant)
                else:
                    del self._queues[tenant]
                return tenant, waiter
        return None

    def release(self, connection: Connection) -> None:
        """Give back a connection whose answer was read to its end."""
        if not connection.make_ready() or connection.is_outdated() or self._closed:
            self.discard(connection)
            return
        connection.keep_session()
        self._hand_over(connection, connection.tenant)

    def discard(self, connection: Connection) -> None:
        """Close a connection and free its place."""
        connection.abort()
        self._hand_over(None, connection.tenant)

    def _hand_over(self, connection: Connection | None, tenant: str | None) -> None:
        """Give a tenant's connection, or its place, to whose turn it is; otherwise keep it."""
        now = self._used = time.monotonic()
        with self._lock:
            self._count(tenant, -1)
            while self._queues and (following := self._next_waiter()) is not None:
                tenant, waiter = following
                try:
                    waiter.set_result(connection)
                except InvalidStateError:
                    continue  # gave up waiting
                self._count(tenant, 1)
                return
            if connection is None:
                self._open -= 1
                return
            self._idle.append((connection, now))
            while now - self._idle[0][1] > IDLE_SECONDS:
                self._open -= 1
                self._idle.popleft()[0].abort()

    def idle_since(self) -> float | None:
        """Return since when no connection is in use (of the monotonic clock); None while one is."""
        with self._lock:
            return None if self._open > len(self._idle) else self._used

    def close(self) -> None:
        """Close what is idle; what is in use is closed when it is given back."""
        with self._lock:
            self._closed = True
            while self._idle:
                self._idle.pop()[0].abort()
                self._open -= 1
