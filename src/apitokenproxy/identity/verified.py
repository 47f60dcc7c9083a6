"""Verified: the client tokens that were found good a moment ago.

Rules:
1. The key is the token's digest, never the token. Only what the store confirmed comes in, so no
   stranger can fill it.
2. An entry lives `ttl` seconds from the moment at which the store was asked, not from the answer:
   a slow store must not lengthen the time for which a revoked token still works.
3. A fill that began before a revocation is thrown away: it may have read what is no longer true.
4. Reading takes no lock: every request does it, and a dict's `get` is atomic.
"""

import math
import time
from collections.abc import Callable
from threading import Lock

from attrs import frozen

from apitokenproxy.errors import ConfigurationError
from apitokenproxy.messages import Caller


@frozen
class Ticket:
    """The beginning of a fill: how many revocations came before it, and when it was (timer seconds)."""

    revocations: int
    began: float


@frozen
class _Entry:
    caller: Caller
    expires: float
    stale: float


class Verified:
    """A bounded, thread-safe cache of verified tokens; the one verified longest ago makes room.

    `ttl` is the revocation bound: how long, in seconds, a token that another process revoked may
    still work in this one. 0 keeps nothing. Raises ConfigurationError when it is negative.
    """

    def __init__(self, *, ttl: float, maxsize: int = 10_000, timer: Callable[[], float] = time.monotonic) -> None:
        if not (math.isfinite(ttl) and ttl >= 0):
            raise ConfigurationError(f"revocation_bound is {ttl} s; it must be 0 or more")
        self._ttl = ttl
        self._maxsize = maxsize
        self._timer = timer
        self._revocations = 0
        self._lock = Lock()
        self._entries: dict[bytes, _Entry] = {}

    def get(self, digest: bytes, now: float) -> Caller | None:
        """Return the caller whose token has that digest, if it is here and not expired at `now` (epoch seconds)."""
        entry = self._entries.get(digest)
        if entry is None or self._timer() >= entry.stale or now >= entry.expires:
            return None
        return entry.caller

    def begin(self) -> Ticket:
        """Return what `fill` needs; to be called before the store is asked."""
        return Ticket(self._revocations, self._timer())

    def fill(self, digest: bytes, caller: Caller, expires: float, ticket: Ticket) -> None:
        """Keep a caller that the store confirmed, unless something was revoked since the ticket was drawn.

        `expires` is when the token itself ends, in seconds since the epoch.
        """
        with self._lock:
            if ticket.revocations == self._revocations and self._ttl:
                self._entries.pop(digest, None)
                while len(self._entries) >= self._maxsize:
                    del self._entries[next(iter(self._entries))]
                self._entries[digest] = _Entry(caller, expires, ticket.began + self._ttl)

    def drop(self, token_id: str) -> None:
        """Forget a token, in every generation. To be called after the store has revoked it."""
        with self._lock:
            self._revocations += 1
            for digest in [digest for digest, entry in self._entries.items() if entry.caller.token_id == token_id]:
                del self._entries[digest]
