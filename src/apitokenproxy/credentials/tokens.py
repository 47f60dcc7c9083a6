"""Tokens: short-lived credentials that are made of secrets somewhere else, each kept by what it was made of.

Rules:
1. A token is fetched once however many ask, renewed in the background before it ends, and never used after.
2. Callers whose secrets differ never share one; a secret that changed is used as soon as it is read.
3. One that cannot be had refuses the request. Why is told again for `PAUSE` seconds without asking again, so
   that an endpoint is not flooded with what it refuses.
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
_MOST_FAILED = 1000

Read = Callable[[Caller], Awaitable[Secret]]


class Tokens:
    """The tokens of one credential. `what` is whom errors name when nobody answers in time."""

    def __init__(self, what: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._loads: Loads[Credential] = Loads(what, SecretUnavailable, clock=clock, timeout=2 * SECONDS)
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
            key = _made_of(secrets)
            kept = self._loads.kept(key)
            return kept or await self._loads.get(key, partial(self._pausing, key, partial(lifted, *secrets)), colour)

        return obtain

    def expire(self) -> None:
        """Have tokens fetched anew, but for those that were fetched a moment ago: the API refused one."""
        self._loads.expire()

    async def _pausing(self, key: str, load: Load[Credential]) -> Loaded[Credential]:
        """Load, unless that failed a moment ago."""
        until, detail, outage = self._failed.get(key, (0.0, "", False))
        if detail and self._clock() < until:
            raise SecretUnavailable(detail, outage=outage)
        try:
            loaded = await load()
        except SecretUnavailable as error:
            if len(self._failed) >= _MOST_FAILED:
                self._failed.clear()
            self._failed[key] = self._clock() + PAUSE, error.detail, error.outage
            raise
        self._failed.pop(key, None)
        return loaded


def _made_of(secrets: Sequence[Secret]) -> str:
    """Return what stands for the material, which is never kept as a key itself."""
    if len(secrets) == 1:
        return sha256(secrets[0].reveal()).hexdigest()
    return sha256(b"".join(sha256(secret.reveal()).digest() for secret in secrets)).hexdigest()
