"""Guessing: counts failed authentications by address, so that trying tokens is slow and costs us little.

Rules:
1. An address may fail `BURST` times, and then once every `INTERVAL` seconds. Who asks more often is refused
   without the store being asked, unless the token is one that was good lately: whoever works from the
   same address goes on working.
2. An IPv6 address counts as its /64, which one subscriber has in full (RFC 6177).
3. What is remembered is bounded: the address that failed longest ago makes room.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from threading import Lock

BURST = 20
INTERVAL = 1.0
"""Seconds."""
MOST_ADDRESSES = 10_000
_SUBSCRIBER = (1 << 128) - (1 << 64)


class Guessing:
    """Failures by address, for one process. `timer` returns seconds."""

    def __init__(self, timer: Callable[[], float] = time.monotonic) -> None:
        self._timer = timer
        self._lock = Lock()
        # For each address the moment at which all its failures are forgotten (GCRA's theoretical arrival time).
        self._forgotten: OrderedDict[str, float] = OrderedDict()

    def wait(self, address: str) -> float:
        """Return for how many seconds nothing but known tokens is looked at from there; usually 0."""
        if not self._forgotten:
            return 0.0
        forgotten = self._forgotten.get(_subscriber(address))
        return 0.0 if forgotten is None else max(0.0, forgotten - self._timer() - (BURST - 1) * INTERVAL)

    def failed(self, address: str) -> None:
        """Count a failure."""
        key, now = _subscriber(address), self._timer()
        with self._lock:
            forgotten = max(now, self._forgotten.pop(key, now)) + INTERVAL
            while len(self._forgotten) >= MOST_ADDRESSES:
                self._forgotten.popitem(last=False)
            self._forgotten[key] = min(forgotten, now + BURST * INTERVAL)


def _subscriber(address: str) -> str:
    """Return what stands for everybody behind one line."""
    if ":" not in address:
        return address
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(IPv6Address(int(found) & _SUBSCRIBER))
    return str(found)
