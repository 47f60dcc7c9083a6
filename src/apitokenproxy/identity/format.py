"""What a client token looks like: `atp_<id>_<secret><checksum>`.

    part      length  what
    atp_           4  the prefix: leaked tokens can be found, misplaced ones refused
    id            12  base62; public, never changes, stands in logs and audit records
    _              1
    secret        33  base62 from the operating system's random source: 196 bits
    checksum       6  base62 of the CRC-32 of everything before it

The checksum is no protection, only a sieve: what fails it was never issued, so it is refused
without asking the store, and a scanner that finds a token's shape can tell it from chance.
"""

import re
import secrets
import zlib
from hashlib import sha256

from apitokenproxy.messages import TOKEN_PREFIX, HiddenText

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_LENGTH = 12
_SECRET_LENGTH = 33
_CHECKSUM_LENGTH = 6
_ID_START = len(TOKEN_PREFIX)
_ID_END = _ID_START + _ID_LENGTH
_CHECKSUM_START = _ID_END + 1 + _SECRET_LENGTH
TOKEN_LENGTH = _CHECKSUM_START + _CHECKSUM_LENGTH
"""The length of every client token in bytes (and letters): 56."""

SCAN_REGEX = TOKEN_PREFIX.decode() + r"[0-9A-Za-z]{12}_[0-9A-Za-z]{39}"
"""For secret scanners: matches every client token, also in the middle of a text.

It uses nothing that RE2, Hyperscan, PCRE and Python do not agree on.
"""

_TOKEN = re.compile(SCAN_REGEX.encode())
_ID = re.compile(r"[0-9A-Za-z]{12}")


def mint(token_id: str | None = None) -> tuple[str, HiddenText]:
    """Return an id and a new token string: for `token_id`, or for a new id when it is None."""
    identifier = new_id() if token_id is None else token_id
    head = f"{TOKEN_PREFIX.decode()}{identifier}_{_random(_SECRET_LENGTH)}"
    return identifier, HiddenText(head + _checksum(head.encode()).decode())


def id_in(token: bytes) -> str | None:
    """Return the id in `token`, or None for what is not well formed or fails its checksum."""
    if len(token) != TOKEN_LENGTH or _TOKEN.fullmatch(token) is None:
        return None
    if _checksum(token[:_CHECKSUM_START]) != token[_CHECKSUM_START:]:
        return None
    return token[_ID_START:_ID_END].decode()


def new_id() -> str:
    """Return a new id."""
    return _random(_ID_LENGTH)


def is_id(text: str) -> bool:
    """Tell whether `text` has the form of a token's id."""
    return _ID.fullmatch(text) is not None


def digest(token: bytes) -> bytes:
    """Return the SHA-256 of the whole token string: what stores keep.

    A slow hash would protect a guessable secret; this one has 196 random bits, and a slow hash
    would let strangers use up the processor.
    """
    return sha256(token).digest()


def _random(length: int) -> str:
    return "".join(secrets.choice(_BASE62) for _ in range(length))


def _checksum(head: bytes) -> bytes:
    rest = zlib.crc32(head)
    letters = []
    for _ in range(_CHECKSUM_LENGTH):
        rest, index = divmod(rest, len(_BASE62))
        letters.append(_BASE62[index])
    return "".join(reversed(letters)).encode()
