"""Judging a path: every way in which a backend might read it must stay where it seems to be.

Rules:
1. The same rules hold at every level of decoding: as it stands, decoded once, twice and thrice. A
   path that could be decoded once more is refused.
2. Characters that an upstream opted in to stay opaque. Dot segments are refused in every reading:
   split at slashes and backslashes of any level, parameters cut, blanks and invisible characters
   taken out, and after Unicode compatibility normalisation (NFKC).
3. Nothing is normalised for sending. The readings are for denials.

The set of characters and the rules come from comparing what servers and proxies disagree about
(dot segments: RFC 3986, section 3.3 and 5.2.4; NFKC: UAX 15).
"""

import re
import unicodedata
from urllib.parse import unquote_to_bytes

from apitokenproxy.errors import (
    BadTarget,
    BadUtf8,
    EmptySegment,
    EncodedPercent,
    EncodedSlash,
    PathDotSegment,
    PathParameter,
)
from apitokenproxy.upstream import Upstream

Reading = tuple[str, ...]

_PLAIN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*,=:@/"
"""What may stand in a path and means the same to everybody. A `+` is a blank to some."""

_ALLOWED = _PLAIN + b"+%;"

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
# `%u002e` is a form of IIS; it is only ever seen here below an encoded percent sign.
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\\#?]|%[uU][0-9A-Fa-f]{4}")

# Blanks, and what is not seen and is ignored by some (Default_Ignorable_Code_Point, UAX 44).
_BLANK = (
    r"\s\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    r"\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_DOT = rf"\.[+{_BLANK}]*+"
_DOT_SEGMENT = re.compile(rf"(?:\A|[/\\;?#])[+{_BLANK}]*+{_DOT}(?:{_DOT})?(?:[/\\;?#]|\Z)")
_BLANK_SEGMENT = re.compile(rf"(?:\A|/)[{_BLANK}]++(?:/|\Z)")

_MOST_LEVELS = 4  # as it stands and decoded three times


def read_path(path: bytes, upstream: Upstream | None) -> tuple[Reading, ...]:
    """Judge a raw path by an upstream's terms and return its readings; None knows no opt-ins.

    The first reading is the path split at its slashes, each segment percent-decoded; then follow
    the other ways in which a backend might read it, each once, at most six in all. Raises
    BadTarget, or one of its subclasses that says what is wrong.
    """
    if path.translate(None, _PLAIN) or path.find(b"/.") != -1 or path.find(b"//") != -1:
        return _read_unusual(path, upstream)
    segments = tuple(path[1:].decode("ascii").split("/"))
    if segments[-1]:
        return (segments,)
    return (segments, segments[:-1]) if len(segments) > 1 else ((),)


def has_dot_segment(path: bytes) -> bool:
    """Say whether any reading of a raw path has a dot segment, or whether it cannot be read at all."""
    try:
        return any(_DOT_SEGMENT.search(text) or _DOT_SEGMENT.search(_folded(text)) for text in _levels(path))
    except BadTarget:
        return True


def _read_unusual(path: bytes, upstream: Upstream | None) -> tuple[Reading, ...]:
    if path.translate(None, _ALLOWED):
        raise BadTarget("the path holds a character that is not forwarded")
    levels = _levels(path)
    for depth, text in enumerate(levels):
        _judge(text, depth, levels[0].count("/"), upstream)
    return _readings(path, levels)


def _levels(path: bytes) -> list[str]:
    """Return the path as it stands, decoded once, twice, until there is nothing to decode."""
    try:
        levels = [path.decode("ascii")]
        if _BAD_ESCAPE.search(levels[0]):
            raise BadTarget("the path holds a percent sign without two hexadecimal digits")
        while _ESCAPE.search(levels[-1]):
            if len(levels) == _MOST_LEVELS:
                raise EncodedPercent("the path is percent-encoded more than three times")
            levels.append(unquote_to_bytes(levels[-1]).decode("utf-8"))
    except UnicodeDecodeError:
        raise BadUtf8("the path does not decode to UTF-8") from None
    return levels


def _folded(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFKC", text)


def _judge(text: str, depth: int, slashes: int, upstream: Upstream | None) -> None:
    """Apply every rule to one level of decoding. `slashes` is how many the raw path has."""
    folded = _folded(text)
    if _FORBIDDEN.search(text):
        raise BadTarget("the decoded path holds a control character, a backslash, '#' or '?'")
    if (depth and "%" in text and not (upstream and upstream.allow_encoded_percent)) or _appears("%", text, folded):
        raise EncodedPercent("the path holds an encoded percent sign")
    if (text.count("/") > slashes and not (upstream and upstream.allow_encoded_slash)) or _appears("/", text, folded):
        raise EncodedSlash("the path holds an encoded slash")
    if (";" in text and not (upstream and upstream.allow_path_parameters)) or _appears(";", text, folded):
        raise PathParameter("the path holds a semicolon")
    if any(_appears(character, text, folded) for character in "\\#?"):
        raise BadTarget("the decoded path holds a character that stands for a backslash, '#' or '?'")
    if _DOT_SEGMENT.search(text) or _DOT_SEGMENT.search(folded):
        raise PathDotSegment("a segment could be read as '.' or '..'")
    if ("//" in text or _BLANK_SEGMENT.search(folded)) and not (upstream and upstream.allow_empty_segments):
        raise EmptySegment("the path holds an empty segment")


def _appears(character: str, text: str, folded: str) -> bool:
    """Say whether normalising makes a character that was not there."""
    return folded is not text and folded.count(character) > text.count(character)


def _readings(path: bytes, levels: list[str]) -> tuple[Reading, ...]:
    first = tuple(unquote_to_bytes(segment).decode("utf-8") for segment in path[1:].split(b"/"))
    split = levels[min(1, len(levels) - 1)][1:].split("/")
    filled = tuple(segment for segment in split if segment)
    cut = tuple(name for name in (segment.partition(";")[0] for segment in filled) if name)
    last = (segment.partition(";")[0].strip() for segment in _folded(levels[-1]).split("/"))
    readings = [first]
    if not first[-1]:
        readings.append(first[:-1])
    readings += [tuple(split), filled, cut, tuple(segment for segment in last if segment)]
    return tuple(dict.fromkeys(readings))
