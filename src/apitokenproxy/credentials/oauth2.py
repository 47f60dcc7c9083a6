"""OAuth 2.0 client credentials (RFC 6749, section 4.4): an access token for a client id and its secret."""

import time
from collections.abc import Awaitable, Callable
from typing import ClassVar

from attrs import Factory, field, frozen

from apitokenproxy.credentials.access_token import access_token, ask_for_token
from apitokenproxy.credentials.client_authentication import Auth, Client
from apitokenproxy.credentials.naming import endpoint
from apitokenproxy.credentials.tokens import Tokens
from apitokenproxy.interfaces import SecretReader
from apitokenproxy.loading import Loaded
from apitokenproxy.messages import Caller, Credential, Secret


@frozen
class OAuth2ClientCredentials:
    """`Authorization: Bearer` with a token that `token_url` gives to `client_id` and its `secret`.

    `scope`, `audience` and `resource` go into the request when they are set. The client says who it is by
    `auth`: `basic` (RFC 6749, section 2.3.1), `post`, in the form, or `private-key-jwt` (RFC 7523, section 2.2,
    with `apitokenproxy[jwt]`). Then the secret is a private key in PEM: a JWT is signed with it, by `algorithm`
    where the key leaves a choice, and `key_id` names the key. `allow_private` permits plain http.

    Raises ConfigurationError.
    """

    token_url: str
    client_id: str
    secret: str = field(repr=False)
    scope: str = field(default="", kw_only=True)
    audience: str = field(default="", kw_only=True)
    resource: str = field(default="", kw_only=True)
    auth: Auth = field(default="basic", kw_only=True)
    algorithm: str = field(default="", kw_only=True)
    key_id: str = field(default="", kw_only=True)
    allow_private: bool = field(default=False, kw_only=True)
    clock: Callable[[], float] = field(default=time.time, kw_only=True, repr=False, eq=False)

    _client: Client = field(
        init=False,
        repr=False,
        eq=False,
        default=Factory(
            lambda self: Client(
                "oauth2", self.token_url, self.client_id, self.auth, self.algorithm, self.key_id, self.clock
            ),
            takes_self=True,
        ),
    )
    _tokens: Tokens = field(
        init=False,
        repr=False,
        eq=False,
        default=Factory(lambda self: Tokens(f"the token endpoint {self.token_url}"), takes_self=True),
    )

    place: ClassVar[str] = "header Authorization"

    def __attrs_post_init__(self) -> None:
        endpoint("oauth2", "token_url", self.token_url, allow_private=self.allow_private)

    def bind(self, secrets: SecretReader) -> Callable[[Caller], Awaitable[Credential]]:
        """Return the function that makes the credential for a caller."""
        return self._tokens.bind([self._client.reader(secrets, self.secret)], self._fetch, secrets.colour)

    def expire(self, refused: Credential) -> None:
        """Have the token fetched anew that the API refused, unless it is fresh."""
        self._tokens.refused(refused)

    def _fetch(self, secret: Secret) -> Loaded[Credential]:
        """Ask for a token. Raises SecretUnavailable."""
        shown, headers = self._client.shown(secret)
        asked = {"scope": self.scope, "audience": self.audience, "resource": self.resource}
        form = {"grant_type": "client_credentials"} | asked | shown
        return access_token(self.token_url, ask_for_token(self.token_url, form, headers)).loaded(secret.version)
