"""Versions: which of an upstream's credentials a request begins with, and which is tried when that is refused.

Rules:
1. The live one is the candidate once it is promoted, otherwise the current one; while that is failing, the one
   before it. What is known of them is of a version and not of an upstream: a new secret begins with a
   clean slate, and one tenant's bad secret is nobody else's.
2. A candidate that is being proven is put on a share of the requests that may be sent twice, and only when it
   is there within a moment. So a client never sees a refusal, a fault or a delay of it. What proves it is an
   answer below 400: many an API says 400 or 404 of a key that it does not know, or of anybody's request.
3. A refused credential is made anew from what its provider says now, at most once a second. Is it another one
   then, that is tried; otherwise the version before it; otherwise, after a 401, the candidate. A 403 may be about
   what was asked for, which a client chooses: it makes no candidate live, and takes nothing live back for good.
4. A request is sent twice by the route, and never three times.
"""

import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial

from attrs import frozen

from apitokenproxy._colour import Colour
from apitokenproxy.errors import ProxyError
from apitokenproxy.messages import Caller, Credential
from apitokenproxy.rotation.records import BoundRecords, Change, Known
from apitokenproxy.rotation.terms import Record, Rotation, accepted, failing, promoted, refused, working

REFUSED = frozenset({401, 403})
"""What an upstream answers when it may be the credential that it does not accept."""
MAYBE_REFUSED = REFUSED | {400, 404}
"""What it may answer to a candidate that it does not accept: such a request is sent again with the live one."""
MOST_OK = 399
"""The last status that says that a credential was accepted."""
_UNAUTHORIZED = 401
_MOST_UNNOTED = 1000
_MOST_ABSENT = 10_000  # callers for whom there was no candidate
_PATIENCE = 1.0
"""Seconds for which a request waits for a candidate."""
_PAUSE = 10.0
"""Seconds for which none waits after one that could not be had, or looks for it for the same caller."""
_EVERY = 1.0
"""Seconds between two probes, and between two notes that a candidate was accepted."""
_PROBE = 60.0
"""Seconds after which there is another probe although the one before it has not ended."""

Obtain = Callable[[Caller], Awaitable[Credential]]
Send = Callable[[Caller, Credential], Awaitable[int]]
"""Sends the probe with a credential and returns the status of the answer. Raises ProxyError."""


@frozen
class Source:
    """How one credential is made for a caller, and how one that was refused is made anew."""

    obtain: Obtain
    expire: Callable[[Caller, Credential], None]

    async def had(self, caller: Caller) -> Credential | None:
        """Return the credential, or None if it cannot be had."""
        try:
            return await self.obtain(caller)
        except ProxyError:
            return None


class Versions:
    """The credentials of one upstream in one colour."""

    def __init__(
        self,
        upstream: str,
        records: BoundRecords,
        colour: Colour,
        *,
        current: Source,
        candidate: Source | None = None,
        previous: Source | None = None,
        rotation: Rotation,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self.upstream = upstream
        self._records = records
        self._colour = colour
        self.current = current
        self.candidate = candidate
        self.previous = previous
        self.rotation = rotation
        self._timer = timer
        self._trials_from = self._probes_from = self._notes_from = timer()
        self._unnoted: Counter[str] = Counter()
        self._absent: dict[tuple[str, str], float] = {}

    @property
    def obtain(self) -> Obtain:
        """The function that makes the credential which a caller's request begins with."""
        return self._live if self.candidate or self.previous else self.current.obtain

    async def _live(self, caller: Caller) -> Credential:
        known = await self._records.known()
        live, _, stand_in = await self._roles(caller, known)
        if stand_in is not None and self._is_down(known, live):
            instead = await stand_in.had(caller)
            if instead is not None and not self._is_down(known, instead):
                return instead
        return live

    async def _roles(self, caller: Caller, known: Known) -> tuple[Credential, Source, Source | None]:
        """Return the live credential, what makes it, and what makes the one that stands in for it."""
        if self.candidate is not None and self._records.is_promoted(known, self.upstream):
            candidate = await self._now_and_then(self.candidate, caller)
            if candidate is not None and (since := self.record(known, candidate).promoted):
                return candidate, self.candidate, self.current if self._stays(since) else None
        current = await self.current.obtain(caller)
        stays = self.previous is not None and self._stays(self.record(known, current).promoted)
        return current, self.current, self.previous if stays else None

    async def _now_and_then(self, candidate: Source, caller: Caller) -> Credential | None:
        """Return the candidate for a caller, if it can be had: it may be another tenant's that was promoted."""
        whose = caller.tenant, caller.subject
        if self._timer() < self._absent.get(whose, 0.0):
            return None
        found = await candidate.had(caller)
        if found is None:
            if len(self._absent) >= _MOST_ABSENT:
                self._absent.clear()
            self._absent[whose] = self._timer() + _PAUSE
        return found

    def now(self) -> float:
        """Return the seconds since the epoch."""
        return self._records.now()

    async def known(self) -> Known:
        """Return what is known of all versions."""
        return await self._records.known()

    async def change(self, credential: Credential, change: Change) -> None:
        """Change what is known of a credential's version, for all processes. Raises StoreUnavailable."""
        await self._records.change(self.upstream, credential.version, change)

    def record(self, known: Known, credential: Credential) -> Record:
        """Return what is known of a credential's version."""
        return self._records.find(known, self.upstream, credential.version)

    def _is_down(self, known: Known, credential: Credential) -> bool:
        return self.record(known, credential).standing(self._records.now()) in {"failing", "rolled back"}

    def _stays(self, since: float) -> bool:
        """Tell whether the version before one that was promoted then may stand in for it."""
        lasts = self.rotation.previous_for
        return lasts is None or not since or self._records.now() < since + lasts.total_seconds()

    # --- when a credential was refused ------------------------------------------------------

    async def instead(self, caller: Caller, refused_one: Credential, status: int) -> Credential | None:
        """Return what may be tried once in the place of a credential that was refused with `status`; None: nothing."""
        several = self.candidate or self.previous
        known = await self._records.known() if several else Known()
        live, source, stand_in = await self._roles(caller, known)
        if live.name == refused_one.name:
            source.expire(caller, refused_one)
            live = await source.obtain(caller)
        if live.name != refused_one.name:
            return live
        for other in filter(None, (stand_in, self.candidate if status == _UNAUTHORIZED else None)):
            credential = await other.had(caller)
            if credential is None or credential.version == refused_one.version:
                continue
            if not self.record(known, credential).rolled_back:
                return credential
        return None

    async def worked(self, caller: Caller, refused_one: Credential, instead: Credential, status: int) -> None:
        """Take note that the upstream accepted another credential in the place of one refused with `status`."""
        if refused_one.version == instead.version or not (self.candidate or self.previous):
            return
        known = await self._records.known()
        candidate = None if self.candidate is None else await self.candidate.had(caller)
        current = await self.current.had(caller)
        record = self.record(known, refused_one)
        if candidate is not None and candidate.version == refused_one.version:
            for_good = status == _UNAUTHORIZED or not record.promoted
            change = partial(refused, rotation=self.rotation) if for_good else failing
            self._records.learn(record, change, instead.version)
        elif current is not None and current.version == refused_one.version:
            self._records.learn(record, failing, instead.version)
            if candidate is not None and candidate.version == instead.version:
                self._records.learn(self.record(known, instead), promoted)
        elif current is not None and current.version == instead.version:
            self._records.learn(self.record(known, instead), working)

    # --- a candidate on trial ---------------------------------------------------------------

    async def trial(self, caller: Caller, live: Credential) -> Credential | None:
        """Return the candidate if it is the turn of a request that may be sent twice to prove it."""
        if self.candidate is None or random.random() >= self.rotation.share:  # noqa: S311 - not a secret
            return None
        if live.again is not None:  # to be accepted it may need two requests, and the candidate was one already
            return None
        if self._timer() < self._trials_from:
            return None
        candidate = await self._soon(self.candidate, caller)
        if candidate is None:
            self._trials_from = self._timer() + _PAUSE
            return None
        known = await self._records.known()
        return candidate if self._is_on_trial(known, candidate, live) else None

    def _is_on_trial(self, known: Known, candidate: Credential, live: Credential) -> bool:
        if candidate.again is not None:  # to be accepted it may need two requests, and to be replaced a third
            return False
        proving = self.record(known, candidate).standing(self._records.now()) == "proving"
        return proving and candidate.version != live.version

    async def _soon(self, source: Source, caller: Caller) -> Credential | None:
        found: Future[Credential | None] = Future()

        async def work() -> None:
            found.set_result(await source.had(caller))

        def done(_: BaseException | None) -> None:
            if not found.done():
                found.set_result(None)

        try:
            self._colour.detach(work, done)
            return await self._colour.wait(found, _PATIENCE)
        except (TimeoutError, RuntimeError):  # that: no thread to be had
            return None

    async def accepted(self, candidate: Credential, status: int) -> None:
        """Take note that the upstream answered a request with the candidate, if that says that it accepted it."""
        if status > MOST_OK:
            return
        if len(self._unnoted) >= _MOST_UNNOTED:
            self._unnoted.clear()
        self._unnoted[candidate.version] += 1
        if self._unnoted[candidate.version] >= self.rotation.successes or self._timer() >= self._notes_from:
            self._notes_from = self._timer() + _EVERY
            if count := self._unnoted.pop(candidate.version, 0):  # none: another thread was faster
                await self._note_accepted(candidate, count)

    async def _note_accepted(self, candidate: Credential, count: int) -> None:
        record = self.record(await self._records.known(), candidate)
        if not self._records.note(record, partial(accepted, count=count, rotation=self.rotation)):
            self._unnoted[candidate.version] += count

    def begin_probe(self, caller: Caller, send: Send) -> None:
        """Have the candidate proven by a probe in the background, unless that was done a moment ago."""
        if self.candidate is None or not self.rotation.probe or self._timer() < self._probes_from:
            return
        self._probes_from = self._timer() + _PROBE

        def ended(_: BaseException | None) -> None:
            self._probes_from = self._timer() + _EVERY

        with suppress(RuntimeError):  # no thread to be had
            self._colour.detach(partial(self._probe, caller, send), ended)

    async def _probe(self, caller: Caller, send: Send) -> None:
        candidate = None if self.candidate is None else await self.candidate.had(caller)
        if candidate is None:
            return
        known = await self._records.known()
        current = await self.current.obtain(caller)
        enough = self.record(known, candidate).accepted >= self.rotation.successes
        if self._is_on_trial(known, candidate, current) and (self.rotation.automatic or not enough):
            status = await send(caller, candidate)
            if status <= MOST_OK:
                await self._note_accepted(candidate, 1)
            elif status in REFUSED and await send(caller, current) <= MOST_OK:
                await self.worked(caller, candidate, current, status)
