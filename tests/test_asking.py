"""Asking for a JSON object: bounded in bytes and in time, and nothing of the answer in a message."""

import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import trustme

from apitokenproxy.asking import ask
from apitokenproxy.errors import KeysUnavailable, SecretUnavailable

MATERIAL = "s3cret-0f7a9c2e51d84b06"


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@contextmanager
def saying(say: Callable[[socket.socket], None]) -> Iterator[str]:
    """Run a server that does with each connection what it is told; yields its URL."""
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.02)

        def serve() -> None:
            while not ended.is_set():
                with suppress(OSError):
                    connection, _ = server.accept()
                    with connection:
                        say(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/token"
        finally:
            ended.set()
            thread.join()


def said(sent: bytes) -> Callable[[socket.socket], None]:
    def say(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(sent)

    return say


def dripping(begin: bytes) -> Callable[[socket.socket], None]:
    """Say a beginning at once, and then a byte at a time, for as long as somebody listens."""

    def say(connection: socket.socket) -> None:
        connection.recv(65536)
        with suppress(OSError):
            connection.sendall(begin)
            for _ in range(1000):
                connection.sendall(b" ")
                time.sleep(0.02)

    return say


def refusal(url: str, **terms: Any) -> SecretUnavailable:
    with pytest.raises(SecretUnavailable) as refused:
        ask("POST", url, error=SecretUnavailable, **({"form": {"client_secret": MATERIAL}} | terms))
    assert MATERIAL not in repr(refused.value) + refused.value.detail
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__ or refused.value.__context__ is None
    return refused.value


def test_what_is_said_is_returned() -> None:
    """The object, and the status; what is said is not shown."""
    with saying(said(answer(b'{"a": "%s"}' % MATERIAL.encode()))) as url:
        found = ask("GET", url, error=KeysUnavailable)
    assert (found.status, found.said, found.ok) == (200, {"a": MATERIAL}, True)
    assert MATERIAL not in repr(found)


@pytest.mark.parametrize("body", [b'{"error": "invalid_grant"}', b"<html>", b"[]", b"", b"[" * 60_000])
def test_a_refusal_is_returned_with_what_it_says(body: bytes) -> None:
    """Whoever asked knows which codes it may tell; what is no object says nothing."""
    with saying(said(answer(body, "400 Bad Request"))) as url:
        found = ask("POST", url, error=SecretUnavailable, form={"a": "b"})
    assert (found.status, found.ok) == (400, False)
    assert found.said == ({"error": "invalid_grant"} if body.startswith(b"{") else {})


def test_a_redirect_is_not_followed() -> None:
    """What was sent holds a secret."""
    with saying(said(answer(b"{}", "307 Temporary Redirect", "Location: http://127.0.0.1:9/"))) as url:
        assert ask("POST", url, error=SecretUnavailable, form={"a": "b"}).status == 307


@pytest.mark.parametrize(
    "sent",
    [
        answer(b"{}", "429 Too Many Requests"),
        answer(MATERIAL.encode(), "500 Internal Server Error"),
        answer(b"{}", "503 Service Unavailable"),
        answer(b"{}", "530 Origin Unreachable"),
        answer(MATERIAL.encode()),
        answer(b"[]"),
        answer(b"[" * 60_000),
        answer(b"{}", "200 OK", "Content-Encoding: gzip", "Transfer-Encoding: chunked"),
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
        MATERIAL.encode() + b"\r\n\r\n",
        b"",
    ],
)
def test_what_is_no_answer_is_an_outage(sent: bytes) -> None:
    """Nothing of it is told."""
    with saying(said(sent)) as url:
        error = refusal(url)
    assert error.outage
    assert url in error.detail


@pytest.mark.parametrize(
    ("written", "least", "most"),
    [
        ("", 1, 1),
        ("Retry-After: 30", 30, 30),
        ("Retry-After: 0", 1, 1),
        ("Retry-After: 999999", 3600, 3600),
        ("Retry-After: -5", 1, 1),
        ("Retry-After: soon", 1, 1),
        ("Retry-After: Fri, 31 Dec 1999 23:59:59 GMT", 1, 1),
        ("Retry-After: DATE", 30, 101),
        ("Retry-After: Fri, 31 Dec 9999 23:59:59 GMT", 3600, 3600),
    ],
)
def test_when_to_come_back_is_told(written: str, least: float, most: float) -> None:
    """In seconds or as a date, between a second and an hour."""
    written = written.replace("DATE", format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True))
    with saying(said(answer(b"", "503 Service Unavailable", *filter(None, [written])))) as url:
        error = refusal(url)
    assert least <= error.retry_after <= most


def test_nobody_there_is_an_outage() -> None:
    """The reason names who was asked, by another name where its URL must not be told."""
    assert "http://127.0.0.1:9/t cannot be asked" in refusal("http://127.0.0.1:9/t").detail
    assert refusal("http://127.0.0.1:9/t", what="the endpoint").detail.startswith("the endpoint cannot be asked")
    assert refusal("http://[").outage


def test_more_than_was_allowed_is_not_read() -> None:
    """Nor is it an outage: somebody answered."""
    with saying(said(answer(b'{"a": "%s"}' % (b"x" * 200_000)))) as url:
        error = refusal(url)
        assert (error.detail, error.outage) == (f"{url} answers with more than 64 KiB", False)
        assert ask("GET", url, error=SecretUnavailable, most=256 * 1024).ok


@pytest.mark.parametrize(
    "begin",
    [
        b"HTTP/1.1 200 ",
        b"HTTP/1.1 200 OK\r\nX-Header: ",
        b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}",
    ],
    ids=["status", "head", "body", "body without a length"],
)
def test_a_server_that_drips_keeps_nobody(begin: bytes) -> None:
    """The time is that of the whole request: each byte came in time."""
    with saying(dripping(begin)) as url:
        error = refusal(url, seconds=0.3)
    assert (error.detail, error.outage) == (f"{url} cannot be asked: it took too long", True)


FIRST = """
import io, logging, sys
told = io.StringIO()
logging.basicConfig(level=logging.DEBUG, stream=told)
from apitokenproxy.asking import ask
from apitokenproxy.errors import SecretUnavailable
ask("GET", sys.argv[1] + "?key=" + sys.argv[2], error=SecretUnavailable)
logging.getLogger("httpcore.connection").debug("somebody else")
sys.stdout.write(told.getvalue())
"""


def test_nothing_of_an_answer_is_logged_not_even_by_the_first_call_of_a_process() -> None:
    """That call is what imports httpcore. httpx logs the reason phrase, and not at DEBUG only."""
    with saying(said(answer(b"{}", f"200 {MATERIAL}", f"X-Echo: {MATERIAL}"))) as url:
        told = subprocess.run(
            [sys.executable, "-c", FIRST, url, MATERIAL], check=True, capture_output=True, text=True, timeout=50
        ).stdout
    assert "somebody else" in told
    assert MATERIAL not in told


@pytest.fixture
def secured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ssl.SSLContext:
    """Return the settings of a server whose certificate is of an authority that the system knows."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "authorities.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authorities.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


def over_tls(context: ssl.SSLContext, say: Callable[[socket.socket], None]) -> Callable[[socket.socket], None]:
    def say_secured(connection: socket.socket) -> None:
        with suppress(OSError), context.wrap_socket(connection, server_side=True) as secured:
            say(secured)

    return say_secured


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system's authorities are no file")
def test_certificates_are_judged_by_the_systems_authorities(
    secured: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a server of the house is believed; who is not known to the system is not asked."""
    with saying(over_tls(secured, said(answer(b"{}")))) as place:
        url = place.replace("http:", "https:")
        assert ask("GET", url, error=SecretUnavailable).ok
        assert "cannot be asked: ConnectError" in refusal(url.replace("127.0.0.1", "localhost")).detail
        monkeypatch.delenv("SSL_CERT_FILE")
        assert "cannot be asked: ConnectError" in refusal(url).detail


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system's authorities are no file")
def test_a_server_that_drips_over_tls_keeps_nobody(secured: ssl.SSLContext) -> None:
    """The connection is cut below TLS."""
    say = over_tls(secured, dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n{}"))
    with saying(say) as url:
        error = refusal(url.replace("http:", "https:"), seconds=0.5)
    assert error.detail.endswith("it took too long")


def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would see what is sent over plain http, and a netrc would add to it."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with saying(said(answer(b"{}"))) as url:
        assert ask("GET", url, error=SecretUnavailable).ok
