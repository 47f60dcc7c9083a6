"""mitmproxy as a reverse proxy, with a token check and an injected key."""

from typing import Any

from mitmproxy import http


def request(flow: Any) -> None:
    if flow.request.headers.get("authorization") != "Bearer client-token":
        flow.response = http.Response.make(401)
        return
    flow.request.headers["authorization"] = "Bearer real-key"
