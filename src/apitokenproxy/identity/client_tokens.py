"""ClientTokens: who is calling, by the client token they present.

Rules:
1. What does not begin with the prefix is not a client token; what does is decided here, for good.
2. Garbage is refused by form and checksum before the store is asked, and counts for nothing.
3. Unknown, expired, revoked and wrong take the same path, the same work and get the same answer.
   Only the audit record knows which it was.
4. A store that does not answer is the proxy's fault (503), never the client's (401). No refusal is
   ever cached.
5. No exception is raised while a KeyError that holds a digest is being handled.
6. An address from which too many wrong tokens came is asked to wait; tokens that were good lately are not.
7. Nothing verified is used unless the store said within the revocation bound that nothing was changed.
8. A derived token is verified by its signature; what it rests on is its parent, which is looked up once for
   all its children. It ends with the parent, and with the generation of the parent that it came from.
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

from attrs import evolve

from apitokenproxy._colour import Colour
from apitokenproxy.errors import Unauthenticated
from apitokenproxy.identity.attributes import read_only
from apitokenproxy.identity.changes import Changes
from apitokenproxy.identity.derived import DERIVE, LONGEST, Derived, is_derived, take_apart
from apitokenproxy.identity.format import id_in
from apitokenproxy.identity.guessing import Guessing, Turn
from apitokenproxy.identity.signing import NO_KEYS, BoundSigningKeys, SigningKeys
from apitokenproxy.identity.usage import Usage
from apitokenproxy.identity.verified import Entry, Verified
from apitokenproxy.interfaces import Generation, StoredToken, TokenStore
from apitokenproxy.messages import TOKEN_PREFIX, Caller, Presented, Request

_GARBAGE = "what begins like a client token is not one (length, form or checksum)"
_SIGNATURE_KEPT = 60.0
"""Seconds after which a derived token's signature is verified again: its key may have been taken away."""
_NOBODY = (Generation(0, bytes(32), datetime(1970, 1, 1, tzinfo=UTC)),)


class ClientTokens:
    """An Authenticator for client tokens and those derived from them, over a store and a cache of verified tokens.

    `keys` verify derived tokens; without them there are none. `guessing` counts wrong tokens by address.
    `outage` (seconds) is for how long verified tokens go on working while the store does not answer.
    `clock` returns seconds since the epoch; expiry is judged by it.
    """

    def __init__(
        self,
        store: TokenStore,
        verified: Verified,
        clock: Callable[[], float] = time.time,
        *,
        keys: SigningKeys = NO_KEYS,
        guessing: Guessing | None = None,
        outage: float = 0.0,
    ) -> None:
        self._store = store
        self._verified = verified
        self._keys = keys
        self._changes = Changes(verified, outage=outage)
        self._usage = Usage(store)
        self._guessing = guessing or Guessing(verified.timer)
        self._clock = clock

    def bind(self, colour: Colour) -> "BoundClientTokens":
        """Return the authenticator in one colour. Raises ConfigurationError when the store has another."""
        find: Callable[[str], Awaitable[StoredToken | None]] = colour.lift(self._store.find, (StoredToken, NoneType))
        ask: Callable[[], Awaitable[int]] = colour.lift(self._store.changes, int)
        hear = partial(self._changes.hear, ask, colour)
        keys = self._keys.bind(colour)
        turn = partial(self._guessing.turn, colour)
        return BoundClientTokens(
            find, hear, turn, keys, self._changes, self._usage, self._guessing, self._verified, self._clock
        )

    def close(self) -> None:
        """Write down how often tokens were used."""
        self._usage.close()


class BoundClientTokens:
    """ClientTokens in one colour."""

    __slots__ = ("_changes", "_clock", "_count", "_find", "_guessing", "_hear", "_keys", "_turn", "_usage", "_verified")

    def __init__(
        self,
        find: Callable[[str], Awaitable[StoredToken | None]],
        hear: Callable[[], Awaitable[None]],
        turn: Callable[[str, bytes], Awaitable[Turn]],
        keys: BoundSigningKeys,
        changes: Changes,
        usage: Usage,
        guessing: Guessing,
        verified: Verified,
        clock: Callable[[], float],
    ) -> None:
        self._find = find
        self._hear = hear
        self._turn = turn
        self._keys = keys
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
        digest = sha256(token).digest() if len(token) <= LONGEST else b""
        entry = self._verified.entry(digest, self._clock())
        caller = entry.caller if entry is not None else await self._look_up(token, digest, presented.address)
        self._count(caller)
        return caller

    async def _look_up(self, token: bytes, digest: bytes, address: str) -> Caller:
        """Return the caller, unless the token is wrong or too many of this address were."""
        named = take_apart(token) if is_derived(token) else id_in(token)
        if named is None:
            raise Unauthenticated(_GARBAGE)
        known = self._verified.was_good(digest) or (isinstance(named, Derived) and await self._is_signed(named))
        turn = self._guessing.known(address, digest) if known else await self._turn(address, digest)
        try:
            with turn:
                return await self._ask(named, digest)
        except Unauthenticated:
            self._verified.forget(digest)
            raise

    async def _ask(self, named: Derived | str, digest: bytes) -> Caller:
        """Ask the store: whether anything was changed, and for the token if it is not known already."""
        if isinstance(named, Derived) and not await self._is_signed(named):
            raise Unauthenticated(f"a token derived from {named.parent} is not signed with a key that is known")
        self._usage.keep_writing()
        if not self._verified.is_fresh():
            await self._hear()
        caller = self._verified.get(digest, self._clock())
        if caller is not None:
            return caller
        if isinstance(named, Derived):
            return await self._verify_derived(named, digest)
        return await self._verify(named, digest)

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
        return self._confirmed(digest, stored, matching, era).caller

    async def _is_signed(self, derived: Derived) -> bool:
        """Tell whether the proxy signed it. Raises SecretUnavailable."""
        key = await self._keys.find(derived.head.key)
        return key is not None and derived.is_signed_with(key)

    async def _verify_derived(self, derived: Derived, digest: bytes) -> Caller:
        """Return the caller of a token whose signature is right. Raises Unauthenticated."""
        head, caveats = derived.head, derived.caveats()
        now = self._clock()
        ends = min((caveat.expires for caveat in caveats if caveat.expires is not None), default=math.inf)
        if ends <= now:
            raise Unauthenticated(f"token {head.id}, derived from {derived.parent}, has expired")
        era = self._verified.begin()
        parent = await self._parent(derived.parent, head.generation)
        scopes = [caveat.scopes for caveat in caveats if caveat.scopes is not None]
        kept = parent.caller.scopes.intersection(*scopes) - {DERIVE}
        caller = evolve(
            parent.caller,
            scopes=kept,
            given_up=parent.caller.scopes - kept,
            derived=head.id,
            caveats=tuple(caveat.excludes for caveat in caveats),
            limits=head.limits,
        )
        self._verified.fill(digest, caller, min(ends, parent.expires, now + _SIGNATURE_KEPT), era, derived=True)
        return caller

    async def _parent(self, identifier: str, number: int) -> Entry:
        """Return whom a client token names in a generation, 0: the newest. Raises Unauthenticated."""
        known_as = b"%b.%d" % (identifier.encode(), number)
        parent = self._verified.entry(known_as, self._clock())
        if parent is not None:
            return parent
        self._changes.raise_if_paused()
        era = self._verified.begin()
        stored = await self._find(identifier)
        if stored is None:
            raise Unauthenticated(f"there is no client token {identifier}")
        for generation in stored.generations:
            if generation.number == number or (not number and generation.replaced is None):
                return self._confirmed(known_as, stored, generation, era)
        raise Unauthenticated(f"client token {identifier} has no generation {number}")

    def _confirmed(self, known_as: bytes, stored: StoredToken, matching: Generation, era: int) -> Entry:
        """Return and keep whom a token in the store names. Raises Unauthenticated."""
        identifier = stored.id
        now = datetime.fromtimestamp(self._clock(), UTC)
        if stored.revoked is not None:
            raise Unauthenticated(f"client token {identifier} is revoked")
        if stored.expires is not None and stored.expires <= now:
            raise Unauthenticated(f"client token {identifier} has expired")
        if stored.suspended is not None:
            raise Unauthenticated(f"client token {identifier} is suspended")
        if matching.is_over(now):
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
        return self._verified.fill(known_as, caller, _earliest(stored.expires, matching.ends), era)


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
