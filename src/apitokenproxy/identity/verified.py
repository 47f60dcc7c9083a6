"""Verified: the tokens that were found good a moment ago: client tokens, those derived from them, JWTs.

Rules:
1. The key is a token's digest, never the token; for the parent of derived tokens, its id and generation.
   Only what was verified comes in, so no stranger can fill it.
2. It is fresh for `bound` seconds after the store was asked for the number of its changes, counted from
   the question and not from the answer. When the number is another, nothing is used any more of what
   is here; it is only known to have been good.
3. A fill that began before a change was heard of is not used: it may have read what is no longer true.
4. Whoever holds a derived token can make any number of others of it; those are kept apart, and fewer, so that
   they push out nobody else's.
5. Reading takes no lock: every request does it, and a dict's `get` is atomic.
"""

import math
import time
from collections.abc import Callable
from threading import Lock

from attrs import frozen

from apitokenproxy.errors import ConfigurationError
from apitokenproxy.messages import Caller

MOST_DERIVED = 2000
"""How many derived tokens are kept."""


@frozen
class Entry:
    """A caller whom the store confirmed, until when (seconds since the epoch) that holds, and since which change."""

    caller: Caller
    expires: float
    era: int


class Verified:
    """A bounded, thread-safe cache of verified tokens; the one verified longest ago makes room.

    `bound` is the revocation bound: how long, in seconds, a token that another process revoked may
    still work in this one; with 0 nothing is ever fresh. Raises ConfigurationError when it is negative.
    """

    def __init__(self, *, bound: float, maxsize: int = 10_000, timer: Callable[[], float] = time.monotonic) -> None:
        if not (math.isfinite(bound) and bound >= 0):
            raise ConfigurationError(f"revocation_bound is {bound} s; it must be 0 or more")
        self.bound = bound
        self._maxsize = maxsize
        self.timer = timer
        self._lock = Lock()
        self._entries: dict[bytes, Entry] = {}
        self._derived: dict[bytes, Entry] = {}
        self._era = 0
        self._heard: int | None = None
        self._fresh_until = -math.inf

    def get(self, digest: bytes, now: float) -> Caller | None:
        """Return the caller whose token has that digest, if it is here, fresh and not over (`now`: epoch seconds)."""
        entry = self.entry(digest, now)
        return None if entry is None else entry.caller

    def entry(self, digest: bytes, now: float) -> Entry | None:
        """Return what `get` does, and for how long it holds."""
        entry = self._entries.get(digest) or self._derived.get(digest)
        if entry is None or entry.era != self._era or self.timer() >= self._fresh_until or now >= entry.expires:
            return None
        return entry

    def was_good(self, digest: bytes) -> bool:
        """Tell whether the token with that digest was good when it was last looked up."""
        return digest in self._entries or digest in self._derived

    def forget(self, digest: bytes) -> None:
        """Forget that a token was ever good: it is not any more."""
        with self._lock:
            self._entries.pop(digest, None)
            self._derived.pop(digest, None)

    def is_fresh(self) -> bool:
        """Tell whether the store was asked within the bound."""
        return self.timer() < self._fresh_until

    def begin(self) -> int:
        """Return what `fill` needs; to be called before the store is asked for a token."""
        return self._era

    def fill(self, digest: bytes, caller: Caller, expires: float, era: int, *, derived: bool = False) -> Entry:
        """Keep and return a caller that the store confirmed; not to be used again if a change was heard since `begin`.

        `expires` is when the token or its generation ends, in seconds since the epoch.
        """
        entry = Entry(caller, expires, era)
        entries, maxsize = (self._derived, MOST_DERIVED) if derived else (self._entries, self._maxsize)
        with self._lock:
            kept = entries.pop(digest, None)
            if kept is not None and kept.era > era:
                entries[digest] = kept
                return entry
            while len(entries) >= maxsize:
                del entries[next(iter(entries))]
            entries[digest] = entry
        return entry

    def hear(self, changes: int, asked: float) -> None:
        """Take note of how many changes the store has seen, and when (timer seconds) it was asked."""
        with self._lock:
            if changes != self._heard:
                self._heard = changes
                self._era += 1
            self._fresh_until = max(self._fresh_until, asked + self.bound)

    def last(self, until: float) -> None:
        """Count as fresh until then (timer seconds) without having asked: the store cannot be."""
        with self._lock:
            self._fresh_until = max(self._fresh_until, until)

    def drop(self) -> None:
        """Use nothing any more of what is here. To be called after the store has changed a token."""
        with self._lock:
            self._era += 1
