"""uvicorn starlette_app:app"""

from starlette.applications import Starlette
from starlette.routing import Mount

from apitokenproxy import Bearer, Proxy, Rule, Upstream

proxy = Proxy(
    upstreams=[Upstream("github", "https://api.github.com", credential=Bearer("env:GITHUB_TOKEN"))],
    rules=[Rule("read", effect="allow", upstream="github", methods=["GET"])],
    store="sqlite:///tokens.db",
)
app = Starlette(routes=[Mount("/proxy", app=proxy.asgi)], lifespan=proxy.lifespan)
