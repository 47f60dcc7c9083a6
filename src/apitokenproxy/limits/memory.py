"""Limits counted in this process: exact, all or nothing, and bounded in memory."""

import threading
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from ipaddress import ip_address, ip_network

from apitokenproxy._colour import nonblocking
from apitokenproxy.errors import ConfigurationError
from apitokenproxy.limits.counters import Concurrency, Counter, Key, counter_for
from apitokenproxy.limits.limit import Limit
from apitokenproxy.messages import Admission, Grant

_NOTHING = Admission()
_LONGEST_ADDRESS = 64


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
        self._makers = tuple(_key_maker(limit.per) for limit in limits)
        self._counters: tuple[Counter, ...] = tuple(counter_for(limit, max_keys) for limit in limits)
        self._policy = ", ".join(c.policy for c in self._counters if not isinstance(c, Concurrency)).encode()
        self._holding = tuple((at, c) for at, c in enumerate(self._counters) if isinstance(c, Concurrency))
        self._clock = clock
        self._wall = wall
        self._lock = threading.Lock()

    @nonblocking
    def admit(self, grant: Grant) -> Admission:
        """Count the request against every limit, or against none. Raises Limited, LimiterUnavailable."""
        if not self._counters:
            return _NOTHING
        keys = [make_key(grant) for make_key in self._makers]
        counters = self._counters
        now, wall = self._clock(), self._wall()
        with self._lock:
            for counter, key in zip(counters, keys, strict=True):
                counter.check(key, now, wall)
            items = [counter.take(key, now) for counter, key in zip(counters, keys, strict=True)]
        headers: tuple[tuple[bytes, bytes], ...] = ()
        if self._policy:
            left = ", ".join([item for item in items if item]).encode()
            headers = ((b"ratelimit-policy", self._policy), (b"ratelimit", left))
        if not self._holding:
            return Admission(headers)
        return Admission(headers, _Release(self._lock, [(counter, keys[at]) for at, counter in self._holding]))


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


def _key_maker(per: tuple[str, ...]) -> Callable[[Grant], Key]:
    makers = tuple(_PARTS[part] for part in per)
    if len(makers) == 1:
        return makers[0]
    if len(makers) == 2:  # noqa: PLR2004 - the usual case, without a loop
        first, second = makers
        return lambda grant: (first(grant), second(grant))
    return lambda grant: tuple([make(grant) for make in makers])


def _token(grant: Grant) -> Key:
    caller = grant.caller
    # A caller without a client token (the host application's session) is its tenant and subject.
    return caller.token_id or (caller.tenant, caller.subject)


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


_PARTS: dict[str, Callable[[Grant], Key]] = {
    "token": _token,
    "tenant": lambda grant: grant.caller.tenant,
    "subject": lambda grant: (grant.caller.tenant, grant.caller.subject),
    "upstream": lambda grant: grant.operation.upstream,
    "ip": lambda grant: _network(grant.operation.address),
}
