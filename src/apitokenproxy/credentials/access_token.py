"""What token endpoints answer (RFC 6749, section 5), and the credential that an access token makes.

Rules:
1. A token is never used after its end; one that does not say when that is, for some minutes.
2. What an endpoint says is never told, for it may repeat a secret: its status is, and an error code that is
   one of those that the standards name.
"""

import math
import re
from collections.abc import Collection, Mapping
from hashlib import sha256

from attrs import field, frozen

from apitokenproxy.asking import SECONDS, Answer, ask
from apitokenproxy.errors import SecretUnavailable
from apitokenproxy.loading import Loaded
from apitokenproxy.messages import Credential, Hidden, HiddenText

DEFAULT_LIFETIME = 300.0
"""Seconds that a token is used which does not say how long it lasts."""
LEEWAY = 10.0
"""Seconds before its end from which a token is not used: requests are under way for a while."""

SHORTEST = 1.0
"""Seconds. A token that lasts for less is over: otherwise each request would ask for another one."""

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
_TOKEN = re.compile(rb"[!-~]+")
REFRESH_TOKEN = re.compile(rb"[ -~]+")
"""RFC 6749, appendix A.17: it stands in a form, and may hold blanks."""
_NUMBER = re.compile(r"[0-9]{1,15}")
_LONGEST = 10 * 365 * 86400.0


@frozen
class AccessToken:
    """A token and for how many seconds from now it lasts."""

    value: HiddenText = field(repr=False)
    lasts: float

    @property
    def usable(self) -> float:
        """For how many seconds it is used: its end comes while requests are under way."""
        return max(self.lasts - LEEWAY, min(self.lasts, SHORTEST))

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


def access_token(what: str, answer: Answer, *, kinds: Collection[str] = ("bearer",)) -> AccessToken:
    """Return the token that was answered, if its `token_type` is one of `kinds`.

    Raises SecretUnavailable, naming `what` was asked.
    """
    if not answer.ok:
        code = error_code(answer)
        raise SecretUnavailable(f"{what} gives no token: status {answer.status}{code and f', {code}'}")
    if str(answer.said.get("token_type", "bearer")).lower() not in kinds:
        raise SecretUnavailable(f"{what} gave no bearer token")
    lasts = _seconds(answer.said.get("expires_in", DEFAULT_LIFETIME))
    return AccessToken(sendable(what, answer, "access_token"), lifetime(what, lasts))


def sendable(what: str, answer: Answer, name: str, form: re.Pattern[bytes] = _TOKEN) -> HiddenText:
    """Return the token under that name in an answer, if it can stand where it is sent. Raises SecretUnavailable."""
    token = Hidden(str(answer.said.get(name)).encode(errors="surrogatepass"))
    if not isinstance(answer.said.get(name), str) or not form.fullmatch(token):
        raise SecretUnavailable(f"{what} gave no token, or one that cannot stand in a header")
    return HiddenText(token.decode())


def lifetime(what: str, seconds: float) -> float:
    """Return for how long a token lasts, if that is still some time. Raises SecretUnavailable."""
    if not SHORTEST <= seconds < math.inf:
        raise SecretUnavailable(f"{what} gave a token that is over, or does not say how long it lasts")
    return min(seconds, _LONGEST)


def _seconds(said: object) -> float:
    """Return a number of seconds, which some write as a text; 0 for what is none."""
    if isinstance(said, str) and _NUMBER.fullmatch(said):
        return int(said)
    return said if isinstance(said, int | float) and not isinstance(said, bool) else 0.0
