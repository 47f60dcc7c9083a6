"""Changes: hears, at most once a bound and for everybody who waits, whether the store was changed.

Rules:
1. One question at a time and process: tasks of any loop and threads wait for the same answer.
2. A store that does not answer is the proxy's fault (503), never the client's (401). It is asked again
   after a moment, and in between nobody waits for it.
3. For `outage` seconds after the last answer, tokens that were verified go on working, if that is wanted.
"""

import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Future

from apitokenproxy._colour import Colour
from apitokenproxy.errors import StoreUnavailable
from apitokenproxy.identity.verified import Verified

_PAUSE = 0.25
"""Seconds after which a store that did not answer is asked again."""
_LONGEST = 5.0
"""Seconds for which one waits for a question that another has asked."""


class _Question(Future[None]):
    def __init__(self) -> None:
        super().__init__()
        self.thread = threading.get_ident()


class Changes:
    """Keeps `verified` fresh. `outage` (seconds) is for how long it may stand in for the store."""

    def __init__(self, verified: Verified, *, outage: float) -> None:
        self._verified = verified
        self._outage = outage
        self._timer = verified.timer
        self._lock = threading.Lock()
        self._question: _Question | None = None
        self._answered = self._timer()
        self._failed: tuple[str, float] | None = None

    async def hear(self, ask: Callable[[], Awaitable[int]], colour: Colour) -> None:
        """See to it that what is verified is fresh. Raises StoreUnavailable.

        `ask` returns the number of changes, in that colour.
        """
        while self._verified.bound and not self._verified.is_fresh():
            mine = _Question()
            with self._lock:
                self.raise_if_paused()
                question = self._question = self._question or mine
            if question is mine or (colour.blocks and question.thread == mine.thread):
                await self._ask(ask, question if question is mine else None)
                return
            try:
                await colour.wait(question, _LONGEST)
            except CancelledError:
                continue  # whoever asked was cancelled: the next in line asks
            except TimeoutError:
                raise StoreUnavailable("the token store does not answer") from None
            return

    def raise_if_paused(self) -> None:
        """Raise StoreUnavailable when the store did not answer a moment ago: it is not asked again so soon."""
        if self._failed is not None and self._timer() < self._failed[1]:
            raise StoreUnavailable(self._failed[0])

    async def _ask(self, ask: Callable[[], Awaitable[int]], question: _Question | None) -> None:
        asked = self._timer()
        try:
            self._verified.hear(await ask(), asked)
        except StoreUnavailable as error:
            self._end(question, self._after_failure(error.detail))
        except BaseException:
            self._end(question, None, cancelled=True)
            raise
        else:
            self._answered, self._failed = asked, None
            late = self._timer() - asked >= self._verified.bound
            self._end(question, "the token store took longer than the revocation bound to answer" if late else None)

    def _after_failure(self, detail: str) -> str | None:
        """Let what is verified last a moment longer, or say why it must not."""
        now = self._timer()
        self._failed = detail, now + _PAUSE
        if now >= self._answered + self._outage:
            return detail
        self._verified.last(min(now + _PAUSE, self._answered + self._outage))
        return None

    def _end(self, question: _Question | None, failure: str | None, *, cancelled: bool = False) -> None:
        if question is not None:
            with self._lock:
                self._question = None
            if cancelled:
                question.cancel()
            elif failure is None:
                question.set_result(None)
            else:
                question.set_exception(StoreUnavailable(failure))
        if failure is not None:
            raise StoreUnavailable(failure) from None
