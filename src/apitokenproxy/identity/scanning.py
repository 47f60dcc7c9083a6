"""Finding our tokens in text: logs, dumps, files of others."""

import re
from collections.abc import Iterable, Iterator

from apitokenproxy.errors import Unauthenticated
from apitokenproxy.identity.derived import DERIVED_REGEX, opened, take_apart
from apitokenproxy.identity.format import SCAN_REGEX, id_in

# Looking ahead, so that one that begins within another is found too.
_ANYWHERE = re.compile(f"(?=({SCAN_REGEX}|{DERIVED_REGEX}))".encode())


def found_in(lines: Iterable[bytes]) -> Iterator[tuple[int, str, str]]:
    """Yield the number of the line (from 1) and the id of every token in a text, also of one in another word.

    The last of the three is the id of a derived token, whose parent is the second; empty for a client token.
    """
    for number, line in enumerate(lines, 1):
        for match in _ANYWHERE.finditer(line):
            if identifier := id_in(match[1]):
                yield number, identifier, ""
            elif derived := _derived(match[1]):
                yield number, *derived


def _derived(text: bytes) -> tuple[str, str] | None:
    """Return the ids of a derived token's parent and its own, if the text says what such a token says."""
    try:
        derived = take_apart(text)
        return derived.parent, opened(derived)[0].id
    except Unauthenticated:
        return None
