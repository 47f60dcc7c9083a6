"""An upstream that does everything wrong, at random and by the thousand, over real sockets.

Whatever it sends: a request gets an answer that was meant for it, or a failure, within its deadlines; and
afterwards no connection is open that is not idle in the pool.
"""

import asyncio
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hostile import COLOURS, Asker, Conversation, drive, head, hostile, origin, request

from apitokenproxy._colour import ASYNC, run
from apitokenproxy.errors import UpstreamFailure
from apitokenproxy.forwarders.wire import WireForwarder
from apitokenproxy.messages import Origin

colours = pytest.mark.parametrize("colour", COLOURS.values(), ids=COLOURS)
REQUESTS = 10_000
AT_ONCE = 20
GRIST = b"\r\n\t :;,0123456789abcdefxX\x00\x7f\xff"


def answers(tag: bytes) -> list[bytes]:
    """Return valid answers that say whose they are, in every framing."""
    size = b"%d" % len(tag)
    chunk = b"%x\r\n%b\r\n0\r\n" % (len(tag), tag)
    return [
        b"HTTP/1.1 200 OK\r\nContent-Length: " + size + b"\r\n\r\n" + tag,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk + b"\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk + b"X-Trailer: " + tag + b"\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: " + size + b"\r\n\r\n" + tag,
        b"HTTP/1.1 200 OK\r\nX-Tag: " + tag + b"\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nX-Tag: " + tag + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: " + size + b"\r\n\r\n" + tag,
    ]


def spoiled(tag: bytes) -> bytes:
    """Return one of them with some bytes changed, put in or taken out, or followed by another; the tag is whole."""
    dice = random.Random(tag)  # noqa: S311 - not for secrets
    raw = bytearray(dice.choice(answers(b"TAG")))
    for _ in range(dice.choice([0, 1, 1, 1, 2, 4])):
        at = dice.randrange(len(raw) + 1)
        kind = dice.randrange(4)
        if kind == 0 and at < len(raw):
            raw[at] = dice.choice(GRIST)
        elif kind == 1:
            raw.insert(at, dice.choice(GRIST))
        elif kind == 2:
            del raw[at : at + dice.choice([1, 1, 2, 5])]
        else:
            raw += dice.choice(answers(b"TAG"))
    return bytes(raw).replace(b"TAG", tag)


def spoil(conversation: Conversation) -> None:
    """Answer every request with something spoiled, in one piece or in several, and sometimes hang up."""
    while True:
        head(conversation)
        tag = conversation.target[1:]
        dice = random.Random(b"how" + tag)  # noqa: S311 - not for secrets
        raw = spoiled(tag)
        cut = dice.randrange(len(raw) + 1) if dice.random() < 0.3 else len(raw)
        conversation.peer.sendall(raw[:cut])
        conversation.peer.sendall(raw[cut:])
        if dice.random() < 0.1:
            return


def tag_of(number: int) -> bytes:
    """Return what a request is known by: as long for all, so that lengths tell nothing."""
    return b"tag-%05d-end" % number


def judge(number: int, status: int, headers: Any, body: bytes) -> None:
    """See that whatever came names no other request."""
    assert 200 <= status <= 599
    said = body + b"".join(name + value for name, value in headers)
    for at in range(len(said)):
        if said.startswith(b"tag-", at) and said[at + 9 : at + 13] == b"-end":
            assert said.startswith(tag_of(number), at), (number, said)


async def ask_one(ask: Asker, to: Origin, number: int) -> bool:
    """Send one request; tell whether an answer came."""
    try:
        reply = await ask.forward(request(to, b"/" + tag_of(number)))
        judge(number, reply.status, reply.headers, await ask.rest(reply))
    except UpstreamFailure:
        return False
    return True


@colours
@pytest.mark.long
@pytest.mark.timeout(120)
def test_ten_thousand_spoiled_answers_reach_nobody_else(colour: Any) -> None:
    """Each is given to its own request or to nobody; none outlasts its deadline; nothing stays open."""
    forwarder = WireForwarder()
    seconds = {"first_byte": 0.1, "read": 0.1, "total": 1.0}

    async def scenario(ask: Asker) -> int:
        to = origin(upstream.port, seconds=seconds, max_connections=AT_ONCE)
        numbers = iter(range(colour is ASYNC, REQUESTS, 2))  # half of them in each colour
        lock = threading.Lock()

        def following() -> int | None:
            with lock:
                return next(numbers, None)

        async def worker() -> int:
            answered = 0
            while (number := following()) is not None:
                answered += await ask_one(ask, to, number)
            return answered

        if colour is ASYNC:
            answered = sum(await asyncio.gather(*(worker() for _ in range(AT_ONCE))))
        else:
            with ThreadPoolExecutor(AT_ONCE) as threads:
                answered = sum(threads.map(lambda _: run(worker()), range(AT_ONCE)))
        (pool,) = next(iter(forwarder._pools.values())).values()
        assert (pool._open, pool._waiting) == (len(pool._idle), 0)
        return answered

    with hostile([spoil]) as upstream:
        answered = drive(colour, scenario, forwarder)
        assert 0.1 * REQUESTS < answered < 0.45 * REQUESTS


@colours
def test_drips_end_at_their_deadline(colour: Any) -> None:
    """A byte now and then keeps no request alive: the head has one deadline, and the whole has one when it is set."""

    def drip(conversation: Conversation) -> None:
        head(conversation)
        stop = threading.Event()
        for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 500:
            conversation.peer.sendall(bytes([byte]))
            stop.wait(0.01)

    async def scenario(ask: Asker) -> None:
        for seconds in ({"first_byte": 0.2, "read": 60.0}, {"first_byte": 60.0, "read": 60.0, "total": 0.2}):
            to = origin(upstream.port, seconds=seconds)
            with pytest.raises(UpstreamFailure):
                await ask.whole(request(to))

    with hostile([drip]) as upstream:
        drive(colour, scenario)
