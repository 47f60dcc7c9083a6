import django_settings  # noqa: F401
from django.core.asgi import get_asgi_application
from mounted import make

proxy = make(prefix="/proxy")
site = get_asgi_application()


async def app(scope, receive, send):
    mine = scope["type"] == "http" and scope["path"].startswith("/proxy/")
    await (proxy.asgi if mine else site)(scope, receive, send)
