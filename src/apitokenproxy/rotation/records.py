"""What all processes know of the versions of secrets: read from the store once a second, changed in the background.

Rules:
1. A request waits for no change, and only a process's first one for what is known. While the store does not
   answer, what was known last goes on, and what this process learns holds in this process.
2. A change is a compare and set, and whoever's makes a version another thing tells the log: so it is told once.
"""

import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from attrs import Factory, field, frozen

from apitokenproxy._colour import Colour
from apitokenproxy.errors import StoreUnavailable
from apitokenproxy.interfaces import StateStore
from apitokenproxy.loading import Loaded, Loads
from apitokenproxy.rotation.terms import Record, news

FRESH = 1.0
"""Seconds after which what is known is read again."""
_LEARNED = 5.0
"""Seconds for which what this process learned goes before what it reads, which may be older."""
_MOST = 1000
_ATTEMPTS = 20
_PREFIX = "version/"

_log = logging.getLogger("apitokenproxy")

Change = Callable[[Record, float], Record]
"""Makes of a record, at a time, what it becomes."""

_TOLD = {
    "rolled back": "upstream %s refuses the candidate of its credential (version %s), not %s: it was rolled back",
    "failing": "upstream %s refuses its credential (version %s) and accepts another one (%s), which is used",
    "promoted": "upstream %s: the candidate of its credential (version %s) was accepted and is the live one now%s",
}


@frozen
class Known:
    """What was read: records by upstream and version. `promoted` are the upstreams of those that were promoted."""

    records: Mapping[tuple[str, str], Record] = Factory(dict)
    promoted: frozenset[str] = field(init=False)

    @promoted.default
    def _promoted(self) -> frozenset[str]:
        return frozenset(record.upstream for record in self.records.values() if record.promoted)


class VersionRecords:
    """The records in a store of states. `clock` returns seconds since the epoch."""

    def __init__(self, states: StateStore, clock: Callable[[], float] = time.time) -> None:
        self._states = states
        self.clock = clock
        self.loads: Loads[Known] = Loads("the token store", StoreUnavailable, outage=float("inf"), max_keys=1)
        self.learned: dict[tuple[str, str], tuple[Record, float]] = {}

    def bind(self, colour: Colour) -> "BoundRecords":
        """Return the records as the pipeline of a colour sees them."""
        return BoundRecords(self, colour)

    def read(self) -> Loaded[Known]:
        """Return what the store knows. Raises StoreUnavailable."""
        records = [Record.from_bytes(state.value) for state in self._states.states(_PREFIX)]
        return Loaded(Known({(record.upstream, record.version): record for record in records}), FRESH)

    def change(self, upstream: str, version: str, change: Change, instead: str = "") -> Record:
        """Change a record in the store and return what it is now. Raises StoreUnavailable.

        `instead` is the version that was accepted in its place, for the log.
        """
        name = _PREFIX + hashlib.sha256(f"{upstream}/{version}".encode()).hexdigest()
        for _ in range(_ATTEMPTS):
            state, now = self._states.state(name), self.clock()
            before = Record(upstream, version) if state is None else Record.from_bytes(state.value)
            after = change(before, now)
            if after == before:
                return after
            if self._states.write_state(name, after.to_bytes(), 0 if state is None else state.number):
                _tell(before, after, now, instead)
                return after
        raise StoreUnavailable("the token store is too busy to take note of a secret's version")


class BoundRecords:
    """The records in one colour."""

    def __init__(self, records: VersionRecords, colour: Colour) -> None:
        self._records = records
        self._colour = colour
        self._read: Callable[[], Awaitable[Loaded[Known]]] = colour.lift_apart(records.read, Loaded)
        self._change: Callable[..., Awaitable[Record]] = colour.lift_apart(records.change, Record)

    def now(self) -> float:
        """Return the seconds since the epoch."""
        return self._records.clock()

    async def known(self) -> Known:
        """Return what is known; nothing when the store never answered."""
        loads = self._records.loads
        known = loads.kept("")
        if known is None:
            try:
                known = await loads.get("", self._read, self._colour)
            except StoreUnavailable:
                known = Known()
        return known

    def find(self, known: Known, upstream: str, version: str) -> Record:
        """Return the record of a version, a blank one when nothing is known of it."""
        key, learned = (upstream, version), self._records.learned
        if learned and key in learned and self._records.clock() < learned[key][1]:
            return learned[key][0]
        return known.records.get(key) or Record(upstream, version)

    def is_promoted(self, known: Known, upstream: str) -> bool:
        """Tell whether a version of an upstream was promoted."""
        learned = list(self._records.learned.items())
        return upstream in known.promoted or any(key[0] == upstream and one.promoted for key, (one, _) in learned)

    async def change(self, upstream: str, version: str, change: Change) -> None:
        """Change a record in the store, and in this process at once. Raises StoreUnavailable."""
        after = await self._change(upstream, version, change)
        self._records.learned[upstream, version] = after, self._records.clock() + _LEARNED

    def learn(self, before: Record, change: Change, instead: str = "") -> None:
        """Change a record: in this process at once, and as `note` does."""
        learned, now = self._records.learned, self._records.clock()
        while len(learned) >= _MOST:
            learned.pop(next(iter(learned)), None)
        learned[before.upstream, before.version] = change(before, now), now + _LEARNED
        self.note(before, change, instead)

    def note(self, before: Record, change: Change, instead: str = "") -> None:
        """Change a record in the store, in the background. Without the store this process tells the log."""

        async def work() -> None:
            try:
                await self._change(before.upstream, before.version, change, instead)
            except StoreUnavailable:
                now = self._records.clock()
                _tell(before, change(before, now), now, instead)

        self._colour.detach(work, lambda _: None)


def _tell(before: Record, after: Record, now: float, instead: str) -> None:
    what = news(before, after, now)
    by_hand = after.by and after.by != before.by
    if what is not None and not by_hand:
        _log.warning(_TOLD[what], after.upstream, after.version, instead)
