"""asgiproxy (aiohttp) with a token check and an injected key."""

import os
import ssl
from typing import Any

from asgiproxy.config import BaseURLProxyConfigMixin, ProxyConfig
from asgiproxy.context import ProxyContext
from asgiproxy.simple_proxy import make_simple_proxy_app


class Config(BaseURLProxyConfigMixin, ProxyConfig):  # type: ignore[misc]
    upstream_base_url = os.environ["UPSTREAM"]
    rewrite_host_header = "localhost"

    def process_client_headers(self, *, scope: Any, headers: Any) -> Any:
        changed = headers.mutablecopy()
        changed["authorization"] = "Bearer real-key"
        return super().process_client_headers(scope=scope, headers=changed)

    def get_upstream_http_options(self, **terms: Any) -> Any:
        return {**super().get_upstream_http_options(**terms), "ssl": TRUST}


TRUST = ssl.create_default_context(cafile=os.environ.get("CA"))
config = Config()
upstream = None


async def app(scope: Any, receive: Any, send: Any) -> None:
    global upstream  # noqa: PLW0603 - its session wants a running loop
    if scope["type"] != "http":
        return
    if upstream is None:
        upstream = make_simple_proxy_app(ProxyContext(config))
    if dict(scope["headers"]).get(b"authorization") != b"Bearer client-token":
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        return
    await upstream(scope, receive, send)
