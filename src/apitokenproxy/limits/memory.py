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
        self._counters: tuple[tuple[Callable[[Grant], Key], Counter], ...] = tuple(
            (_key_maker(limit.per), counter_for(limit, max_keys)) for limit in limits
        )
        self._policy = ", ".join(c.policy for _, c in self._counters if not isinstance(c, Concurrency)).encode()
        self._holds = any(isinstance(c, Concurrency) for _, c in self._counters)
        self._clock = clock
        self._wall = wall
        self._lock = threading.Lock()

    @nonblocking
    def admit(self, grant: Grant) -> Admission:
        """Count the request against every limit, or against none. Raises Limited, LimiterUnavailable."""
        if not self._counters:
            return _NOTHING
        now, wall = self._clock(), self._wall()
        taken: list[tuple[Key, Counter]] = []
        with self._lock:
            for make_key, counter in self._counters:
                key = make_key(grant)
                counter.check(key, now, wall)
                taken.append((key, counter))
            left = ", ".join([item for key, counter in taken if (item := counter.take(key, now))])
        headers = ((b"ratelimit-policy", self._policy), (b"ratelimit", left.encode())) if left else ()
        if not self._holds:
            return Admission(headers)
        return Admission(headers, _Release(self._lock, taken))


class _Release:
    """Counts out what is in flight, once, whoever calls and however often."""

    __slots__ = ("_lock", "_taken")

    def __init__(self, lock: threading.Lock, taken: list[tuple[Key, Counter]]) -> None:
        self._lock = lock
        self._taken = taken

    def __call__(self) -> None:
        with self._lock:
            taken, self._taken = self._taken, []
            for key, counter in taken:
                if isinstance(counter, Concurrency):
                    counter.release(key)


def _key_maker(per: tuple[str, ...]) -> Callable[[Grant], Key]:
    makers = tuple(_PARTS[part] for part in per)
    return makers[0] if len(makers) == 1 else lambda grant: tuple([make(grant) for make in makers])


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
