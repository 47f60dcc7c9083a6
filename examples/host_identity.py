"""uvicorn host_identity:app. Whoever is logged in to your app may call, without a client token."""

from typing import Any

from fastapi import FastAPI, Request
from starlette.middleware.sessions import SessionMiddleware

from apitokenproxy import Bearer, Caller, Proxy, Rule, Upstream, nonblocking


@nonblocking
def logged_in(scope: Any) -> Caller | None:
    user = scope["session"].get("user")
    return Caller(tenant="staff", subject=user) if user else None


proxy = Proxy(
    upstreams=[Upstream("github", "https://api.github.com", credential=Bearer("env:GITHUB_TOKEN"))],
    rules=[Rule("staff-read", effect="allow", tenants=["staff"], methods=["GET"])],
    identity=logged_in,
)
app = FastAPI(lifespan=proxy.lifespan)


@app.post("/login/{user}")
def login(user: str, request: Request) -> dict[str, str]:
    request.session["user"] = user  # after your own check of a password
    return {"user": user}


app.mount("/proxy", proxy.asgi)
app.add_middleware(SessionMiddleware, secret_key="for this example only")  # noqa: S106 - an example
