"""Of the connections to one upstream a tenant holds so many and no more, whatever becomes of its requests."""

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from hostile import (
    BOUND,
    COLOURS,
    Asker,
    Conversation,
    answer,
    drive,
    echo_forever,
    echo_target,
    head,
    hostile,
    origin,
    request,
    send,
    until_end,
    wait,
)

from apitokenproxy import Header, Proxy, Rule, Timeouts, Upstream
from apitokenproxy._colour import ASYNC, SYNC, run
from apitokenproxy.errors import ConfigurationError, PoolTimeout, UpstreamUnreachable
from apitokenproxy.forwarders import wire as wire_module
from apitokenproxy.forwarders.connection import Connection
from apitokenproxy.forwarders.pool import Pool
from apitokenproxy.forwarders.wire import WireForwarder
from apitokenproxy.testing import FixedSecrets
from loopback import wait_until

colours = pytest.mark.parametrize("colour", COLOURS.values(), ids=COLOURS)

BEGUN = send(answer(b"ok")[:-1])
"""An answer without its last byte."""


class Watched(Pool):
    """A pool whose promises are looked at whenever a place was taken or given back."""

    def _take(self, tenant: str | None) -> Any:
        taken = super()._take(tenant)
        self.look()
        return taken

    def _hand_over(self, connection: Connection | None, tenant: str | None) -> None:
        super()._hand_over(connection, tenant)
        self.look()

    def look(self) -> None:
        with self._lock:
            most, share = self._origin.max_connections, self._origin.max_connections_per_tenant
            assert share is not None
            assert all(0 < held <= share for held in self._held.values())
            assert sum(self._held.values()) == self._open - len(self._idle)
            assert self._open <= most
            waiting = [tenant for tenant, queue in self._queues.items() if any(not each.done() for each in queue)]
            free = self._idle or self._open < most
            assert not free or all(self._held[str(tenant)] == share for tenant in waiting)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire_module, "Pool", Watched)


def the_pool(forwarder: WireForwarder) -> Pool:
    return next(iter(next(iter(forwarder._pools.values())).values()))


def all_is_free(pool: Pool) -> bool:
    return (pool._held, pool._waiting, dict(pool._queues), len(pool._idle)) == ({}, 0, {}, pool._open)


@pytest.mark.usefixtures("watched")
@colours
def test_a_tenant_holds_no_more_than_its_share(colour: Any) -> None:
    """One more of its requests waits though there is a free place; another tenant's gets that at once."""

    async def scenario(ask: Asker) -> None:
        to = origin(upstream.port, max_connections=3, max_connections_per_tenant=2, seconds={"pool": 0.05})
        held = [await ask.forward(request(to, tenant="acme")) for _ in range(2)]
        with pytest.raises(PoolTimeout) as caught:
            await ask.forward(request(to, tenant="acme"))
        assert caught.value.detail == "the 2 connections that one tenant may hold were busy for 0.05 seconds"
        held.append(await ask.forward(request(to, tenant="globex")))
        with pytest.raises(PoolTimeout) as caught:
            await ask.forward(request(to, tenant="globex"))
        assert caught.value.detail == "3 connections were busy for 0.05 seconds"
        for reply in held:
            reply.abort()
        assert all_is_free(the_pool(forwarder))

    forwarder = WireForwarder()
    with hostile([head, BEGUN, until_end]) as upstream:
        drive(colour, scenario, forwarder)


@pytest.mark.usefixtures("watched")
def test_a_connection_that_is_handed_on_counts_for_whom_it_is_handed_to() -> None:
    """It goes past the tenant that holds its share already, whoever came first."""
    go = threading.Event()

    async def scenario(ask: Asker) -> list[str]:
        to = origin(upstream.port, max_connections=2, max_connections_per_tenant=1)
        order: list[str] = []

        async def one(tenant: str) -> None:
            await ask.whole(request(to, tenant=tenant))
            order.append(tenant)

        acme = await ask.forward(request(to, tenant="acme"))
        globex = await ask.forward(request(to, tenant="globex"))
        tasks = []
        for tenant in ["acme", "acme", "initech", "initech", "globex"]:
            tasks.append(asyncio.create_task(one(tenant)))
            await asyncio.sleep(0)
        go.set()
        await ask.rest(globex)  # acme, which holds one, is passed over
        await tasks[2]
        assert the_pool(forwarder)._held["acme"] == 1
        acme.abort()
        await asyncio.gather(*tasks)
        assert all_is_free(the_pool(forwarder))
        return order

    def in_halves(conversation: Conversation) -> None:
        BEGUN(conversation)
        wait(go)(conversation)
        conversation.peer.sendall(b"k")

    forwarder = WireForwarder()
    with hostile([head, BEGUN, until_end], [head, in_halves, echo_forever], [echo_forever]) as upstream:
        order = drive(ASYNC, scenario, forwarder)
    assert order[0] == "initech"
    assert sorted(order) == ["acme", "acme", "globex", "initech", "initech"]


@pytest.mark.usefixtures("watched")
@colours
def test_what_fails_or_is_sent_again_is_counted_once(colour: Any) -> None:
    """A place whose connection is not made, breaks, or turns out dead and is replaced is its tenant's until the end."""

    async def scenario(ask: Asker) -> None:
        terms = {"max_connections": 2, "max_connections_per_tenant": 1}
        to = origin(upstream.port, **terms)
        assert await ask.whole(request(to, b"/1", tenant="acme")) == (200, b"/1")
        reply = await ask.forward(request(to, b"/2", tenant="globex"))  # over a new connection
        assert the_pool(forwarder)._held == {"globex": 1}
        reply.abort()
        with pytest.raises(UpstreamUnreachable):
            await ask.whole(request(origin(1, **terms), tenant="acme"))
        assert all(all_is_free(pool) for pools in forwarder._pools.values() for pool in pools.values())

    forwarder = WireForwarder()
    with hostile([head, echo_target, head], [head, BEGUN, until_end]) as upstream:
        drive(colour, scenario, forwarder)
        assert upstream.targets() == [b"/1", b"/2", b"/2"]


@colours
def test_warm_connections_are_nobodys(colour: Any) -> None:
    """More of them than one tenant may hold are opened, and wait for whoever comes."""
    forwarder = WireForwarder()

    async def scenario(ask: Asker) -> None:
        to = origin(upstream.port, warm_connections=3, max_connections=3, max_connections_per_tenant=1)
        await forwarder.warm_up(to, colour)
        replies = [await ask.forward(request(to, tenant=tenant)) for tenant in ("acme", "globex", "initech")]
        assert upstream.connections == 3
        assert the_pool(forwarder)._held == {"acme": 1, "globex": 1, "initech": 1}
        for reply in replies:
            reply.abort()

    with hostile([head, BEGUN, until_end]) as upstream:
        drive(colour, scenario, forwarder)


MOST, SHARE = 5, 2
TENANTS = ["acme"] * 8 + ["globex", "initech", "hooli"]
"""Whose requests come: most of them are one tenant's."""


def moody(conversation: Conversation) -> None:
    """Answer whole, in parts, or not at all, as the target says; close now and then."""
    while True:
        head(conversation)
        match conversation.target:
            case b"/break":
                return
            case b"/close":
                conversation.peer.sendall(answer(b"ok").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
                return
            case b"/part":
                BEGUN(conversation)
                until_end(conversation)
                return
            case _:
                echo_target(conversation)


def one_request(ask: Asker, to: Any, kind: str, tenant: str) -> Any:
    async def whole() -> None:
        reply = await ask.forward(request(to, f"/{kind}".encode(), b"POST", tenant=tenant))
        if kind == "part":
            await ask.first(reply)
            reply.abort()
        else:
            await ask.rest(reply)

    return whole()


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize("seed", range(3))
def test_no_wake_up_is_lost_among_tasks(seed: int) -> None:
    """300 requests of four tenants, cancelled, broken and abandoned at any moment; nobody waits in vain."""
    dice = random.Random(seed)  # noqa: S311 - not for secrets
    forwarder = WireForwarder()

    async def scenario(ask: Asker) -> None:
        to = origin(upstream.port, max_connections=MOST, max_connections_per_tenant=SHARE, seconds={"pool": 30.0})
        kinds = dice.choices(["ok", "close", "part", "break"], [6, 2, 2, 1], k=300)
        tasks = []
        for kind in kinds:
            tasks.append(asyncio.create_task(one_request(ask, to, kind, dice.choice(TENANTS))))
            if not dice.randrange(4):
                await asyncio.sleep(dice.choice([0, 0, 0.001]))
            if not dice.randrange(5):
                dice.choice(tasks).cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        told = Counter(type(end).__name__ for end in ends)
        assert set(told) <= {"NoneType", "CancelledError", "UpstreamFailure"}
        assert told["UpstreamFailure"] <= kinds.count("break")
        assert all_is_free(the_pool(forwarder))
        await asyncio.gather(*(ask.whole(request(to, tenant="acme")) for _ in range(20)))

    with hostile([moody]) as upstream:
        drive(ASYNC, scenario, forwarder)


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize("seed", range(3))
def test_no_wake_up_is_lost_among_threads(seed: int) -> None:
    """The same where 24 threads wait by blocking, and give up now and then."""
    dice = random.Random(seed)  # noqa: S311 - not for secrets
    forwarder = WireForwarder()
    with hostile([moody]) as upstream, ThreadPoolExecutor(24) as threads:
        ask = Asker(SYNC, forwarder.bind(SYNC))
        terms = {"max_connections": MOST, "max_connections_per_tenant": SHARE}
        to = origin(upstream.port, **terms, seconds={"pool": 30.0})
        kinds = dice.choices(["ok", "close", "part", "break"], [6, 2, 2, 1], k=300)
        done = [threads.submit(run, one_request(ask, to, kind, dice.choice(TENANTS))) for kind in kinds]
        told = Counter(type(each.exception(60)).__name__ for each in done)
        assert set(told) <= {"NoneType", "UpstreamFailure"}
        assert told["UpstreamFailure"] <= kinds.count("break")
        assert all_is_free(the_pool(forwarder))
        forwarder.close()


@pytest.mark.usefixtures("watched")
def test_threads_that_give_up_waiting_take_nobodys_place() -> None:
    """Their deadlines pass while places are handed on; in the end all places are there."""
    forwarder = WireForwarder()
    with hostile([echo_forever]) as upstream, ThreadPoolExecutor(24) as threads:
        ask = Asker(SYNC, forwarder.bind(SYNC))
        to = origin(upstream.port, max_connections=2, max_connections_per_tenant=1, seconds={"pool": 0.002})
        done = [threads.submit(run, ask.whole(request(to, tenant=name))) for name in TENANTS * 40]
        told = Counter(type(each.exception(BOUND)).__name__ for each in done)
        assert set(told) <= {"NoneType", "PoolTimeout"}
        assert told["NoneType"] > 0
        assert all_is_free(the_pool(forwarder))
        forwarder.close()


# --- the whole --------------------------------------------------------------------------------

HANGING, SERVED = 200, 20


@pytest.fixture
def go() -> Iterator[threading.Event]:
    go = threading.Event()
    yield go
    go.set()


@pytest.fixture
def hung(go: threading.Event) -> Iterator[Any]:
    """An upstream that answers what it is asked for below `/hang` when the test says so."""

    def serve(conversation: Conversation) -> None:
        while True:
            head(conversation)
            if b"/hang" in conversation.target:
                conversation.peer.settimeout(None)
                go.wait()
            echo_target(conversation)

    with hostile([serve]) as upstream:
        yield upstream
        go.set()


@pytest.fixture
def proxy(hung: Any) -> Iterator[Proxy]:
    proxy = Proxy(
        upstreams=[
            Upstream(
                "api",
                f"http://127.0.0.1:{hung.port}",
                credential=Header("X-Key", "fixed:key"),
                allow_private=True,
                max_connections=12,
                max_connections_per_tenant=10,
                timeouts=Timeouts(pool=60.0, first_byte=60.0),
            )
        ],
        rules=[Rule("all", effect="allow")],
        secret_providers={"fixed": FixedSecrets(key="k3y-0f7a9c2e51d84b06")},
    )
    yield proxy
    proxy.close()


def asked(upstream: Any, what: bytes) -> Callable[[], bool]:
    return lambda: sum(what in target for target in upstream.targets()) == 10


def test_a_tenant_whose_requests_hang_holds_up_nobody_under_asyncio(proxy: Proxy, hung: Any) -> None:
    """200 requests of one hang at the upstream or wait for it; another's are answered meanwhile."""
    tokens = {tenant: proxy.tokens.issue(tenant=tenant).token for tenant in ("acme", "globex")}

    async def main() -> list[int]:
        async with (
            httpx.AsyncClient(transport=proxy.async_transport(tokens["acme"])) as acme,
            httpx.AsyncClient(transport=proxy.async_transport(tokens["globex"])) as globex,
        ):
            tasks = [asyncio.create_task(acme.get("http://proxy/api/hang")) for _ in range(HANGING)]
            await asyncio.to_thread(wait_until, asked(hung, b"/hang"))
            answers = await asyncio.gather(*(globex.get("http://proxy/api/x") for _ in range(SERVED)))
            assert not any(task.done() for task in tasks)
            assert asked(hung, b"/hang")()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            again = await acme.get("http://proxy/api/x")
            return [response.status_code for response in (*answers, again)]

    assert asyncio.run(main()) == [200] * (SERVED + 1)


def test_a_tenant_whose_requests_hang_holds_up_nobody_among_threads(
    proxy: Proxy, hung: Any, go: threading.Event
) -> None:
    """The same where each request has a thread."""
    tokens = {tenant: proxy.tokens.issue(tenant=tenant).token for tenant in ("acme", "globex")}
    acme = httpx.Client(transport=proxy.transport(tokens["acme"]))
    globex = httpx.Client(transport=proxy.transport(tokens["globex"]))
    threads = [threading.Thread(target=lambda: acme.get("http://proxy/api/hang"), daemon=True) for _ in range(HANGING)]
    for thread in threads:
        thread.start()
    wait_until(asked(hung, b"/hang"))
    assert [globex.get("http://proxy/api/x").status_code for _ in range(SERVED)] == [200] * SERVED
    assert all(thread.is_alive() for thread in threads)
    assert asked(hung, b"/hang")()
    go.set()
    for thread in threads:
        thread.join(BOUND)
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize("share", [0, 13])
def test_a_share_is_between_one_and_all(share: int) -> None:
    """Anything else is refused when it is built."""
    with pytest.raises(ConfigurationError) as caught:
        Upstream(
            "api",
            "https://api.example.com",
            credential=Header("X-Key", "env:KEY"),
            max_connections=12,
            max_connections_per_tenant=share,
        )
    assert str(caught.value) == (
        f"upstream api: max_connections_per_tenant is {share}; it must be between 1 and max_connections, which is 12"
    )
