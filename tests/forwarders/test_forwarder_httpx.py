"""Forwarding through a transport that the user brings."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from hostile import (
    COLOURS,
    Asker,
    answer,
    body,
    chunked,
    drive,
    echo_target,
    head,
    hostile,
    origin,
    request,
    send,
    tell,
    until_end,
    wait,
)

from apitokenproxy._colour import ASYNC, SYNC
from apitokenproxy.errors import (
    ConfigurationError,
    ConnectTimeout,
    FirstByteTimeout,
    PoolTimeout,
    UpstreamFailure,
    UpstreamUnreachable,
    WriteTimeout,
)
from apitokenproxy.forwarders.httpx import HttpxForwarder

colours = pytest.mark.parametrize("colour", COLOURS.values(), ids=COLOURS)


@contextmanager
def _closing(transport: Any) -> Iterator[Any]:
    try:
        yield transport
    finally:
        if isinstance(transport, httpx.HTTPTransport):
            transport.close()


def drive_httpx(colour: Any, scenario: Any) -> None:
    """Run a scenario through httpx's own transport of the colour."""

    async def closing(ask: Asker) -> None:
        try:
            await scenario(ask)
        finally:
            if colour is ASYNC:
                await transport.aclose()

    made = httpx.AsyncHTTPTransport() if colour is ASYNC else httpx.HTTPTransport()
    with _closing(made) as transport:
        drive(colour, closing, HttpxForwarder(transport))


@colours
def test_bytes_pass_through_a_real_transport(colour: Any) -> None:
    """Target, headers and framing are those of the guard."""

    async def scenario(ask: Asker) -> None:
        to = origin(upstream.port)
        assert await ask.whole(request(to, b"/%2e%2E/?", headers=[(b"x-B", b"1"), (b"X-a", b"")])) == (
            200,
            b"/%2e%2E/?",
        )
        await ask.whole(request(to, b"/n", b"POST", content=ask.source(b"abc"), length=3))
        await ask.whole(request(to, b"/c", b"POST", content=ask.source(b"abc"), length=None))

    ok = send(answer(b"ok"))
    with hostile([head, echo_target, head, body(3), ok, head, chunked, ok, until_end]) as upstream:
        drive_httpx(colour, scenario)
        first = b"GET /%2e%2E/? HTTP/1.1\r\nHost: api.example.com\r\nx-B: 1\r\nX-a: \r\n\r\n"
        assert [first, b"abc", b"3\r\nabc\r\n0\r\n\r\n"] == [upstream.requests[index][1] for index in (0, 2, 4)]


@colours
def test_abort_closes_a_real_transports_connection(colour: Any) -> None:
    """The upstream sees the end; a second abort does nothing."""
    gone = threading.Event()

    async def scenario(ask: Asker) -> None:
        reply = await ask.forward(request(origin(upstream.port)))
        reply.abort()
        reply.abort()
        await ask.pause(gone.is_set)

    start = send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx")
    with hostile([head, start, until_end, tell(gone)]) as upstream:
        drive_httpx(colour, scenario)


@colours
def test_failures_of_a_real_transport_become_ours(colour: Any) -> None:
    """Late, cut off, and not there."""
    go = threading.Event()

    async def scenario(ask: Asker) -> None:
        with pytest.raises(FirstByteTimeout):
            await ask.whole(request(origin(upstream.port, seconds={"first_byte": 0.05, "read": 0.05})))
        go.set()
        reply = await ask.forward(request(origin(upstream.port)))
        with pytest.raises(UpstreamFailure):
            await ask.rest(reply)
        reply.abort()
        with pytest.raises(UpstreamUnreachable):
            await ask.whole(request(origin(1)))

    with hostile([head, wait(go)], [head, send(answer(b"ok")[:-1])]) as upstream:
        drive_httpx(colour, scenario)


@colours
@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (httpx.ConnectTimeout, ConnectTimeout),
        (httpx.ReadTimeout, FirstByteTimeout),
        (httpx.WriteTimeout, WriteTimeout),
        (httpx.PoolTimeout, PoolTimeout),
        (httpx.ConnectError, UpstreamUnreachable),
        (httpx.ReadError, UpstreamFailure),
        (httpx.RemoteProtocolError, UpstreamFailure),
        (httpx.LocalProtocolError, UpstreamFailure),
        (httpx.UnsupportedProtocol, UpstreamFailure),
        (httpx.ProxyError, UpstreamFailure),
    ],
)
def test_each_error_has_a_counterpart_without_its_text(colour: Any, theirs: Any, ours: Any) -> None:
    """What httpx says may hold a header."""

    def failing(_: httpx.Request) -> httpx.Response:
        raise theirs("s3cr3t")

    async def scenario(ask: Asker) -> None:
        with pytest.raises(ours) as caught:
            await ask.whole(request(origin(1)))
        error = caught.value
        assert (ours, None, True) == (type(error), error.__cause__, error.__suppress_context__)
        assert "s3cr3t" not in f"{error!r}"

    drive(colour, scenario, HttpxForwarder(httpx.MockTransport(failing)))


@colours
def test_a_mock_answers(colour: Any) -> None:
    """A user's tests need no network."""
    mock = httpx.MockTransport(lambda asked: httpx.Response(201, content=asked.url.raw_path))

    async def scenario(ask: Asker) -> None:
        assert await ask.whole(request(origin(1), b"/x?y=1")) == (201, b"/x?y=1")

    drive(colour, scenario, HttpxForwarder(mock))


@pytest.mark.parametrize(("colour", "kind"), [(ASYNC, httpx.BaseTransport), (SYNC, httpx.AsyncBaseTransport)])
def test_a_transport_of_the_other_colour_is_a_configuration_error(colour: Any, kind: Any) -> None:
    """It is told when the pipeline is built."""
    with pytest.raises(ConfigurationError):
        HttpxForwarder(kind()).bind(colour)
