"""What all processes know of the versions of secrets: read from the store once a second, changed in the background.

Rules:
1. A request waits for no change, and for what is known for `_PATIENCE` seconds at most. While the store does not
   answer, what was known last goes on, and what this process learns holds in this process until it answers again.
2. A change is a compare and set, and whoever's makes a version another thing tells the log: so it is told once.
3. A record that is damaged is nobody else's harm: it is left out, and begun anew by the next change.
4. Only so many changes are under way to the store at a time. What is learned beyond that holds in this process
   until the store answers; counts wait for the next note.
"""

import hashlib
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from attrs import Factory, field, frozen

from apitokenproxy._colour import Colour
from apitokenproxy.errors import StoreUnavailable
from apitokenproxy.interfaces import State, StateStore
from apitokenproxy.loading import Loaded, Loads
from apitokenproxy.rotation.terms import Record, news

FRESH = 1.0
"""Seconds after which what is known is read again."""
_LEARNED = 5.0
"""Seconds for which what this process learned goes before what it reads, which may be older."""
_PATIENCE = 2.0
_MOST = 1000
_MOST_NOTES = 4  # under way at one time: each may have a thread
_MOST_UNDER_WAY = 16  # with what was learned, which goes before mere notes
_ATTEMPTS = 20
_PREFIX = "version/"

_NOTHING = None, 0.0

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
        self.loads: Loads[Known] = Loads(
            "the token store", StoreUnavailable, outage=float("inf"), timeout=_PATIENCE, max_keys=1
        )
        self.learned: dict[tuple[str, str], tuple[Record, float]] = {}
        self.alone: dict[tuple[str, str], Record] = {}
        self._notes: tuple[int, list[Callable[[], bool]]] = 0, []
        self._read: dict[str, tuple[int, Record | None]] = {}
        self._told_damaged = False

    def bind(self, colour: Colour) -> "BoundRecords":
        """Return the records as the pipeline of a colour sees them."""
        return BoundRecords(self, colour)

    def read(self) -> Loaded[Known]:
        """Return what the store knows. Raises StoreUnavailable."""
        read, before = {}, self._read
        for state in self._states.states(_PREFIX):
            number, record = before.get(state.name, (0, None))
            read[state.name] = state.number, record if number == state.number else self._kept(state)
        self._read = read
        self.alone.clear()
        records = [record for _, record in read.values() if record is not None]
        return Loaded(Known({(record.upstream, record.version): record for record in records}), FRESH)

    def _kept(self, state: State | None) -> Record | None:
        try:
            return None if state is None else Record.from_bytes(state.value)
        except StoreUnavailable as error:
            if not self._told_damaged:
                self._told_damaged = True
                _log.warning("%s; it begins anew", error.detail)
            return None

    def notes(self) -> list[Callable[[], bool]]:
        """Return what tells of each change that is under way from this process whether it has ended."""
        pid, notes = self._notes
        self._notes = os.getpid(), [ended for ended in notes if not ended()] if pid == os.getpid() else []
        return self._notes[1]

    def change(self, upstream: str, version: str, change: Change, instead: str | None = None) -> Record:
        """Change a record in the store and return what it is now. Raises StoreUnavailable.

        `instead` is the version that was accepted in its place, for the log; None: nobody need be told.
        """
        name = _PREFIX + hashlib.sha256(f"{upstream}/{version}".encode()).hexdigest()
        for _ in range(_ATTEMPTS):
            state, now = self._states.state(name), self.clock()
            before = self._kept(state) or Record(upstream, version)
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
        found, ends = learned.get(key, _NOTHING) if learned else _NOTHING
        if found is not None and 0.0 < ends - self._records.clock() < 2 * _LEARNED:  # more: the clock was set back
            return found
        return self._records.alone.get(key) or known.records.get(key) or Record(upstream, version)

    def is_promoted(self, known: Known, upstream: str) -> bool:
        """Tell whether a version of an upstream was promoted."""
        if upstream in known.promoted:
            return True
        learned = [one for one, _ in list(self._records.learned.values())] + list(self._records.alone.values())
        return any(one.promoted for one in learned if one.upstream == upstream)

    async def change(self, upstream: str, version: str, change: Change) -> None:
        """Change a record in the store, and in this process at once. Raises StoreUnavailable."""
        after = await self._change(upstream, version, change)
        self._records.learned[upstream, version] = after, self._records.clock() + _LEARNED

    def learn(self, before: Record, change: Change, instead: str = "") -> None:
        """Change a record: in this process at once, and in the store in the background, if it is there."""
        learned, now = self._records.learned, self._records.clock()
        while len(learned) >= _MOST:
            learned.pop(next(iter(learned)), None)
        learned[before.upstream, before.version] = change(before, now), now + _LEARNED
        if not self._begin(before, change, instead, _MOST_UNDER_WAY):
            self._note_alone(before, change, instead)

    def note(self, before: Record, change: Change) -> bool:
        """Change a record in the store, in the background; False when too many changes are under way already."""
        return self._begin(before, change, "", _MOST_NOTES)

    def _begin(self, before: Record, change: Change, instead: str, most: int) -> bool:

        async def work() -> None:
            try:
                await self._change(before.upstream, before.version, change, instead)
            except StoreUnavailable:
                self._note_alone(before, change, instead)

        notes = self._records.notes()
        if len(notes) < most:
            with suppress(RuntimeError):  # no thread to be had
                notes.append(self._colour.detach(work, lambda _: None))
                return True
        return False

    def _note_alone(self, before: Record, change: Change, instead: str) -> None:
        alone, now = self._records.alone, self._records.clock()
        after = change(before, now)
        while len(alone) >= _MOST:
            alone.pop(next(iter(alone)), None)
        alone[before.upstream, before.version] = after
        _tell(before, after, now, instead)


def _tell(before: Record, after: Record, now: float, instead: str | None) -> None:
    what = news(before, after, now)
    if what is not None and instead is not None:
        _log.warning(_TOLD[what], after.upstream, after.version, instead)
