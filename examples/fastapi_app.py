"""uvicorn fastapi_app:app"""

from fastapi import FastAPI

from apitokenproxy import Bearer, Proxy, Rule, Upstream

proxy = Proxy(
    upstreams=[Upstream("github", "https://api.github.com", credential=Bearer("env:GITHUB_TOKEN"))],
    rules=[Rule("read", effect="allow", upstream="github", methods=["GET"])],
    store="sqlite:///tokens.db",
)
app = FastAPI(lifespan=proxy.lifespan)
app.mount("/proxy", proxy.asgi)
