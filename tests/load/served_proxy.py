"""The proxy that the servers in this folder's tests run: `served_proxy:asgi` and `served_proxy:wsgi`.

`served_proxy:hoarding` is the same with every body taken whole first, to try the measurement on.
"""

import os
from collections.abc import Awaitable, Callable
from typing import Any

from apitokenproxy import Bearer, Proxy, Rule, Timeouts, Upstream


def make() -> Proxy:
    url, key = os.environ["UPSTREAM_URL"], Bearer("env:DEMO_KEY")
    return Proxy(
        upstreams=[
            Upstream("api", url, credential=key, allow_private=True),
            Upstream("impatient", url, credential=key, allow_private=True, timeouts=Timeouts(write=1.0)),
        ],
        rules=[Rule("all", effect="allow")],
        store=os.environ["STORE"],
        audit=os.environ["AUDIT"],
    )


def _hoarding() -> Callable[..., Awaitable[None]]:
    app = make().asgi

    async def hoard(scope: Any, receive: Any, send: Any) -> None:
        body, more = bytearray(), scope["type"] == "http"
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        whole = [{"type": "http.request", "body": bytes(body)}] if scope["type"] == "http" else []

        async def receive_whole() -> Any:
            return whole.pop() if whole else await receive()

        await app(scope, receive_whole, send)

    return hoard


def __getattr__(name: str) -> Any:  # the server asks for one of the two; neither is made at import
    if name in {"asgi", "wsgi"}:
        return getattr(make(), name)
    if name == "hoarding":
        return _hoarding()
    raise AttributeError(name)
