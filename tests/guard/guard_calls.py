"""Requests and answers for the guard's tests, and what a backend might make of a path."""

import re
import unicodedata
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import unquote_to_bytes

from apitokenproxy.guard import Guard, clean_reply, inject
from apitokenproxy.messages import Caller, Credential, Grant, Headers, Hidden, Operation, Outbound, Reply, Request
from apitokenproxy.upstream import Upstream

TOKEN = b"atp_k3yid0123456_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKL"
SECRET = b"ghp_S3cretS3cretS3cretS3cret"
HOST = (b"Host", b"proxy.example.com")
BEARER = (b"Authorization", b"Bearer " + TOKEN)
CREDENTIAL = Credential(headers=((b"Authorization", Hidden(b"Bearer " + SECRET)),))
OPT_INS = ("allow_encoded_slash", "allow_empty_segments", "allow_path_parameters", "allow_encoded_percent")


class NoCredential:
    """Stands where an upstream names its credential; the guard never asks it."""

    def credential(self, caller: Any) -> Credential:
        return CREDENTIAL


def an_upstream(url: str = "https://api.example.com/v1/base", name: str = "api", **terms: Any) -> Upstream:
    return Upstream(name, url, credential=NoCredential(), **terms)


def a_request(target: bytes = b"/api/x", headers: Iterable[tuple[bytes, bytes]] = (), **fields: Any) -> Request:
    sent = list(headers)
    if not any(name.lower() == b"host" for name, _ in sent):
        sent.insert(0, HOST)
    return Request(fields.pop("method", b"GET"), target, sent, **fields)


def inspect(request: Request, upstream: Upstream | None = None, **terms: Any) -> Operation:
    upstream = upstream or an_upstream()
    return Guard({upstream.name: upstream}, **terms).inspect(request)


def granted(operation: Operation) -> Grant:
    """Return the grant that lets it be sent."""
    return Grant(Caller("acme"), operation, "rule")


def forwarded(target: bytes, **opt_ins: Any) -> Outbound:
    """Return what would be sent upstream for a target."""
    upstream = an_upstream(**opt_ins)
    return inject(granted(inspect(a_request(target), upstream)), upstream, CREDENTIAL)


def answered(
    headers: Headers,
    *,
    status: int = 200,
    request: Request | None = None,
    upstream: Upstream | None = None,
    credential: Credential = CREDENTIAL,
    prefix: bytes = b"",
) -> Headers:
    """Return the headers that a client would get for an upstream's."""
    upstream = upstream or an_upstream()
    operation = inspect(request or a_request(b"/proxy/api/items/7", mount=b"/proxy"), upstream, prefix=prefix)
    return clean_reply(Reply(status, headers, iter(()), lambda: None), operation, upstream, credential)


def values(headers: Headers, name: bytes) -> list[bytes]:
    return [value for key, value in headers if key.lower() == name.lower()]


# --- what a backend might read --------------------------------------------------------------

_OVERLONG = re.compile(rb"[\xc0\xc1][\x80-\xbf]|\xe0[\x80-\x9f][\x80-\xbf]|\xf0[\x80-\x8f][\x80-\xbf][\x80-\xbf]")
_UNSEEN = {"Cf"}


def _overlong(raw: bytes) -> bytes:
    """Decode overlong UTF-8 as a decoder that does not check for it."""

    def short(match: re.Match[bytes]) -> bytes:
        code = 0
        for byte in match[0][1:]:
            code = code << 6 | byte & 0x3F
        code |= (match[0][0] & 0x1F if len(match[0]) == 2 else match[0][0] & 0x0F) << 6 * (len(match[0]) - 1)
        return chr(code).encode()

    return _OVERLONG.sub(short, raw)


def _decoded(text: str) -> set[str]:
    raw = unquote_to_bytes(text)
    wide = re.sub(r"%[uU]([0-9A-Fa-f]{4})", lambda match: chr(int(match[1], 16)), text)
    return {
        raw.decode("utf-8", "replace"),
        raw.decode("utf-8", "ignore"),
        raw.decode("latin-1"),
        _overlong(raw).decode("utf-8", "replace"),
        unquote_to_bytes(wide.encode("utf-8", "replace")).decode("utf-8", "replace"),
    }


_STAGES: tuple[Callable[[str], str], ...] = (
    lambda text: unicodedata.normalize("NFKC", text),
    lambda text: text.replace("\\", "/"),
    lambda text: re.split(r"[\x00?#]", text, maxsplit=1)[0],
    lambda text: "/".join(segment.partition(";")[0] for segment in text.split("/")),
    lambda text: text.partition(";")[0],
    lambda text: text.replace(";", "/"),
    lambda text: "".join(c for c in text if unicodedata.category(c) not in _UNSEEN),
    lambda text: "/".join(segment.strip() for segment in text.split("/")),
    lambda text: re.sub("/+", "/", text),
)


def backend_readings(path: bytes, *, plus: bool = True) -> set[str]:
    """Return the path in every way in which a backend might read it, short of resolving dots."""
    readings = {path.decode("latin-1")}
    for _ in range(3):
        readings |= {other for text in readings for other in _decoded(text)}
    if plus:
        readings |= {text.replace("+", " ") for text in readings}
    for stage in _STAGES:
        readings |= {stage(text) for text in readings}
    return readings


def leaves(path: bytes, base: str) -> bool:
    """Say whether any backend could take `path` for something that is not below `base`."""
    root = [segment for segment in base.split("/") if segment]
    for text in backend_readings(path):
        stack: list[str] = []
        for segment in text.split("/")[1:]:
            if segment == "..":
                if len(stack) <= len(root):
                    return True
                stack.pop()
            elif segment != ".":
                stack.append(segment)
        if stack[: len(root)] != root:
            return True
    return False
