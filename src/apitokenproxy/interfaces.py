"""The seams: one Protocol per stage. Whatever has the method is a part.

Each method may be `def`, `async def` or `@nonblocking def` (see `_colour.py`), except where its
docstring says "never waits". A part that raises a `ProxyError` refuses the request with it; any
other exception refuses it with 503, and its text goes to the log only.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeAlias, TypeVar

from attrs import Factory, field, frozen

from apitokenproxy._colour import Colour
from apitokenproxy.messages import (
    Admission,
    AuditRecord,
    Caller,
    Credential,
    Denial,
    Grant,
    Operation,
    Outbound,
    Presented,
    Reply,
    Request,
    Response,
    Secret,
)

T = TypeVar("T")
Maybe: TypeAlias = T | Awaitable[T]
"""A result, or something to await for it: parts are written in either colour."""


class Handler(Protocol):
    """What adapters serve: the pipeline, or the token endpoint."""

    async def handle(self, request: Request) -> Response:
        """Return the response. Raises nothing but cancellation."""


class Authenticator(Protocol):
    """Says who is calling."""

    def authenticate(self, presented: Presented | None, request: Request) -> Maybe[Caller | None]:
        """Return the caller, or None when this is not the kind of credential it knows.

        Raises Unauthenticated when the kind is its own and the credential is not good: then no
        other authenticator is asked.
        """


class PolicyEngine(Protocol):
    """Says whether a caller may."""

    def decide(self, caller: Caller, operation: Operation) -> Maybe[Grant | Denial]:
        """Return a Grant, or a Denial with the reason for the audit record."""


class Limiter(Protocol):
    """Counts."""

    def admit(self, grant: Grant) -> Maybe[Admission]:
        """Count the request against every limit, all or nothing. Raises Limited."""


class SecretProvider(Protocol):
    """Knows one place where secrets are kept.

    An attribute `ttl` (seconds) says how long what it returned may be used before it is asked again.
    """

    def fetch(self, reference: str) -> Maybe[Secret]:
        """Return what `reference` (the part after `scheme:`) names.

        Raises SecretUnavailable, with a text that holds no material, and with `outage` when nobody answered; its
        SecretMissing when, and only when, the place answered that there is no such secret.
        """


class TokenProvider(Protocol):
    """Makes the credential for one upstream. The built-in kinds have `bind` instead."""

    def credential(self, caller: Caller) -> Maybe[Credential]:
        """Return what is put on the caller's request. Raises SecretUnavailable."""


class Forwarder(Protocol):
    """Sends a request and returns the answer as soon as its head is there."""

    def forward(self, outbound: Outbound) -> Maybe[Reply]:
        """Send it. Raises UpstreamFailure, PoolTimeout, PoolFull, SecretUnavailable."""


class AuditSink(Protocol):
    """Keeps the records. Its methods never wait: they are called while tasks are cancelled."""

    def reserve(self) -> None:
        """Make sure that one more record will be kept. Raises AuditUnavailable."""

    def write(self, record: AuditRecord) -> None:
        """Take over a record that was reserved. Must not raise."""

    def close(self) -> None:
        """Write down everything that was taken over. May wait."""


# --- client tokens at rest ------------------------------------------------------------------


@frozen
class Generation:
    """One secret of a client token. `digest` is the SHA-256 of the whole token string.

    The newest has no end of its own. One that was `replaced` (then) ends at `retired`; with `idle` it
    ends when nobody has used it for that long, be it earlier or later, and at `latest` in any case.
    `rotation` is 32 bytes that tell the rotation that made it again, by its idempotency key and its terms;
    empty without a key. Stores add to `first_used`, `last_used` and `uses` with `note` alone.
    """

    number: int
    digest: bytes = field(repr=False)
    created: datetime
    replaced: datetime | None = None
    retired: datetime | None = None
    idle: timedelta | None = None
    latest: datetime | None = None
    rotation: bytes = field(default=b"", repr=False)
    first_used: datetime | None = None
    last_used: datetime | None = None
    uses: int = 0

    @property
    def ends(self) -> datetime | None:
        """When it is accepted no more, as far as is known now; None for the newest."""
        if self.idle is None or self.replaced is None or self.latest is None:
            return self.retired
        begun = max(self.replaced, self.last_used or self.replaced)
        # In this order, since no date may be so far away as an idle time reaches.
        return self.latest if self.latest - begun <= self.idle else begun + self.idle

    def is_over(self, now: datetime) -> bool:
        """Tell whether it is accepted no more. One that ended as it was replaced is over, whatever the clock says.

        For who ended it has another clock than who judges it.
        """
        ends = self.ends
        return ends is not None and (ends <= now or (self.replaced is not None and ends <= self.replaced))


@frozen
class StoredToken:
    """A client token as a store keeps it. All times are aware, in UTC."""

    id: str
    tenant: str
    created: datetime
    subject: str = ""
    scopes: frozenset[str] = frozenset()
    attributes: Mapping[str, Any] = Factory(dict)
    expires: datetime | None = None
    suspended: datetime | None = None
    revoked: datetime | None = None
    generations: tuple[Generation, ...] = ()


@frozen
class TokenEvent:
    """What was done to a client token, when and by whom. `details` is what JSON can hold, never a secret."""

    token_id: str
    at: datetime
    actor: str
    action: str
    details: Mapping[str, Any] = Factory(dict)


@frozen
class Uses:
    """How often a generation was used between two moments."""

    token_id: str
    generation: int
    first: datetime
    last: datetime
    count: int


Edit = Callable[[StoredToken], tuple[StoredToken, TokenEvent] | None]
"""Makes of a token what it becomes and the event that tells of it; None leaves it as it is. May raise."""


class TokenStore(Protocol):
    """Keeps client tokens. Methods are `def` or `@nonblocking def`; they raise StoreUnavailable."""

    def find(self, token_id: str) -> StoredToken | None:
        """Return the token with that id."""

    def add(self, token: StoredToken, event: TokenEvent) -> None:
        """Keep a new token. An id or a digest that is there already is refused."""

    def change(self, token_id: str, edit: Edit) -> StoredToken | None:
        """Apply `edit` to a token and return what it is now; None when there is none.

        All or nothing, one change at a time: what `edit` is given is what is replaced. The event is
        kept with it. What `edit` raises is raised, and nothing is changed.
        """

    def delete(self, token_id: str, event: TokenEvent) -> bool:
        """Remove a token but not its events; False when there is none."""

    def changes(self) -> int:
        """Return a number that every `change` and `delete` that was made, by whatever process, makes another."""

    def events(self, token_id: str) -> Sequence[TokenEvent]:
        """Return what was done to a token, oldest first."""

    def note(self, uses: Sequence[Uses]) -> None:
        """Add to the counts of generations, those that are still there. This is not a change."""

    def list(self, tenant: str | None = None) -> list[StoredToken]:
        """Return all tokens, oldest first, or those of one tenant."""

    def close(self) -> None:
        """Let go of files and connections."""


# --- what processes tell each other ---------------------------------------------------------


@frozen
class State:
    """A small value that all processes share. `number` is another one after every write, and never 0."""

    name: str
    number: int
    value: bytes = field(repr=False)


class StateStore(Protocol):
    """Keeps states; the built-in token stores do. Methods are `def` or `@nonblocking def`; they raise StoreUnavailable.

    Names are at most 255 characters.
    """

    def state(self, name: str) -> State | None:
        """Return the state of that name."""

    def states(self, prefix: str) -> Sequence[State]:
        """Return the states whose names begin with `prefix`, in the order of their names."""

    def write_state(self, name: str, value: bytes, number: int) -> bool:
        """Write a state that was read with `number` (0: it was not there); False when somebody else did since."""


# --- what built-in parts are made of --------------------------------------------------------


class SecretReader(Protocol):
    """What a credential kind is bound to: secrets, cached, in the colour of the pipeline, which it names."""

    @property
    def colour(self) -> Colour:
        """The colour."""

    @property
    def states(self) -> StateStore | None:
        """What this process shares with others, if it does."""

    def reader(self, reference: str, *, lines: bool = False) -> Callable[[Caller], Awaitable[Secret]]:
        """Return the function that reads `reference` for a caller.

        `{tenant}` and `{subject}` in it are filled in from the verified caller and nothing else, and the function
        raises NoSecretForCaller where there is none for them. What it reads is refused with SecretUnavailable if
        it is not of one line; `lines` is for what never stands in a header.
        Raises ConfigurationError for a reference that no provider knows.
        """

    def expire(self, reference: str, caller: Caller) -> None:
        """Have what `reference` names for a caller read anew, unless that was done a moment ago."""


class CredentialKind(Protocol):
    """A built-in credential kind: how a secret becomes a credential."""

    def bind(self, secrets: SecretReader) -> Callable[[Caller], Awaitable[Credential]]:
        """Return the function that makes the credential for a caller."""
