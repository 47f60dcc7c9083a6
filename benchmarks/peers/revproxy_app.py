"""django-revproxy (urllib3) with a token check and an injected key."""

import os
from typing import Any

import urllib3
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import re_path

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], REVPROXY={"QUOTE_SPACES_AS_PLUS": True})
application = get_wsgi_application()

from revproxy import views  # noqa: E402 - it reads the settings


class View(views.ProxyView):  # type: ignore[misc]
    upstream = os.environ["UPSTREAM"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.http = POOL

    def get_request_headers(self) -> Any:
        return {**super().get_request_headers(), "Authorization": "Bearer real-key"}

    def dispatch(self, request: Any, path: str) -> Any:
        if request.META.get("HTTP_AUTHORIZATION") != "Bearer client-token":
            return HttpResponse(status=401)
        return super().dispatch(request, path)


POOL = urllib3.PoolManager(maxsize=100, block=True, ca_certs=os.environ.get("CA"))
urlpatterns = [re_path(r"^(?P<path>.*)$", View.as_view())]
