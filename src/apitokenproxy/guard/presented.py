"""Taking the one credential off a request, from wherever API clients put their keys.

Rules:
1. Exactly one credential. Two, a repeated field, or a list that a server joined with commas are
   refused: choosing between them would be guessing.
2. Where the operator named a header for client tokens and it is there, it alone decides.
3. Nothing is verified here, and nothing that stood in these places is ever forwarded.
"""

import base64
import binascii
import re

from apitokenproxy.errors import BadHeader, MultipleCredentials
from apitokenproxy.guard.fields import Found
from apitokenproxy.messages import TOKEN_PREFIX, Hidden, Presented

_KEYS = {
    b"x-api-key": "x-api-key",
    b"api-key": "api-key",
    b"x-goog-api-key": "x-goog-api-key",
    b"private-token": "private-token",
}

_COMMA, _BLANK, _TAB = b", \t"
_KEY_NAMES = frozenset(_KEYS)

PLACES = _KEY_NAMES | {b"authorization"}
"""The headers in which API clients send their keys, in lower case."""

_SCHEMES = {b"bearer": "bearer", b"token": "token"}
_USUAL_BEARER = frozenset({b"Bearer ", b"bearer "})  # saves taking the value apart
_SIGV4_FIELDS = frozenset({b"Credential", b"SignedHeaders", b"Signature"})

# In a list of challenges that a server joined, a scheme is followed by a blank and no "=" (RFC 9110, section 11.4).
_SECOND_SCHEME = re.compile(rb",[ \t]*[!#$%&'*+.^_`|~0-9A-Za-z-]+[ \t]+[^ \t=]")


def take_credential(
    found: Found, token_header: bytes | None, token: Hidden | None, address: str = ""
) -> Presented | None:
    """Return the credential that a request presents, None when it presents none.

    `token` was given apart from the headers and decides alone; so does `token_header` when it is
    among the headers. A credential of an unknown scheme has the place `authorization` and is the
    whole value. Raises MultipleCredentials, or BadHeader for an empty or malformed one.
    """
    if token is not None:
        return Presented("token-header", Hidden(_one(token)), address)
    if token_header is not None and token_header in found:
        return Presented("token-header", Hidden(_one(_only(found[token_header]))), address)
    authorization = found.get(b"authorization")
    if _KEY_NAMES.isdisjoint(found):
        return None if authorization is None else _authorization(_only(authorization), address)
    used = [name for name in _KEYS if name in found]
    if authorization is not None or len(used) > 1:
        raise MultipleCredentials("credentials stand in more than one header")
    return Presented(_KEYS[used[0]], Hidden(_one(_only(found[used[0]]))), address)


def _only(values: list[bytes]) -> bytes:
    if len(values) != 1:
        raise MultipleCredentials("a credential's header is repeated")
    return values[0]


def _one(value: bytes) -> bytes:
    value = value.strip(b" \t")
    if not value:
        raise BadHeader("a credential is empty")
    if _COMMA in value:
        raise MultipleCredentials("a credential's header is a list")
    if _BLANK in value or _TAB in value:
        raise BadHeader("a credential holds a blank")
    return value


def _authorization(value: bytes, address: str) -> Presented:
    if value[:7] in _USUAL_BEARER:
        return Presented("bearer", Hidden(_one(value[7:])), address)
    scheme, _, rest = value.strip(b" \t").partition(b" ")
    scheme = scheme.lower()
    if scheme in _SCHEMES:
        return Presented(_SCHEMES[scheme], Hidden(_one(rest)), address)
    if scheme == b"basic":
        return Presented("basic", Hidden(_basic(_one(rest))), address)
    if scheme == b"aws4-hmac-sha256":
        return Presented("sigv4", Hidden(_one(_sigv4(rest))), address)
    if not scheme:
        raise BadHeader("the Authorization header is empty")
    if _SECOND_SCHEME.search(value):
        raise MultipleCredentials("the Authorization header is a list")
    return Presented("authorization", Hidden(value), address)


def _basic(encoded: bytes) -> bytes:
    """Return the half that is a client token, or the whole pair when none is (RFC 7617)."""
    try:
        pair = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raise BadHeader("the Basic credential is not base64") from None
    halves = [half for half in pair.split(b":", 1) if half.startswith(TOKEN_PREFIX)]
    if len(halves) > 1:
        raise MultipleCredentials("both halves of the Basic credential are client tokens")
    if not pair:
        raise BadHeader("a credential is empty")
    return halves[0] if halves else pair


def _sigv4(parameters: bytes) -> bytes:
    """Return the access key of a signature (AWS Signature Version 4, "Authorization header")."""
    fields = [field.strip(b" \t").partition(b"=") for field in parameters.split(b",")]
    names = [name for name, _, _ in fields]
    if not _SIGV4_FIELDS.issuperset(names) or len(set(names)) != len(names):
        raise MultipleCredentials("the AWS signature has fields that are repeated or are not its own")
    values = {name: value for name, _, value in fields}
    return values.get(b"Credential", b"").partition(b"/")[0]
