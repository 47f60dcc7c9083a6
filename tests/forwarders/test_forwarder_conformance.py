"""Both forwarders of ours do what every forwarder must."""

from typing import Any

import httpx

from apitokenproxy._colour import ASYNC
from apitokenproxy.forwarders.httpx import HttpxForwarder
from apitokenproxy.forwarders.wire import WireForwarder
from apitokenproxy.testing import ForwarderConformance


class TestWire(ForwarderConformance):
    """Over connections of our own."""

    def make(self, _colour: Any) -> WireForwarder:
        return WireForwarder()


class _Closing(HttpxForwarder):
    """Closes its transport, which the proxy leaves to whoever made it."""

    def close(self) -> None:
        self._transport.close()

    async def aclose(self) -> None:
        await self._transport.aclose()


class TestHttpx(ForwarderConformance):
    """Through httpx's own transports."""

    def make(self, colour: Any) -> HttpxForwarder:
        return _Closing(httpx.AsyncHTTPTransport() if colour is ASYNC else httpx.HTTPTransport())
