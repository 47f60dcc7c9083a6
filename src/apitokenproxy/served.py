"""What `apitokenproxy serve` runs: the proxy below its prefix, a health check and the token endpoint beside it."""

import os
from collections.abc import Awaitable, Callable
from typing import Any

from apitokenproxy.config import read_config
from apitokenproxy.proxy import Proxy

CONFIG_VARIABLE = "APITOKENPROXY_CONFIG"
DEFAULT_PREFIX = "/proxy"
TOKEN_ENDPOINT = "/token"  # noqa: S105 - a path

_HEALTHY = b"ok\n"


def settings_of(path: str) -> dict[str, Any]:
    """Return the arguments for `Proxy` with which a file is served. Raises ConfigurationError."""
    return {"prefix": DEFAULT_PREFIX} | read_config(path)


def app() -> Callable[..., Awaitable[None]]:
    """Return the ASGI application for the configuration file that the environment names."""
    settings = settings_of(os.environ[CONFIG_VARIABLE])
    built = Proxy(**settings)
    proxy = built.asgi  # now: what is wrong is told before it starts
    token_endpoint = built.token_endpoint if settings.get("signing_keys") else None

    async def served(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == "/healthz" and scope["method"] in {"GET", "HEAD"}:
            headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(_HEALTHY))]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else _HEALTHY})
        elif scope["type"] == "http" and scope["path"] == TOKEN_ENDPOINT and token_endpoint is not None:
            await token_endpoint(scope, receive, send)
        else:
            await proxy(scope, receive, send)

    return served
