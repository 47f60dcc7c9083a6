"""TokenAuthority: client tokens for life: issued, replaced, paused, edited, ended.

Rules:
1. A change is in force in this process when the method returns, and in others within the revocation bound.
2. Every change leaves an event in the store, in the same transaction: what, when, by whom.
3. A token string is shown once, by the call that made it. A call that is repeated with its
   idempotency key finds what it did and shows no secret. What a traceback shows of its frames is no token.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import partial
from typing import Any, Final, Literal

from attrs import evolve

from apitokenproxy.errors import TokenConflict, TokenNotFound
from apitokenproxy.identity.attributes import checked
from apitokenproxy.identity.awaitable import awaitable
from apitokenproxy.identity.deriving import Deriving
from apitokenproxy.identity.ending import end_all, owner_of
from apitokenproxy.identity.format import digest, mint
from apitokenproxy.identity.generations import MOST_LIVE, Overlap, made_before, rotated, rotation_of, undone
from apitokenproxy.identity.signing import NO_KEYS, SigningKeys
from apitokenproxy.identity.terms import (
    checked_actor,
    checked_id,
    checked_key,
    checked_scopes,
    checked_subject,
    checked_tenant,
    expiry,
)
from apitokenproxy.identity.told import IssuedToken, Rotation, TokenInfo, described, told
from apitokenproxy.identity.verified import Verified
from apitokenproxy.interfaces import Generation, StoredToken, TokenEvent, TokenStore
from apitokenproxy.messages import Hidden, HiddenText

DEFAULT_OVERLAP: Final = timedelta(days=7)


class _Kept(Enum):
    KEPT = "kept"


_KEPT: Final = _Kept.KEPT
_TokenInfos = list[TokenInfo]  # inside the class below, `list` is a method
_Events = list[TokenEvent]


class TokenAuthority(Deriving):
    """Issues, shows, replaces and ends the client tokens of one store.

    `verified` is the cache of the authenticator in this process, `keys` sign derived tokens, and
    `check_limits` raises ConfigurationError for terms of limits that mean nothing. `by` says who does it, for the
    token's events. Every method may raise StoreUnavailable and has an awaitable twin, whose name
    begins with an `a`. Those that take an id raise TokenNotFound for one that is not there, and
    TokenConflict where the token's state does not allow what is asked.
    """

    def __init__(
        self,
        store: TokenStore,
        verified: Verified,
        keys: SigningKeys = NO_KEYS,
        check_limits: Callable[[Mapping[str, str | int]], object] = dict,
    ) -> None:
        super().__init__(store, keys, check_limits)
        self._verified = verified

    # --- handing out --------------------------------------------------------------------------

    def issue(
        self,
        *,
        tenant: str,
        subject: str = "",
        scopes: Iterable[str] = (),
        attributes: Mapping[str, Any] | None = None,
        expires_in: timedelta | None = None,
        by: str = "",
    ) -> IssuedToken:
        """Make and keep a new client token for a tenant.

        `tenant` (1 to 128 characters), `subject` (at most 256) and each of `scopes` (1 to 128, no
        spaces) are printable text; `attributes` is what JSON can hold; without `expires_in` the
        token does not expire. Raises ConfigurationError, which says what is wrong.
        """
        now = datetime.now(UTC)
        identifier, token = mint()
        stored = StoredToken(
            id=identifier,
            tenant=checked_tenant(tenant),
            created=now,
            subject=checked_subject(subject),
            scopes=checked_scopes(scopes),
            attributes=checked(attributes),
            expires=expiry(now, expires_in),
            generations=(Generation(1, digest(token.encode()), now),),
        )
        self._store.add(stored, TokenEvent(identifier, now, checked_actor(by), "issue", described(stored)))
        return IssuedToken(str(token), identifier, stored.tenant, stored.expires)

    def rotate(
        self,
        token_id: str,
        *,
        overlap: timedelta = DEFAULT_OVERLAP,
        complete_when_idle: timedelta | None = None,
        at_most: timedelta | None = None,
        most_live: int = MOST_LIVE,
        key: str | None = None,
        by: str = "",
    ) -> Rotation:
        """Make a new secret for a token; the old one lives on until the overlap ends, or ends at once for 0.

        With `complete_when_idle` the old one ends when nobody has used it for that long: earlier than the
        overlap if it can, later if it must, after `at_most` in any case (by default, the overlap).
        `most_live` is how many secrets may live at once. `key` makes the call idempotent: repeated with
        the same key and terms it changes nothing and shows no secret. Raises ConfigurationError.
        """
        terms = Overlap(overlap, complete_when_idle, at_most, most_live)
        rotation = b"" if key is None else rotation_of(checked_key(key), terms)
        _, token = mint(checked_id(token_id))
        repeated: list[Generation] = []

        def edit(stored: StoredToken, now: datetime) -> tuple[StoredToken, dict[str, Any]] | None:
            repeated[:] = filter(None, [made_before(stored, rotation)])
            if repeated:
                return None
            after = rotated(stored, digest(token.encode()), now, terms, rotation)
            return after, {"generation": after.generations[-1].number, "overlap": overlap.total_seconds()}

        stored = self._change(token_id, "rotate", by, edit)
        made = repeated[0] if repeated else stored.generations[-1]
        old_ends = max(
            (one.ends for one in stored.generations if one.replaced == made.created and one.ends), default=None
        )
        return Rotation(None if repeated else str(token), stored.id, made.number, old_ends)

    def undo(self, token_id: str, *, by: str = "") -> TokenInfo:
        """Take a rotation back while its overlap lasts: the new secret ends at once, the old one lives on."""
        return self._told(token_id, "undo", by, lambda stored, now: (undone(stored, now), {}))

    # --- ending and pausing -------------------------------------------------------------------

    def revoke(self, token_id: str, *, by: str = "") -> TokenInfo:
        """End a token for good. Revoking again changes nothing."""
        return self._told(
            token_id, "revoke", by, lambda stored, now: None if stored.revoked else (evolve(stored, revoked=now), {})
        )

    def revoke_all(self, *, tenant: str, subject: str | None = None, by: str = "") -> "_TokenInfos":
        """End every token of a tenant, or of one subject of it, and return those that were not ended before.

        Whatever cannot be ended is told when all others have ended.
        """
        found = partial(self._store.list, checked_tenant(tenant))
        return end_all(found, subject, partial(self.revoke, by=by))

    def revoke_leaked(self, token: str, *, by: str = "") -> TokenInfo:
        """End the token of which this is the string, whatever generation. Raises TokenNotFound, TokenConflict.

        The string must be a token's in every letter, or else whoever knows an id could end the token.
        """
        token = HiddenText(token)
        return self.revoke(owner_of(self._store, Hidden(token.strip().encode(errors="replace"))), by=by)

    def suspend(self, token_id: str, *, by: str = "") -> TokenInfo:
        """Refuse a token until it is resumed. Suspending again changes nothing."""
        return self._told(
            token_id,
            "suspend",
            by,
            lambda stored, now: None if stored.suspended else (evolve(stored, suspended=now), {}),
        )

    def resume(self, token_id: str, *, by: str = "") -> TokenInfo:
        """Accept a suspended token again."""
        return self._told(
            token_id, "resume", by, lambda stored, _: (evolve(stored, suspended=None), {}) if stored.suspended else None
        )

    def delete(self, token_id: str, *, by: str = "") -> None:
        """Remove a token from the store. Its events stay."""
        identifier = checked_id(token_id)
        event = TokenEvent(identifier, datetime.now(UTC), checked_actor(by), "delete")
        try:
            there = self._store.delete(identifier, event)
        finally:
            self._verified.drop()
        if not there:
            told(identifier, None)

    def edit(
        self,
        token_id: str,
        *,
        tenant: str | Literal[_Kept.KEPT] = _KEPT,
        subject: str | Literal[_Kept.KEPT] = _KEPT,
        scopes: Iterable[str] | Literal[_Kept.KEPT] = _KEPT,
        attributes: Mapping[str, Any] | Literal[_Kept.KEPT] | None = _KEPT,
        expires_in: timedelta | Literal[_Kept.KEPT] | None = _KEPT,
        by: str = "",
    ) -> TokenInfo:
        """Change what a token says of its holder; what is not named stays. Raises ConfigurationError.

        `expires_in` counts from now; None makes the token last.
        """
        fields: dict[str, Any] = {}
        if tenant is not _KEPT:
            fields["tenant"] = checked_tenant(tenant)
        if subject is not _KEPT:
            fields["subject"] = checked_subject(subject)
        if scopes is not _KEPT:
            fields["scopes"] = checked_scopes(scopes)
        if attributes is not _KEPT:
            fields["attributes"] = checked(attributes)
        if expires_in is not _KEPT:
            fields["expires"] = expiry(datetime.now(UTC), expires_in)

        def edit(stored: StoredToken, _: datetime) -> tuple[StoredToken, dict[str, Any]] | None:
            if stored.revoked is not None:
                raise TokenConflict(f"client token {stored.id} is revoked for good; issue a new one")
            after = evolve(stored, **fields)
            if after == stored:
                return None
            before, now = described(stored), described(after)
            return after, {name: [before[name], now[name]] for name in now if before[name] != now[name]}

        return self._told(token_id, "edit", by, edit)

    # --- looking ------------------------------------------------------------------------------

    def get(self, token_id: str) -> TokenInfo:
        """Return what is known of a token. Raises TokenNotFound."""
        return told(token_id, self._store.find(checked_id(token_id)))

    def events(self, token_id: str) -> "_Events":
        """Return what was done to a token, oldest first, also to one that was deleted."""
        return [*self._store.events(checked_id(token_id))]

    def list(self, *, tenant: str | None = None) -> "_TokenInfos":
        """Return all tokens, oldest first, or those of one tenant."""
        return [told(stored.id, stored) for stored in self._store.list(tenant)]

    # --- the awaitable twins ------------------------------------------------------------------

    aissue = awaitable(issue)
    arotate = awaitable(rotate)
    aundo = awaitable(undo)
    arevoke = awaitable(revoke)
    arevoke_all = awaitable(revoke_all)
    asuspend = awaitable(suspend)
    aresume = awaitable(resume)
    adelete = awaitable(delete)
    aedit = awaitable(edit)
    aget = awaitable(get)
    aevents = awaitable(events)
    alist = awaitable(list)  # noqa: A003 - the method above

    async def arevoke_leaked(self, token: str, *, by: str = "") -> TokenInfo:
        """Do what `revoke_leaked` does without blocking the event loop."""
        token = HiddenText(token)
        return await asyncio.to_thread(self.revoke_leaked, token, by=by)

    # --- how a change is made -----------------------------------------------------------------

    def _told(
        self,
        token_id: str,
        action: str,
        by: str,
        edit: Callable[[StoredToken, datetime], tuple[StoredToken, dict[str, Any]] | None],
    ) -> TokenInfo:
        return told(token_id, self._change(token_id, action, by, edit))

    def _change(
        self,
        token_id: str,
        action: str,
        by: str,
        edit: Callable[[StoredToken, datetime], tuple[StoredToken, dict[str, Any]] | None],
    ) -> StoredToken:
        identifier, actor = checked_id(token_id), checked_actor(by)

        def with_event(stored: StoredToken) -> tuple[StoredToken, TokenEvent] | None:
            now = datetime.now(UTC)
            edited = edit(stored, now)
            return None if edited is None else (edited[0], TokenEvent(identifier, now, actor, action, edited[1]))

        try:
            stored = self._store.change(identifier, with_event)
        finally:  # a store that failed may have changed it all the same
            self._verified.drop()
        if stored is None:
            raise TokenNotFound(f"there is no client token {identifier}; see the list of tokens for their ids")
        return stored
