"""The forms in which a credential may come back in an answer.

Rules:
1. A value is looked for without its scheme, and decoded where it is encoded itself (Basic, queries).
2. It is looked for as it stands, in hex, and in base64 at each of the three offsets at which it may
   stand in something longer. Whoever looks decodes percent-encoding first.
3. What is too short to be a secret is not looked for, or honest answers would be full of it.
"""

import base64
import binascii
from collections.abc import Iterable, Iterator
from urllib.parse import unquote_to_bytes

Pairs = Iterable[tuple[bytes, bytes]]

_SHORTEST = 4  # bytes, for the whole value of a header or parameter
_SHORTEST_PART = 8  # bytes, for a half of Basic and for encoded forms: names like "user" stand in honest answers
_BASIC = frozenset({b"Basic", b"basic"})
_OFFSETS = ((0, 0), (1, 2), (2, 3))  # bytes that stand before, characters of base64 that they touch


def traces(headers: Pairs, query: Pairs) -> tuple[bytes, ...]:
    """Return every form of the values of a credential's header fields and query parameters, each once."""
    return tuple(dict.fromkeys(form for part in _parts(headers, query) for form in _forms(part)))


def _parts(headers: Pairs, query: Pairs) -> Iterator[bytes]:
    for _, value in query:
        yield unquote_to_bytes(value)
    for _, value in headers:
        scheme, _, material = value.partition(b" ")
        if len(material) >= _SHORTEST:
            yield material
        elif len(value) >= _SHORTEST:
            yield value
        if scheme in _BASIC:
            yield from _halves(material)


def _halves(encoded: bytes) -> list[bytes]:
    try:
        return [half for half in base64.b64decode(encoded).split(b":", 1) if len(half) >= _SHORTEST_PART]
    except binascii.Error:
        return []


def _forms(part: bytes) -> Iterator[bytes]:
    yield bytes(part)
    if len(part) < _SHORTEST_PART:
        return
    yield part.hex().encode()
    yield part.hex().upper().encode()
    for before, touched in _OFFSETS:
        whole = 8 * (before + len(part)) // 6  # characters that hold bits of nothing else
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(bytes(before) + part)[touched:whole]
