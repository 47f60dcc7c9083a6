"""An access token for a signed JWT (RFC 7523, section 2.1), as Salesforce, DocuSign and others give it."""

import json
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar

from attrs import Factory, field, frozen

from apitokenproxy.credentials.access_token import access_token, ask_for_token
from apitokenproxy.credentials.naming import endpoint
from apitokenproxy.credentials.signing import Signing, check_algorithm, claims
from apitokenproxy.credentials.tokens import Tokens
from apitokenproxy.errors import ConfigurationError
from apitokenproxy.interfaces import SecretReader
from apitokenproxy.loading import Loaded
from apitokenproxy.messages import Caller, Credential, Secret

GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_OURS = {"iss", "sub", "aud", "exp", "iat", "nbf", "jti"}


@frozen
class JwtBearer:
    """`Authorization: Bearer` with a token that `token_url` gives for a JWT that is signed with a private key.

    `key` says where that is, in PEM; `key_id` names it and `algorithm` is for where it leaves a choice. The JWT
    is of `issuer`, about `subject` (the issuer, when left out) and meant for `audience` (the token endpoint,
    when left out); `claims` are more of its claims. `scope` goes into the request. Needs `apitokenproxy[jwt]`.
    `allow_private` permits plain http.

    Raises ConfigurationError.
    """

    token_url: str
    issuer: str
    key: str = field(repr=False)
    subject: str = field(default="", kw_only=True)
    audience: str = field(default="", kw_only=True)
    scope: str = field(default="", kw_only=True)
    key_id: str = field(default="", kw_only=True)
    algorithm: str = field(default="", kw_only=True)
    claims: Mapping[str, Any] | None = field(default=None, kw_only=True)
    allow_private: bool = field(default=False, kw_only=True)
    clock: Callable[[], float] = field(default=time.time, kw_only=True, repr=False, eq=False)

    _signing: Signing = field(init=False, repr=False, eq=False, factory=Signing)
    _tokens: Tokens = field(
        init=False,
        repr=False,
        eq=False,
        default=Factory(lambda self: Tokens(f"the token endpoint {self.token_url}"), takes_self=True),
    )

    place: ClassVar[str] = "header Authorization"

    def __attrs_post_init__(self) -> None:
        endpoint("jwt-bearer", "token_url", self.token_url, allow_private=self.allow_private)
        check_algorithm("jwt-bearer", self.algorithm)
        if not self.issuer:
            raise ConfigurationError("credential jwt-bearer: issuer is empty")
        if ours := _OURS.intersection(self.claims or {}):
            raise ConfigurationError(f"credential jwt-bearer: claims must not hold {', '.join(sorted(ours))}")
        try:
            json.dumps(dict(self.claims or {}), allow_nan=False)
        except (ValueError, TypeError):
            raise ConfigurationError("credential jwt-bearer: claims hold what JSON cannot") from None

    def bind(self, secrets: SecretReader) -> Callable[[Caller], Awaitable[Credential]]:
        """Return the function that makes the credential for a caller."""
        self._signing.ready()  # what is missing is told when the proxy is mounted
        return self._tokens.bind([secrets.reader(self.key, lines=True)], self._fetch, secrets.colour)

    def expire(self, refused: Credential) -> None:
        """Have the token fetched anew that the API refused, unless it is fresh."""
        self._tokens.refused(refused)

    def _fetch(self, secret: Secret) -> Loaded[Credential]:
        """Ask for a token. Raises SecretUnavailable."""
        said = claims(self.issuer, self.subject or self.issuer, self.audience or self.token_url, self.clock())
        assertion = self._signing.sign(
            secret, {**(self.claims or {}), **said}, algorithm=self.algorithm, key_id=self.key_id
        )
        form = {"grant_type": GRANT, "assertion": assertion, "scope": self.scope}
        return access_token(self.token_url, ask_for_token(self.token_url, form)).loaded(secret.version)
