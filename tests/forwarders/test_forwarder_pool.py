"""Connections kept, bounded, handed over, timed and closed."""

import asyncio
import os
import random
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hostile import (
    BOUND,
    COLOURS,
    Asker,
    answer,
    body,
    drive,
    echo_forever,
    echo_in_halves,
    echo_target,
    head,
    hostile,
    origin,
    pause,
    request,
    reset,
    send,
    silent,
    tell,
    until_end,
    wait,
)

from apitokenproxy._colour import ASYNC, SYNC, run
from apitokenproxy.errors import (
    ConnectTimeout,
    FirstByteTimeout,
    PoolFull,
    PoolTimeout,
    ReadTimeout,
    TlsTimeout,
    TotalTimeout,
    UpstreamFailure,
    UpstreamUnreachable,
    WriteTimeout,
)
from apitokenproxy.forwarders import pool as pool_module
from apitokenproxy.forwarders import wire as wire_module
from apitokenproxy.forwarders.asyncio_stream import HIGH_WATER
from apitokenproxy.forwarders.wire import WireForwarder
from loopback import wait_until

colours = pytest.mark.parametrize("colour", COLOURS.values(), ids=COLOURS)


@colours
@pytest.mark.parametrize("end", [[], [reset]], ids=["closed", "reset"])
def test_a_get_is_sent_again_once_when_a_kept_connection_died(colour: Any, end: list[Any]) -> None:
    """The upstream dropped the kept connection upon the second request: a new one carries it."""

    async def scenario(ask: Asker) -> None:
        to = origin(upstream.port)
        await ask.whole(request(to, b"/1"))
        assert await ask.whole(request(to, b"/2")) == (200, b"/2")

    with hostile([head, echo_target, head, *end], [echo_forever]) as upstream:
        drive(colour, scenario)
        assert upstream.targets() == [b"/1", b"/2", b"/2"]


@colours
def test_a_get_is_not_sent_a_third_time(colour: Any) -> None:
    """When the new connection dies as well, that is the result."""

    async def scenario(ask: Asker) -> None:
        to = origin(upstream.port)
        await ask.whole(request(to, b"/1"))
        with pytest.raises(UpstreamFailure):
            await ask.whole(request(to, b"/2"))

    with hostile([head, echo_target, head], [head]) as upstream:
        drive(colour, scenario)
        assert upstream.targets() == [b"/1", b"/2", b"/2"]


@colours
@pytest.mark.parametrize(("method", "size"), [(b"POST", 0), (b"POST", 3), (b"PUT", 3), (b"PATCH", 0)])
def test_what_may_have_had_an_effect_is_never_sent_again(colour: Any, method: bytes, size: int) -> None:
    """A POST, or a body that is used up, is sent once."""

    async def scenario(ask: Asker) -> None:
        to = origin(upstream.port)
        await ask.whole(request(to, b"/1"))
        with pytest.raises(UpstreamFailure):
            await ask.whole(request(to, b"/2", method, content=ask.source(b"x" * size), length=size))

    with hostile([head, echo_target, head, body(size)], [echo_forever]) as upstream:
        drive(colour, scenario)
        assert [received.split(b" ")[1] for _, received in upstream.requests if b"HTTP" in received] == [b"/1", b"/2"]


@colours
@pytest.mark.parametrize("size", [3, 8_000_000])
def test_a_body_that_may_have_got_through_in_part_is_never_sent_again(colour: Any, size: int) -> None:
    """Although all of it is here still."""

    async def scenario(ask: Asker) -> None:
        to = origin(upstream.port)
        await ask.whole(request(to, b"/1"))
        with pytest.raises(UpstreamFailure):
            await ask.whole(request(to, b"/2", b"POST", content=b"x" * size, length=size))

    with hostile([head, echo_target, head], [echo_forever]) as upstream:
        drive(colour, scenario)
        assert [received.split(b" ")[1] for _, received in upstream.requests if b"HTTP" in received] == [b"/1", b"/2"]


@colours
def test_a_request_that_an_upstream_thought_about_is_not_sent_again(
    colour: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that ends long after a request was no stale one: the upstream has it."""
    monkeypatch.setattr(wire_module, "STALE_SECONDS", 0.0)

    async def scenario(ask: Asker) -> None:
        to = origin(upstream.port)
        await ask.whole(request(to, b"/1"))
        with pytest.raises(UpstreamFailure):
            await ask.whole(request(to, b"/2", b"DELETE"))

    with hostile([head, echo_target, head], [echo_forever]) as upstream:
        drive(colour, scenario)
        assert upstream.targets() == [b"/1", b"/2"]


@colours
def test_both_attempts_share_the_total_timeout(colour: Any) -> None:
    """What the first one used is not given to the second."""

    async def scenario(ask: Asker) -> None:
        to = origin(upstream.port, seconds={"total": 1.0})
        await ask.whole(request(to, b"/1"))
        with pytest.raises(TotalTimeout):
            await ask.whole(request(to, b"/2"))

    slow = pause(0.6)
    with hostile([head, echo_target, head, slow], [head, slow, echo_target]) as upstream:
        drive(colour, scenario)
        assert upstream.targets() == [b"/1", b"/2", b"/2"]


@colours
def test_the_second_attempt_goes_over_a_new_connection_even_when_others_are_kept(colour: Any) -> None:
    """A full pool of stale connections costs one retry, not one for each."""
    go = threading.Event()

    async def scenario(ask: Asker) -> None:
        to = origin(upstream.port, max_connections=2)
        first = await ask.forward(request(to, b"/1"))
        second = await ask.forward(request(to, b"/2"))
        go.set()
        await ask.rest(first)
        await ask.rest(second)
        assert await ask.whole(request(to, b"/3")) == (200, b"/3")

    stale = [head, echo_in_halves(go), head]
    with hostile(stale, stale, [echo_forever]) as upstream:
        drive(colour, scenario)
        assert [number for number, _ in upstream.requests] == [0, 1, 1, 2]


@colours
def test_the_connection_used_last_is_used_first(colour: Any) -> None:
    """Last in, first out: what is not needed may grow old and close."""
    go = threading.Event()

    async def scenario(ask: Asker) -> None:
        to = origin(upstream.port)
        replies = [await ask.forward(request(to)) for _ in range(3)]
        go.set()
        for index in (2, 0, 1):
            await ask.rest(replies[index])
        for _ in range(2):
            await ask.whole(request(to, b"/again"))

    with hostile([head, echo_in_halves(go), echo_forever]) as upstream:
        drive(colour, scenario)
        assert [number for number, received in upstream.requests if b"/again" in received] == [1, 1]


@colours
def test_each_timeout_has_its_own_error(colour: Any) -> None:
    """Reading, writing and waiting for a place are told apart."""
    go = threading.Event()

    async def scenario(ask: Asker) -> None:
        short = {"first_byte": 0.05, "write": 0.05, "pool": 0.05, "read": 0.05}
        to = origin(upstream.port, seconds=short, max_connections=1)
        with pytest.raises(FirstByteTimeout):
            await ask.whole(request(to))
        chunk = b"x" * 2**20
        with pytest.raises(WriteTimeout):
            await ask.whole(request(to, method=b"POST", content=ask.source(*[chunk] * 64), length=None))
        reply = await ask.forward(request(to))
        with pytest.raises(PoolTimeout):
            await ask.whole(request(to))
        with pytest.raises(ReadTimeout):
            await ask.rest(reply)
        to = origin(upstream.port, seconds={"total": 0.1})
        with pytest.raises(TotalTimeout):
            await ask.whole(request(to))
        to = origin(upstream.port, seconds={"tls": 0.05}, scheme="https")
        with pytest.raises(TlsTimeout):
            await ask.whole(request(to))
        go.set()

    drip = [head, send(answer(b"x" * 99)[:-99]), *[step for _ in range(99) for step in (send(b"x"), pause(0.02))]]
    scripts = ([head, wait(go)], [head, wait(go)], [head, send(answer(b"ok")[:-1]), wait(go)], drip, [wait(go)])
    with hostile(*scripts) as upstream:
        drive(colour, scenario)


@colours
def test_a_connection_that_nobody_accepts_is_a_connect_timeout(colour: Any) -> None:
    """A listener whose queue is full answers no one."""
    with silent() as port:

        async def scenario(ask: Asker) -> None:
            with pytest.raises(ConnectTimeout):
                await ask.whole(request(origin(port, seconds={"connect": 0.2})))

        drive(colour, scenario)


@colours
@pytest.mark.parametrize("host", ["127.0.0.1", "a..b", "x" * 64 + ".example", "nowhere.invalid"])
def test_what_cannot_be_reached_is_unreachable(colour: Any, host: str) -> None:
    """Nobody listens, or the name means nothing."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))

        async def scenario(ask: Asker) -> None:
            with pytest.raises(UpstreamUnreachable):
                await ask.whole(request(origin(unused.getsockname()[1], host=host)))

        drive(colour, scenario)


@colours
def test_abort_closes_at_once_and_once(colour: Any) -> None:
    """The upstream sees the end though it was not read; a second abort frees no second place."""
    gone = threading.Event()

    async def scenario(ask: Asker) -> None:
        to = origin(upstream.port, max_connections=1, seconds={"pool": 0.05})
        reply = await ask.forward(request(to))
        reply.abort()
        reply.abort()
        await ask.pause(gone.is_set)
        reply = await ask.forward(request(to))
        with pytest.raises(PoolTimeout):
            await ask.forward(request(to))
        reply.abort()

    start = send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx")
    with hostile([head, start, until_end, tell(gone)], [head, start, until_end]) as upstream:
        drive(colour, scenario)


def test_waiters_are_served_in_the_order_in_which_they_came() -> None:
    """A place goes to whoever has waited longest, and never more connections than allowed are open."""

    async def scenario(ask: Asker) -> list[int]:
        to = origin(upstream.port, max_connections=2)
        order: list[int] = []

        async def one(index: int) -> None:
            await ask.whole(request(to, b"/%d" % index))
            order.append(index)

        held = [await ask.forward(request(to)) for _ in range(2)]
        tasks = []
        for index in range(20):
            tasks.append(asyncio.create_task(one(index)))
            await asyncio.sleep(0)
        held[0].abort()
        await asyncio.gather(*tasks)
        held[1].abort()
        return order

    slow = send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n")
    with hostile([head, slow, until_end], [head, slow, until_end], [echo_forever]) as upstream:
        assert list(range(20)) == drive(ASYNC, scenario)
        assert upstream.most <= 3  # the upstream notes an end a little after the pool


def test_tenants_that_wait_are_served_in_turn() -> None:
    """One that asks for twenty things at once delays another by one of them, not by twenty."""

    async def scenario(ask: Asker) -> list[str]:
        to = origin(upstream.port, max_connections=1)
        order: list[str] = []

        async def one(tenant: str) -> None:
            await ask.whole(request(to, b"/" + tenant.encode(), tenant=tenant))
            order.append(tenant)

        held = await ask.forward(request(to, tenant="greedy"))
        tasks = []
        for tenant in ["greedy"] * 20 + ["a", "b", "a"]:
            tasks.append(asyncio.create_task(one(tenant)))
            await asyncio.sleep(0)
        held.abort()
        await asyncio.gather(*tasks)
        return order

    slow = send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n")
    with hostile([head, slow, until_end], [echo_forever]) as upstream:
        order = drive(ASYNC, scenario)
    assert order == ["greedy", "a", "b", "greedy", "a"] + ["greedy"] * 18


def test_only_so_many_may_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is refused at once, not after the pool timeout; nobody's place is lost."""
    monkeypatch.setattr(pool_module, "MAX_WAITING", 3)

    async def scenario(ask: Asker) -> None:
        to = origin(upstream.port, max_connections=1)
        held = await ask.forward(request(to))
        tasks = [asyncio.create_task(ask.whole(request(to, b"/x"))) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(PoolFull):
            await ask.forward(request(to))
        held.abort()
        assert await asyncio.gather(*tasks) == [(200, b"/x")] * 3

    slow = send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n")
    with hostile([head, slow, until_end], [echo_forever]) as upstream:
        drive(ASYNC, scenario)


@colours
def test_no_connection_is_taken_before_the_body_has_begun(colour: Any) -> None:
    """While the first chunk is waited for, the one connection is there for another request."""

    async def scenario(ask: Asker) -> None:
        to = origin(upstream.port, max_connections=1, seconds={"pool": 0.05})

        def blocking() -> Any:
            yield run(ask.whole(request(to, b"/meanwhile")))[1]

        async def waiting() -> Any:
            yield (await ask.whole(request(to, b"/meanwhile")))[1]

        content = blocking() if colour is SYNC else waiting()
        assert await ask.whole(request(to, b"/x", b"POST", content=content, length=10)) == (200, b"ok")

    scripts = [head, echo_target, head, body(10), send(answer(b"ok"))]
    with hostile(scripts) as upstream:
        drive(colour, scenario)
        assert upstream.requests[-1][1] == b"/meanwhile"


@pytest.mark.parametrize("cancelled", [False, True], ids=["waiting", "cancelled meanwhile"])
def test_whoever_fills_the_queue_gives_way_to_others(monkeypatch: pytest.MonkeyPatch, cancelled: bool) -> None:
    """The newest of the tenant with most waiting is refused; tenants with as few each are not traded for one."""
    monkeypatch.setattr(pool_module, "MAX_WAITING", 4)

    async def scenario(ask: Asker) -> list[Any]:
        to = origin(upstream.port, max_connections=1)
        held = await ask.forward(request(to, tenant="greedy"))
        tasks = []
        for tenant in ["greedy"] * 4 + ["a", "b", "c", "d"]:
            outbound = request(to, b"/" + tenant.encode(), tenant=tenant)
            tasks.append(asyncio.create_task(ask.whole(outbound)))
            await asyncio.sleep(0)
            if tenant == "a" and cancelled:
                tasks[3].cancel()
        held.abort()
        return await asyncio.gather(*tasks, return_exceptions=True)

    slow = send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n")
    with hostile([head, slow, until_end], [echo_forever]) as upstream:
        answers = drive(ASYNC, scenario)
    kinds = [entry if isinstance(entry, tuple) else type(entry) for entry in answers]
    newest = asyncio.CancelledError if cancelled else PoolFull
    assert kinds[:4] == [(200, b"/greedy"), PoolFull, PoolFull, newest]
    assert kinds[4:] == [(200, b"/a"), (200, b"/b"), (200, b"/c"), PoolFull]  # four tenants with one each


def test_a_thread_that_waits_gives_way_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same where waiting blocks."""
    monkeypatch.setattr(pool_module, "MAX_WAITING", 2)
    forwarder = WireForwarder()
    with (
        hostile([head, send(answer(b"ok")[:-1]), until_end], [echo_forever]) as upstream,
        ThreadPoolExecutor(3) as threads,
    ):
        ask = Asker(SYNC, forwarder.bind(SYNC))
        to = origin(upstream.port, max_connections=1)
        held = run(ask.forward(request(to, tenant="greedy")))
        pool = forwarder._pools[None][to]
        greedy = []
        for number in (1, 2):
            greedy.append(threads.submit(run, ask.whole(request(to, b"/greedy", tenant="greedy"))))
            wait_until(lambda number=number: pool._waiting == number)
        other = threads.submit(run, ask.whole(request(to, b"/other", tenant="other")))
        assert isinstance(greedy[1].exception(BOUND), PoolFull)
        wait_until(lambda: len(pool._queues) == 2)
        held.abort()
        assert greedy[0].result(BOUND) == (200, b"/greedy")
        assert other.result(BOUND) == (200, b"/other")
        assert (pool._waiting, len(pool._queues)) == (0, 0)
        forwarder.close()


LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS)
@pytest.mark.parametrize("surplus", [send(answer(b"poison")), reset], ids=["surplus", "reset"])
def test_what_an_event_loop_has_not_read_yet_is_seen_before_reuse(new_loop: Any, surplus: Any) -> None:
    """The host held up its loop while more came on a kept connection: the next request goes over another."""
    read, sent = threading.Event(), threading.Event()

    async def main() -> None:
        forwarder = WireForwarder()
        ask, to = Asker(ASYNC, forwarder.bind(ASYNC)), origin(upstream.port)
        assert await ask.whole(request(to, b"/1")) == (200, b"/1")
        read.set()
        assert sent.wait(BOUND)  # this is what holds up the loop
        assert await ask.whole(request(to, b"/2", b"POST")) == (200, b"/2")
        await forwarder.aclose()

    with hostile([head, echo_target, wait(read), surplus, tell(sent), until_end], [echo_forever]) as upstream:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(main())
        assert [number for number, _ in upstream.requests] == [0, 1]


@colours
def test_warm_connections_are_there_before_the_first_request(colour: Any) -> None:
    """As many as were wanted, and the requests use them; warming up twice opens no more."""
    forwarder = WireForwarder()

    async def scenario(ask: Asker) -> None:
        to = origin(upstream.port, warm_connections=3)
        await forwarder.warm_up(to, colour)
        await ask.pause(lambda: upstream.connections == 3)
        await forwarder.warm_up(to, colour)
        assert await ask.whole(request(to, b"/x")) == (200, b"/x")
        assert upstream.connections == 3

    with hostile([echo_forever]) as upstream:
        drive(colour, scenario, forwarder)


@colours
def test_what_nobody_uses_is_closed(colour: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that were idle too long are closed when another one comes back, from the bottom of the pile."""
    forwarder = WireForwarder()

    async def scenario(ask: Asker) -> None:
        to = origin(upstream.port, warm_connections=3)
        await forwarder.warm_up(to, colour)
        await ask.pause(lambda: upstream.connections == 3)
        monkeypatch.setattr(pool_module, "IDLE_SECONDS", 0.0)
        await ask.whole(request(to, b"/x"))
        await ask.pause(lambda: upstream.open <= 1)

    with hostile([echo_forever]) as upstream:
        drive(colour, scenario, forwarder)


@pytest.mark.parametrize("seed", range(3))
def test_cancellations_lose_no_place(seed: int) -> None:
    """After 200 tasks cancelled at any moment, all places are there."""
    dice = random.Random(seed)  # noqa: S311 - not for secrets

    async def scenario(ask: Asker) -> None:
        to = origin(upstream.port, max_connections=5)
        tasks = [asyncio.create_task(ask.whole(request(to, b"/%d" % index))) for index in range(200)]
        while not all(task.done() for task in tasks):
            for task in dice.sample(tasks, 4):
                task.cancel()
            await asyncio.sleep(dice.choice([0, 0, 0.001]))
        for index, task in enumerate(tasks):
            with suppress(asyncio.CancelledError):
                assert (200, b"/%d" % index) == await task
        await asyncio.gather(*(ask.whole(request(to, b"/after")) for _ in range(50)))
        (pool,) = forwarder._pools[asyncio.get_running_loop()].values()
        assert (0, 0, len(pool._idle)) == (pool._waiting, len(pool._queues), pool._open)

    forwarder = WireForwarder()
    with hostile([echo_forever]) as upstream:
        drive(ASYNC, scenario, forwarder)


def test_threads_that_give_up_waiting_leave_no_one_in_the_queue() -> None:
    """The queue does not grow while nothing is given back."""

    async def scenario(ask: Asker) -> int:
        to = origin(upstream.port, max_connections=1, seconds={"pool": 0.01})
        reply = await ask.forward(request(to))
        for _ in range(5):
            with pytest.raises(PoolTimeout):
                await ask.forward(request(to))
        reply.abort()
        return forwarder._pools[None][to]._waiting + len(forwarder._pools[None][to]._queues)

    forwarder = WireForwarder()
    with hostile([head, send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"), until_end]) as upstream:
        assert drive(SYNC, scenario, forwarder) == 0


def test_32_threads_get_their_own_answers() -> None:
    """One forwarder serves many threads over few connections and mixes nothing up."""
    forwarder = WireForwarder()
    with hostile([echo_forever]) as upstream, ThreadPoolExecutor(32) as threads:
        ask = Asker(SYNC, forwarder.bind(SYNC))
        to = origin(upstream.port, max_connections=8)
        targets = [b"/%d" % number for number in range(640)]
        answers = list(threads.map(lambda target: run(ask.whole(request(to, target))), targets))
        assert [(200, target) for target in targets] == answers
        assert upstream.connections <= 8
        forwarder.close()


def test_one_forwarder_serves_one_event_loop_after_another() -> None:
    """A loop's connections are its own."""
    forwarder = WireForwarder()

    async def scenario(ask: Asker) -> None:
        assert await ask.whole(request(origin(upstream.port), b"/x")) == (200, b"/x")

    with hostile([echo_forever]) as upstream:
        for _ in range(3):
            drive(ASYNC, scenario, forwarder)
        assert upstream.connections == 3


FORKING = """
import os, sys
from apitokenproxy._colour import SYNC, run
from apitokenproxy.forwarders.wire import WireForwarder
from hostile import Asker, origin, request
forwarder = WireForwarder()
ask, to = Asker(SYNC, forwarder.bind(SYNC)), origin(int(sys.argv[1]))
run(ask.whole(request(to, b"/parent")))
for target in (b"", b"/child"):
    pid = os.fork()
    if not pid:
        try:
            if target:
                assert (200, target) == run(ask.whole(request(to, target)))
            forwarder.close()
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
assert (200, b"/again") == run(ask.whole(request(to, b"/again")))
forwarder.close()
"""


def test_a_forked_child_leaves_its_parents_connections_alone() -> None:
    """It neither uses nor closes them; the parent goes on with them."""
    with hostile([echo_forever]) as upstream:
        subprocess.run(
            [sys.executable, "-W", "error", "-c", FORKING, str(upstream.port)],
            check=True,
            timeout=30,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
        )
        assert list(zip([number for number, _ in upstream.requests], upstream.targets(), strict=True)) == [
            (0, b"/parent"),
            (1, b"/child"),
            (0, b"/again"),
        ]


def test_an_unread_answer_stops_at_the_high_water_mark() -> None:
    """64 MiB that nobody reads do not become memory."""
    size = 64 * 2**20
    sent: list[int] = []

    def flood(conversation: Any) -> None:
        conversation.peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(64):
            conversation.peer.sendall(bytes(2**20))
            sent.append(1)

    async def scenario(ask: Asker) -> None:
        reply = await ask.forward(request(origin(upstream.port)))
        stream = reply.body._connection._stream
        await ask.pause(lambda: stream._paused)
        await asyncio.sleep(0.1)
        assert HIGH_WATER < stream._size <= HIGH_WATER + 256 * 1024
        assert len(sent) < 64
        total = 0
        async for chunk in reply.body:
            total += len(chunk)
        assert size == total

    with hostile([head, flood, until_end]) as upstream:
        drive(ASYNC, scenario)


@colours
def test_places_are_free_again_after_every_kind_of_failure(colour: Any) -> None:
    """One place serves on after failures of each kind."""

    async def scenario(ask: Asker) -> None:
        to = origin(upstream.port, max_connections=1, seconds={"pool": BOUND})
        for _ in range(3):
            with pytest.raises(UpstreamFailure):
                await ask.whole(request(to))
        assert await ask.whole(request(to, b"/ok")) == (200, b"/ok")

    with hostile(
        [head], [head, send(b"nonsense\r\n\r\n")], [head, send(answer(b"ok")[:-1])], [echo_forever]
    ) as upstream:
        drive(colour, scenario)
