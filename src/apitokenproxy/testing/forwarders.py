"""What every forwarder must do, over real sockets: inherit from `ForwarderConformance`.

    class TestMine(ForwarderConformance):
        def make(self, colour):
            return MyForwarder()

A forwarder has `bind(colour)`, which returns the function that sends, and `close` and `aclose`. Every fact
is tried under asyncio and without it.
"""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from attrs import define

from apitokenproxy._colour import ASYNC, SYNC, Colour, run
from apitokenproxy.errors import FirstByteTimeout, ProxyError, ReadTimeout, UpstreamFailure, UpstreamUnreachable
from apitokenproxy.messages import Headers, Outbound, Reply
from apitokenproxy.testing.scripted import WITHIN, ScriptedUpstream, answering, scripted, to

Forward = Callable[[Outbound], Awaitable[Reply]]


class ForwarderConformance:
    """The facts, one a method. Override `make`."""

    def make(self, colour: Colour) -> Any:
        """Return a new forwarder for the colour."""
        raise NotImplementedError

    # --- a request arrives as the guard made it ---------------------------------------------

    def test_target_and_headers_arrive_byte_for_byte(self) -> None:
        """Nothing is normalised, added, dropped or put in another order or case."""
        target = b"/a/%2e%2E/b%2f//c;d=e?q=%20+%zz&&=?"
        headers = [(b"X-b", b"1"), (b"x-A", b""), (b"X-b", b"\xff")]
        expected = b"GET " + target + b" HTTP/1.1\r\nHost: api.example.com\r\nX-b: 1\r\nx-A: \r\nX-b: \xff\r\n\r\n"
        for colour in (ASYNC, SYNC):
            with scripted(answering(_OK)) as upstream:
                self._ask(colour, to(upstream.port, target, headers=headers))
                assert upstream.received == [expected]

    def test_a_body_is_framed_by_its_length_or_in_chunks(self) -> None:
        """A stated length is sent as such; an empty POST says so."""
        for body, length, end, line in (
            ((b"abc", b"def"), 6, b"abcdef", b"Content-Length: 6"),
            ((b"abc", b"def"), None, b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n", b"Transfer-Encoding: chunked"),
            ((), 0, b"\r\n\r\n", b"Content-Length: 0"),
        ):
            for colour in (ASYNC, SYNC):
                with scripted(answering(_OK, end=end)) as upstream:

                    async def post(
                        each: "_Each", up: ScriptedUpstream = upstream, chunks: Any = body, size: Any = length
                    ) -> None:
                        await each.whole(to(up.port, b"/", b"POST", body=each.source(chunks), length=size))

                    self._run(colour, post)
                    assert line in upstream.received[0].split(b"\r\n")

    def test_a_body_that_is_there_whole_is_sent_as_often_as_it_is_asked_for(self) -> None:
        """Bytes are framed as chunks are, in either colour, and are not used up."""
        for length, end, line in (
            (6, b"abcdef", b"Content-Length: 6"),
            (None, b"6\r\nabcdef\r\n0\r\n\r\n", b"Transfer-Encoding: chunked"),
        ):
            for colour in (ASYNC, SYNC):
                with scripted(answering(_OK, end=end)) as upstream:

                    async def twice(each: "_Each", up: ScriptedUpstream = upstream, size: Any = length) -> None:
                        outbound = to(up.port, b"/", b"POST", body=b"abcdef", length=size)
                        await each.whole(outbound)
                        await each.whole(outbound)

                    self._run(colour, twice)
                    first, second = upstream.received
                    assert first == second
                    assert line in first.split(b"\r\n")

    # --- an answer comes back as the upstream sent it ---------------------------------------

    def test_headers_come_back_in_order_case_and_repetition(self) -> None:
        """What the upstream says is what the guard judges."""
        raw = b"HTTP/1.1 200 OK\r\nX-b: 1\r\nx-A: 2\r\nX-b: 3\r\nContent-Length: 2\r\n\r\nok"
        for colour in (ASYNC, SYNC):
            with scripted(answering(raw)) as upstream:
                status, headers, body = self._ask(colour, to(upstream.port))
                assert (status, body) == (200, b"ok")
                assert headers[:3] == [(b"X-b", b"1"), (b"x-A", b"2"), (b"X-b", b"3")]

    def test_every_framing_is_read_to_its_end(self) -> None:
        """By length, in chunks, until the connection closes, and not at all."""
        for method, raw, expected in (
            (b"GET", _OK, (200, b"ok")),
            (b"GET", _CHUNKED, (200, b"ok")),
            (b"GET", b"HTTP/1.1 200 OK\r\n\r\nok", (200, b"ok")),
            (b"GET", b"HTTP/1.1 100 Continue\r\n\r\n" + _OK, (200, b"ok")),
            (b"GET", b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", (302, b"")),
            (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", (200, b"")),
            (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"")),
            (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", (304, b"")),
        ):
            for colour in (ASYNC, SYNC):
                with scripted(answering(raw, requests=1)) as upstream:
                    status, _, body = self._ask(colour, to(upstream.port, b"/", method))
                    assert (status, body) == expected, raw

    def test_a_chunk_is_passed_on_before_the_next_one_exists(self) -> None:
        """Events arrive one by one."""

        def script(upstream: ScriptedUpstream, peer: socket.socket) -> None:
            upstream.read_until(peer, b"\r\n\r\n")
            peer.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
            upstream.go.wait(WITHIN)
            peer.sendall(b"1\r\nb\r\n0\r\n\r\n")

        async def stream(each: "_Each") -> list[bytes]:
            reply = await each.forward(to(upstream.port))
            chunks = [await each.next(reply)]
            upstream.go.set()
            while chunks[-1]:
                chunks.append(await each.next(reply))
            return chunks

        for colour in (ASYNC, SYNC):
            with scripted(script) as upstream:
                assert self._run(colour, stream) == [b"a", b"b", b""]

    def test_nothing_is_remembered_between_requests(self) -> None:
        """A cookie that one caller was given is not sent for another."""
        raw = b"HTTP/1.1 200 OK\r\nSet-Cookie: who=alice\r\nContent-Length: 2\r\n\r\nok"

        async def twice(each: "_Each") -> None:
            for _ in range(2):
                await each.whole(to(upstream.port))

        for colour in (ASYNC, SYNC):
            with scripted(answering(raw)) as upstream:
                self._run(colour, twice)
                assert b"alice" not in b"".join(upstream.received)

    # --- what goes wrong is told, and tells nothing ------------------------------------------

    def test_an_answer_that_is_broken_or_cut_off_is_a_failure(self) -> None:
        """Never half an answer that looks whole."""
        for raw in (
            b"",
            _OK[:-1],
            _CHUNKED[:-5],
            b"HTTP/1.1 200 OK\r\n",
            b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
        ):
            for colour in (ASYNC, SYNC):
                with scripted(answering(raw, requests=1)) as upstream:
                    _raises(UpstreamFailure, self._ask, colour, to(upstream.port, b"/", b"POST"))

    def test_deadlines_have_their_own_errors(self) -> None:
        """An upstream that says nothing, and one that stops in the middle."""
        for raw, error in ((b"", FirstByteTimeout), (_OK[:-1], ReadTimeout)):

            def script(upstream: ScriptedUpstream, peer: socket.socket, raw: bytes = raw) -> None:
                upstream.read_until(peer, b"\r\n\r\n")
                peer.sendall(raw)
                upstream.go.wait(WITHIN)

            for colour in (ASYNC, SYNC):
                with scripted(script) as upstream:
                    late = to(upstream.port, seconds={"first_byte": 0.05, "read": 0.05})
                    _raises(error, self._ask, colour, late)
                    upstream.go.set()

    def test_an_upstream_that_is_not_there_is_unreachable(self) -> None:
        """Nobody listens."""
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
            for colour in (ASYNC, SYNC):
                _raises(UpstreamUnreachable, self._ask, colour, to(port))

    def test_no_error_holds_what_was_sent_or_received(self) -> None:
        """Errors go to logs."""
        raw = b"HTTP/1.1 200 s3cr3t\r\ns3cr3t\r\n\r\n"
        for colour in (ASYNC, SYNC):
            with scripted(answering(raw, requests=1)) as upstream:
                asked = to(upstream.port, b"/?s3cr3t", headers=[(b"Authorization", b"s3cr3t")])
                error = _raises(UpstreamFailure, self._ask, colour, asked)
                assert "s3cr3t" not in f"{error} {error!r} {error.detail}"
                assert error.__cause__ is None
                assert error.__context__ is None or error.__suppress_context__

    def test_abort_closes_the_connection_and_may_be_called_twice(self) -> None:
        """The upstream sees the end at once."""

        def script(upstream: ScriptedUpstream, peer: socket.socket) -> None:
            upstream.read_until(peer, b"\r\n\r\n")
            peer.sendall(_OK[:-1])
            with suppress(OSError):
                peer.recv(1)
            upstream.ended.set()

        async def abort(each: "_Each") -> None:
            reply = await each.forward(to(upstream.port))
            reply.abort()
            reply.abort()
            for _ in range(int(WITHIN * 100)):
                if upstream.ended.is_set():
                    break
                await each.pause()
            assert upstream.ended.is_set()

        for colour in (ASYNC, SYNC):
            with scripted(script) as upstream:
                self._run(colour, abort)

    # --- how they are run -------------------------------------------------------------------

    def _ask(self, colour: Colour, outbound: Outbound) -> tuple[int, Headers, bytes]:
        whole: tuple[int, Headers, bytes] = self._run(colour, lambda each: each.whole(outbound))
        return whole

    def _run(self, colour: Colour, scenario: Callable[["_Each"], Awaitable[Any]]) -> Any:
        if colour is SYNC:
            forwarder = self.make(colour)
            try:
                return run(_awaited(scenario(_Each(colour, forwarder.bind(colour)))))
            finally:
                forwarder.close()

        async def main() -> Any:
            forwarder = self.make(colour)
            try:
                return await scenario(_Each(colour, forwarder.bind(colour)))
            finally:
                await forwarder.aclose()

        return asyncio.run(main())


_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


@define
class _Each:
    """One colour's way to send and to read."""

    colour: Colour
    forward: Forward

    async def whole(self, outbound: Outbound) -> tuple[int, Headers, bytes]:
        reply = await self.forward(outbound)
        body = b""
        while chunk := await self.next(reply):
            body += chunk
        return reply.status, list(reply.headers), body

    async def next(self, reply: Reply) -> bytes:
        """Return the next bytes of the body, empty at its end."""
        if isinstance(reply.body, bytes):
            whole, reply.body = reply.body, b""
            return whole
        body: Any = reply.body
        try:
            return bytes(await anext(body) if self.colour is ASYNC else next(body))
        except (StopIteration, StopAsyncIteration):
            return b""

    def source(self, chunks: tuple[bytes, ...]) -> Any:
        """Return a request body of this colour, None for none."""
        if not chunks or self.colour is SYNC:
            return iter(chunks) if chunks else None

        async def source() -> Any:
            for chunk in chunks:
                yield chunk

        return source()

    async def pause(self) -> None:
        if self.colour is ASYNC:
            await asyncio.sleep(0.01)
        else:
            threading.Event().wait(0.01)


def _raises(kind: type[ProxyError], act: Callable[..., Any], *arguments: Any) -> ProxyError:
    try:
        act(*arguments)
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised")
