"""uvicorn litestar_app:app. Litestar takes the mount's path off, so `prefix` says where the proxy stands."""

from litestar import Litestar, asgi
from litestar.types import Receive, Scope, Send

from apitokenproxy import Bearer, Proxy, Rule, Upstream

proxy = Proxy(
    upstreams=[Upstream("github", "https://api.github.com", credential=Bearer("env:GITHUB_TOKEN"))],
    rules=[Rule("read", effect="allow", upstream="github", methods=["GET"])],
    store="sqlite:///tokens.db",
    prefix="/proxy",
)


@asgi("/proxy", is_mount=True, copy_scope=True)
async def mounted_proxy(scope: Scope, receive: Receive, send: Send) -> None:
    await proxy.asgi(scope, receive, send)


app = Litestar([mounted_proxy], lifespan=[proxy.lifespan])
