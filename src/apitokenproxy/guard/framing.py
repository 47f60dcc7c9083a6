"""The length of a request body (RFC 9112, section 6), stated once and without contradiction.

Everything that two parsers could read differently is refused, so that no request can hide in
another one's body. What goes upstream is framed anew by the forwarder.
"""

from apitokenproxy.errors import BadFraming
from apitokenproxy.guard.fields import Found

_MOST_DIGITS = 18


def body_length(found: Found, has_body: bool) -> int | None:
    """Return the length in bytes of a request's body, None when only its end will tell.

    `has_body` says whether the server has a body to read. Raises BadFraming.
    """
    lengths, encodings = found.get(b"content-length"), found.get(b"transfer-encoding")
    if lengths is None and encodings is None:
        return None if has_body else 0
    if encodings is not None:
        if lengths is not None or encodings != [b"chunked"]:
            raise BadFraming("Transfer-Encoding is not exactly 'chunked', or Content-Length stands beside it")
        length = None
    else:
        length = _content_length(lengths or [])
    if length != 0 and not has_body:
        raise BadFraming("a body is announced and there is none")
    return length


def _content_length(values: list[bytes]) -> int:
    if len(values) != 1 or not values[0].isdigit() or len(values[0]) > _MOST_DIGITS:
        raise BadFraming("Content-Length is repeated, or is not a number of at most 18 digits")
    return int(values[0])
