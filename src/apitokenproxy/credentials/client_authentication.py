"""How a client shows a token endpoint who it is (RFC 6749, section 2.3; RFC 7523, section 2.2)."""

import base64
import time
from collections.abc import Callable
from typing import Literal, TypeAlias
from urllib.parse import quote

from attrs import field, frozen

from apitokenproxy.credentials.signing import Signing, check_algorithm, claims
from apitokenproxy.credentials.tokens import Read
from apitokenproxy.errors import ConfigurationError
from apitokenproxy.interfaces import SecretReader
from apitokenproxy.messages import HiddenText, Secret

Auth: TypeAlias = Literal["basic", "post", "private-key-jwt"]
"""How the client shows itself: with its secret in a header or in the form, or with what a private key signed."""
METHODS = ("basic", "post", "private-key-jwt")
_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@frozen
class Client:
    """A client of the endpoint `token_url`; `kind` is how messages name the credential.

    `auth` is `basic`, `post` (in the form), or `private-key-jwt`: then the secret is a private key in PEM, with
    which a JWT is signed, by `algorithm`, and named `key_id`. Raises ConfigurationError.
    """

    kind: str
    token_url: str
    client_id: str
    auth: Auth = "basic"
    algorithm: str = ""
    key_id: str = ""
    clock: Callable[[], float] = field(default=time.time, repr=False, eq=False)

    _signing: Signing = field(init=False, repr=False, eq=False, factory=Signing)

    def __attrs_post_init__(self) -> None:
        if not self.client_id:
            raise ConfigurationError(f"credential {self.kind}: client_id is empty")
        if self.auth not in METHODS:
            raise ConfigurationError(
                f"credential {self.kind}: auth is {self.auth!r}; it must be basic, post or {METHODS[2]}"
            )
        if self.auth != METHODS[2] and (self.algorithm or self.key_id):
            raise ConfigurationError(f"credential {self.kind}: algorithm and key_id are for auth {METHODS[2]} alone")
        check_algorithm(self.kind, self.algorithm)

    def reader(self, secrets: SecretReader, reference: str) -> Read:
        """Return the function that reads the client's secret. Raises ConfigurationError."""
        if self.auth != METHODS[2]:
            return secrets.reader(reference)
        self._signing.ready()  # what is missing is told when the proxy is mounted
        return secrets.reader(reference, lines=True)

    def shown(self, secret: Secret | None) -> tuple[dict[str, str], dict[str, str]]:
        """Return the parameters and the headers that say who asks; without a secret, its name alone.

        Raises SecretUnavailable.
        """
        if secret is None:
            return {"client_id": self.client_id}, {}
        if self.auth == METHODS[2]:
            said = claims(self.client_id, self.client_id, self.token_url, self.clock())
            assertion = self._signing.sign(secret, said, algorithm=self.algorithm, key_id=self.key_id)
            named = {"client_id": self.client_id, "client_assertion_type": _ASSERTION}
            return named | {"client_assertion": assertion}, {}
        material = HiddenText(secret.reveal().decode(errors="surrogateescape"))
        if self.auth == "post":
            return {"client_id": self.client_id, "client_secret": material}, {}
        pair = f"{quote(self.client_id, safe='')}:{quote(material, safe='', errors='surrogateescape')}".encode()
        return {}, {"authorization": HiddenText(f"Basic {base64.b64encode(pair).decode()}")}
