"""What `apitokenproxy serve` runs: the proxy below its prefix, and a health check beside it."""

import os
from collections.abc import Awaitable, Callable
from typing import Any

from apitokenproxy.config import read_config
from apitokenproxy.proxy import Proxy

CONFIG_VARIABLE = "APITOKENPROXY_CONFIG"
DEFAULT_PREFIX = "/proxy"


def app() -> Callable[..., Awaitable[None]]:
    """Return the ASGI application for the configuration file that the environment names."""
    settings = read_config(os.environ[CONFIG_VARIABLE])
    proxy = Proxy(**({"prefix": DEFAULT_PREFIX} | settings))

    async def served(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == "/healthz":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"ok\n"})
        else:
            await proxy.asgi(scope, receive, send)

    return served
