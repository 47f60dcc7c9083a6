"""Finding our tokens in text: logs, dumps, files of others.

Rules:
1. A file is read in blocks, whatever its lines are: a dump of any size takes the same memory.
2. What could be cut off by the end of a block is looked for again with the next one, and told once.
"""

import re
from collections.abc import Iterator
from typing import BinaryIO, Final

from apitokenproxy.errors import Unauthenticated
from apitokenproxy.identity.derived import DERIVED_REGEX, LONGEST, take_apart
from apitokenproxy.identity.format import SCAN_REGEX, id_in

BLOCK: Final = 1 << 18
"""Bytes."""

# Looking ahead, so that one that begins within another is found too.
_ANYWHERE = re.compile(f"(?=({SCAN_REGEX}|{DERIVED_REGEX}))".encode())


def found_in(file: BinaryIO) -> Iterator[tuple[int, str, str]]:
    """Yield the number of the line (from 1) and the id of every token in a text, also of one in another word.

    The last of the three is the id of a derived token, whose parent is the second; empty for a client token.
    """
    line, kept = 1, b""
    while True:
        block = file.read(BLOCK)
        text = kept + block
        # A token that begins before this place stands here whole, and what follows it too.
        end = len(text) - LONGEST - 1 if block else len(text)
        counted = 0
        for match in _ANYWHERE.finditer(text):
            if match.start() >= end:
                break
            if found := _token(match[1]):
                line += text.count(b"\n", counted, match.start())
                counted = match.start()
                yield line, *found
        if not block:
            return
        end = max(end, 0)
        line += text.count(b"\n", counted, end)
        kept = text[end:]


def _token(text: bytes) -> tuple[str, str] | None:
    """Return the id of a client token, or those of a derived token's parent and its own, if it is one."""
    if identifier := id_in(text):
        return identifier, ""
    try:
        derived = take_apart(text)
    except Unauthenticated:
        return None
    return derived.parent, derived.head.id
