"""ClientTokens: who is calling, by the client token they present.

Rules:
1. What does not begin with the prefix is not a client token; what does is decided here, for good.
2. Garbage is refused by form and checksum before the store is asked.
3. Unknown, expired, revoked and wrong take the same path, the same work and get the same answer.
   Only the audit record knows which it was.
4. A store that does not answer is the proxy's fault (503), never the client's (401). No refusal is
   ever cached.
5. No exception is raised while a KeyError that holds a digest is being handled.
6. An address from which too many wrong tokens came is asked to wait; tokens that were good lately are not.
7. Nothing verified is used unless the store said within the revocation bound that nothing was changed.
"""

import math
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import partial
from hashlib import sha256
from hmac import compare_digest
from types import NoneType

from apitokenproxy._colour import Colour
from apitokenproxy.errors import TooManyFailures, Unauthenticated
from apitokenproxy.identity.attributes import read_only
from apitokenproxy.identity.changes import Changes
from apitokenproxy.identity.format import TOKEN_LENGTH, id_in
from apitokenproxy.identity.guessing import Guessing
from apitokenproxy.identity.usage import Usage
from apitokenproxy.identity.verified import Verified
from apitokenproxy.interfaces import Generation, StoredToken, TokenStore
from apitokenproxy.messages import TOKEN_PREFIX, Caller, Presented, Request

_GARBAGE = "what begins like a client token is not one (length, form or checksum)"
_NOBODY = (Generation(0, bytes(32), datetime(1970, 1, 1, tzinfo=UTC)),)


class ClientTokens:
    """An Authenticator for client tokens, over a store and a cache of verified tokens.

    `outage` (seconds) is for how long verified tokens go on working while the store does not answer.
    `clock` returns seconds since the epoch; expiry is judged by it.
    """

    def __init__(
        self, store: TokenStore, verified: Verified, clock: Callable[[], float] = time.time, *, outage: float = 0.0
    ) -> None:
        self._store = store
        self._verified = verified
        self._changes = Changes(verified, outage=outage)
        self._usage = Usage(store)
        self._guessing = Guessing(verified.timer)
        self._clock = clock

    def bind(self, colour: Colour) -> "BoundClientTokens":
        """Return the authenticator in one colour. Raises ConfigurationError when the store has another."""
        find: Callable[[str], Awaitable[StoredToken | None]] = colour.lift(self._store.find, (StoredToken, NoneType))
        ask: Callable[[], Awaitable[int]] = colour.lift(self._store.changes, int)
        hear = partial(self._changes.hear, ask, colour)
        return BoundClientTokens(find, hear, self._changes, self._usage, self._guessing, self._verified, self._clock)

    def close(self) -> None:
        """Write down how often tokens were used."""
        self._usage.close()


class BoundClientTokens:
    """ClientTokens in one colour."""

    __slots__ = ("_changes", "_clock", "_count", "_find", "_guessing", "_hear", "_usage", "_verified")

    def __init__(
        self,
        find: Callable[[str], Awaitable[StoredToken | None]],
        hear: Callable[[], Awaitable[None]],
        changes: Changes,
        usage: Usage,
        guessing: Guessing,
        verified: Verified,
        clock: Callable[[], float],
    ) -> None:
        self._find = find
        self._hear = hear
        self._changes = changes
        self._usage = usage
        self._count = usage.count
        self._guessing = guessing
        self._verified = verified
        self._clock = clock

    async def authenticate(self, presented: Presented | None, _request: Request) -> Caller | None:
        """Return the caller, or None for what is not a client token.

        Raises Unauthenticated, and StoreUnavailable when the store does not answer.
        """
        if presented is None:
            return None
        token = presented.value
        if not token.startswith(TOKEN_PREFIX):
            return None
        digest = sha256(token).digest() if len(token) == TOKEN_LENGTH else b""
        caller = self._verified.get(digest, self._clock())
        if caller is None:
            caller = await self._look_up(token, digest, presented.address)
        self._count(caller)
        return caller

    async def _look_up(self, token: bytes, digest: bytes, address: str) -> Caller:
        """Return the caller, unless the token is wrong or too many of this address were."""
        seconds = self._guessing.wait(address)
        if seconds and not self._verified.was_good(digest):
            raise TooManyFailures("too many wrong client tokens came from this address", retry_after=seconds)
        try:
            return await self._ask(token, digest)
        except Unauthenticated:
            self._verified.forget(digest)
            self._guessing.failed(address)
            raise

    async def _ask(self, token: bytes, digest: bytes) -> Caller:
        """Ask the store: whether anything was changed, and for the token if it is not known already."""
        identifier = id_in(token)
        if identifier is None:
            raise Unauthenticated(_GARBAGE)
        self._usage.keep_writing()
        if not self._verified.is_fresh():
            await self._hear()
            caller = self._verified.get(digest, self._clock())
            if caller is not None:
                return caller
        return await self._verify(identifier, digest)

    async def _verify(self, identifier: str, digest: bytes) -> Caller:
        self._changes.raise_if_paused()
        era = self._verified.begin()
        stored = await self._find(identifier)
        matching = None
        for generation in (stored and stored.generations) or _NOBODY:
            if compare_digest(generation.digest, digest):
                matching = generation
        if stored is None:
            raise Unauthenticated(f"there is no client token {identifier}")
        if matching is None:
            raise Unauthenticated(f"the secret is not that of client token {identifier}")
        now = datetime.fromtimestamp(self._clock(), UTC)
        if stored.revoked is not None:
            raise Unauthenticated(f"client token {identifier} is revoked")
        if stored.expires is not None and stored.expires <= now:
            raise Unauthenticated(f"client token {identifier} has expired")
        if stored.suspended is not None:
            raise Unauthenticated(f"client token {identifier} is suspended")
        if matching.ends is not None and matching.ends <= now:
            raise Unauthenticated(f"generation {matching.number} of client token {identifier} is retired")
        self._usage.alert(stored, matching, now)
        caller = Caller(
            tenant=stored.tenant,
            subject=stored.subject,
            scopes=stored.scopes,
            attributes=read_only(stored.attributes),
            token_id=stored.id,
            generation=matching.number,
            notice=_notice(matching),
        )
        self._verified.fill(digest, caller, _earliest(stored.expires, matching.ends), era)
        return caller


def _notice(generation: Generation) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers that tell a client to change to its new token.

    They are written as Deprecation (RFC 9745) and Sunset (RFC 8594) are. Those names belong to the
    upstream, which may want to say the same of its own API.
    """
    if generation.replaced is None or generation.ends is None:
        return ()
    return (
        (b"token-deprecation", b"@%d" % generation.replaced.timestamp()),
        (b"token-sunset", format_datetime(generation.ends, usegmt=True).encode()),
    )


def _earliest(*ends: datetime | None) -> float:
    return min((end.timestamp() for end in ends if end is not None), default=math.inf)
