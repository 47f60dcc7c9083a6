from litestar import Litestar, asgi
from litestar.types import Receive, Scope, Send
from mounted import make

proxy = make(prefix="/proxy")


@asgi("/proxy", is_mount=True, copy_scope=True)
async def mounted_proxy(scope: Scope, receive: Receive, send: Send) -> None:
    await proxy.asgi(scope, receive, send)


app = Litestar([mounted_proxy], lifespan=[proxy.lifespan])
