from litestar import Litestar, asgi
from mounted import make

proxy = make(prefix="/proxy")


@asgi("/proxy", is_mount=True, copy_scope=True)
async def mounted_proxy(scope, receive, send):
    await proxy.asgi(scope, receive, send)


app = Litestar([mounted_proxy], lifespan=[proxy.lifespan])
