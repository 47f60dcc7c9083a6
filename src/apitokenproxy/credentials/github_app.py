"""Installation access tokens of a GitHub App: they act as the app where it is installed, for an hour.

GitHub's documentation says how: "Authenticating as a GitHub App installation", and the REST API's
"Create an installation access token for an app".
"""

import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import ClassVar

from attrs import Factory, field, frozen

from apitokenproxy.asking import Answer, ask
from apitokenproxy.credentials.access_token import AccessToken, lifetime, sendable
from apitokenproxy.credentials.naming import endpoint
from apitokenproxy.credentials.signing import Signing
from apitokenproxy.credentials.tokens import Tokens
from apitokenproxy.errors import ConfigurationError, SecretUnavailable
from apitokenproxy.interfaces import SecretReader
from apitokenproxy.loading import Loaded
from apitokenproxy.messages import Caller, Credential, HiddenText, Secret

_BACK = 60
"""Seconds by which GitHub's clock may be behind ours."""
_LASTS = 540
"""Seconds; GitHub takes nothing that lasts more than ten minutes from its own now."""
_NUMBER = re.compile(r"[0-9]{1,20}")
_APP = re.compile(r"[A-Za-z0-9._-]{1,100}")
_HINTS = {
    401: "see that the key is this app's, and that this machine's clock is right",
    403: "the installation may be suspended",
    404: "the app has no such installation",
    422: "repositories or permissions are more than the installation has",
}


@frozen
class GitHubApp:
    """`Authorization: Bearer` with a token of one installation of a GitHub App.

    `app_id` is the app's id or its client id. `installation` is a number, or a secret reference that leads to
    one (`file:/run/github/{tenant}`: each tenant's own). `key` says where the app's private key is, in PEM.
    `repositories` (names, without their owner) and `permissions` (`{"contents": "read"}`) narrow the token to
    less than the installation has. `url` is the API's, of GitHub Enterprise Server `https://HOST/api/v3`.
    Needs `apitokenproxy[jwt]`. `allow_private` permits plain http.

    Raises ConfigurationError.
    """

    app_id: int | str
    installation: int | str
    key: str = field(repr=False)
    repositories: Sequence[str] = field(default=(), kw_only=True)
    permissions: Mapping[str, str] | None = field(default=None, kw_only=True)
    url: str = field(default="https://api.github.com", kw_only=True)
    allow_private: bool = field(default=False, kw_only=True)
    clock: Callable[[], float] = field(default=time.time, kw_only=True, repr=False, eq=False)

    _signing: Signing = field(init=False, repr=False, eq=False, factory=Signing)
    _tokens: Tokens = field(
        init=False, repr=False, eq=False, default=Factory(lambda self: Tokens(self._what), takes_self=True)
    )

    place: ClassVar[str] = "header Authorization"

    def __attrs_post_init__(self) -> None:
        endpoint("github-app", "url", self.url, allow_private=self.allow_private)
        if not _APP.fullmatch(str(self.app_id)):
            raise ConfigurationError("credential github-app: app_id must be the app's id, a number, or its client id")
        if isinstance(self.installation, bool) or (isinstance(self.installation, int) and self.installation < 1):
            raise ConfigurationError("credential github-app: installation must be a number, or a reference to one")
        if isinstance(self.repositories, str) or not all(isinstance(name, str) for name in self.repositories):
            raise ConfigurationError("credential github-app: repositories is a list of names")
        if not all(isinstance(value, str) for value in (self.permissions or {}).values()):
            raise ConfigurationError('credential github-app: permissions are texts, as contents = "read"')

    @property
    def _what(self) -> str:
        return f"GitHub at {self.url}"

    def bind(self, secrets: SecretReader) -> Callable[[Caller], Awaitable[Credential]]:
        """Return the function that makes the credential for a caller."""
        self._signing.ready()  # what is missing is told when the proxy is mounted
        reads = [secrets.reader(self.key, lines=True)]
        if isinstance(self.installation, str):
            reads.append(secrets.reader(self.installation))
        return self._tokens.bind(reads, self._fetch, secrets.colour)

    def expire(self, refused: Credential) -> None:
        """Have the token fetched anew that the API refused, unless it is fresh."""
        self._tokens.refused(refused)

    def _fetch(self, key: Secret, installation: Secret | None = None) -> Loaded[Credential]:
        """Ask for a token. Raises SecretUnavailable."""
        # Hidden: the reference may lead to another secret.
        number = HiddenText(
            self.installation if installation is None else installation.reveal().decode("latin-1").strip()
        )
        if not _NUMBER.fullmatch(number):
            raise SecretUnavailable("the secret that names the installation of the GitHub App is no number")
        now = int(self.clock())
        said = {"iss": str(self.app_id), "iat": now - _BACK, "exp": now + _LASTS}
        narrowed = {"repositories": list(self.repositories), "permissions": dict(self.permissions or {})}
        answer = ask(
            "POST",
            f"{self.url.rstrip('/')}/app/installations/{number}/access_tokens",
            error=SecretUnavailable,
            headers={
                "accept": "application/vnd.github+json",
                "authorization": HiddenText(f"Bearer {self._signing.sign(key, said, algorithm='RS256')}"),
                "x-github-api-version": "2022-11-28",
            },
            document={name: value for name, value in narrowed.items() if value},
            what=self._what,
        )
        version = key.version if installation is None else f"{key.version},{installation.version}"
        return self._token(answer).loaded(version)

    def _token(self, answer: Answer) -> AccessToken:
        if not answer.ok:
            hint = _HINTS.get(answer.status, "")
            raise SecretUnavailable(f"{self._what} gives no token: status {answer.status}{hint and f'; {hint}'}")
        left = _moment(answer.said.get("expires_at")) - self.clock()
        return AccessToken(sendable(self._what, answer, "token"), lifetime(self._what, left))


def _moment(said: object) -> float:
    """Return a time (ISO 8601) in seconds since the epoch; 0 for what is none."""
    try:
        return datetime.fromisoformat(str(said)).timestamp()
    except (ValueError, OverflowError):
        return 0.0
