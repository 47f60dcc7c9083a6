from mounted import make
from starlette.applications import Starlette
from starlette.routing import Mount

proxy = make()
app = Starlette(routes=[Mount("/proxy", app=proxy.asgi)], lifespan=proxy.lifespan)
