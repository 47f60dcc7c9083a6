"""TLS to an upstream: ends that are ends, sessions, client certificates, deadlines."""

import socket
import ssl
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trustme
from hostile import (
    COLOURS,
    Asker,
    Conversation,
    answer,
    drive,
    echo_forever,
    head,
    hostile,
    origin,
    request,
    send,
    wait,
)

from apitokenproxy.errors import SecretUnavailable, UpstreamFailure, WriteTimeout

colours = pytest.mark.parametrize("colour", COLOURS.values(), ids=COLOURS)

UNTIL_CLOSED = b"HTTP/1.1 200 OK\r\n\r\nall of it"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


def server_context(authority: trustme.CA, *, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = newest
    authority.issue_cert("localhost").configure_cert(context)
    return context


def say_goodbye(conversation: Conversation) -> None:
    """End with close_notify, and do not wait for the other side's."""
    peer = conversation.peer
    assert isinstance(peer, ssl.SSLSocket)
    peer.settimeout(0.5)
    with suppress(OSError):
        peer.unwrap()


def cut(conversation: Conversation) -> None:
    """End the connection below TLS, as somebody on the way could."""
    with socket.socket(fileno=conversation.peer.detach()) as below:
        below.shutdown(socket.SHUT_RDWR)


@colours
@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_an_answer_until_the_end_is_whole_when_the_upstream_says_so(
    colour: Any, newest: ssl.TLSVersion, authority: trustme.CA, ca: str
) -> None:
    """It ends with close_notify."""

    async def scenario(ask: Asker) -> None:
        to = origin(upstream.port, host="localhost", scheme="https", ca=ca)
        assert await ask.whole(request(to)) == (200, b"all of it")

    tls = server_context(authority, newest=newest)
    with hostile([head, send(UNTIL_CLOSED), say_goodbye], tls=tls) as upstream:
        drive(colour, scenario)


@colours
@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_an_answer_until_the_end_that_is_merely_cut_is_a_failure(
    colour: Any, newest: ssl.TLSVersion, authority: trustme.CA, ca: str
) -> None:
    """Whoever can cut a connection must not be able to shorten an answer."""

    async def scenario(ask: Asker) -> None:
        to = origin(upstream.port, host="localhost", scheme="https", ca=ca)
        with pytest.raises(UpstreamFailure):
            await ask.whole(request(to))

    tls = server_context(authority, newest=newest)
    with hostile([head, send(UNTIL_CLOSED), cut], tls=tls) as upstream:
        drive(colour, scenario)


@colours
@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_a_new_connection_resumes_the_session(
    colour: Any, newest: ssl.TLSVersion, authority: trustme.CA, ca: str
) -> None:
    """The second handshake is the short one."""
    resumed: list[bool | None] = []

    def note(conversation: Conversation) -> None:
        assert isinstance(conversation.peer, ssl.SSLSocket)
        resumed.append(conversation.peer.session_reused)

    last = answer(b"ok").replace(b"Content-Length", b"Connection: close\r\nContent-Length")

    async def scenario(ask: Asker) -> None:
        to = origin(upstream.port, host="localhost", scheme="https", ca=ca)
        assert await ask.whole(request(to)) == (200, b"ok")
        for _ in range(2):
            assert await ask.whole(request(to)) == (200, b"ok")

    tls = server_context(authority, newest=newest)
    script = [note, head, send(answer(b"ok")), head, send(last)]
    with hostile(script, tls=tls) as upstream:
        drive(colour, scenario)
    assert resumed == [False, True]


CHUNKS = [b"x" * 2**20] * 64
"""More than sockets have room for."""


@colours
def test_an_upstream_that_reads_nothing_is_a_write_timeout(colour: Any, authority: trustme.CA, ca: str) -> None:
    """The session tickets that it sent after the handshake are no early answer."""
    over = threading.Event()

    async def scenario(ask: Asker) -> None:
        seconds = {"write": 0.1, "first_byte": 0.1}
        to = origin(upstream.port, host="localhost", scheme="https", ca=ca, seconds=seconds)
        with pytest.raises(WriteTimeout):
            await ask.whole(request(to, method=b"POST", content=ask.source(*CHUNKS), length=None))
        over.set()

    with hostile([head, wait(over)], tls=server_context(authority)) as upstream:
        drive(colour, scenario)


@colours
def test_an_early_answer_is_read_in_spite_of_a_body_that_does_not_fit(
    colour: Any, authority: trustme.CA, ca: str
) -> None:
    """An upstream that answers and reads no further is understood."""
    over = threading.Event()

    async def scenario(ask: Asker) -> None:
        to = origin(upstream.port, host="localhost", scheme="https", ca=ca, seconds={"write": 0.2})
        outbound = request(to, method=b"POST", content=ask.source(*CHUNKS), length=None)
        assert await ask.whole(outbound) == (413, b"too much")
        over.set()

    early = [head, send(answer(b"too much", b"413 Content Too Large")), wait(over)]
    with hostile(early, tls=server_context(authority)) as upstream:
        drive(colour, scenario)


@colours
def test_a_client_certificate_is_shown(colour: Any, authority: trustme.CA, ca: str, tmp_path: Path) -> None:
    """An upstream that wants one answers; without it the connection is not made or not kept."""
    shown = tmp_path / "client.pem"
    authority.issue_cert("client.example").private_key_and_cert_chain_pem.write_to_path(shown)
    tls = server_context(authority)
    tls.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(tls)

    async def scenario(ask: Asker) -> None:
        terms = {"host": "localhost", "scheme": "https", "ca": ca}
        assert await ask.whole(request(origin(upstream.port, client_certificate=str(shown), **terms), b"/x")) == (
            200,
            b"/x",
        )
        with pytest.raises(UpstreamFailure):
            await ask.whole(request(origin(upstream.port, **terms)))

    with hostile([echo_forever], tls=tls) as upstream:
        drive(colour, scenario)
        assert upstream.targets() == [b"/x"]


@colours
def test_a_client_certificate_that_cannot_be_loaded_is_told(
    colour: Any, authority: trustme.CA, ca: str, tmp_path: Path
) -> None:
    """One sentence, and nothing of the file in it."""
    broken = tmp_path / "client.pem"
    broken.write_text("s3cr3t")

    async def scenario(ask: Asker) -> None:
        to = origin(upstream.port, host="localhost", scheme="https", ca=ca, client_certificate=str(broken))
        with pytest.raises(SecretUnavailable) as caught:
            await ask.whole(request(to))
        assert caught.value.detail == f"the client certificate {broken} is no certificate with its key in PEM"

    with hostile([echo_forever], tls=server_context(authority)) as upstream:
        drive(colour, scenario)
        assert upstream.connections == 0


@colours
def test_some_mebibytes_pass_both_ways_through_tls(colour: Any, authority: trustme.CA, ca: str) -> None:
    """Records are cut and joined; not a byte is lost."""
    content = bytes(range(256)) * 4096 * 3
    received = threading.Event()

    def take(conversation: Conversation) -> None:
        if conversation.exactly(len(content)) == content:
            received.set()

    async def scenario(ask: Asker) -> None:
        to = origin(upstream.port, host="localhost", scheme="https", ca=ca)
        chunks = [content[at : at + 100_000] for at in range(0, len(content), 100_000)]
        posted = request(to, method=b"POST", content=ask.source(*chunks), length=len(content))
        status, body = await ask.whole(posted)
        assert (status, body == content) == (200, True)

    with hostile([head, take, send(answer(content))], tls=server_context(authority)) as upstream:
        drive(colour, scenario)
        assert received.is_set()
