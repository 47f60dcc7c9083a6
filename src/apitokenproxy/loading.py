"""Loads: values that are asked for elsewhere, kept for their time, and asked for once however many want them.

Rules:
1. Every load runs by itself: a task under ASYNC, a daemon thread under SYNC. Tasks of any loop and threads alike
   wait for one Future, at most `timeout` seconds. The lock is never held while anything is loaded, told or logged.
2. Past 80 % of its life the old value is returned at once, and a load begins that nobody waits for.
3. A failure is told to everyone who waited for it, and is not remembered. One with `outage` (nobody answered)
   lets the last good value stand in until `outage` seconds after its life, while it is tried again once a
   `_PAUSE`; any other failure is an answer, and ends what is kept with its life.
4. A load that does not end in time is given up, and what it brings late is not used. While it hangs, its key
   begins no other; only so many may hang or run, and of one tenant's a part of these: it takes no place of others.
5. A load that was cancelled tells nobody anything: the next in line begins anew.
6. After a fork nothing is in flight: the child has neither the threads nor, maybe, an open lock.
"""

import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Future
from typing import Generic, TypeVar

from attrs import Factory, define, field, frozen

from apitokenproxy._colour import Colour
from apitokenproxy.errors import InternalFault, Unavailable

T = TypeVar("T")

_log = logging.getLogger("apitokenproxy")

_AHEAD = 0.8  # the part of its life after which a value is renewed
_PAUSE = 1.0  # seconds between two loads that nobody waits for, when the first one failed
_MOST_BEHIND = 8  # loads at one time that nobody waits for; what finds no place among them waits for its life's end
_MOST_HANGING = 128  # loads of all keys that may go on after they were given up
_MOST_RUNNING = 256  # loads at one time: each may have a thread
_MOST_OF_ONE = 32  # of both, for one tenant


@frozen
class Loaded(Generic[T]):
    """What a load brings: a value and for how long it may be used, in seconds from when it was there.

    `at_most` (seconds from when the load began) ends it in any case, also in an outage: a lease is over then.
    """

    value: T
    ttl: float
    at_most: float = float("inf")


Load = Callable[[], Awaitable[Loaded[T]]]


@define
class _Kept(Generic[T]):
    """A value, here `since`; `renew`: used without a thought until; `until`: its life; `last`: never used later."""

    value: T
    renew: float
    until: float
    since: float
    last: float
    failing: str | None = None  # why nobody answers
    told: bool = False


class _Flight(Future[T]):
    """A load on its way. `thread` is the one that it needs to go on, where that is not its own."""

    def __init__(self, process: "_Process[T]", key: str, deadline: float, colour: Colour, tenant: str) -> None:
        super().__init__()
        self.process = process
        self.key = key
        self.deadline = deadline
        self.tenant = tenant
        self.thread = 0 if colour.blocks else threading.get_ident()
        self.settled = False
        self.ended: Callable[[], bool] = bool  # not begun yet: False


@define
class _Process(Generic[T]):
    """What belongs to one process alone."""

    pid: int = field(factory=os.getpid)
    lock: threading.Lock = Factory(threading.Lock)
    flights: dict[str, _Flight[T]] = Factory(dict)
    behind: set[_Flight[T]] = Factory(set)
    hanging: list[_Flight[T]] = Factory(list)


class Loads(Generic[T]):
    """A bounded store of loaded values, shared by both colours and all threads.

    `what` is whom errors name. `error` is what callers get, and what loads raise when they know why.
    `outage` and `timeout` are in seconds. The value that came first makes room for the one over `max_keys`.
    """

    def __init__(
        self,
        what: str,
        error: type[Unavailable],
        *,
        clock: Callable[[], float] = time.monotonic,
        outage: float = 300.0,
        timeout: float = 30.0,
        max_keys: int = 10_000,
    ) -> None:
        self._what = what
        self._error = error
        self._clock = clock
        self._outage = outage
        self._timeout = timeout
        self._max_keys = max_keys
        self._kept: dict[str, _Kept[T]] = {}
        self._process: _Process[T] = _Process()

    def kept(self, key: str) -> T | None:
        """Return the value of a key, if it is here and need not be renewed yet. Takes no lock."""
        kept = self._kept.get(key)
        return kept.value if kept is not None and self._clock() < kept.renew else None

    def last(self, key: str) -> T | None:
        """Return the value that was loaded last, however old: to compare with, never to use."""
        kept = self._kept.get(key)
        return kept.value if kept is not None else None

    async def get(self, key: str, load: Load[T], colour: Colour, tenant: str = "") -> T:
        """Return the value of a key: kept, awaited or loaded. `load` is of that colour. Raises `error`."""
        while True:
            value, flight, mine = self._look(key, colour, tenant)
            if flight is not None and mine:
                self._begin(flight, load, colour)
            if value is not None:
                return value
            if flight is None:
                return self._without_asking(key)
            if colour.blocks and flight.thread == threading.get_ident():
                # That task cannot go on while this call waits.
                flight, mine = _Flight(flight.process, key, self._clock() + self._timeout, colour, tenant), True
                self._begin(flight, load, colour)
            try:
                return await self._landed(flight, colour)
            except CancelledError:
                if mine:
                    raise self._error(f"{self._what}: the attempt was ended before it had an answer") from None
            except self._error as error:
                if (value := self._stand_in(key)) is not None:
                    return value
                raise self._copy(error) from None

    def expire(self, *keys: str) -> None:
        """End the life of these values, or of all, so that they are loaded anew; not if that was done a moment ago."""
        now = self._clock()
        for kept in map(self._kept.get, keys or list(self._kept)):
            if kept is not None and now - kept.since >= _PAUSE:
                kept.renew = kept.until = now

    # --- what is kept -----------------------------------------------------------------------

    def _look(self, key: str, colour: Colour, tenant: str) -> tuple[T | None, _Flight[T] | None, bool]:
        """Return a value that may be used, the load that is on its way, and whether that is to be begun."""
        process, now = self._here(), self._clock()
        for each in list(process.flights.values()):
            if each.ended():
                self._settle(each)  # its event loop was closed around it
            elif now >= each.deadline:
                self._give_up(each)
        value = self._stand_in(key)
        with process.lock:
            kept, flight = self._kept.get(key), process.flights.get(key)
            if kept is not None and now < kept.renew:
                return kept.value, None, False
            if flight is not None:
                return value, flight, False
            process.hanging = [each for each in process.hanging if not each.ended()]
            hangs = len(process.hanging) >= _MOST_HANGING or any(each.key == key for each in process.hanging)
            own = [each for each in (*process.flights.values(), *process.hanging) if tenant and each.tenant == tenant]
            many = len(process.flights) >= _MOST_RUNNING or len(own) >= _MOST_OF_ONE
            if hangs or many or (value is not None and len(process.behind) >= _MOST_BEHIND):
                return value, None, False
            flight = process.flights[key] = _Flight(process, key, now + self._timeout, colour, tenant)
            if value is not None:
                process.behind.add(flight)
        return value, flight, True

    def _stand_in(self, key: str) -> T | None:
        """Return the value of a key if its life is not over or nobody answers; say so when that begins."""
        with self._here().lock:
            now = self._clock()
            kept = self._kept.get(key)
            if kept is None or now >= (kept.until if kept.failing is None else kept.last):
                return None
            begins = now >= kept.until and not kept.told
            kept.told = kept.told or begins
        if begins:
            told = "%s does not answer; what it said last is used for %.0f more seconds at most: %s"
            _log.warning(told, self._what, kept.last - now, kept.failing)
        return kept.value

    def _without_asking(self, key: str) -> T:
        failure = self._error(f"{self._what} does not answer: attempts hang already, or too many run", outage=True)
        with self._here().lock:
            self._note(key, failure)
        if (value := self._stand_in(key)) is None:
            raise failure
        return value

    def _note(self, key: str, failure: Unavailable) -> None:
        kept = self._kept.get(key)
        if kept is None:
            return
        kept.failing = failure.detail if failure.outage else None
        if not failure.outage:
            kept.last = min(kept.last, kept.until)
        kept.renew = min(self._clock() + _PAUSE, kept.last)

    # --- loads ------------------------------------------------------------------------------

    def _here(self) -> _Process[T]:
        if self._process.pid != os.getpid():
            self._process = _Process()
        return self._process

    def _begin(self, flight: _Flight[T], load: Load[T], colour: Colour) -> None:
        async def work() -> None:
            began = self._clock()
            try:
                kept = self._lasting(await load(), began)
            except Exception as error:  # noqa: BLE001 - its text could hold what must not be shown
                self._settle(flight, failure=self._copy(error))
            else:
                self._settle(flight, kept)

        def done(error: BaseException | None) -> None:
            self._settle(flight, failure=self._copy(error) if isinstance(error, InternalFault) else None)

        try:
            flight.ended = colour.detach(work, done)
        except RuntimeError:  # as at the end of the interpreter, or at the limit of threads
            self._settle(flight, failure=self._error(f"{self._what}: no thread can be started to ask it"))

    def _lasting(self, loaded: Loaded[T], began: float) -> _Kept[T]:
        now, end = self._clock(), began + loaded.at_most
        until = min(now + loaded.ttl, end)
        last = min(until + self._outage, end) if loaded.ttl > 0 else until
        return _Kept(loaded.value, now + _AHEAD * (until - now), until, now, last)

    async def _landed(self, flight: _Flight[T], colour: Colour) -> T:
        try:
            return await colour.wait(flight, self._timeout)
        except TimeoutError:
            self._give_up(flight)
            return flight.result()

    def _give_up(self, flight: _Flight[T]) -> None:
        failure = self._error(f"{self._what} did not answer within {self._timeout:g} seconds", outage=True)
        self._settle(flight, failure=failure, hangs=True)

    def _settle(
        self,
        flight: _Flight[T],
        kept: _Kept[T] | None = None,
        failure: Unavailable | None = None,
        *,
        hangs: bool = False,
    ) -> None:
        """End a load for those who wait: with a value, a failure, or neither when it was cancelled. Once."""
        process, key = flight.process, flight.key
        with process.lock:
            if flight.settled:
                return
            flight.settled = True
            if process.flights.get(key) is flight:
                del process.flights[key]
            process.behind.discard(flight)
            if kept is not None:
                if len(self._kept) >= self._max_keys and key not in self._kept:
                    del self._kept[next(iter(self._kept))]
                self._kept[key] = kept
            elif failure is not None:
                self._note(key, failure)
            if hangs:
                process.hanging.append(flight)
        if kept is not None:
            flight.set_result(kept.value)
        elif failure is not None:
            flight.set_exception(failure)
        else:
            flight.cancel()

    def _copy(self, error: Exception) -> Unavailable:
        """Return an error with no memory of where it was raised: those places may hold what must not be shown."""
        if isinstance(error, self._error):
            kind = type(error) if type(error).__init__ is self._error.__init__ else self._error
            return kind(error.detail, retry_after=error.retry_after, outage=error.outage)
        told = error.detail if isinstance(error, InternalFault) else f"raised {type(error).__name__}"
        return self._error(f"{self._what}: {told}")
