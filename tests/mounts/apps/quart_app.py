from hypercorn.middleware import DispatcherMiddleware
from mounted import make
from quart import Quart

proxy = make()
site = Quart(__name__)
app = DispatcherMiddleware({"/proxy": proxy.asgi, "": site})
