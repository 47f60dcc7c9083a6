"""Tokens: short-lived credentials that are made of secrets somewhere else, each kept by what it was made of.

Rules:
1. A token is fetched once however many ask, renewed in the background before it ends, and never used after.
2. Callers whose secrets differ never share one; a secret that changed is used as soon as it is read.
3. One that cannot be had refuses the request. Why is told again for `PAUSE` seconds without asking again (or for
   a minute at most, if the endpoint says so), so that it is not flooded with what it refuses.
4. A token that the API refuses is fetched anew, and nobody else's: whoever can make the API answer 403 must not
   have all tokens fetched.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from hashlib import sha256

from apitokenproxy._colour import Colour
from apitokenproxy.asking import SECONDS
from apitokenproxy.errors import SecretUnavailable
from apitokenproxy.loading import Load, Loaded, Loads
from apitokenproxy.messages import Caller, Credential, Secret

PAUSE = 1.0
_LONGEST_PAUSE = 60.0  # where the endpoint says itself when it wants to be asked again
_MOST_FAILED = 1000
FRESH = 30.0
"""Seconds for which a token is not replaced although the API refuses it: not every 403 is its fault."""

Read = Callable[[Caller], Awaitable[Secret]]


class Tokens(Loads[Credential]):
    """The tokens of one credential. `what` is whom errors name when nobody answers within `timeout` seconds.

    `fresh` is for how many seconds a token is not replaced although the API refuses it.
    """

    def __init__(
        self,
        what: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        timeout: float = 2 * SECONDS,
        fresh: float = FRESH,
    ) -> None:
        super().__init__(what, SecretUnavailable, clock=clock, timeout=timeout)
        self._fresh = fresh
        self._failed: dict[str, tuple[float, str, bool]] = {}

    def bind(
        self, reads: Sequence[Read], fetch: Callable[..., Loaded[Credential]], colour: Colour
    ) -> Callable[[Caller], Awaitable[Credential]]:
        """Return the function that makes the credential for a caller.

        `fetch` takes what each of `reads` returned; it may block, and raises SecretUnavailable.
        """
        lifted: Callable[..., Awaitable[Loaded[Credential]]] = colour.lift_apart(fetch, Loaded)

        async def obtain(caller: Caller) -> Credential:
            secrets = [await read(caller) for read in reads]
            key = made_of(secrets)
            load = partial(self._pausing, key, partial(lifted, *secrets))
            return self.kept(key) or await self.get(key, load, colour, caller.tenant)

        return obtain

    def refused(self, credential: Credential) -> None:
        """Have the token in a credential fetched anew, unless it is fresh: the API refused it."""
        names, now = credential.token.split(","), self._clock()
        for kept in list(self._kept.values()):
            if kept.value.token in names and now - kept.since >= self._fresh:
                kept.renew = kept.until = now

    async def _pausing(self, key: str, load: Load[Credential]) -> Loaded[Credential]:
        """Load, unless that failed a moment ago."""
        until, detail, outage = self._failed.get(key, (0.0, "", False))
        if (left := until - self._clock()) > 0:
            raise SecretUnavailable(detail, retry_after=left, outage=outage)
        try:
            loaded = await load()
        except SecretUnavailable as error:
            if len(self._failed) >= _MOST_FAILED:
                self._failed.clear()
            pause = min(max(PAUSE, error.retry_after or PAUSE), _LONGEST_PAUSE)
            self._failed[key] = self._clock() + pause, error.detail, error.outage
            raise
        self._failed.pop(key, None)
        return loaded


def made_of(secrets: Sequence[Secret]) -> str:
    """Return what stands for the material, which is never kept as a key itself."""
    if len(secrets) == 1:
        return sha256(secrets[0].reveal()).hexdigest()
    return sha256(b"".join(sha256(secret.reveal()).digest() for secret in secrets)).hexdigest()
