"""The secret in a cookie (RFC 6265)."""

import re
from collections.abc import Awaitable, Callable
from typing import ClassVar

from attrs import field, frozen

from apitokenproxy.credentials.making import making
from apitokenproxy.errors import ConfigurationError, SecretUnavailable
from apitokenproxy.interfaces import SecretReader
from apitokenproxy.messages import Caller, Credential, Hidden, Secret

_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_NOT_IN_A_VALUE = re.compile(rb'[\s",;\\]|[^\x21-\x7e]')  # RFC 6265, section 4.1.1


@frozen
class Cookie:
    """The secret as the cookie `name`: `Cookie("session", "env:SESSION")`. The client's own cookies are dropped."""

    name: str
    secret: str = field(repr=False)

    place: ClassVar[str] = "header Cookie"

    def __attrs_post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigurationError(f"cookie {self.name!r}: a name has letters, digits and none of , ; = or a blank")

    def bind(self, secrets: SecretReader) -> Callable[[Caller], Awaitable[Credential]]:
        """Return the function that makes the credential for a caller."""
        return making(secrets, self.secret, self._make)

    def _make(self, secret: Secret) -> Credential:
        if _NOT_IN_A_VALUE.search(secret.reveal()):
            raise SecretUnavailable("the secret has a character that a cookie cannot carry")
        value = Hidden(self.name.encode() + b"=" + secret.reveal())
        return Credential(headers=((b"Cookie", value),), version=secret.version)
