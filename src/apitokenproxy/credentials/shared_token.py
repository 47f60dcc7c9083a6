"""An access token that processes share: renewed by one of them at a time, and never twice with one refresh token.

There is no HTTP in here: `Ask` does that.

Rules:
1. Who wants to ask writes a lease into the state, by compare and set; who has none waits, or uses the access token
   that is still good. A lease is longer than a request can take, so a process that dies holds up others until then.
2. Nothing is asked for that cannot be stored: the store answered a moment ago.
3. What came is stored before it is used. What cannot be stored is kept and stored later, as long as this process
   lives; nothing is asked for until then. A process that ends in order first waits for what it asked for.
4. A failed attempt is told to all processes, and none of them asks again before its pause is over.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from secrets import token_hex

from attrs import evolve, field, frozen

from apitokenproxy.credentials.access_token import token_name
from apitokenproxy.credentials.held_token import Held, Place
from apitokenproxy.credentials.tokens import FRESH
from apitokenproxy.errors import SecretUnavailable, StoreUnavailable
from apitokenproxy.loading import Loaded
from apitokenproxy.messages import HiddenText

REQUEST = 20.0
"""Seconds that a request to a token endpoint takes at most. What it brings after `PATIENCE` still serves the next."""
LEASE = 30.0
"""Seconds that nobody else asks."""
PATIENCE = 10.0
"""Seconds that somebody waits for what another one asks for."""

_POLL = 0.1  # seconds between two looks at the state, while another one asks
_AGAIN = 1.0  # seconds after which the state is looked at again, while a token is used that should be another one soon
_REFUSED = 5.0  # seconds that nobody asks after a refusal
_LONGEST = 60.0  # seconds that nobody asks after many outages, unless the endpoint wants more
_MOST_DOUBLED = 16  # failures: after some more no number is large enough
_MOST_WITHDRAWN = 1000
_STORE = 0.5  # seconds between two attempts to store what could not be stored

_log = logging.getLogger("apitokenproxy")


class GrantRefused(Exception):
    """The refresh token is good no more, and the text says how that is known. For inside: there may be another one."""


@frozen
class Renewed:
    """What a token endpoint gave: an access token and for how many seconds it is used, a new refresh token or none.

    `problem` is why there is no access token.
    """

    access: str = field(repr=False, converter=HiddenText)
    usable: float
    refresh: str = field(default="", repr=False, converter=HiddenText)
    problem: str = ""


Ask = Callable[[str], Renewed]
"""Uses a refresh token. Raises SecretUnavailable, or GrantRefused. Ends within `REQUEST` seconds."""


class SharedTokens:
    """The access tokens of one credential. `clock` is in seconds since 1970."""

    def __init__(self, clock: Callable[[], float] = time.time, sleep: Callable[[float], None] = time.sleep) -> None:
        self._clock = clock
        self._sleep = sleep
        self._withdrawn: set[str] = set()
        self._unstored: dict[str, tuple[str, Held]] = {}
        self._storing: dict[str, threading.Thread] = {}

    def withdraw(self, names: Iterable[str]) -> None:
        """Have the tokens of these names renewed as soon as they are not fresh: the API refused one."""
        if len(self._withdrawn) >= _MOST_WITHDRAWN:
            self._withdrawn.clear()
        self._withdrawn.update(names)

    def get(self, place: Place, ask: Ask, known: str) -> Loaded[str]:
        """Return the access token and for how long it is used. `known` names the one that this process had last.

        Waits. Raises SecretUnavailable, and GrantRefused when the refresh token is good no more.
        """
        try:
            return self._get(place, ask, known)
        except StoreUnavailable as error:
            raise SecretUnavailable(f"{place.what}: its tokens cannot be kept: {error.detail}", outage=True) from None

    def _get(self, place: Place, ask: Ask, known: str) -> Loaded[str]:
        patient = self._clock() + PATIENCE
        while True:
            self._store(place)
            held, number = place.read()
            now = self._clock()
            good = now < held.until and held.scope == place.scope
            if good and not self._is_due(held, now, known):
                return _loaded(held, now)
            taken = now < max(held.lease, held.pause)
            if good and (taken or now >= patient):
                return _loaded(held, now, _AGAIN)
            if now < held.pause:
                raise _failure(held, now)
            if now >= patient:
                raise SecretUnavailable(f"{place.what}: no access token came in time", outage=True)
            if taken:
                self._sleep(_POLL)
            else:
                self._renew(place, ask, held, number)

    def _is_due(self, held: Held, now: float, known: str) -> bool:
        """Tell whether a good token is to be renewed. Who sees it first uses it, and renews it the next time."""
        if token_name(held.access) != known:
            return False
        return now >= held.renew or (known in self._withdrawn and now >= held.since + FRESH)

    def _renew(self, place: Place, ask: Ask, held: Held, number: int) -> None:
        """Ask for a new token, if nobody else does."""
        holder, leased = token_hex(8), self._clock()
        if not place.write(held.leased(holder, leased + LEASE), number):
            return
        held, number = place.read()
        if held.holder != holder or self._clock() + REQUEST > leased + LEASE:
            return
        _through(partial(self._use, place, ask, held, number))

    def _use(self, place: Place, ask: Ask, held: Held, number: int) -> None:
        """Use the refresh token, and store what comes of it."""
        asked = self._clock()
        try:
            new = ask(held.refresh)
        except (GrantRefused, SecretUnavailable) as error:
            self._failed(place, held, number, error)
            return
        after = Held(new.refresh or held.refresh, new.access, place.scope, asked, asked + new.usable)
        if new.problem:
            after = evolve(held, refresh=after.refresh)
            after = after.failed(self._clock() + _REFUSED, SecretUnavailable(new.problem), refused=False)
        self._unstored[place.name] = held.refresh, after
        self._store(place)

    def _failed(self, place: Place, held: Held, number: int, error: GrantRefused | SecretUnavailable) -> None:
        now, refused = self._clock(), isinstance(error, GrantRefused)
        told = error if isinstance(error, SecretUnavailable) else SecretUnavailable(str(error))
        doubled = min(2.0 ** min(held.failures, _MOST_DOUBLED), _LONGEST)
        pause = max(doubled, told.retry_after or 0.0) if told.outage else _REFUSED
        if place.write(held.failed(now + pause, told, refused=refused), number) and now < held.until:
            what = "%s; the access token that is there is used for %.0f more seconds"
            _log.warning(what, told.detail, held.until - now)

    # --- what is not stored yet -------------------------------------------------------------

    def _store(self, place: Place) -> None:
        """Store what came last, if it is not stored yet. Raises SecretUnavailable and StoreUnavailable."""
        try:
            while (unstored := self._unstored.get(place.name)) is not None:
                used, after = unstored
                held, number = place.read()
                # Another one may have gone on from the same token, where a server allows that.
                mine = not number or (held.refresh == used and held.since <= after.since)
                if not mine or place.write(after, number):
                    self._unstored.pop(place.name, None)
        except (SecretUnavailable, StoreUnavailable):
            self._store_later(place)
            raise

    def _store_later(self, place: Place) -> None:
        running = self._storing.get(place.name)
        if running is not None and running.is_alive():
            return
        thread = threading.Thread(target=self._keep_storing, args=(place,), name="apitokenproxy-store", daemon=True)
        self._storing[place.name] = thread
        with suppress(RuntimeError):  # no thread to be had: the next request tries
            thread.start()

    def _keep_storing(self, place: Place) -> None:
        while place.name in self._unstored:
            time.sleep(_STORE)
            with suppress(SecretUnavailable, StoreUnavailable):
                self._store(place)


def _through(act: Callable[[], None]) -> None:
    """Act in a thread that is no daemon, which a process waits for when it ends. Raises what that raises."""
    done: Future[None] = Future()

    def work() -> None:
        try:
            act()
        except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
            done.set_exception(error)
        else:
            done.set_result(None)

    try:
        threading.Thread(target=work, name="apitokenproxy-refresh", daemon=False).start()
    except RuntimeError:
        raise SecretUnavailable("no thread can be started to ask for an access token") from None
    done.result()


def _loaded(held: Held, now: float, most: float = float("inf")) -> Loaded[str]:
    left = held.until - now
    most = most if now < held.renew else _AGAIN
    return Loaded(held.access, min(left, most), left)


def _failure(held: Held, now: float) -> Exception:
    if held.refused:
        return GrantRefused(held.why)
    return SecretUnavailable(held.why, retry_after=max(held.pause - now, 1.0), outage=held.outage)
