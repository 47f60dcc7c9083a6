"""HostIdentity: who is calling, by the host application's own session.

Rules:
1. A browser sends the host's session by itself, also when another site made it send the request.
   So a request that may change something is accepted only when it comes from the host's own pages
   (Fetch Metadata, W3C; and Origin against Host where a client does not send that).
2. A request that carries a credential which alone decides is not the session's to answer.
"""

from collections.abc import Awaitable, Callable
from types import NoneType
from typing import Any

from apitokenproxy._colour import Colour
from apitokenproxy.errors import CrossSite
from apitokenproxy.messages import Caller, Headers, Presented, Request

_SAFE_METHODS = frozenset({b"GET", b"HEAD", b"OPTIONS"})
_OWN_SITE = frozenset({b"same-origin", b"none"})
_DEFAULT_PORTS = {b"http": b":80", b"https": b":443"}


class HostIdentity:
    """An Authenticator that asks the host application.

    `identify` gets the ASGI scope or the WSGI environ and returns a Caller, or None when nobody is
    logged in. It may be `def`, `async def` (under ASGI) or `@nonblocking def`.
    """

    def __init__(self, identify: Callable[[Any], Caller | Awaitable[Caller | None] | None]) -> None:
        self._identify = identify

    def bind(self, colour: Colour) -> "BoundHostIdentity":
        """Return the authenticator in one colour. Raises ConfigurationError when `identify` has another."""
        return BoundHostIdentity(colour.lift(self._identify, (Caller, NoneType)))


def authenticator(identity: Any) -> Any:
    """Return an Authenticator as it is, and one that asks the host application for any other function."""
    is_part = hasattr(identity, "authenticate") or hasattr(identity, "bind")
    return identity if is_part else HostIdentity(identity)


class BoundHostIdentity:
    """HostIdentity in one colour."""

    __slots__ = ("_identify",)

    def __init__(self, identify: Callable[[Any], Awaitable[Caller | None]]) -> None:
        self._identify = identify

    async def authenticate(self, presented: Presented | None, request: Request) -> Caller | None:
        """Return the caller that the host application names, or None. Raises CrossSite."""
        alone = request.token is not None or (presented is not None and presented.place == "token-header")
        if alone or request.context is None:
            return None
        caller = await self._identify(request.context)
        if caller is not None and request.method not in _SAFE_METHODS:
            _refuse_other_sites(request.headers)
        return caller


def _refuse_other_sites(headers: Headers) -> None:
    sites, origins, hosts = [], [], []
    for name, value in headers:
        match name.lower():
            case b"sec-fetch-site":
                sites.append(value)
            case b"origin":
                origins.append(value)
            case b"host":
                hosts.append(value)
    if sites:
        if not _OWN_SITE.issuperset(sites):
            raise CrossSite("Sec-Fetch-Site says that another site made the browser send this")
        return
    if not all(_is_own(origin, hosts) for origin in origins):
        raise CrossSite("Origin is not the host that the request was sent to")


def _is_own(origin: bytes, hosts: list[bytes]) -> bool:
    scheme, _, authority = origin.lower().partition(b"://")
    port = _DEFAULT_PORTS.get(scheme, b"")
    named = authority.removesuffix(port)  # empty for "null", which is nobody's origin
    return named != b"" and [named] == [host.lower().removesuffix(port) for host in hosts]
