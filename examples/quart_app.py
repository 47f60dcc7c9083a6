"""uvicorn quart_app:app"""

from hypercorn.middleware import DispatcherMiddleware
from quart import Quart

from apitokenproxy import Bearer, Proxy, Rule, Upstream

proxy = Proxy(
    upstreams=[Upstream("github", "https://api.github.com", credential=Bearer("env:GITHUB_TOKEN"))],
    rules=[Rule("read", effect="allow", upstream="github", methods=["GET"])],
    store="sqlite:///tokens.db",
)
site = Quart(__name__)
app = DispatcherMiddleware({"/proxy": proxy.asgi, "": site})
