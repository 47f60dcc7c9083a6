"""The seams: one Protocol per stage. Whatever has the method is a part.

Each method may be `def`, `async def` or `@nonblocking def` (see `_colour.py`), except where its
docstring says "never waits". A part that raises a `ProxyError` refuses the request with it; any
other exception refuses it with 503, and its text goes to the log only.
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Protocol, TypeAlias, TypeVar

from attrs import Factory, field, frozen

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
    Secret,
)

T = TypeVar("T")
Maybe: TypeAlias = T | Awaitable[T]
"""A result, or something to await for it: parts are written in either colour."""


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

        Raises SecretUnavailable, with a text that holds no material.
        """


class TokenProvider(Protocol):
    """Makes the credential for one upstream. The built-in kinds have `bind` instead."""

    def credential(self, caller: Caller) -> Maybe[Credential]:
        """Return what is put on the caller's request. Raises SecretUnavailable."""


class Forwarder(Protocol):
    """Sends a request and returns the answer as soon as its head is there."""

    def forward(self, outbound: Outbound) -> Maybe[Reply]:
        """Send it. Raises UpstreamFailure or PoolTimeout."""


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
    """One secret of a client token. `digest` is the SHA-256 of the whole token string."""

    number: int
    digest: bytes = field(repr=False)
    created: datetime
    retired: datetime | None = None


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
    revoked: datetime | None = None
    generations: tuple[Generation, ...] = ()


class TokenStore(Protocol):
    """Keeps client tokens. Methods are `def` or `@nonblocking def`; they raise StoreUnavailable."""

    def find(self, token_id: str) -> StoredToken | None:
        """Return the token with that id."""

    def add(self, token: StoredToken) -> None:
        """Keep a new token."""

    def revoke(self, token_id: str, when: datetime) -> StoredToken | None:
        """Mark it revoked (the first time stays) and return it; None when there is none."""

    def list(self, tenant: str | None = None) -> list[StoredToken]:
        """Return all tokens, oldest first, or those of one tenant."""

    def close(self) -> None:
        """Let go of files and connections."""


# --- what built-in parts are made of --------------------------------------------------------


class SecretReader(Protocol):
    """What a credential kind is bound to: secrets, cached, in the colour of the pipeline."""

    def reader(self, reference: str) -> Callable[[Caller], Awaitable[Secret]]:
        """Return the function that reads `reference` for a caller.

        `{tenant}` and `{subject}` in it are filled in from the verified caller and nothing else.
        Raises ConfigurationError for a reference that no provider knows.
        """


class CredentialKind(Protocol):
    """A built-in credential kind: how a secret becomes a credential."""

    def bind(self, secrets: SecretReader) -> Callable[[Caller], Awaitable[Credential]]:
        """Return the function that makes the credential for a caller."""
