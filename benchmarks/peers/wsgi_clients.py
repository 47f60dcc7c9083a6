"""The same in Flask, with httpx.Client and with urllib3."""

import os
from typing import Any

import httpx
import urllib3
from flask import Flask, Response, request

UPSTREAM, CA = os.environ["UPSTREAM"], os.environ.get("CA")


def _app(send: Any) -> Flask:
    app = Flask(__name__)

    @app.route("/<path:path>", methods=["GET", "POST"])
    def forward(path: str) -> Response:
        if request.headers.get("Authorization") != "Bearer client-token":
            return Response(status=401)
        headers = {key: value for key, value in request.headers.items() if key != "Host"}
        headers["Authorization"] = "Bearer real-key"
        status, answer, body = send(request.method, "/" + path, headers, request.get_data())
        kept = [(key, value) for key, value in answer.items() if key.lower() not in {"connection", "date"}]
        return Response(body, status, kept)

    return app


def _with_httpx() -> Any:
    client = httpx.Client(base_url=UPSTREAM, verify=CA or True, limits=httpx.Limits(max_keepalive_connections=100))

    def send(method: str, path: str, headers: dict[str, str], body: bytes) -> Any:
        answer = client.request(method, path, headers=headers, content=body)
        return answer.status_code, answer.headers, answer.content

    return send


def _with_urllib3() -> Any:
    pool = urllib3.PoolManager(maxsize=100, block=True, ca_certs=CA)

    def send(method: str, path: str, headers: dict[str, str], body: bytes) -> Any:
        answer = pool.request(method, UPSTREAM + path, headers=headers, body=body, redirect=False, retries=False)
        return answer.status, answer.headers, answer.data

    return send


with_httpx = _app(_with_httpx())
with_urllib3 = _app(_with_urllib3())
