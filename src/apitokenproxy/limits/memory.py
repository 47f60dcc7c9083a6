"""Limits counted in this process: exact, all or nothing, and bounded in memory."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from ipaddress import ip_address, ip_network
from operator import attrgetter

from apitokenproxy._colour import nonblocking
from apitokenproxy.errors import ConfigurationError, LimiterUnavailable
from apitokenproxy.limits.counters import Concurrency, Counter, Key, counter_for
from apitokenproxy.limits.limit import Limit, own_limits
from apitokenproxy.messages import Admission, Grant

MOST_OWN_TERMS = 1000
"""How many different terms the limits of derived tokens may have."""

_NOTHING = Admission()
_LONGEST_ADDRESS = 64

Terms = tuple[tuple[str, str | int], ...]


class MemoryLimiter:
    """Counts requests against several limits, all or nothing, in this process alone.

    `max_keys` bounds each limit's memory: a rate forgets the key idle longest (which costs at most
    one burst), a quota that is full refuses new keys until its window ends. `clock` gives seconds
    that never step back, `wall` seconds since the epoch for calendar windows.
    """

    def __init__(
        self,
        limits: Sequence[Limit],
        *,
        max_keys: int = 100_000,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        names = [limit.name for limit in limits]
        for name in names:
            if names.count(name) > 1:
                raise ConfigurationError(f"limit {name}: another limit has this name; give each its own")
        self._limits = tuple((_key_taker(limit.per), counter_for(limit, max_keys)) for limit in limits)
        self._policy = ", ".join(_policies(counter for _, counter in self._limits)).encode()
        self._own: dict[Terms, tuple[Counter, ...]] = {}
        self._max_keys = max_keys
        self._clock = clock
        self._wall = wall
        self._lock = threading.Lock()

    @nonblocking
    def admit(self, grant: Grant) -> Admission:
        """Count the request against every limit, or against none. Raises Limited, LimiterUnavailable."""
        own = grant.caller.limits
        if not self._limits and not own:
            return _NOTHING
        now, wall = self._clock(), self._wall()
        counted, left, held = [], [], []
        with self._lock:
            for take_key, counter in self._limits:
                key = take_key(grant)
                counted.append((counter, key, counter.check(key, now, wall)))
            for counter in self._own_counters(own) if own else ():
                key = grant.caller.derived
                counted.append((counter, key, counter.check(key, now, wall)))
            for counter, key, so_far in counted:
                if isinstance(counter, Concurrency):
                    counter.take(key, now, so_far)
                    held.append((counter, key))
                else:
                    left.append(counter.take(key, now, so_far))
        headers: tuple[tuple[bytes, bytes], ...] = ()
        if left:
            policy = self._policy if not own else ", ".join(_policies(counter for counter, _, _ in counted)).encode()
            headers = ((b"ratelimit-policy", policy), (b"ratelimit", ", ".join(left).encode()))
        return Admission(headers, _Release(self._lock, held)) if held else Admission(headers)

    def _own_counters(self, terms: Terms) -> tuple[Counter, ...]:
        """Return what counts the derived tokens that have limits of these terms. To be called under the lock."""
        counters = self._own.get(terms)
        if counters is None:
            if len(self._own) >= MOST_OWN_TERMS:
                raise LimiterUnavailable(f"derived tokens have limits of {MOST_OWN_TERMS} different terms already")
            counters = tuple(counter_for(limit, self._max_keys) for limit in own_limits(dict(terms)))
            self._own[terms] = counters
        return counters


def _policies(counters: Iterable[Counter]) -> Iterator[str]:
    return (counter.policy for counter in counters if not isinstance(counter, Concurrency))


class _Release:
    """Counts out what is in flight, once, whoever calls and however often."""

    __slots__ = ("_held", "_lock")

    def __init__(self, lock: threading.Lock, held: list[tuple[Concurrency, Key]]) -> None:
        self._lock = lock
        self._held = held

    def __call__(self) -> None:
        with self._lock:
            held, self._held = self._held, []
            for counter, key in held:
                counter.release(key)


_PARTS = {
    "token": ("caller.key",),
    "tenant": ("caller.tenant",),
    "subject": ("caller.tenant", "caller.subject"),
    "upstream": ("operation.upstream",),
    "ip": ("operation.address",),
}
"""What of a grant makes the key."""


def _key_taker(per: tuple[str, ...]) -> Callable[[Grant], Key]:
    """Return the function that takes a limit's key from a grant."""
    paths = [path for part in per for path in _PARTS[part]]
    take: Callable[[Grant], Key] = attrgetter(*paths)
    if "ip" not in per:
        return take
    place = paths.index("operation.address")
    if len(paths) == 1:
        return lambda grant: _network(grant.operation.address)

    def take_with_network(grant: Grant) -> Key:
        key = take(grant)
        return (*key[:place], _network(grant.operation.address), *key[place + 1 :])

    return take_with_network


@lru_cache(maxsize=4096)
def _network(address: str) -> str:
    """Return an IPv4 address as it is, an IPv6 address as its /64: a customer has at least one of those."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address[:_LONGEST_ADDRESS]
    if parsed.version == 4:  # noqa: PLR2004 - the version of the protocol
        return address
    mapped = parsed.ipv4_mapped
    return str(mapped) if mapped else str(ip_network(f"{parsed}/64", strict=False))
