"""What is told about client tokens: when they are handed out, and ever after. All times are aware, in UTC."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from attrs import field, frozen

from apitokenproxy.errors import TokenNotFound
from apitokenproxy.identity.attributes import read_only
from apitokenproxy.interfaces import Generation, StoredToken
from apitokenproxy.messages import not_pickled

State = Literal["active", "suspended", "expired", "revoked"]
GenerationState = Literal["newest", "retiring", "ended"]


@frozen
class IssuedToken:
    """A new client token. `token` is the string to hand out; nobody can show it again."""

    token: str = field(repr=False)
    id: str
    tenant: str
    expires: datetime | None

    __reduce_ex__ = not_pickled


@frozen
class Rotation:
    """A new generation of a token. `token` is the new string, None when this call repeats an earlier one.

    `old_ends` is when the replaced generation is accepted no more, as far as is known now.
    """

    token: str | None = field(repr=False)
    id: str
    generation: int
    old_ends: datetime | None

    __reduce_ex__ = not_pickled


@frozen
class DerivedToken:
    """A token derived from another. `token` is the string to hand out, `parent` the id of the other one."""

    token: str = field(repr=False)
    id: str
    parent: str
    expires: datetime

    __reduce_ex__ = not_pickled


@frozen
class GenerationInfo:
    """What may be told about one generation. `ends` is None for the newest; uses are some seconds old."""

    number: int
    created: datetime
    ends: datetime | None
    first_used: datetime | None
    last_used: datetime | None
    uses: int

    @property
    def state(self) -> GenerationState:
        """`newest`, `retiring` or `ended`, as of now."""
        if self.ends is None:
            return "newest"
        return "retiring" if self.ends > datetime.now(UTC) else "ended"


@frozen
class TokenInfo:
    """What may be told about a client token."""

    id: str
    tenant: str
    subject: str
    scopes: frozenset[str]
    attributes: Mapping[str, Any]
    created: datetime
    expires: datetime | None
    suspended: datetime | None
    revoked: datetime | None
    generations: tuple[GenerationInfo, ...]

    @property
    def state(self) -> State:
        """`revoked` before `expired` before `suspended` before `active`, as of now."""
        if self.revoked is not None:
            return "revoked"
        if self.expires is not None and self.expires <= datetime.now(UTC):
            return "expired"
        return "active" if self.suspended is None else "suspended"

    @property
    def uses(self) -> int:
        """How often it was used, in all generations."""
        return sum(generation.uses for generation in self.generations)

    @property
    def last_used(self) -> datetime | None:
        """When it was last used, in any generation."""
        return max((one.last_used for one in self.generations if one.last_used is not None), default=None)


def told(token_id: str, stored: StoredToken | None) -> TokenInfo:
    """Return what may be told. Raises TokenNotFound."""
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
        suspended=stored.suspended,
        revoked=stored.revoked,
        generations=tuple(map(_generation, stored.generations)),
    )


def _generation(stored: Generation) -> GenerationInfo:
    now = datetime.now(UTC)
    # What is over on every clock has ended by now, also where another machine's clock is ahead of this one.
    ends = min(stored.ends, now) if stored.ends is not None and stored.is_over(now) else stored.ends
    # A use is known as no earlier than the write before it, which may have been before there was the secret.
    first = stored.first_used and max(stored.first_used, stored.created)
    return GenerationInfo(stored.number, stored.created, ends, first, stored.last_used, stored.uses)


def described(token: StoredToken) -> dict[str, Any]:
    """Return what an event may tell of a token that was issued or edited."""
    return {
        "tenant": token.tenant,
        "subject": token.subject,
        "scopes": sorted(token.scopes),
        "attributes": dict(token.attributes),
        "expires": token.expires.isoformat() if token.expires else None,
    }
