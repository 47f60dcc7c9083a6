"""OAuth 2.0 token exchange (RFC 8693): one token for another, as for a pod's or a machine's own identity."""

import time
from collections.abc import Awaitable, Callable
from typing import ClassVar

from attrs import Factory, field, frozen

from apitokenproxy.credentials.access_token import access_token, ask_for_token
from apitokenproxy.credentials.client_authentication import Auth, Client
from apitokenproxy.credentials.naming import endpoint
from apitokenproxy.credentials.tokens import Tokens
from apitokenproxy.errors import ConfigurationError, SecretUnavailable
from apitokenproxy.interfaces import SecretReader
from apitokenproxy.loading import Loaded
from apitokenproxy.messages import Caller, Credential, HiddenText, Secret

_GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
_TYPE = "urn:ietf:params:oauth:token-type:"
JWT = f"{_TYPE}jwt"
ACCESS_TOKEN = f"{_TYPE}access_token"


@frozen
class OAuth2TokenExchange:
    """`Authorization: Bearer` with a token that `token_url` gives for another one.

    `subject_token` says where that is, as `file:/var/run/secrets/tokens/api`; what another one is made of is
    read again when it changes. `subject_token_type` is its type (a JWT, when left out) and
    `requested_token_type` that of the answer (an access token or a JWT, when left out), both as RFC 8693,
    section 3 names them. `audience`, `resource` and `scope` go into the request when they are set. A client
    that must say who it is has a `client_id` and a `secret`, shown by `auth` as `OAuth2ClientCredentials` does.
    `allow_private` permits plain http.

    Raises ConfigurationError.
    """

    token_url: str
    subject_token: str = field(repr=False)
    subject_token_type: str = field(default=JWT, kw_only=True)
    requested_token_type: str = field(default="", kw_only=True)
    audience: str = field(default="", kw_only=True)
    resource: str = field(default="", kw_only=True)
    scope: str = field(default="", kw_only=True)
    client_id: str = field(default="", kw_only=True)
    secret: str | None = field(default=None, kw_only=True, repr=False)
    auth: Auth = field(default="basic", kw_only=True)
    algorithm: str = field(default="", kw_only=True)
    key_id: str = field(default="", kw_only=True)
    allow_private: bool = field(default=False, kw_only=True)
    clock: Callable[[], float] = field(default=time.time, kw_only=True, repr=False, eq=False)

    _client: Client | None = field(
        init=False, repr=False, eq=False, default=Factory(lambda self: self._make_client(), takes_self=True)
    )
    _tokens: Tokens = field(
        init=False,
        repr=False,
        eq=False,
        default=Factory(lambda self: Tokens(f"the token endpoint {self.token_url}"), takes_self=True),
    )

    place: ClassVar[str] = "header Authorization"

    def _make_client(self) -> Client | None:
        if self.secret is None:
            return None
        return Client(
            "oauth2-token-exchange",
            self.token_url,
            self.client_id,
            self.auth,
            self.algorithm,
            self.key_id,
            self.clock,
        )

    def __attrs_post_init__(self) -> None:
        endpoint("oauth2-token-exchange", "token_url", self.token_url, allow_private=self.allow_private)
        if self.secret is None and (self.auth != "basic" or self.algorithm or self.key_id):
            raise ConfigurationError(
                "credential oauth2-token-exchange: auth, algorithm and key_id show a secret, and there is none"
            )
        for key in ("subject_token_type", "requested_token_type"):
            value = getattr(self, key)
            if ":" not in value and (value or key == "subject_token_type"):
                raise ConfigurationError(f"credential oauth2-token-exchange: {key} {value!r} is no URI, as {JWT} is")

    def bind(self, secrets: SecretReader) -> Callable[[Caller], Awaitable[Credential]]:
        """Return the function that makes the credential for a caller."""
        reads = [secrets.reader(self.subject_token)]
        if self._client is not None and self.secret is not None:
            reads.append(self._client.reader(secrets, self.secret))
        return self._tokens.bind(reads, self._fetch, secrets.colour)

    def expire(self, refused: Credential) -> None:
        """Have the token fetched anew that the API refused, unless it is fresh."""
        self._tokens.refused(refused)

    def _fetch(self, subject: Secret, secret: Secret | None = None) -> Loaded[Credential]:
        """Ask for a token. Raises SecretUnavailable."""
        shown, version = {"client_id": self.client_id}, subject.version
        headers: dict[str, str] = {}
        if self._client is not None and secret is not None:
            shown, headers = self._client.shown(secret)
            version = f"{version},{secret.version}"
        form = {
            "grant_type": _GRANT,
            "subject_token": HiddenText(subject.reveal().decode("latin-1")),
            "subject_token_type": self.subject_token_type,
            "requested_token_type": self.requested_token_type,
            "audience": self.audience,
            "resource": self.resource,
            "scope": self.scope,
        }
        answer = ask_for_token(self.token_url, form | shown, headers)
        wanted = [self.requested_token_type] if self.requested_token_type else [ACCESS_TOKEN, JWT]
        issued = next((one for one in wanted if one == answer.said.get("issued_token_type")), "")
        if answer.ok and not issued:
            raise SecretUnavailable(f"{self.token_url} gave a token of another type than was asked for")
        # What is no access token has the token_type N_A (section 2.2.1): how it is used is not the server's to say.
        kinds = ("bearer",) if issued == ACCESS_TOKEN else ("bearer", "n_a")
        return access_token(self.token_url, answer, kinds=kinds).loaded(version)
