"""The proxy that the servers in this folder's tests run: `served_proxy:asgi` and `served_proxy:wsgi`.

`served_proxy:hoarding` is the same with every body taken whole first, to try the measurement on.
"""

import os
from collections.abc import Awaitable, Callable
from typing import Any

from apitokenproxy import Bearer, Proxy, Rule, Upstream


def make() -> Proxy:
    return Proxy(
        upstreams=[Upstream("api", os.environ["UPSTREAM_URL"], credential=Bearer("env:DEMO_KEY"), allow_private=True)],
        rules=[Rule("all", effect="allow")],
        store=os.environ["STORE"],
        audit=os.environ["AUDIT"],
    )


def _hoarding() -> Callable[..., Awaitable[None]]:
    app = make().asgi

    async def hoard(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", scope["type"] == "http"
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        whole = [{"type": "http.request", "body": body}] if scope["type"] == "http" else []

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
