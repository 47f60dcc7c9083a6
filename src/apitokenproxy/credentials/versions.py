"""Versions: what is sent when the upstream refuses a credential: what its secret has become since, or the one before.

Rules:
1. A refused credential is made anew from what its provider says now, at most once a second. Is it another
   one then, it is tried.
2. If it is the same and there is a previous one, that one is tried. When it works, the refused one is failing:
   the log says so once, and for a minute all requests use the previous one at once.
3. The state is of a version and not of an upstream: a new secret begins with a clean slate, and one
   tenant's bad secret is nobody else's.
4. A request is sent a second time by the pipeline, and only if it has no body.
"""

import logging
import time
from collections.abc import Awaitable, Callable
from threading import Lock

from apitokenproxy.messages import Caller, Credential

Obtain = Callable[[Caller], Awaitable[Credential]]

FAILING = 60.0
"""Seconds for which a version that was refused is not tried again, while the previous one works."""
_MOST_FAILING = 1000

_log = logging.getLogger("apitokenproxy")


class Versions:
    """The credential of one upstream (`name`) in one colour. `expire` has what `current` is made of read anew."""

    def __init__(
        self,
        name: str,
        current: Obtain,
        expire: Callable[[Caller], None],
        previous: Obtain | None,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._current = current
        self._expire = expire
        self._previous = previous
        self._timer = timer
        self._lock = Lock()
        self._failing: dict[str, float] = {}

    @property
    def obtain(self) -> Obtain:
        """The function that makes the credential for a caller."""
        return self._current if self._previous is None else self._working

    async def _working(self, caller: Caller) -> Credential:
        credential = await self._current(caller)
        if self._failing and self._previous and self._failing.get(credential.name, 0.0) > self._timer():
            return await self._previous(caller)
        return credential

    async def instead(self, caller: Caller, refused: Credential) -> Credential | None:
        """Return what may be tried once in the place of a credential that the upstream refused; None: nothing."""
        self._expire(caller)
        for obtain in (self._current, self._previous):
            if obtain is not None and (other := await obtain(caller)).name != refused.name:
                return other
        return None

    async def worked(self, caller: Caller, refused: Credential, instead: Credential) -> None:
        """Take note that the upstream accepted another credential in the place of one that it refused."""
        if self._previous is None or (await self._current(caller)).name != refused.name:
            return
        with self._lock:
            known = refused.name in self._failing
            self._failing.pop(refused.name, None)
            while len(self._failing) >= _MOST_FAILING:
                del self._failing[next(iter(self._failing))]
            self._failing[refused.name] = self._timer() + FAILING
        if not known:
            told = "upstream %s refuses its credential (version %s) and accepts the previous one (%s), which is used"
            _log.warning(told, self._name, refused.name, instead.name)
