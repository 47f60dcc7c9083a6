"""What token endpoints answer (RFC 6749, section 5), and the credential that an access token makes.

Rules:
1. A token is never used after its end; one that does not say when that is, for some minutes.
2. What an endpoint says is never told, for it may repeat a secret: its status is, and an error code that is
   one of those that the standards name.
"""

import math
import re
from collections.abc import Mapping
from hashlib import sha256

from attrs import field, frozen

from apitokenproxy.asking import SECONDS, Answer, ask
from apitokenproxy.errors import SecretUnavailable
from apitokenproxy.loading import Loaded
from apitokenproxy.messages import Credential, Hidden

DEFAULT_LIFETIME = 300.0
"""Seconds that a token is used which does not say how long it lasts."""
LEEWAY = 10.0
"""Seconds before its end from which a token is not used: requests are under way for a while."""

_ERRORS = frozenset(
    {
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
        "invalid_target",
    }
)
"""RFC 6749, section 5.2, and RFC 8693, section 2.2.2."""
_TOKEN = re.compile(r"[!-~]+")
_NUMBER = re.compile(r"[0-9]{1,15}")
_LONGEST = 10 * 365 * 86400.0


@frozen
class AccessToken:
    """A token and for how many seconds from now it lasts."""

    value: str = field(repr=False)
    lasts: float

    @property
    def usable(self) -> float:
        """For how many seconds it is used: its end comes while requests are under way."""
        return max(self.lasts - LEEWAY, min(self.lasts, 1.0))

    def loaded(self, version: str) -> Loaded[Credential]:
        """Return the credential, made of secrets of that version, and its life."""
        return Loaded(bearer(self.value, version), self.usable, self.usable)


def bearer(token: str, version: str) -> Credential:
    """Return the credential `Authorization: Bearer`, made of secrets of that version."""
    value = Hidden(b"Bearer " + token.encode())
    return Credential(headers=((b"Authorization", value),), version=version, token=token_name(token))


def token_name(token: str) -> str:
    """Return what names a token without telling it."""
    return sha256(token.encode()).hexdigest()[:8]


def ask_for_token(
    url: str,
    form: Mapping[str, str],
    headers: Mapping[str, str] | None = None,
    *,
    what: str = "",
    seconds: float = SECONDS,
) -> Answer:
    """Send a form to a token endpoint. Parameters that are empty are left out. Raises SecretUnavailable."""
    sent = {name: value for name, value in form.items() if value}
    return ask("POST", url, error=SecretUnavailable, headers=headers, form=sent, what=what, seconds=seconds)


def error_code(answer: Answer) -> str:
    """Return the code of a refusal, if it is one that the standards name; otherwise nothing."""
    code = answer.said.get("error")
    return code if isinstance(code, str) and not answer.ok and code in _ERRORS else ""


def access_token(what: str, answer: Answer) -> AccessToken:
    """Return the bearer token that was answered. Raises SecretUnavailable, naming `what` was asked."""
    if not answer.ok:
        code = error_code(answer)
        raise SecretUnavailable(f"{what} gives no token: status {answer.status}{code and f', {code}'}")
    if str(answer.said.get("token_type", "bearer")).lower() != "bearer":
        raise SecretUnavailable(f"{what} gave no bearer token")
    lasts = answer.said.get("expires_in", DEFAULT_LIFETIME)
    if isinstance(lasts, str) and _NUMBER.fullmatch(lasts):
        lasts = int(lasts)  # some say it so
    return AccessToken(sendable(what, answer.said.get("access_token")), lifetime(what, lasts))


def sendable(what: str, token: object) -> str:
    """Return what an answer holds as a token, if it can stand in a header. Raises SecretUnavailable."""
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise SecretUnavailable(f"{what} gave no token, or one that cannot stand in a header")
    return token


def lifetime(what: str, seconds: object) -> float:
    """Return for how long a token lasts, if that is still some time. Raises SecretUnavailable."""
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 < seconds < math.inf:
        raise SecretUnavailable(f"{what} gave a token that is over, or does not say how long it lasts")
    return min(seconds, _LONGEST)
