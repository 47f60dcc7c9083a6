"""The secret in a query parameter."""

from collections.abc import Awaitable, Callable
from urllib.parse import quote_from_bytes

from attrs import field, frozen

from apitokenproxy.credentials.making import making
from apitokenproxy.credentials.naming import parameter_name
from apitokenproxy.interfaces import SecretReader
from apitokenproxy.messages import Caller, Credential, Hidden, Secret


@frozen
class Query:
    """The secret as the query parameter `name`: `Query("key", "env:KEY")`.

    URLs end up in the upstream's logs; where an API takes its key in a header as well, prefer that.
    """

    name: str
    secret: str = field(repr=False)

    @property
    def place(self) -> str:
        """What it puts on a request."""
        return f"query parameter {self.name}"

    def __attrs_post_init__(self) -> None:
        parameter_name(self.name)

    def bind(self, secrets: SecretReader) -> Callable[[Caller], Awaitable[Credential]]:
        """Return the function that makes the credential for a caller."""
        return making(secrets, self.secret, self._make)

    def _make(self, secret: Secret) -> Credential:
        value = Hidden(quote_from_bytes(secret.reveal(), safe="").encode())
        return Credential(query=((parameter_name(self.name), value),), version=secret.version)
