"""fastapi-proxy-lib with a token check and an injected key."""

import os
from typing import Any

import httpx
from fastapi_proxy_lib.fastapi.app import reverse_http_app

upstream = reverse_http_app(
    httpx.AsyncClient(
        headers={"authorization": "Bearer real-key"},
        verify=os.environ.get("CA") or True,
        limits=httpx.Limits(max_connections=1000, max_keepalive_connections=1000),
    ),
    base_url=os.environ["UPSTREAM"] + "/",
)


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        if dict(scope["headers"]).get(b"authorization") != b"Bearer client-token":
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        scope["headers"] = [header for header in scope["headers"] if header[0] != b"authorization"]
    await upstream(scope, receive, send)
