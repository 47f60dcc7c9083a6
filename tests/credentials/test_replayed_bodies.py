"""A request with a small body is sent once more with another credential: its body is read whole before it is sent."""

import asyncio
import io
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from attrs import define
from credential_calls import COLOURS

from apitokenproxy import Bearer, BodyField, ConfigurationError, HmacSignature, Proxy, Rule, Secret, Timeouts, Upstream
from apitokenproxy import nonblocking as in_place
from apitokenproxy.testing import MemoryAudit
from loopback import (
    REAL_KEY,
    Answer,
    UpstreamServer,
    answer_of,
    call,
    running_asgi,
    running_upstream,
    running_wsgi,
    wait_until,
)

OLD = "old-7d1f4c0a52b9"
SMALL = 65536
FORM = [("Content-Type", "application/x-www-form-urlencoded")]


class Rotated:
    """A provider whose secret has changed whenever it is asked a second time."""

    ttl = 3600.0

    def __init__(self) -> None:
        self.asked = 0

    @in_place
    def fetch(self, _reference: str) -> Secret:
        self.asked += 1
        return Secret(OLD if self.asked == 1 else REAL_KEY)


@define
class World:
    """A served proxy before an upstream that refuses its first secret."""

    stack: ExitStack
    colour: str
    upstream: UpstreamServer
    audit: MemoryAudit
    proxy: Proxy
    token: str
    url: str = ""

    def serve(self) -> None:
        run = running_asgi if self.colour == "async" else running_wsgi
        self.url = self.stack.enter_context(run(self.proxy.asgi if self.colour == "async" else self.proxy.wsgi))

    def send(self, method: str, body: Any = None, headers: Any = ()) -> Answer:
        if isinstance(body, list) and self.colour == "sync":  # waitress would read it whole and state its length
            with httpx.Client(transport=self.proxy.transport(self.token)) as client:
                return answer_of(client.request(method, "http://proxy/api/x", content=iter(body)))
        return call(self.url, method, "/api/x", [("Authorization", f"Bearer {self.token}"), *headers], body)

    def keys(self) -> list[str]:
        return [received.header("authorization")[0].removeprefix("Bearer ") for received in self.upstream.requests]

    def codes(self) -> list[tuple[str, bool]]:
        return [(record.code, record.sent) for record in self.audit.records]


@pytest.fixture(params=COLOURS)
def colour(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def make(colour: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr("apitokenproxy.loading._PAUSE", 0.0)
    with ExitStack() as stack:
        upstream = stack.enter_context(running_upstream())

        def made(credential: Any = Bearer("rotated:key"), **terms: Any) -> World:  # noqa: B008 - a value
            audit = MemoryAudit()
            proxy = Proxy(
                upstreams=[Upstream("api", upstream.url, credential=credential, allow_private=True, **terms)],
                rules=[Rule("all", effect="allow")],
                audit=audit,
                secret_providers={"rotated": Rotated()},
            )
            stack.callback(proxy.close)
            return World(stack, colour, upstream, audit, proxy, proxy.tokens.issue(tenant="acme").token)

        yield made


@pytest.mark.long
@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT", "DELETE", "GET"])
@pytest.mark.parametrize("size", [1, SMALL])
def test_a_small_body_is_sent_once_more(make: Any, method: str, size: int) -> None:
    """Whatever the method: the upstream refused, so nothing was done. The client notices nothing."""
    world = make()
    world.serve()
    body = b"0123456789abcdef" * (size // 16) or b"x"
    answer = world.send(method, body)
    assert (answer.status, answer.json["length"]) == (200, size)
    assert world.keys() == [OLD, REAL_KEY]
    assert [received.body for received in world.upstream.requests] == [body, body]
    wait_until(lambda: world.codes() == [("", True)])
    assert world.audit.records[0].bytes_in == size


@pytest.mark.parametrize(
    ("terms", "body"),
    [({}, b"x" * (SMALL + 1)), ({}, [b"x"]), ({"replay_body": 0}, b"x"), ({"replay_body": 9}, b"0123456789")],
    ids=["too long", "of unknown length", "turned off", "longer than is said"],
)
def test_any_other_body_is_sent_once(make: Any, terms: Any, body: Any) -> None:
    """It is gone when the upstream refuses. What has none is sent once more as ever."""
    world = make(**terms)
    world.serve()
    assert [world.send("POST", body).status, world.send("GET").status] == [502, 200]
    assert world.keys() == [OLD, OLD, REAL_KEY]


def test_what_is_put_into_the_body_and_signed_is_so_again(make: Any) -> None:
    """Each attempt begins with the body that the client sent."""
    world = make([Bearer("rotated:key"), BodyField("k", "rotated:key"), HmacSignature("X-Sig", "rotated:key")])
    world.serve()
    assert world.send("POST", b"a=1", FORM).status == 200
    first, second = world.upstream.requests
    assert (first.body, second.body) == (f"a=1&k={OLD}".encode(), f"a=1&k={REAL_KEY}".encode())
    assert first.header("x-sig") != second.header("x-sig")


@pytest.mark.parametrize("colour", ["async"])  # a WSGI server waits for the client by itself
@pytest.mark.parametrize(
    ("credential", "seconds", "code"),
    [
        (Bearer("rotated:key"), {"client": 0.2}, "client_too_slow"),
        (Bearer("rotated:key"), {"total": 0.2}, "upstream_total_timeout"),
        (HmacSignature("X-Sig", "rotated:key"), {"total": 0.2}, "upstream_total_timeout"),
    ],
    ids=["client", "total", "total, of a body that is signed"],
)
def test_a_client_that_stalls_is_refused_and_nothing_is_sent(
    make: Any, credential: Any, seconds: Any, code: str
) -> None:
    """Its body is waited for no longer than a streaming one, and holds no connection."""
    world = make(credential, timeouts=Timeouts(**seconds))
    world.serve()
    with stalling(world, b"12345") as client:
        assert f"x-proxy-error: {code}".encode() in client.recv(65536).lower()
    wait_until(lambda: world.codes() == [(code, False)])
    assert world.upstream.requests == []


def test_a_client_that_leaves_within_its_body_ends_the_exchange(make: Any) -> None:
    """Nothing is sent."""
    world = make()
    if world.colour == "async":
        world.serve()
        with stalling(world, b"12345"):
            wait_until(lambda: world.audit.reserved == 1)
    else:
        said: list[str] = []
        environ = {
            "REQUEST_METHOD": "POST",
            "RAW_URI": "/api/x",
            "CONTENT_LENGTH": "10",
            "HTTP_HOST": "proxy",
            "HTTP_AUTHORIZATION": f"Bearer {world.token}",
            "wsgi.input": io.BytesIO(b"12345"),
        }
        world.proxy.wsgi(environ, lambda status, _: said.append(status)).close()
    wait_until(lambda: world.codes() == [("client_gone", False)])
    assert world.upstream.requests == []


@pytest.mark.parametrize(
    ("credential", "terms", "body", "status", "code"),
    [
        (Bearer("rotated:key"), {"max_body": 9}, b"0123456789", 413, "body_too_large"),
        (BodyField("k", "rotated:key", max_body=9), {}, b"0123456789", 413, "body_too_large"),
        (HmacSignature("X-Sig", "rotated:key", max_body=9), {"replay_body": 0}, b"0123456789", 413, "body_too_large"),
        (BodyField("k", "rotated:key"), {}, b"0123456789", 400, "bad_body"),
    ],
    ids=["for the upstream", "for a field", "for a signature", "no form"],
)
def test_a_body_that_is_refused_is_never_sent(
    make: Any, credential: Any, terms: Any, body: bytes, status: int, code: str
) -> None:
    """Whether it is held or not."""
    world = make(credential, **terms)
    world.serve()
    assert world.send("POST", body).status == status
    wait_until(lambda: world.codes() == [(code, False)])
    assert world.upstream.requests == []


@pytest.mark.parametrize("stated", [3, 9])
def test_a_body_of_another_length_than_was_stated_is_never_sent(make: Any, stated: int) -> None:
    """Of a script, that is: servers hold clients to it."""
    world = make()
    headers = {"Content-Length": str(stated)}
    if world.colour == "sync":
        with httpx.Client(transport=world.proxy.transport(world.token)) as client:
            answer = client.post("http://proxy/api/x", content=iter([b"12345"]), headers=headers)
    else:

        async def body() -> AsyncIterator[bytes]:
            yield b"12345"

        async def post() -> httpx.Response:
            async with httpx.AsyncClient(transport=world.proxy.async_transport(world.token)) as client:
                return await client.post("http://proxy/api/x", content=body(), headers=headers)

        answer = asyncio.run(post())
    assert (answer.status_code, answer.headers["x-proxy-error"]) == (400, "bad_framing")
    assert world.upstream.requests == []


def test_fewer_than_no_bytes_cannot_be_held() -> None:
    """It is said when it is built."""
    with pytest.raises(ConfigurationError, match="replay_body is -1; it must be at least 0"):
        Upstream("api", "https://api.example.com", credential=Bearer("env:X"), replay_body=-1)


def stalling(world: World, body: bytes) -> socket.socket:
    """Begin a request of ten bytes and leave it at that."""
    host, port = world.url.removeprefix("http://").split(":")
    client = socket.create_connection((host, int(port)), 10)
    head = f"POST /api/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {world.token}\r\nContent-Length: 10\r\n\r\n"
    client.sendall(head.encode() + body)
    return client
