"""`Authorization: Bearer SECRET` (RFC 6750)."""

from collections.abc import Awaitable, Callable
from typing import ClassVar

from attrs import field, frozen

from apitokenproxy.credentials.making import making
from apitokenproxy.interfaces import SecretReader
from apitokenproxy.messages import Caller, Credential, Hidden, Secret


@frozen
class Bearer:
    """The secret as a bearer token. `secret` is a reference, such as `env:GITHUB_TOKEN`."""

    secret: str = field(repr=False)

    place: ClassVar[str] = "header Authorization"

    def bind(self, secrets: SecretReader) -> Callable[[Caller], Awaitable[Credential]]:
        """Return the function that makes the credential for a caller."""
        return making(secrets, self.secret, _make)


def _make(secret: Secret) -> Credential:
    return Credential(headers=((b"Authorization", Hidden(b"Bearer " + secret.reveal())),), version=secret.version)
