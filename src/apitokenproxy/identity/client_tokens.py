"""ClientTokens: who is calling, by the client token they present.

Rules:
1. What does not begin with the prefix is not a client token; what does is decided here, for good.
2. Garbage is refused by form and checksum before the store is asked.
3. Unknown, expired, revoked and wrong take the same path, the same work and get the same answer.
   Only the audit record knows which it was.
4. A store that does not answer is the proxy's fault (503), never the client's (401). No refusal is
   ever cached.
5. No exception is raised while a KeyError that holds a digest is being handled.
"""

import math
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from hashlib import sha256
from hmac import compare_digest
from types import NoneType

from apitokenproxy._colour import Colour
from apitokenproxy.errors import Unauthenticated
from apitokenproxy.identity.attributes import read_only
from apitokenproxy.identity.format import TOKEN_LENGTH, token_id
from apitokenproxy.identity.verified import Verified
from apitokenproxy.interfaces import Generation, StoredToken, TokenStore
from apitokenproxy.messages import TOKEN_PREFIX, Caller, Presented, Request

_GARBAGE = "what begins like a client token is not one (length, form or checksum)"
_NOBODY = (Generation(0, bytes(32), datetime(1970, 1, 1, tzinfo=UTC)),)


class ClientTokens:
    """An Authenticator for client tokens, over a store and a cache of verified tokens.

    `clock` returns seconds since the epoch; expiry is judged by it.
    """

    def __init__(self, store: TokenStore, verified: Verified, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._verified = verified
        self._clock = clock

    def bind(self, colour: Colour) -> "BoundClientTokens":
        """Return the authenticator in one colour. Raises ConfigurationError when the store has another."""
        find: Callable[[str], Awaitable[StoredToken | None]] = colour.lift(self._store.find, (StoredToken, NoneType))
        return BoundClientTokens(find, self._verified, self._clock)


class BoundClientTokens:
    """ClientTokens in one colour."""

    __slots__ = ("_clock", "_find", "_verified")

    def __init__(
        self,
        find: Callable[[str], Awaitable[StoredToken | None]],
        verified: Verified,
        clock: Callable[[], float],
    ) -> None:
        self._find = find
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
        if len(token) != TOKEN_LENGTH:
            raise Unauthenticated(_GARBAGE)
        digest = sha256(token).digest()
        caller = self._verified.get(digest, self._clock())
        if caller is not None:
            return caller
        identifier = token_id(token)
        if identifier is None:
            raise Unauthenticated(_GARBAGE)
        return await self._verify(identifier, digest)

    async def _verify(self, identifier: str, digest: bytes) -> Caller:
        ticket = self._verified.begin()
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
        if matching.retired is not None and matching.retired <= now:
            raise Unauthenticated(f"generation {matching.number} of client token {identifier} is retired")
        caller = Caller(
            tenant=stored.tenant,
            subject=stored.subject,
            scopes=stored.scopes,
            attributes=read_only(stored.attributes),
            token_id=stored.id,
            generation=matching.number,
        )
        self._verified.fill(digest, caller, _earliest(stored.expires, matching.retired), ticket)
        return caller


def _earliest(*ends: datetime | None) -> float:
    return min((end.timestamp() for end in ends if end is not None), default=math.inf)
