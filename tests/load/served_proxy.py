"""The proxy that the servers in this folder's tests run: `served_proxy:asgi` and `served_proxy:wsgi`."""

import os
from typing import Any

from apitokenproxy import Bearer, Proxy, Rule, Upstream


def make() -> Proxy:
    return Proxy(
        upstreams=[Upstream("api", os.environ["UPSTREAM_URL"], credential=Bearer("env:DEMO_KEY"), allow_private=True)],
        rules=[Rule("all", effect="allow")],
        store=os.environ["STORE"],
        audit=os.environ["AUDIT"],
    )


def __getattr__(name: str) -> Any:  # the server asks for one of the two; neither is made at import
    if name in {"asgi", "wsgi"}:
        return getattr(make(), name)
    raise AttributeError(name)
