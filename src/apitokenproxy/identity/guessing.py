"""Guessing: counts wrong tokens by address, so that trying tokens is slow and costs the store little.

Rules:
1. An address may fail `BURST` times, and then once every `INTERVAL` seconds. What comes beyond that is
   refused without the store being asked. A failure is booked before the store is asked and given back
   unless the token was wrong; where only what is being asked now stands in the way, one waits for it.
2. A token that was good when it was last looked up is never refused here: whoever works goes on working.
3. One that nobody has seen gets its turn when it is sent again: a token that was refused, and comes again
   `INTERVAL` seconds later or more, is looked at, `AGAIN` such a second from an address. So it is kept
   out only by somebody who sends more than that many wrong tokens a second, each of them twice.
4. A token that was wrong is counted once in `REMEMBERED` seconds against its address. When it comes again it
   is counted against itself: a client with an old token does not keep out its neighbours.
5. An IPv6 address counts as its /64, which one subscriber has in full (RFC 6177). What is no address
   (a script's transport, a Unix socket) is nobody and is never limited.
6. What is remembered is bounded: what came in longest ago makes room.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from ipaddress import IPv6Address, ip_address
from types import TracebackType

from attrs import Factory, define

from apitokenproxy._colour import Colour
from apitokenproxy.errors import TooManyFailures, Unauthenticated

BURST = 20
AGAIN = 10
INTERVAL = 1.0
"""Seconds."""
REMEMBERED = 60.0
"""Seconds."""
MOST = 10_000
"""How many addresses, wrong tokens and refused tokens are remembered, each."""
_LONGEST = 5.0
"""Seconds for which one waits for what is being asked."""
_SUBSCRIBER = (1 << 128) - (1 << 64)

_Key = tuple[str, bytes]
"""An address, and a token's digest or nothing."""


class Guessing:
    """Failures by address, for one process. `timer` returns seconds."""

    def __init__(self, timer: Callable[[], float] = time.monotonic) -> None:
        self._timer = timer
        self._lock = threading.Lock()
        self._first = _Pace(BURST, INTERVAL)
        self._again = _Pace(AGAIN, 1 / AGAIN)
        self._repeated = _Pace(BURST, INTERVAL)
        self._wrong: OrderedDict[_Key, float] = OrderedDict()
        self._refused: OrderedDict[_Key, float] = OrderedDict()
        self._running: dict[str, list[Turn]] = {}

    def known(self, address: str, digest: bytes) -> "Turn":
        """Return the turn of a token that was good when it was last looked up."""
        return Turn(self, _subscriber(address), digest)

    async def turn(self, colour: Colour, address: str, digest: bytes) -> "Turn":
        """Return the turn of any other token, in which the store may be asked for it. Raises TooManyFailures."""
        turn = Turn(self, _subscriber(address), digest)
        while turn.subscriber:
            with self._lock:
                before = self._book(turn, self._timer())
                if before is not None and colour.blocks and before.thread == turn.thread:
                    before = None  # nobody else could end it
                if before is None:
                    self._running.setdefault(turn.subscriber, []).append(turn)
                    break
            try:
                await colour.wait(before.over, _LONGEST)
            except TimeoutError:
                raise _too_many() from None
        return turn

    def _book(self, turn: "Turn", now: float) -> "Turn | None":
        """Book a failure and return None, or return whom to wait for. Raises TooManyFailures."""
        address, key = (turn.subscriber, b""), turn.key
        wait = self._first.wait(address, now)
        if self._is_wrong(key, now):
            if wait or self._repeated.wait(key, now):
                raise _too_many()
            turn.book(self._repeated, key, now)
        elif not wait:
            turn.book(self._first, address, now)
        elif now - self._refused.get(key, now) >= INTERVAL and not self._again.wait(address, now):
            del self._refused[key]
            turn.book(self._again, address, now)
        else:
            running = [one for one in self._running.get(turn.subscriber, ()) if one.pace is self._first]
            if running:
                return running[0]
            _keep(self._refused, key, self._refused.pop(key, now))
            raise _too_many()
        return None

    def end(self, turn: "Turn", *, wrong: bool) -> None:
        """Give back what a turn has booked, or count it. Called by the turn."""
        if not turn.subscriber:
            return
        with self._lock:
            now = self._timer()
            running = self._running.get(turn.subscriber, [])
            if turn in running:
                running.remove(turn)
                if not running:
                    del self._running[turn.subscriber]
            if not wrong:
                self._wrong.pop(turn.key, None)
                turn.give_back()
            elif self._is_wrong(turn.key, now):
                if turn.pace is not self._repeated:
                    turn.give_back()
                    self._repeated.book(turn.key, now)
            else:
                if turn.pace is None:
                    self._first.book((turn.subscriber, b""), now)
                _keep(self._wrong, turn.key, now)
        turn.over.set_result(None)

    def _is_wrong(self, key: _Key, now: float) -> bool:
        return now - self._wrong.get(key, -REMEMBERED) < REMEMBERED


@define(eq=False)
class Turn:
    """The time in which the store is asked for a token. Leaving it by Unauthenticated is a failure."""

    guessing: Guessing
    subscriber: str
    digest: bytes
    pace: "_Pace | None" = None
    booked: _Key | None = None
    over: "Future[None]" = Factory(Future)
    thread: int = Factory(threading.get_ident)

    @property
    def key(self) -> _Key:
        """The address and the token."""
        return self.subscriber, self.digest

    def book(self, pace: "_Pace", key: _Key, now: float) -> None:
        """Book a failure until it is given back."""
        self.pace, self.booked = pace, key
        pace.book(key, now)

    def give_back(self) -> None:
        """Give it back."""
        if self.pace is not None and self.booked is not None:
            self.pace.give_back(self.booked)

    def __enter__(self) -> None:
        """Do nothing: it has begun already."""

    def __exit__(self, kind: type[BaseException] | None, error: object, place: TracebackType | None) -> None:
        """End it."""
        self.guessing.end(self, wrong=kind is not None and issubclass(kind, Unauthenticated))


class _Pace:
    """For each key the moment at which all its failures are forgotten (GCRA's theoretical arrival time)."""

    def __init__(self, burst: int, interval: float) -> None:
        self._burst = burst
        self._interval = interval
        self._forgotten: OrderedDict[_Key, float] = OrderedDict()

    def wait(self, key: _Key, now: float) -> float:
        """Return the seconds until there may be another failure; usually 0."""
        forgotten = self._forgotten.get(key)
        return 0.0 if forgotten is None else max(0.0, forgotten - now - (self._burst - 1) * self._interval)

    def book(self, key: _Key, now: float) -> None:
        """Count a failure."""
        forgotten = max(now, self._forgotten.pop(key, now)) + self._interval
        _keep(self._forgotten, key, min(forgotten, now + self._burst * self._interval))

    def give_back(self, key: _Key) -> None:
        """Count one failure less."""
        if key in self._forgotten:
            self._forgotten[key] -= self._interval

    def __len__(self) -> int:
        return len(self._forgotten)


def _keep(kept: OrderedDict[_Key, float], key: _Key, moment: float) -> None:
    kept.pop(key, None)
    while len(kept) >= MOST:
        kept.popitem(last=False)
    kept[key] = moment


def _too_many() -> TooManyFailures:
    return TooManyFailures("too many wrong client tokens came from this address", retry_after=INTERVAL)


def _subscriber(address: str) -> str:
    """Return what stands for everybody behind one line; nothing for what is no address."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(IPv6Address(int(found) & _SUBSCRIBER))
    return str(found)
