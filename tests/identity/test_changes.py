"""How long another process may still accept what was revoked, and what happens when the store does not answer."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from identity_calls import COLOURS, CountingMemoryStore, Hand, a_request, authenticate, bearer

from apitokenproxy._colour import ASYNC, SYNC, nonblocking, run
from apitokenproxy.errors import StoreUnavailable, Unauthenticated
from apitokenproxy.identity.authority import TokenAuthority
from apitokenproxy.identity.client_tokens import ClientTokens
from apitokenproxy.identity.verified import Verified


class Store(CountingMemoryStore):
    """Counts how often it is asked for changes, and does not answer while `down`."""

    heard = 0
    down = False
    slow = 0.0

    @nonblocking
    def find(self, token_id: str):
        self._reach()
        return super().find(token_id)

    @nonblocking
    def changes(self) -> int:
        self.heard += 1
        self._reach()
        return super().changes()

    def _reach(self) -> None:
        if self.slow:
            time.sleep(self.slow)
        if self.down:
            raise StoreUnavailable("the store is down")


class Elsewhere:
    """Another process, as far as caches go: its own cache over the same store, with a clock set by hand."""

    def __init__(self, store: Store, **options) -> None:
        self.timer = Hand(100.0)
        self.verified = Verified(bound=1.0, timer=self.timer)
        self.part = ClientTokens(store, self.verified, **options)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def here(store: Store) -> TokenAuthority:
    return TokenAuthority(store, Verified(bound=1.0))


@pytest.fixture(params=COLOURS)
def colour(request: pytest.FixtureRequest) -> str:
    return request.param


def test_the_store_is_asked_at_most_once_a_bound_and_not_when_idle(
    store: Store, here: TokenAuthority, colour: str
) -> None:
    """However many requests and tokens: one tiny question a second, and the tokens themselves once."""
    there = Elsewhere(store)
    tokens = [here.issue(tenant="acme").token for _ in range(5)]
    for now in (100.0, 100.5, 100.99, 101.0, 101.5, 500.0):
        there.timer.now = now
        for token in tokens:
            assert authenticate(there.part, colour, bearer(token)) is not None
    assert (store.heard, store.asked) == (3, 5)


@pytest.mark.parametrize("change", ["revoke", "suspend", "delete", "edit", "rotate"])
def test_every_change_is_in_force_elsewhere_within_the_bound(
    store: Store, here: TokenAuthority, colour: str, change: str
) -> None:
    """Not only revocation: whatever was verified before is asked for again."""
    there = Elsewhere(store)
    issued = here.issue(tenant="acme")
    assert authenticate(there.part, colour, bearer(issued.token)).tenant == "acme"
    {
        "revoke": lambda: here.revoke(issued.id),
        "suspend": lambda: here.suspend(issued.id),
        "delete": lambda: here.delete(issued.id),
        "edit": lambda: here.edit(issued.id, tenant="other"),
        "rotate": lambda: here.rotate(issued.id, overlap=timedelta(0)),
    }[change]()
    there.timer.now = 101.0
    if change == "edit":
        assert authenticate(there.part, colour, bearer(issued.token)).tenant == "other"
    else:
        with pytest.raises(Unauthenticated):
            authenticate(there.part, colour, bearer(issued.token))


def test_a_store_that_does_not_answer_is_a_503_and_never_a_401(store: Store, here: TokenAuthority, colour: str) -> None:
    """For good, wrong and unknown tokens alike, and nothing of it is remembered."""
    there = Elsewhere(store)
    token = here.issue(tenant="acme").token
    assert authenticate(there.part, colour, bearer(token)) is not None
    store.down = True
    there.timer.now = 101.0
    for presented in (token, here.issue(tenant="acme").token):
        with pytest.raises(StoreUnavailable) as refusal:
            authenticate(there.part, colour, bearer(presented))
        assert refusal.value.retry_after is not None
    store.down = False
    there.timer.now = 101.3
    assert authenticate(there.part, colour, bearer(token)) is not None


def test_a_store_that_is_down_is_not_asked_by_everybody(store: Store, here: TokenAuthority, colour: str) -> None:
    """For a quarter of a second after a failure nobody asks; then one does, so it recovers within a second."""
    there = Elsewhere(store)
    token = here.issue(tenant="acme").token
    store.down = True
    for now, heard in ((100.0, 1), (100.1, 1), (100.24, 1), (100.25, 2), (100.4, 2)):
        there.timer.now = now
        for _ in range(10):
            with pytest.raises(StoreUnavailable):
                authenticate(there.part, colour, bearer(token))
        assert store.heard == heard
    assert store.asked == 0


def test_verified_tokens_may_go_on_for_a_stated_time(store: Store, here: TokenAuthority, colour: str) -> None:
    """If somebody wants that: those that were verified, nobody else, and not for longer."""
    there = Elsewhere(store, outage=10.0)
    token, unknown = here.issue(tenant="acme").token, here.issue(tenant="acme").token
    assert authenticate(there.part, colour, bearer(token)) is not None
    store.down = True
    for now in (101.0, 101.2, 105.0, 109.99):
        there.timer.now = now
        assert authenticate(there.part, colour, bearer(token)) is not None
        with pytest.raises(StoreUnavailable):
            authenticate(there.part, colour, bearer(unknown))
    there.timer.now = 110.0
    with pytest.raises(StoreUnavailable):
        authenticate(there.part, colour, bearer(token))


def test_an_answer_later_than_the_bound_is_no_answer(store: Store, here: TokenAuthority, colour: str) -> None:
    """What the store said more than a bound ago says nothing of now."""
    verified = Verified(bound=0.02)
    token = here.issue(tenant="acme").token
    store.slow = 0.05
    with pytest.raises(StoreUnavailable, match="longer than the revocation bound"):
        authenticate(ClientTokens(store, verified), colour, bearer(token))


def test_a_thousand_requests_at_once_ask_once(store: Store, here: TokenAuthority) -> None:
    """Tasks and threads wait for the one who asks."""
    verified = Verified(bound=60.0)
    part = ClientTokens(store, verified)
    token = bearer(here.issue(tenant="acme").token)
    store.slow = 0.05

    async def many() -> int:
        bound = part.bind(ASYNC)
        return len(await asyncio.gather(*(bound.authenticate(token, a_request()) for _ in range(200))))

    in_place = part.bind(SYNC)
    start = threading.Barrier(9)

    def one(_: int) -> object:
        start.wait(10)
        return run(in_place.authenticate(token, a_request()))

    def loop() -> int:
        start.wait(10)
        return asyncio.run(many())

    with ThreadPoolExecutor(9) as pool:
        tasks = pool.submit(loop)
        assert all(list(pool.map(one, range(8))))
        assert tasks.result() == 200
    assert store.heard == 1


def test_whoever_asks_may_be_cancelled(here: TokenAuthority) -> None:
    """The next in line asks instead; nobody is refused for it."""

    class Hanging(Store):
        async def changes(self) -> int:
            self.heard += 1
            if self.heard == 1:
                await asyncio.sleep(60)
            return 0

    store = Hanging()
    token = bearer(TokenAuthority(store, Verified(bound=1.0)).issue(tenant="acme").token)
    bound = ClientTokens(store, Verified(bound=60.0)).bind(ASYNC)

    async def both() -> object:
        first = asyncio.create_task(bound.authenticate(token, a_request()))
        await asyncio.sleep(0)
        second = asyncio.create_task(bound.authenticate(token, a_request()))
        await asyncio.sleep(0.05)
        first.cancel()
        return await asyncio.wait_for(second, 10)

    assert asyncio.run(both()) is not None
    assert store.heard == 2
