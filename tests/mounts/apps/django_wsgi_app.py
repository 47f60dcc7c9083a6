import django_settings  # noqa: F401
from django.core.wsgi import get_wsgi_application
from mounted import make

proxy = make(prefix="/proxy")
site = get_wsgi_application()


def app(environ, start_response):
    mine = environ["PATH_INFO"].startswith("/proxy/")
    return (proxy.wsgi if mine else site)(environ, start_response)
