"""uvicorn django_asgi:app. In a project of yours this is its asgi.py; the settings here stand in for its own."""

from typing import Any

from django.conf import settings
from django.core.asgi import get_asgi_application

from apitokenproxy import Bearer, Proxy, Rule, Upstream

if not settings.configured:
    settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1"])
urlpatterns: list[Any] = []

proxy = Proxy(
    upstreams=[Upstream("github", "https://api.github.com", credential=Bearer("env:GITHUB_TOKEN"))],
    rules=[Rule("read", effect="allow", upstream="github", methods=["GET"])],
    store="sqlite:///tokens.db",
    prefix="/proxy",
)
site = get_asgi_application()


async def app(scope: Any, receive: Any, send: Any) -> None:
    mine = scope["type"] == "http" and scope["path"].startswith("/proxy/")
    await (proxy.asgi if mine else site)(scope, receive, send)
