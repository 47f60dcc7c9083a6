"""The forwarders of all upstreams: opened ahead, bound and closed together."""

import contextlib
from collections.abc import Awaitable, Callable, Mapping

from apitokenproxy._colour import Colour
from apitokenproxy.errors import ProxyError
from apitokenproxy.forwarders.httpx import HttpxForwarder
from apitokenproxy.forwarders.wire import WireForwarder
from apitokenproxy.messages import Outbound, Reply
from apitokenproxy.upstream import Upstream


class Forwarders:
    """One forwarder for each upstream: the pool of connections, or the transport that was given."""

    def __init__(self, upstreams: Mapping[str, Upstream]) -> None:
        self._upstreams = upstreams
        self._forwarders: dict[str, WireForwarder | HttpxForwarder] = {
            name: _forwarder(upstream) for name, upstream in upstreams.items()
        }

    def bind(self, name: str, colour: Colour) -> Callable[[Outbound], Awaitable[Reply]]:
        """Return the function that sends a request to an upstream, in a colour."""
        return self._forwarders[name].bind(colour)

    async def warm_up(self, colour: Colour) -> None:
        """Open the connections that upstreams want ahead. One that cannot be reached is not an error yet."""
        for name, forwarder in self._forwarders.items():
            if isinstance(forwarder, WireForwarder):
                with contextlib.suppress(ProxyError):
                    await forwarder.warm_up(self._upstreams[name].origin, colour)

    def close(self) -> None:
        """Close all connections that threads use."""
        for forwarder in self._forwarders.values():
            forwarder.close()

    async def aclose(self) -> None:
        """Close all connections of this event loop too."""
        for forwarder in self._forwarders.values():
            await forwarder.aclose()


def _forwarder(upstream: Upstream) -> WireForwarder | HttpxForwarder:
    own = upstream.certificate_per_tenant
    return WireForwarder(per_tenant=own) if upstream.forwarder == "wire" else HttpxForwarder(upstream.transport)
