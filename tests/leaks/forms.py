"""Every form in which a secret could turn up in what a program writes down."""

import base64
import re
from collections.abc import Iterable, Mapping
from urllib.parse import unquote_to_bytes

from attrs import frozen

_ESCAPE = re.compile(rb"\\(?:x|u00)([0-9a-fA-F]{2})")
_HALF = 12  # characters: long enough that no text holds them by chance


@frozen
class Leak:
    """What was found, in which form, and what stands around it."""

    name: str
    form: str
    around: bytes


def forms(secret: str) -> dict[str, bytes]:
    """Return the needles to look for, by the name of their form.

    Base64 in its three alignments and both alphabets, without the characters that neighbouring bytes
    take part in. Hex and percent forms are in lower case, for a haystack in lower case.
    """
    raw = secret.encode()
    found = {"raw": raw, "reversed": raw[::-1], "hex": raw.hex().encode()}
    found["percent"] = b"".join(b"%%%02x" % byte for byte in raw)
    if len(raw) >= 2 * _HALF:
        found["first half"] = raw[: len(raw) // 2]
        found["second half"] = raw[-(len(raw) // 2) :]
    for offset in range(3):
        padded = b"\0" * offset + raw
        start, end = -(-offset * 8 // 6), len(padded) * 8 // 6
        for name, encode in (("base64", base64.b64encode), ("base64url", base64.urlsafe_b64encode)):
            found[f"{name} at {offset}"] = encode(padded)[start:end]
    return found


def find(secrets: Mapping[str, str], haystack: bytes) -> list[Leak]:
    """Look for every form of every secret, also below percent, backslash and line-break encodings."""
    views = [haystack, unquote_to_bytes(haystack), _ESCAPE.sub(lambda m: bytes([int(m[1], 16)]), haystack)]
    views.append(re.sub(rb"\s+", b"", haystack))
    leaks = []
    for name, secret in secrets.items():
        for form, needle in forms(secret).items():
            folded = form in {"hex", "percent"}
            for view in views:
                place = (view.lower() if folded else view).find(needle)
                if place >= 0:
                    leaks.append(Leak(name, form, view[max(0, place - 160) : place + 160]))
                    break
    return leaks


def assert_clean(secrets: Mapping[str, str], places: Mapping[str, bytes] | Iterable[tuple[str, bytes]]) -> None:
    """Fail, saying where and in which form, when any secret stands in any of the places."""
    items = places.items() if isinstance(places, Mapping) else places
    leaks = [
        f"{where}: {leak.name} ({leak.form}) in {leak.around!r}"
        for where, data in items
        for leak in find(secrets, data)
    ]
    if leaks:
        raise AssertionError("\n".join(leaks[:20]))
