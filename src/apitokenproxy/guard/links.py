"""Leading links in an answer back through the proxy.

A link to the upstream becomes one to the place where the client sees the upstream; everything else
leads elsewhere. What browsers and clients read differently (backslashes, blanks, `//host`,
`https:host`, a user before the host, dot segments) leads elsewhere.
"""

import re
from urllib.parse import unquote_to_bytes

from apitokenproxy.guard.path import has_dot_segment
from apitokenproxy.guard.target import mounted_at
from apitokenproxy.messages import Operation, Origin
from apitokenproxy.upstream import Upstream

_VISIBLE = bytes(byte for byte in range(0x21, 0x7F) if byte not in b'\\<>"')
_ABSOLUTE = re.compile(rb"(https?)://([^/?#]+)([^?#]*)(.*)", re.IGNORECASE)
_SCHEME = re.compile(rb"[^/?#]*:")
_TAIL = re.compile(rb"[?#]")
_AUTHORITY = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{1,5}))?")
_PORTS = {b"http": 80, b"https": 443}


def lead_back(reference: bytes, operation: Operation, upstream: Upstream) -> bytes | None:
    """Return a URI reference (RFC 3986, section 4.1) as the client may follow it, None if it leads elsewhere.

    An absolute URL stays absolute and an absolute path stays one; a relative reference that stays
    below the upstream is returned as it is.
    """
    if reference.translate(None, _VISIBLE) or reference.startswith(b"//"):
        return None
    if absolute := _ABSOLUTE.fullmatch(reference):
        scheme, authority, path, tail = absolute.groups()
        if not _is_origin(scheme.lower(), authority, upstream.origin):
            return None
        below = _below(path, upstream.base)
        site = operation.request.scheme + b"://" + operation.host
        return None if below is None else site + mounted_at(operation) + below + tail
    if _SCHEME.match(reference):
        return None
    path = _TAIL.split(reference, maxsplit=1)[0]
    if path[:1] == b"/":
        below = _below(path, upstream.base)
        back = None if below is None else mounted_at(operation) + below + reference[len(path) :]
        return None if back is None or back.startswith(b"//") else back
    return reference if _stays_below(path, operation.path) else None


def _is_origin(scheme: bytes, authority: bytes, origin: Origin) -> bool:
    match = _AUTHORITY.fullmatch(authority)
    if match is None or scheme.decode("ascii") != origin.scheme:
        return False
    host = (match[1] or match[2]).lower().decode("ascii")
    port = int(match[3]) if match[3] else _PORTS[scheme]
    return (host, port) == (origin.host.lower(), origin.port)


def _below(path: bytes, base: bytes) -> bytes | None:
    below = path[len(base) :]
    if not path.startswith(base) or below[:1] not in {b"", b"/"} or has_dot_segment(below):
        return None
    return below


def _stays_below(relative: bytes, path: bytes) -> bool:
    """Say whether a relative path, seen from `path`, leads to something below the upstream's name."""
    if not relative:
        return True
    depth = path.count(b"/") - 1
    if depth < 0:
        return False
    for segment in relative.split(b"/"):
        plain = unquote_to_bytes(segment)
        if plain == b"..":
            depth -= 1
        elif plain != b".":
            if has_dot_segment(segment):
                return False
            depth += 1
        if depth < 0:
            return False
    return True
