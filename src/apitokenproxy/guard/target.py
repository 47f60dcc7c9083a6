"""Taking a request target apart: mount, prefix, upstream name, path, query.

Rules:
1. The raw target is the truth; nothing that a server decoded is looked at.
2. Mount and prefix are taken off only at a segment boundary.
3. The query is passed on byte for byte. A token in it, however encoded, is refused, because URLs
   end up in logs.
"""

import re
from urllib.parse import quote_from_bytes, unquote_to_bytes

from apitokenproxy.errors import BadTarget, NotMounted, TargetTooLong, TokenInTarget
from apitokenproxy.guard.fields import PERCENT
from apitokenproxy.messages import TOKEN_PREFIX, Operation

_LONGEST = 8192
_VISIBLE = bytes(byte for byte in range(0x21, 0x7F) if byte != ord("#"))
_ABSOLUTE = re.compile(rb"https?://([^/?]*)", re.IGNORECASE)
_NAME = b"abcdefghijklmnopqrstuvwxyz0123456789-"
_LONGEST_NAME = 63
_BOUNDARY = frozenset({b"", b"/"})


def split_target(target: bytes, mount: bytes, prefix: bytes, host: bytes) -> tuple[str, bytes, bytes]:
    """Return the upstream's name, and the raw path and query below it.

    `target` is the request target as it stood on the request line (RFC 9112, section 3.2), `mount`
    the path at which the host application mounted the proxy: it is taken off when it is there,
    since some frameworks have done so already. `prefix` must follow, unless `mount` ends with it.
    `host` is the Host header, which an absolute-form target must agree with.

    Raises TargetTooLong, TokenInTarget, BadTarget, or NotMounted when there is no upstream's name.
    """
    if len(target) > _LONGEST:
        raise TargetTooLong(f"the target has {len(target)} bytes")
    if target.find(TOKEN_PREFIX) != -1 or (PERCENT in target and _hides_token(target)):
        raise TokenInTarget("a client token stands in the target")
    if target.translate(None, _VISIBLE):
        raise BadTarget("the target holds '#', or a character that is not visible ASCII")
    if target[:1] != b"/":
        target = _below_authority(target, host)
    path = target.partition(b"?")[0]
    query = target[len(path) :]
    if mount:
        mount = mount.rstrip(b"/")
        if path.startswith(mount) and path[len(mount) : len(mount) + 1] in _BOUNDARY:
            path = path[len(mount) :]
    if prefix and not mount.endswith(prefix):
        below = _below(path, prefix)
        if below is None:
            raise NotMounted("the target is not below the prefix")
        path = below
    name, slash, rest = path[1:].partition(b"/")
    if not name or len(name) > _LONGEST_NAME or name.translate(None, _NAME):
        raise NotMounted("the target does not name an upstream")
    return name.decode("ascii"), slash + rest, query


def mounted_at(operation: Operation) -> bytes:
    """Return the raw path of an operation's upstream as its client sees it: mount, prefix, name.

    A mount that the framework has already taken off the target is put back.
    """
    request = operation.request
    name = b"/" + operation.upstream.encode("ascii")
    stood = request.target[: len(request.target) - len(name + operation.path + operation.query)]
    if match := _ABSOLUTE.match(stood):
        stood = stood[match.end() :]
    mount = request.mount.rstrip(b"/")
    if mount and _below(stood, mount) is None:
        stood = quote_from_bytes(mount, safe="/:@!$&'()*+,;=~").encode("ascii") + stood
    return stood + name


def _below(path: bytes, ancestor: bytes) -> bytes | None:
    """Return what follows `ancestor` when it is a whole number of segments of `path`."""
    below = path[len(ancestor) :]
    return below if path.startswith(ancestor) and below[:1] in _BOUNDARY else None


def _below_authority(target: bytes, host: bytes) -> bytes:
    match = _ABSOLUTE.match(target)
    if match is None:
        raise BadTarget("the target is neither a path nor an http URL")
    if match[1].lower() != host.lower():
        raise BadTarget("the target's authority is not the Host header")
    return target[match.end() :]


def _hides_token(target: bytes) -> bool:
    once = unquote_to_bytes(target)
    return TOKEN_PREFIX in once or TOKEN_PREFIX in unquote_to_bytes(once)
