"""What an upstream's bytes may and may not become: poisoning, truncation, framing."""

import asyncio
import threading
from typing import Any

import pytest
from hostile import (
    BOUND,
    COLOURS,
    Asker,
    Step,
    answer,
    body,
    chunked,
    drive,
    echo_forever,
    echo_target,
    head,
    hostile,
    origin,
    request,
    reset,
    send,
    tell,
    until_end,
    wait,
)

from apitokenproxy._colour import ASYNC
from apitokenproxy.errors import BadFraming, BadHeader, UpstreamFailure
from apitokenproxy.messages import Outbound

colours = pytest.mark.parametrize("colour", COLOURS.values(), ids=COLOURS)
POISON = answer(b"poison")
NO_BODY = b"HTTP/1.1 204 No Content\r\n\r\n"
NOT_MODIFIED = b"HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"


@colours
@pytest.mark.parametrize(
    ("method", "first", "expected"),
    [
        (b"GET", answer(b"ok"), (200, b"ok")),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n", (200, b"")),
        (b"DELETE", NO_BODY, (204, b"")),
        (b"GET", NOT_MODIFIED, (304, b"")),
        (b"GET", CHUNKED, (200, b"ok")),
    ],
    ids=["length", "head", "204", "304", "chunked"],
)
class TestPoisoning:
    def test_a_second_answer_in_the_same_segment_is_nobodys(
        self, colour: Any, method: bytes, first: bytes, expected: tuple[int, bytes]
    ) -> None:
        """Bytes after an answer close the connection; the next caller gets its own answer."""

        async def scenario(ask: Asker) -> None:
            to = origin(upstream.port)
            assert expected == await ask.whole(request(to, b"/first", method))
            assert await ask.whole(request(to, b"/second")) == (200, b"/second")

        with hostile([head, send(first + POISON), until_end], [echo_forever]) as upstream:
            drive(colour, scenario)
            assert upstream.connections == 2

    def test_an_answer_sent_to_an_idle_connection_is_nobodys(
        self, colour: Any, method: bytes, first: bytes, expected: tuple[int, bytes]
    ) -> None:
        """Bytes that come while nobody asks close the connection."""
        go, sent = threading.Event(), threading.Event()

        async def scenario(ask: Asker) -> None:
            to = origin(upstream.port)
            assert expected == await ask.whole(request(to, b"/first", method))
            go.set()
            await ask.pause(sent.is_set)
            await ask.pause(_readable(forward_pool(ask, to)))
            assert await ask.whole(request(to, b"/second")) == (200, b"/second")

        with hostile([head, send(first), wait(go), send(POISON), tell(sent), until_end], [echo_forever]) as upstream:
            drive(colour, scenario)
            assert upstream.connections == 2


@colours
@pytest.mark.parametrize(
    ("method", "first", "connections"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(POISON), 2),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 2),
        (b"HEAD", b"HTTP/1.1 200 OK\r\n\r\n", 2),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 1),
        (b"HEAD", NO_BODY, 1),
        (b"GET", b"HTTP/1.1 204 No Content\r\nContent-Length: %d\r\n\r\n" % len(POISON), 2),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", 2),
        (b"GET", NOT_MODIFIED, 2),
        (b"GET", NO_BODY, 1),
    ],
)
def test_a_body_that_comes_after_all_is_nobodys(colour: Any, method: bytes, first: bytes, connections: int) -> None:
    """Where a head promises a body that must not follow, the connection is not used again: it may follow late."""

    async def scenario(ask: Asker) -> None:
        to = origin(upstream.port)
        assert (await ask.whole(request(to, b"/first", method)))[1] == b""
        assert await ask.whole(request(to, b"/second")) == (200, b"/second")

    late = [head, send(POISON)] if connections == 2 else [echo_forever]
    with hostile([head, send(first), *late], [echo_forever]) as upstream:
        drive(colour, scenario)
        assert upstream.connections == connections


def test_an_answer_that_arrives_while_a_connection_is_handed_over_is_nobodys() -> None:
    """Whoever waited for the connection gets a new one instead, and its own answer."""
    rest, go, sent = threading.Event(), threading.Event(), threading.Event()

    async def scenario(ask: Asker) -> None:
        to = origin(upstream.port, max_connections=1)
        reply = await ask.forward(request(to, b"/first"))
        waiting = asyncio.create_task(ask.whole(request(to, b"/second")))
        await ask.pause(lambda: forward_pool(ask, to)._waiting == 1)
        rest.set()
        assert await ask.rest(reply) == b"ok"
        go.set()
        assert sent.wait(BOUND)  # without yielding: the poison is there before the waiter runs
        assert await waiting == (200, b"/second")

    held = answer(b"ok")[:-2]
    script = [head, send(held), wait(rest), send(b"ok"), wait(go), send(POISON), tell(sent), until_end]
    with hostile(script, [echo_forever]) as upstream:
        drive(ASYNC, scenario)
        assert upstream.connections == 2


def forward_pool(ask: Asker, to: Any) -> Any:
    """Return the pool behind an asker."""
    return ask.forward.func.__self__._pool(to, ask.colour)


def _readable(pool: Any) -> Any:
    return lambda: not pool._idle or not pool._idle[-1][0].is_silent()


@colours
@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nsho",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n0\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nshort\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 50 + answer(b"ok"),
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000,
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"",
    ],
    ids=lambda raw: repr(raw[:60] + raw[-8:]),
)
def test_an_answer_that_is_not_a_whole_message_is_a_failure(colour: Any, raw: bytes) -> None:
    """Nothing is repaired: the caller learns that the answer is broken."""

    async def scenario(ask: Asker) -> None:
        with pytest.raises(UpstreamFailure):
            await ask.whole(request(origin(upstream.port)))

    with hostile([head, send(raw)]) as upstream:
        drive(colour, scenario)


@colours
@pytest.mark.parametrize("end", [[], [reset]], ids=["closed", "reset"])
@pytest.mark.parametrize("raw", [answer(b"ok"), CHUNKED], ids=["length", "chunked"])
def test_an_answer_cut_off_at_any_byte_never_looks_whole(colour: Any, raw: bytes, end: list[Step]) -> None:
    """Only the last byte makes an answer."""
    scripts = [[head, send(raw[:cut]), *end] for cut in range(len(raw))]

    async def scenario(ask: Asker) -> None:
        for _ in scripts:
            with pytest.raises(UpstreamFailure):
                await ask.whole(request(origin(upstream.port), method=b"POST"))

    with hostile(*scripts) as upstream:
        drive(colour, scenario)
        assert len(scripts) == upstream.connections


@colours
def test_interim_answers_are_skipped(colour: Any) -> None:
    """100 and 103 are not the answer."""
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"

    async def scenario(ask: Asker) -> None:
        assert await ask.whole(request(origin(upstream.port))) == (200, b"ok")

    with hostile([head, send(interim + answer(b"ok")), until_end]) as upstream:
        drive(colour, scenario)


@colours
def test_a_chunk_is_passed_on_before_the_next_one_exists(colour: Any) -> None:
    """Server-sent events arrive one by one."""
    go = threading.Event()
    start = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\ndata: 1\r\n"

    async def scenario(ask: Asker) -> None:
        reply = await ask.forward(request(origin(upstream.port)))
        assert await ask.first(reply) == b"data: 1"
        go.set()
        assert await ask.rest(reply) == b"data: 2"

    with hostile([head, send(start), wait(go), send(b"7\r\ndata: 2\r\n0\r\n\r\n"), until_end]) as upstream:
        drive(colour, scenario)


@colours
def test_target_and_headers_arrive_byte_for_byte(colour: Any) -> None:
    """Nothing is normalised, sorted, merged or recased."""
    headers = [(b"X-b", b"1"), (b"x-A", b"2"), (b"X-b", b"3"), (b"Accept", b"")]
    for target in (b"/a/%2e%2E/b%2f?", b"/?", b"/x?q=%20+%zz&&=", b"//double//", b"/a;b=c?x=?y"):

        async def scenario(ask: Asker, target: bytes = target) -> None:
            await ask.whole(request(origin(upstream.port), target, headers=headers))

        with hostile([head, echo_target, until_end]) as upstream:
            drive(colour, scenario)
            expected = b"GET " + target + b" HTTP/1.1\r\nHost: api.example.com\r\n"
            expected += b"X-b: 1\r\nx-A: 2\r\nX-b: 3\r\nAccept: \r\n\r\n"
            assert [(0, expected)] == upstream.requests


@colours
def test_answer_headers_come_back_in_order_case_and_repetition(colour: Any) -> None:
    """What the upstream says is what the guard sees."""
    raw = b"HTTP/1.1 200 OK\r\nX-b: 1\r\nx-A: 2\r\nX-b: 3\r\nContent-Length: 0\r\n\r\n"

    async def scenario(ask: Asker) -> None:
        reply = await ask.forward(request(origin(upstream.port)))
        assert list(reply.headers) == [(b"X-b", b"1"), (b"x-A", b"2"), (b"X-b", b"3"), (b"Content-Length", b"0")]

    with hostile([head, send(raw), until_end]) as upstream:
        drive(colour, scenario)


@colours
def test_a_body_is_framed_by_its_stated_length_or_chunked(colour: Any) -> None:
    """A known length is sent as Content-Length, an unknown one chunked; an empty POST says 0."""

    async def scenario(ask: Asker) -> None:
        to = origin(upstream.port)
        await ask.whole(request(to, method=b"POST", content=ask.source(b"abc", b"def"), length=6))
        await ask.whole(request(to, method=b"POST", content=ask.source(b"abc", b"def"), length=None))
        await ask.whole(request(to, method=b"POST"))

    ok = send(answer(b"ok"))
    with hostile([head, body(6), ok, head, chunked, ok, head, ok, until_end]) as upstream:
        drive(colour, scenario)
        (_, one), (_, first), (_, two), (_, second), (_, three) = upstream.requests
        assert (one.endswith(b"Content-Length: 6\r\n\r\n"), first) == (True, b"abcdef")
        assert (
            two.endswith(b"Transfer-Encoding: chunked\r\n\r\n"),
            second,
        ) == (True, b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n")
        assert three.endswith(b"Content-Length: 0\r\n\r\n")


@colours
@pytest.mark.parametrize("length", [2, 9])
def test_a_body_that_is_not_as_long_as_stated_is_refused(colour: Any, length: int) -> None:
    """Neither a surplus byte nor a missing one goes on as a request; the connection is closed."""

    async def scenario(ask: Asker) -> None:
        with pytest.raises(BadFraming):
            await ask.whole(request(origin(upstream.port), method=b"POST", content=ask.source(b"abc"), length=length))

    with hostile([head, until_end]) as upstream:
        drive(colour, scenario)


@colours
def test_an_upstream_that_answers_instead_of_reading_on_is_heard(colour: Any) -> None:
    """A 413 in the middle of an upload is the answer; that connection is not used again."""
    go = threading.Event()

    async def scenario(ask: Asker) -> None:
        to = origin(upstream.port, seconds={"write": 0.2})
        chunk = b"x" * 2**20
        big = request(to, method=b"POST", content=ask.source(*[chunk] * 64), length=None)
        assert await ask.whole(big) == (413, b"too large")
        go.set()
        assert await ask.whole(request(to, b"/next")) == (200, b"/next")

    early = send(answer(b"too large", b"413 Content Too Large"))
    with hostile([head, early, wait(go)], [echo_forever]) as upstream:
        drive(colour, scenario)
        assert [number for number, received in upstream.requests if b"/next" in received] == [1]


@colours
def test_an_error_of_the_bodys_source_is_not_taken_for_the_upstreams(colour: Any) -> None:
    """A client that breaks off ends the request at once, even with a ConnectionError."""

    def broken() -> Any:
        yield b"abc"
        raise ConnectionResetError

    async def broken_async() -> Any:
        yield b"abc"
        raise ConnectionResetError

    async def scenario(ask: Asker) -> None:
        content = broken() if ask.colour is COLOURS["sync"] else broken_async()
        with pytest.raises(ConnectionResetError):
            await ask.whole(request(origin(upstream.port), method=b"POST", content=content, length=9))

    with hostile([head, until_end]) as upstream:
        drive(colour, scenario)


@colours
def test_a_download_of_some_mebibytes_is_whole(colour: Any) -> None:
    """Every byte arrives, in order."""
    content = bytes(range(256)) * 4096 * 3

    async def scenario(ask: Asker) -> None:
        status, received = await ask.whole(request(origin(upstream.port)))
        assert (status, content == received) == (200, True)

    with hostile([head, send(answer(content)), until_end]) as upstream:
        drive(colour, scenario)


@colours
def test_no_error_text_holds_a_header_or_the_target(colour: Any) -> None:
    """Errors are written to logs; what they say is only ours."""
    secret = b"s3cr3t-canary"
    bad = [(b"X", b"\n" + secret), (b"Bad Name " + secret, b"1"), (secret + b":", b"")]

    async def failing(ask: Asker, outbound: Outbound) -> None:
        with pytest.raises((UpstreamFailure, BadHeader)) as caught:
            await ask.whole(outbound)
        error = caught.value
        assert "s3cr3t" not in f"{error} {error!r} {error.args} {error.__dict__}"
        assert (error.__cause__, error.__suppress_context__ or error.__context__ is None) == (None, True)

    async def scenario(ask: Asker) -> None:
        to = origin(upstream.port)
        for header in bad:
            await failing(ask, request(to, b"/?" + secret, headers=[header]))
        await failing(ask, request(to, b"/?" + secret, headers=[(b"Authorization", secret)]))
        await failing(ask, request(to, b"/ " + secret + b"\n", headers=[(b"Authorization", secret)]))

    with hostile([head, send(b"HTTP/1.1 200 s3cr3t\r\ns3cr3t\r\n\r\n")]) as upstream:
        drive(colour, scenario)
