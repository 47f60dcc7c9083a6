"""`Authorization: Basic ...` (RFC 7617)."""

import base64
from collections.abc import Awaitable, Callable
from typing import ClassVar

from attrs import field, frozen

from apitokenproxy.credentials.making import making
from apitokenproxy.errors import ConfigurationError
from apitokenproxy.interfaces import SecretReader
from apitokenproxy.messages import Caller, Credential, Hidden, Secret


@frozen
class Basic:
    """A user name and a password, of which one is the secret.

    `Basic("env:KEY", username="me")` sends `me:KEY`. Without a user name the secret stands in its
    place and the password is empty (`KEY:`), as Stripe and others take their keys.
    """

    secret: str = field(repr=False)
    username: str = field(default="", kw_only=True)

    def __attrs_post_init__(self) -> None:
        if ":" in self.username or not self.username.isprintable():
            raise ConfigurationError("username must not hold a colon or control characters (RFC 7617)")

    place: ClassVar[str] = "header Authorization"

    def bind(self, secrets: SecretReader) -> Callable[[Caller], Awaitable[Credential]]:
        """Return the function that makes the credential for a caller."""
        return making(secrets, self.secret, self._make)

    def _make(self, secret: Secret) -> Credential:
        material = secret.reveal()
        pair = self.username.encode() + b":" + material if self.username else material + b":"
        value = Hidden(b"Basic " + base64.b64encode(pair))
        return Credential(headers=((b"Authorization", value),), version=secret.version)
