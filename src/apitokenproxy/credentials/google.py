"""Tokens of a Google service account, for the JSON file that holds its key.

Google's documentation says how: "Using OAuth 2.0 for Server to Server Applications". That file names the token
endpoint too: what is asked is only what it says, over https, and nothing of the file is ever shown.
"""

import base64
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar

from attrs import Factory, field, frozen

from apitokenproxy.credentials.access_token import AccessToken, access_token, ask_for_token, lifetime, sendable
from apitokenproxy.credentials.jwt_bearer import GRANT
from apitokenproxy.credentials.naming import endpoint
from apitokenproxy.credentials.signing import Signing, claims
from apitokenproxy.credentials.tokens import Tokens
from apitokenproxy.errors import ConfigurationError, SecretUnavailable
from apitokenproxy.interfaces import SecretReader
from apitokenproxy.loading import Loaded
from apitokenproxy.messages import Caller, Credential, HiddenText, Secret

_LASTS = 3600
_NEEDED = ("client_email", "private_key", "private_key_id", "token_uri")
_WHAT = "the token_uri of the Google service account"


@frozen
class GoogleServiceAccount:
    """`Authorization: Bearer` with a token of a Google service account.

    `key` says where the JSON file of its key is. With `scopes` it is an access token, for `subject` when the
    account has domain-wide delegation; with `audience` it is an ID token for that audience, as Cloud Run and
    IAP want it. Needs `apitokenproxy[jwt]`. `allow_private` permits plain http to the token endpoint.

    Raises ConfigurationError.
    """

    key: str = field(repr=False)
    scopes: Sequence[str] = field(default=(), kw_only=True)
    subject: str = field(default="", kw_only=True)
    audience: str = field(default="", kw_only=True)
    allow_private: bool = field(default=False, kw_only=True)
    clock: Callable[[], float] = field(default=time.time, kw_only=True, repr=False, eq=False)

    _signing: Signing = field(init=False, repr=False, eq=False, factory=Signing)
    _tokens: Tokens = field(init=False, repr=False, eq=False, default=Factory(lambda: Tokens(_WHAT)))

    place: ClassVar[str] = "header Authorization"

    def __attrs_post_init__(self) -> None:
        if isinstance(self.scopes, str) or not all(isinstance(scope, str) and scope for scope in self.scopes):
            raise ConfigurationError("credential google-service-account: scopes is a list of texts")
        if bool(self.scopes) == bool(self.audience):
            raise ConfigurationError("credential google-service-account: name either scopes or audience")
        if self.audience and self.subject:
            raise ConfigurationError("credential google-service-account: subject is for access tokens, with scopes")

    def bind(self, secrets: SecretReader) -> Callable[[Caller], Awaitable[Credential]]:
        """Return the function that makes the credential for a caller."""
        self._signing.ready()  # what is missing is told when the proxy is mounted
        return self._tokens.bind([secrets.reader(self.key, lines=True)], self._fetch, secrets.colour)

    def expire(self, refused: Credential) -> None:
        """Have the token fetched anew that the API refused, unless it is fresh."""
        self._tokens.refused(refused)

    def _fetch(self, secret: Secret) -> Loaded[Credential]:
        """Ask for a token. Raises SecretUnavailable."""
        account = self._account(secret)
        url = account["token_uri"]
        wanted = {"target_audience": self.audience} if self.audience else {"scope": " ".join(self.scopes)}
        said = claims(account["client_email"], self.subject, url, self.clock(), _LASTS) | wanted
        key = Secret(account["private_key"])
        assertion = self._signing.sign(key, said, algorithm="RS256", key_id=account["private_key_id"])
        answer = ask_for_token(url, {"grant_type": GRANT, "assertion": assertion}, what=_WHAT)
        if not self.audience or not answer.ok:
            return access_token(_WHAT, answer).loaded(secret.version)
        token = sendable(_WHAT, answer, "id_token")
        return AccessToken(token, lifetime(_WHAT, _end_of(token) - self.clock())).loaded(secret.version)

    def _account(self, secret: Secret) -> dict[str, HiddenText]:
        """Return what the file says. Raises SecretUnavailable, without a word of it."""
        said = _texts_in(secret)
        if said.get("type") != "service_account":
            raise SecretUnavailable('the key of the Google service account is no JSON of the type "service_account"')
        for name in _NEEDED:
            if not said.get(name):
                raise SecretUnavailable(f"the key of the Google service account has no {name}")
        try:
            endpoint("", "", said["token_uri"], allow_private=self.allow_private)
        except ConfigurationError:
            raise SecretUnavailable(f"{_WHAT} is no https URL") from None
        return said


def _texts_in(secret: Secret) -> dict[str, HiddenText]:
    """Return the texts of a JSON object; none of what is no such object."""
    try:
        said = json.loads(secret.reveal())
    except (ValueError, RecursionError):
        return {}
    texts = said.items() if isinstance(said, dict) else ()
    return {name: HiddenText(text) for name, text in texts if isinstance(text, str)}


def _end_of(token: HiddenText) -> float:
    """Return when an ID token ends, 0 when it does not say. It came from whom it was asked of: nobody verifies it."""
    try:
        part = token.split(".")[1]
        return float(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))["exp"])
    except (ValueError, TypeError, LookupError, RecursionError, OverflowError):
        return 0.0
