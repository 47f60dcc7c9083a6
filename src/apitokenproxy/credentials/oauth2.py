"""OAuth 2.0 client credentials (RFC 6749, section 4.4): an access token for a client id and its secret."""

from collections.abc import Awaitable, Callable
from typing import ClassVar, Literal
from urllib.parse import quote

import httpx
from attrs import Factory, field, frozen

from apitokenproxy.credentials.access_token import access_token, ask_for_token
from apitokenproxy.credentials.naming import endpoint
from apitokenproxy.credentials.tokens import Tokens
from apitokenproxy.errors import ConfigurationError
from apitokenproxy.interfaces import SecretReader
from apitokenproxy.loading import Loaded
from apitokenproxy.messages import Caller, Credential, Secret


@frozen
class OAuth2ClientCredentials:
    """`Authorization: Bearer` with a token that `token_url` gives to `client_id` and its `secret`.

    `scope`, `audience` and `resource` go into the request when they are set. The client says who it is by
    `auth`: `basic` (RFC 6749, section 2.3.1) or `post`, in the form. `allow_private` permits plain http.

    Raises ConfigurationError.
    """

    token_url: str
    client_id: str
    secret: str = field(repr=False)
    scope: str = field(default="", kw_only=True)
    audience: str = field(default="", kw_only=True)
    resource: str = field(default="", kw_only=True)
    auth: Literal["basic", "post"] = field(default="basic", kw_only=True)
    allow_private: bool = field(default=False, kw_only=True)

    _tokens: Tokens = field(
        init=False,
        repr=False,
        eq=False,
        default=Factory(lambda self: Tokens(f"the token endpoint {self.token_url}"), takes_self=True),
    )

    place: ClassVar[str] = "header Authorization"

    def __attrs_post_init__(self) -> None:
        endpoint("oauth2", "token_url", self.token_url, allow_private=self.allow_private)
        if not self.client_id:
            raise ConfigurationError("credential oauth2: client_id is empty")
        if self.auth not in {"basic", "post"}:
            raise ConfigurationError(f"credential oauth2: auth is {self.auth!r}; it must be basic or post")

    def bind(self, secrets: SecretReader) -> Callable[[Caller], Awaitable[Credential]]:
        """Return the function that makes the credential for a caller."""
        return self._tokens.bind([secrets.reader(self.secret)], self._fetch, secrets.colour)

    def expire(self) -> None:
        """Have tokens fetched anew, but for those that were fetched a moment ago: the API refused one."""
        self._tokens.expire()

    def _fetch(self, secret: Secret) -> Loaded[Credential]:
        """Ask for a token. Raises SecretUnavailable."""
        material = secret.reveal().decode("latin-1")
        form = {
            "grant_type": "client_credentials",
            "scope": self.scope,
            "audience": self.audience,
            "resource": self.resource,
        }
        headers = {}
        if self.auth == "post":
            form |= {"client_id": self.client_id, "client_secret": material}
        else:
            pair = httpx.BasicAuth(quote(self.client_id, safe=""), quote(material, safe=""))
            headers["authorization"] = next(pair.auth_flow(httpx.Request("POST", self.token_url))).headers[
                "authorization"
            ]
        return access_token(self.token_url, ask_for_token(self.token_url, form, headers)).loaded(secret.version)
