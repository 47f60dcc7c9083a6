"""Usage: counts how often each generation of a token is used, and writes it to the store in batches.

Rules:
1. Counting is one append to a deque: atomic, without a lock, a clock or an allocation.
2. A thread gathers and writes every `INTERVAL` seconds, so a moment of use is known that exactly. What a
   crash loses is one batch at most.
3. What the store does not take stays and is tried again; how much can wait is bounded.
4. Everything belongs to one process: a forked child begins with nothing.
"""

import atexit
import logging
import os
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable
from datetime import UTC, datetime

from attrs import evolve

from apitokenproxy.errors import StoreUnavailable
from apitokenproxy.interfaces import Generation, StoredToken, TokenStore, Uses
from apitokenproxy.messages import Caller

INTERVAL = 2.0
_MOST_WAITING = 100_000
_MOST_ALERTED = 10_000

_log = logging.getLogger("apitokenproxy")


class Usage:
    """The uses that the store does not know of yet. `clock` returns seconds since the epoch."""

    def __init__(self, store: TokenStore, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._seen: deque[Caller] = deque()
        self.count: Callable[[Caller], None] = self._seen.append
        """Count one use by a caller whom a client token named."""
        self._begin()
        atexit.register(_close, weakref.ref(self))

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._waiting: dict[tuple[str, int], Uses] = {}
        self._gathered = self._clock()
        self._alerted: set[tuple[str, int]] = set()
        self._failing = False
        self._stop: threading.Event | None = None

    def keep_writing(self) -> None:
        """See that there is a thread that writes. Called whenever the store is asked, off the hot path."""
        if self._pid != os.getpid():
            self._seen.clear()
            self._begin()
        if self._stop is None:
            with self._lock:
                if self._stop is None:
                    self._stop = threading.Event()
                    weakref.finalize(self, self._stop.set)
                    arguments = weakref.ref(self), self._stop
                    threading.Thread(target=_run, args=arguments, name="apitokenproxy-usage", daemon=True).start()

    def alert(self, token: StoredToken, generation: Generation, now: datetime) -> None:
        """Tell the log, once, that somebody still uses a secret which should have ended by now."""
        key = token.id, generation.number
        if generation.idle is None or generation.retired is None or generation.retired > now or key in self._alerted:
            return
        if len(self._alerted) >= _MOST_ALERTED:
            self._alerted.clear()
        self._alerted.add(key)
        _log.warning(
            "generation %d of client token %s of %s is still used: it should have ended %s and will end %s",
            *(generation.number, token.id, token.tenant, generation.retired, generation.latest),
        )

    def write(self) -> None:
        """Write what was counted, unless the store does not answer: then it is tried again later."""
        with self._lock:
            self._gather()
            if not self._waiting:
                return
            try:
                # In order, so that two processes never wait for each other's rows.
                self._store.note([self._waiting[key] for key in sorted(self._waiting)])
            except Exception as error:  # noqa: BLE001 - whatever it is, what was counted stays and requests go on
                if not self._failing:
                    told = error.detail if isinstance(error, StoreUnavailable) else type(error).__name__
                    _log.warning("uses of tokens cannot be written now: %s", told)
                self._failing = True
            else:
                self._waiting.clear()
                self._failing = False

    def _gather(self) -> None:
        """Add up what was seen since the last time."""
        since, self._gathered = self._gathered, self._clock()
        seen = Counter((caller.token_id, caller.generation) for caller in _drained(self._seen))
        if not seen:
            return
        first, last = datetime.fromtimestamp(since, UTC), datetime.fromtimestamp(self._gathered, UTC)
        for key, count in seen.items():
            waiting = self._waiting.get(key)
            if waiting is not None:
                self._waiting[key] = evolve(waiting, last=last, count=waiting.count + count)
            elif len(self._waiting) < _MOST_WAITING:
                self._waiting[key] = Uses(*key, first, last, count)

    def close(self) -> None:
        """Write what was counted, and end the thread. Counting may go on."""
        if self._pid == os.getpid():
            if self._stop is not None:
                self._stop.set()
                self._stop = None
            self.write()


def _drained(seen: "deque[Caller]") -> list[Caller]:
    return [seen.popleft() for _ in range(len(seen))]


def _run(reference: "weakref.ref[Usage]", stop: threading.Event) -> None:
    while not stop.wait(INTERVAL):
        usage = reference()
        if usage is None:
            return
        usage.write()
        del usage  # while this thread waits, nobody is kept alive by it


def _close(reference: "weakref.ref[Usage]") -> None:
    usage = reference()
    if usage is not None:
        usage.close()
