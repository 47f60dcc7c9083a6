"""The three ways of counting in memory. Each is checked first and taken after, under the limiter's lock.

Rules:
1. `check` changes nothing that counts and returns what was counted so far; `take` follows it with that,
   for the same key in the same locked moment.
2. Memory is bounded by `max_keys` each. A rate forgets the key that was idle longest, which costs at
   most one burst. A quota never forgets a key of the running window, so a cap is never passed: when
   it is full it refuses new keys. Concurrency holds a key only while it is in flight.
"""

from calendar import monthrange
from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from typing import Any

from apitokenproxy.errors import ConcurrencyExceeded, LimiterUnavailable, QuotaExceeded, RateLimited
from apitokenproxy.limits.limit import SECONDS, Limit

Key = str | tuple[Any, ...]

_ROUNDING = 1e-9
"""Seconds: sums of floats must not refuse the last of a burst."""


class Rate:
    """GCRA, the generic cell rate algorithm: one time per key says how far ahead of its pace it is."""

    def __init__(self, limit: Limit, max_keys: int) -> None:
        self._name = limit.name
        self._interval = SECONDS[limit.unit] / limit.count
        self._burst = limit.count if limit.burst is None else limit.burst
        tolerance = self._interval * self._burst
        self._slack = tolerance - self._interval + _ROUNDING
        self._max_keys = max_keys
        self._arrivals: OrderedDict[Key, float] = OrderedDict()
        self.policy = f'"{limit.name}";q={self._burst};w={max(1, round(tolerance))}'
        self._item = f'"{limit.name}";r='

    def check(self, key: Key, now: float, _wall: float) -> float:
        """Return by how many seconds the key is ahead of its pace. Raises RateLimited at more than its burst."""
        ahead = self._arrivals.get(key, now) - now
        if ahead > self._slack:
            raise RateLimited(f"limit {self._name}", retry_after=ahead - self._slack)
        return max(ahead, 0.0)

    def take(self, key: Key, now: float, ahead: float) -> str:
        """Count one and return what is left as a RateLimit item."""
        arrivals = self._arrivals
        interval = self._interval
        arrivals[key] = now + ahead + interval
        arrivals.move_to_end(key)
        if len(arrivals) > self._max_keys:
            arrivals.popitem(last=False)
        return f"{self._item}{int((self._slack - ahead) / interval)};t={int(ahead + interval) + 1}"

    def __len__(self) -> int:
        return len(self._arrivals)


class Quota:
    """A count per calendar window in UTC. A wall clock that steps back does not reopen a window."""

    def __init__(self, limit: Limit, max_keys: int) -> None:
        self._name = limit.name
        self._cap = limit.count
        self._unit = limit.unit
        self._max_keys = max_keys
        self._used: dict[Key, int] = {}
        self._end = 0.0
        self._left = 0.0
        self.policy = f'"{limit.name}";q={limit.count};w={SECONDS[limit.unit]}'
        self._item = f'"{limit.name}";r='

    def check(self, key: Key, _now: float, wall: float) -> int:
        """Return how many were counted in this window. Raises QuotaExceeded, LimiterUnavailable."""
        if wall >= self._end:
            self._used.clear()
            self._end = _window_end(wall, self._unit)
        self._left = self._end - wall
        used = self._used.get(key)
        if used is None:
            if len(self._used) >= self._max_keys:
                raise LimiterUnavailable(
                    f"limit {self._name} counts {self._max_keys} keys already", retry_after=self._left
                )
            return 0
        if used >= self._cap:
            raise QuotaExceeded(f"limit {self._name}", retry_after=self._left)
        return used

    def take(self, key: Key, _now: float, used: float) -> str:
        """Count one and return what is left as a RateLimit item."""
        self._used[key] = used = int(used) + 1
        return f"{self._item}{self._cap - used};t={int(self._left)}"

    def __len__(self) -> int:
        return len(self._used)


class Concurrency:
    """A count of what is in flight."""

    def __init__(self, limit: Limit) -> None:
        self._name = limit.name
        self._cap = limit.count
        self._running: dict[Key, int] = {}

    def check(self, key: Key, _now: float, _wall: float) -> int:
        """Return how many are in flight. Raises ConcurrencyExceeded at as many as may be."""
        running = self._running.get(key, 0)
        if running >= self._cap:
            raise ConcurrencyExceeded(f"limit {self._name}", retry_after=1.0)
        return running

    def take(self, key: Key, _now: float, running: float) -> None:
        """Count one in."""
        self._running[key] = int(running) + 1

    def release(self, key: Key) -> None:
        """Count one out."""
        left = self._running[key] - 1
        if left:
            self._running[key] = left
        else:
            del self._running[key]

    def __len__(self) -> int:
        return len(self._running)


Counter = Rate | Quota | Concurrency


def counter_for(limit: Limit, max_keys: int) -> Counter:
    """Return the counter for a limit."""
    if limit.rate is not None:
        return Rate(limit, max_keys)
    return Quota(limit, max_keys) if limit.quota is not None else Concurrency(limit)


def _window_end(wall: float, unit: str) -> float:
    hour = datetime.fromtimestamp(wall, UTC).replace(minute=0, second=0, microsecond=0)
    if unit == "hour":
        return (hour + timedelta(hours=1)).timestamp()
    day = hour.replace(hour=0)
    if unit == "day":
        return (day + timedelta(days=1)).timestamp()
    month = day.replace(day=1)
    return (month + timedelta(days=monthrange(month.year, month.month)[1])).timestamp()
