"""What may stand on the wire, wherever it comes from: header fields and query parameters."""

import re
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

CONTROLS = bytes([*range(9), *range(10, 32), 127])
"""Characters that must not stand in a field value (RFC 9110, section 5.5); a tab may."""

NAME = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
"""Characters that a field name, in lower case, is made of (RFC 9110, section 5.6.2)."""

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"te",
        b"trailer",
        b"trailers",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Fields that are about one connection (RFC 9110, section 7.6.1; RFC 7540, section 3.2.1)."""

NEVER_INJECTED = HOP_BY_HOP | {b"content-length", b"expect", b"host"}
"""Fields that the forwarder writes, or that change what a message is; no credential puts them on."""

_PARAMETER = bytes(byte for byte in range(0x21, 0x7F) if byte not in b"#&")

_UNLIKE = re.compile(rb"[\x00-\x20.+]+")
_SEPARATOR = re.compile(rb"[&;]")

_OF_CONNECTIONS = frozenset({b"credssp", b"kerberos", b"nego2", b"negotiate", b"ntlm"})
_SCHEME = re.compile(rb"[\s,]*+([^\s,]*+)")
_AUTHORIZATION = frozenset({b"authorization", b"proxy-authorization"})

Pairs = Iterable[tuple[bytes, bytes]]


def can_be_injected(headers: Pairs, query: Pairs) -> bool:
    """Say whether header fields and query parameters, already percent-encoded, can be put on a request."""
    return all(_is_field(name.lower(), value) for name, value in headers) and all(
        _is_parameter(name, value) for name, value in query
    )


def _is_field(name: bytes, value: bytes) -> bool:
    token = name and not name.translate(None, NAME) and name not in NEVER_INJECTED
    return bool(token and value and value.translate(None, CONTROLS) == value)


def _is_parameter(name: bytes, value: bytes) -> bool:
    return bool(name) and b"=" not in name and not (name + value).translate(None, _PARAMETER)


def likeness(name: bytes) -> bytes:
    """Return what a parameter's name has in common with others that a backend may take for the same.

    Case and blanks do not count, `key[]` is `key`, and PHP reads `a.b` as `a_b`.
    """
    decoded = unquote_to_bytes(unquote_to_bytes(name)).lower().partition(b"[")[0]
    return _UNLIKE.sub(b"_", decoded).strip(b"_")


def with_parameters(query: bytes, added: Pairs) -> bytes | None:
    """Return a query (empty, or with its leading `?`) with parameters added; None when it has one like them."""
    sent = {likeness(parameter.partition(b"=")[0]) for parameter in _SEPARATOR.split(query[1:])}
    parameters = []
    for name, value in added:
        if likeness(name) in sent:
            return None
        parameters.append(name + b"=" + value)
    return (query + b"&" if query[1:] else b"?") + b"&".join(parameters)


def authenticates_a_connection(headers: Pairs) -> bool:
    """Say whether one of the fields is of a scheme (NTLM, RFC 4559 ...) under which all that follows is let through."""
    return any(name.lower() in _AUTHORIZATION and _scheme(value) in _OF_CONNECTIONS for name, value in headers)


def _scheme(value: bytes) -> bytes:
    """Return the first word in lower case, as the most lenient reader would find it."""
    found = _SCHEME.match(value)
    return found[1].lower() if found else b""
