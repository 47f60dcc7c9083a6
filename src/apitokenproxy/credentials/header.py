"""The secret in a header of any name."""

from collections.abc import Awaitable, Callable

from attrs import field, frozen

from apitokenproxy.credentials.making import making
from apitokenproxy.credentials.naming import header_name
from apitokenproxy.errors import ConfigurationError
from apitokenproxy.interfaces import SecretReader
from apitokenproxy.messages import Caller, Credential, Hidden, Secret
from apitokenproxy.wire import authenticates_a_connection

_PLACE = "{secret}"


@frozen
class Header:
    """The secret in the header `name`, where `template` says: `Header("X-Api-Key", "env:KEY")`.

    `template` holds `{secret}` exactly once, as in `"Key {secret}"`.
    """

    name: str
    secret: str = field(repr=False)
    template: str = field(default=_PLACE, kw_only=True)

    @property
    def place(self) -> str:
        """What it puts on a request."""
        return f"header {self.name.title()}"

    def __attrs_post_init__(self) -> None:
        header_name(self.name)
        plain = self.template.isascii() and self.template.isprintable() and self.template == self.template.strip()
        if self.template.count(_PLACE) != 1 or not plain:
            raise ConfigurationError(f"template of header {self.name} must hold {_PLACE} exactly once, in plain ASCII")
        if authenticates_a_connection([(self.name.encode(), self.template.encode())]):
            raise ConfigurationError(
                f"template of header {self.name}: NTLM and Negotiate authenticate a connection, "
                "and tenants share connections"
            )

    def bind(self, secrets: SecretReader) -> Callable[[Caller], Awaitable[Credential]]:
        """Return the function that makes the credential for a caller."""
        return making(secrets, self.secret, self._make)

    def _make(self, secret: Secret) -> Credential:
        before, _, after = self.template.partition(_PLACE)
        value = Hidden(before.encode() + secret.reveal() + after.encode())
        return Credential(headers=((header_name(self.name), value),), version=secret.version)
