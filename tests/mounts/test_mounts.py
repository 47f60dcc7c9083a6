"""Every framework under every server that fits: the same raw target, the same answers."""

import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from apitokenproxy.identity.authority import TokenAuthority
from apitokenproxy.identity.stores import open_store
from apitokenproxy.identity.verified import Verified
from loopback import REAL_KEY, UpstreamServer, call, wait_until

APPS = Path(__file__).parent / "apps"

ASGI_SERVERS = {
    "uvicorn-h11": ["-m", "uvicorn", "{app}:app", "--port", "{port}", "--http", "h11", "--log-level", "warning"],
    "uvicorn-httptools": [
        "-m",
        "uvicorn",
        "{app}:app",
        "--port",
        "{port}",
        "--http",
        "httptools",
        "--log-level",
        "warning",
    ],
    "hypercorn": ["-m", "hypercorn", "{app}:app", "--bind", "127.0.0.1:{port}", "--log-level", "warning"],
    "granian": ["-m", "granian", "{app}:app", "--interface", "asgi", "--port", "{port}", "--log-level", "warning"],
}
WSGI_SERVERS = {
    "gunicorn-sync": ["-m", "gunicorn", "{app}:app", "--bind", "127.0.0.1:{port}", "--log-level", "warning"],
    "gunicorn-threads": [
        "-m",
        "gunicorn",
        "{app}:app",
        "--bind",
        "127.0.0.1:{port}",
        "--threads",
        "8",
        "--preload",
        "--log-level",
        "warning",
    ],
    "waitress": ["-m", "waitress", "--listen", "127.0.0.1:{port}", "{app}:app"],
    "granian": ["-m", "granian", "{app}:app", "--interface", "wsgi", "--port", "{port}", "--log-level", "warning"],
}
ASGI_APPS = ["plain_asgi_app", "starlette_app", "fastapi_app", "litestar_app", "quart_app", "django_asgi_app"]
WSGI_APPS = ["plain_wsgi_app", "flask_app", "django_wsgi_app"]

QUICK = {("uvicorn-httptools", app) for app in ASGI_APPS} | {("gunicorn-threads", app) for app in WSGI_APPS}
"""What a plain run tries: every application under one server. All pairs are the long run's."""


def _pair(app: str, server: str) -> Any:
    marks = () if (server, app) in QUICK else pytest.mark.long
    return pytest.param(app, server, marks=marks, id=f"{app}-{server}")


PAIRS = [
    *[_pair(app, server) for app in ASGI_APPS for server in ASGI_SERVERS],
    *[_pair(app, server) for app in WSGI_APPS for server in WSGI_SERVERS if server != "granian"],
]


@contextmanager
def serving(app: str, server: str, environment: dict[str, str]) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = (WSGI_SERVERS if app in WSGI_APPS else ASGI_SERVERS)[server]
    process = subprocess.Popen(
        [sys.executable, *(word.format(app=app, port=port) for word in command)],
        cwd=APPS,
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: _listening(port) or process.poll() is not None, 30)
        assert process.poll() is None
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def prepare(upstream: UpstreamServer, tmp_path: Path) -> tuple[dict[str, str], str]:
    """Return the environment of a server and a token that it will accept."""
    environment = {
        "UPSTREAM_URL": upstream.url,
        "DEMO_KEY": REAL_KEY,
        "STORE": f"sqlite:///{tmp_path / 'tokens.db'}",
        "AUDIT": str(tmp_path / "audit.jsonl"),
    }
    store = open_store(environment["STORE"])
    token = TokenAuthority(store, Verified(bound=1)).issue(tenant="acme").token
    store.close()
    return environment, token


@pytest.mark.long
@pytest.mark.parametrize("app", WSGI_APPS)
def test_without_a_raw_target_what_decoding_changed_is_refused(
    app: str, upstream: UpstreamServer, tmp_path: Path
) -> None:
    """A server that only hands over a decoded path: plain paths pass, all others are refused.

    What `check_broken_answers` asks cannot hold here: granian ends an answer as if it were whole when
    a WSGI application raises while it streams (docs/quickstart.md says so).
    """
    environment, token = prepare(upstream, tmp_path)
    mine = [("Authorization", f"Bearer {token}")]
    with serving(app, "granian", environment) as url:
        for target in ("/a/b?x=1&x=%20", "/~a+b:c@d", "/trailing/"):
            assert call(url, "GET", f"/proxy/api{target}", mine).status == 200
            assert upstream.last.target == target
        for target in ("/a%20b", "/%C3%A9", "/a%252e", "/a%25b"):
            assert call(url, "GET", f"/proxy/api{target}", mine).status == 400
        check_bodies(url, mine, upstream)


@pytest.mark.parametrize(("app", "server"), PAIRS)
def test_a_mounted_proxy_behaves_the_same_everywhere(
    app: str, server: str, upstream: UpstreamServer, tmp_path: Path
) -> None:
    """Targets, refusals, bodies, streams, broken answers and leaving clients: one list for all."""
    environment, token = prepare(upstream, tmp_path)
    mine = [("Authorization", f"Bearer {token}")]
    with serving(app, server, environment) as url:
        check_targets(url, mine, upstream)
        check_refusals(url, mine, upstream)
        check_bodies(url, mine, upstream)
        check_stream(url, mine)
        check_broken_answers(url, mine)
        check_leaving_client(url, mine, upstream)
        audit = tmp_path / "audit.jsonl"
        # The last record is written after the upstream's side was closed: no server is ended before that.
        wait_until(lambda: audit.read_text().count("\n") >= 25, 10)
    records = [json.loads(line) for line in audit.read_text().splitlines()]
    assert len(records) == 25
    assert token not in audit.read_text()


def check_targets(url: str, mine: list[tuple[str, str]], upstream: UpstreamServer) -> None:
    """The bytes below the mount and the upstream's name arrive as they were sent."""
    targets = ["/a/b?x=1&x=%20", "/a%20b", "/%C3%A9", "/%7Ea+b:c@d", "/x?y=/../z", "/", "/trailing/"]
    for target in targets:
        answer = call(url, "GET", f"/proxy/api{target}", mine)
        assert (answer.status, upstream.last.target) == (200, target)
        assert upstream.last.header("authorization") == [f"Bearer {REAL_KEY}"]


def check_refusals(url: str, mine: list[tuple[str, str]], upstream: UpstreamServer) -> None:
    """The same codes everywhere, and nothing goes upstream."""
    before = len(upstream.requests)
    refusals = {
        "/proxy/api/a/../b": "path_dot_segment",
        "/proxy/api/a/%2e%2e/b": "path_dot_segment",
        "/proxy/api/a%2Fb": "encoded_slash",
        "/proxy/api/a%252e": "encoded_percent",
        "/proxy/api//a": "empty_segment",
        "/proxy/api/a;b": "path_parameter",
        "/proxy/api/%ff": "bad_utf8",
        "/proxy/api/admin/x": "denied",
        "/proxy/nope/x": "denied",
    }
    for target, code in refusals.items():
        assert (target, call(url, "GET", target, mine).json["code"]) == (target, code)
    assert call(url, "GET", "/proxy/api/x").json["code"] == "unauthenticated"
    twice = call(url, "GET", "/proxy/api/x", [*mine, *mine])
    assert twice.json["code"] == "multiple_credentials"
    assert len(upstream.requests) == before


def check_bodies(url: str, mine: list[tuple[str, str]], upstream: UpstreamServer) -> None:
    """Bodies of known and unknown length arrive whole."""
    assert call(url, "POST", "/proxy/api/x", mine, b"x" * 100_000).json["length"] == 100_000
    assert call(url, "POST", "/proxy/api/x", mine, [b"a" * 70_000, b"b"]).json["length"] == 70_001
    assert call(url, "POST", "/proxy/api/x", mine).json["length"] == 0


def check_stream(url: str, mine: list[tuple[str, str]]) -> None:
    """The first event is there before the last is sent."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
    connection.request("GET", "/proxy/api/events/20", headers=dict(mine))
    response = connection.getresponse()
    first = response.read1(100)
    assert first.startswith(b"data: 0\n\n")
    assert len(first) < 100
    assert (first + response.read()).count(b"data:") == 20
    connection.close()


def check_broken_answers(url: str, mine: list[tuple[str, str]]) -> None:
    """An answer that the upstream cut off never looks whole."""
    for kind in ("length", "chunked"):
        with pytest.raises((http.client.HTTPException, OSError)):
            call(url, "GET", f"/proxy/api/truncated/{kind}", mine)


def check_leaving_client(url: str, mine: list[tuple[str, str]], upstream: UpstreamServer) -> None:
    """When the client leaves, the upstream's side is closed."""
    upstream.gone.clear()
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
    connection.request("GET", "/proxy/api/endless/x", headers=dict(mine))
    connection.getresponse().read1(10)
    connection.close()
    wait_until(upstream.gone.is_set, 10)
