"""TokenAuthority: issues client tokens, shows them and revokes them."""

import asyncio
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from attrs import field, frozen

from apitokenproxy.errors import ConfigurationError, TokenNotFound
from apitokenproxy.identity.attributes import checked, read_only
from apitokenproxy.identity.format import digest, is_id, mint
from apitokenproxy.identity.verified import Verified
from apitokenproxy.interfaces import Generation, StoredToken, TokenStore
from apitokenproxy.messages import not_pickled

_MAX_TENANT = 128
_MAX_SUBJECT = 256
_MAX_SCOPE = 128

State = Literal["active", "expired", "revoked"]


@frozen
class IssuedToken:
    """A new client token. `token` is the string to hand out; nobody can show it again."""

    token: str = field(repr=False)
    id: str
    tenant: str
    expires: datetime | None

    __reduce_ex__ = not_pickled


@frozen
class TokenInfo:
    """What may be told about a client token. All times are aware, in UTC."""

    id: str
    tenant: str
    subject: str
    scopes: frozenset[str]
    attributes: Mapping[str, Any]
    created: datetime
    expires: datetime | None
    revoked: datetime | None

    @property
    def state(self) -> State:
        """`active`, `expired` or `revoked` (which wins), as of now."""
        if self.revoked is not None:
            return "revoked"
        if self.expires is not None and self.expires <= datetime.now(UTC):
            return "expired"
        return "active"


_TokenInfos = list[TokenInfo]  # inside the class below, `list` is a method


class TokenAuthority:
    """Issues, shows and revokes the client tokens of one store.

    `verified` is the cache of the authenticator in this process, so that a revocation takes effect
    here at once. Every method may raise StoreUnavailable and has an awaitable twin.
    """

    def __init__(self, store: TokenStore, verified: Verified) -> None:
        self._store = store
        self._verified = verified

    def issue(
        self,
        *,
        tenant: str,
        subject: str = "",
        scopes: Iterable[str] = (),
        attributes: Mapping[str, Any] | None = None,
        expires_in: timedelta | None = None,
    ) -> IssuedToken:
        """Make and keep a new client token for a tenant.

        `tenant` (1 to 128 characters), `subject` (at most 256) and each of `scopes` (1 to 128, no
        spaces) are printable text; `attributes` is what JSON can hold; without `expires_in` the
        token does not expire. Raises ConfigurationError, which says what is wrong.
        """
        now = datetime.now(UTC)
        token_id, token = mint()
        stored = StoredToken(
            id=token_id,
            tenant=_text("tenant", tenant, 1, _MAX_TENANT),
            created=now,
            subject=_text("subject", subject, 0, _MAX_SUBJECT),
            scopes=_scopes(scopes),
            attributes=checked(attributes),
            expires=_expiry(now, expires_in),
            generations=(Generation(1, digest(token.encode()), now),),
        )
        self._store.add(stored)
        return IssuedToken(token, token_id, stored.tenant, stored.expires)

    def get(self, token_id: str) -> TokenInfo:
        """Return what is known of a token. Raises TokenNotFound."""
        return _info(token_id, self._store.find(_checked_id(token_id)))

    def list(self, *, tenant: str | None = None) -> list[TokenInfo]:
        """Return all tokens, oldest first, or those of one tenant."""
        return [_info(stored.id, stored) for stored in self._store.list(tenant)]

    def revoke(self, token_id: str) -> TokenInfo:
        """End a token for good: here at once, in other processes within their revocation bound.

        Revoking again changes nothing. Raises TokenNotFound.
        """
        identifier = _checked_id(token_id)
        try:
            stored = self._store.revoke(identifier, datetime.now(UTC))
        finally:  # a store that failed may have revoked it all the same
            self._verified.drop(identifier)
        return _info(identifier, stored)

    async def aissue(
        self,
        *,
        tenant: str,
        subject: str = "",
        scopes: Iterable[str] = (),
        attributes: Mapping[str, Any] | None = None,
        expires_in: timedelta | None = None,
    ) -> IssuedToken:
        """Do what `issue` does without blocking the event loop."""
        return await asyncio.to_thread(
            self.issue, tenant=tenant, subject=subject, scopes=scopes, attributes=attributes, expires_in=expires_in
        )

    async def aget(self, token_id: str) -> TokenInfo:
        """Do what `get` does without blocking the event loop."""
        return await asyncio.to_thread(self.get, token_id)

    async def alist(self, *, tenant: str | None = None) -> "_TokenInfos":
        """Do what `list` does without blocking the event loop."""
        return await asyncio.to_thread(self.list, tenant=tenant)

    async def arevoke(self, token_id: str) -> TokenInfo:
        """Do what `revoke` does without blocking the event loop."""
        return await asyncio.to_thread(self.revoke, token_id)


def _checked_id(token_id: str) -> str:
    if not is_id(token_id):  # perhaps a whole token: not echoed
        raise TokenNotFound(
            "that is not a token's id: an id has 12 letters and digits and stands after atp_ in the token"
        )
    return token_id


def _info(token_id: str, stored: StoredToken | None) -> TokenInfo:
    if stored is None:
        raise TokenNotFound(f"there is no client token {token_id}; see the list of tokens for their ids")
    return TokenInfo(
        id=stored.id,
        tenant=stored.tenant,
        subject=stored.subject,
        scopes=stored.scopes,
        attributes=read_only(stored.attributes),
        created=stored.created,
        expires=stored.expires,
        revoked=stored.revoked,
    )


def _text(name: str, value: str, shortest: int, longest: int) -> str:
    if not isinstance(value, str) or not shortest <= len(value) <= longest or not _is_plain(value):
        raise ConfigurationError(
            f"{name} must be {shortest} to {longest} printable characters, without spaces at its ends"
        )
    return value


def _is_plain(value: str) -> bool:
    return value.isprintable() and value == value.strip()


def _scopes(scopes: Iterable[str]) -> frozenset[str]:
    if isinstance(scopes, str):
        raise ConfigurationError(f'scopes must be a list, as ["{_text("a scope", scopes, 1, _MAX_SCOPE)}"]')
    found = frozenset(_text("a scope", scope, 1, _MAX_SCOPE) for scope in scopes)
    for scope in found:
        if " " in scope:
            raise ConfigurationError(f"scope {scope!r} has a space in it; give each scope of its own")
    return found


def _expiry(now: datetime, expires_in: timedelta | None) -> datetime | None:
    if expires_in is None:
        return None
    if not isinstance(expires_in, timedelta) or expires_in <= timedelta(0):
        raise ConfigurationError("expires_in must be a positive timedelta, as timedelta(days=30)")
    try:
        return now + expires_in
    except OverflowError:
        raise ConfigurationError("expires_in is too long; leave it out for a token that does not expire") from None
