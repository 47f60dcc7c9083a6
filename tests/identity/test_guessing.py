"""Trying tokens is slow, and takes nothing from those who have one."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from identity_calls import COLOURS, CountingMemoryStore, Hand, a_request, authenticate

from apitokenproxy._colour import ASYNC, SYNC, run
from apitokenproxy.errors import ProxyError, StoreUnavailable, TooManyFailures, Unauthenticated
from apitokenproxy.identity import guessing as guessing_module
from apitokenproxy.identity.authority import TokenAuthority
from apitokenproxy.identity.client_tokens import ClientTokens
from apitokenproxy.identity.format import mint
from apitokenproxy.identity.guessing import AGAIN, BURST, Guessing
from apitokenproxy.identity.verified import Verified
from apitokenproxy.interfaces import StoredToken
from apitokenproxy.messages import Hidden, Presented


def presented(token: str, address: str = "192.0.2.1") -> Presented:
    return Presented("bearer", Hidden(token.encode()), address)


@pytest.fixture(params=COLOURS)
def colour(request: pytest.FixtureRequest) -> str:
    return request.param


class Tried:
    """An authenticator whose clock is set by hand, and a token that it knows."""

    def __init__(self, colour: str) -> None:
        self.timer = Hand(100.0)
        self.store = CountingMemoryStore()
        self.authority = TokenAuthority(self.store, Verified(bound=1.0))
        self.part = ClientTokens(self.store, Verified(bound=1.0, timer=self.timer))
        self.colour = colour

    def ask(self, token: str, address: str = "192.0.2.1") -> bool:
        return authenticate(self.part, self.colour, presented(token, address)) is not None

    def fail(self, times: int, address: str = "192.0.2.1") -> None:
        for _ in range(times):
            with pytest.raises(Unauthenticated):
                self.ask(mint()[1], address)


def test_after_a_burst_of_failures_an_address_must_wait(colour: str) -> None:
    """429 with the time to wait, without the store being asked; then one try a second."""
    tried = Tried(colour)
    tried.fail(BURST)
    asked = tried.store.asked
    for wrong in (mint()[1], tried.authority.issue(tenant="acme").token):
        with pytest.raises(TooManyFailures) as refusal:
            tried.ask(wrong)
        assert (refusal.value.status, refusal.value.retry_after) == (429, 1.0)
    assert tried.store.asked == asked
    tried.timer.now += 1.0
    tried.fail(1)
    with pytest.raises(TooManyFailures):
        tried.ask(mint()[1])
    tried.timer.now += 1000.0
    tried.fail(BURST)


def test_a_token_that_works_goes_on_working_behind_the_same_address(colour: str) -> None:
    """Also when the store was changed meanwhile, so that it must be looked up again; and a new one gets its turn."""
    tried = Tried(colour)
    token, new = tried.authority.issue(tenant="acme").token, tried.authority.issue(tenant="acme").token
    assert tried.ask(token)
    tried.fail(BURST)
    for _ in range(3):
        tried.authority.revoke(tried.authority.issue(tenant="other").id)
        tried.timer.now += 0.3
        assert tried.ask(token)
    tried.timer.now += 1.0
    assert tried.ask(new)


def test_a_token_that_was_good_and_is_revoked_is_refused(colour: str) -> None:
    """To have been good once opens nothing."""
    tried = Tried(colour)
    issued = tried.authority.issue(tenant="acme")
    assert tried.ask(issued.token)
    tried.authority.revoke(issued.id)
    tried.timer.now += 1.0
    with pytest.raises(Unauthenticated):
        tried.ask(issued.token)
    tried.fail(BURST - 1)
    with pytest.raises(TooManyFailures):
        tried.ask(issued.token)


def test_with_a_revocation_bound_of_0_a_good_token_works_all_the_same(colour: str) -> None:
    """Then every request asks the store, and what is known is only that the token was good."""
    store = CountingMemoryStore()
    part = ClientTokens(store, Verified(bound=0.0))
    token = TokenAuthority(store, Verified(bound=0.0)).issue(tenant="acme").token
    assert authenticate(part, colour, presented(token)) is not None
    for _ in range(BURST):
        with pytest.raises(Unauthenticated):
            authenticate(part, colour, presented(mint()[1]))
    assert authenticate(part, colour, presented(token)) is not None


def test_other_addresses_are_not_held_up(colour: str) -> None:
    """Only whoever failed waits."""
    tried = Tried(colour)
    tried.fail(BURST)
    tried.fail(1, "192.0.2.2")
    assert tried.ask(tried.authority.issue(tenant="acme").token, "192.0.2.3")


def test_a_store_that_does_not_answer_is_nobodys_failure(colour: str) -> None:
    """An outage must not lock clients out after it."""

    class Down(CountingMemoryStore):
        def changes(self) -> int:
            raise StoreUnavailable("down")

    part = ClientTokens(Down(), Verified(bound=1.0))
    for _ in range(BURST + 5):
        with pytest.raises(StoreUnavailable):
            authenticate(part, colour, presented(mint()[1]))


def test_what_is_no_token_by_its_form_counts_for_nothing(colour: str) -> None:
    """Neither nonsense nor a wrong checksum costs the store anything; it is refused as ever, also afterwards."""
    tried = Tried(colour)
    good = tried.authority.issue(tenant="acme").token
    almost = good[:-1] + ("0" if good[-1] != "0" else "1")
    for wrong in ("atp_x", almost, "atp_" + "x" * 5000, good[:16] + ".x"):
        for _ in range(2 * BURST):
            with pytest.raises(Unauthenticated):
                tried.ask(wrong)
    assert tried.store.asked == 0
    assert tried.ask(good)


def test_one_wrong_token_that_comes_again_is_one_failure(colour: str) -> None:
    """A client with an old secret does not keep out those behind the same address; in time it waits itself."""
    tried = Tried(colour)
    old, issued = mint()[1], tried.authority.issue(tenant="acme")
    for _ in range(1 + BURST):
        with pytest.raises(Unauthenticated):
            tried.ask(old)
    with pytest.raises(TooManyFailures):
        tried.ask(old)
    assert tried.ask(issued.token)
    tried.fail(BURST - 1)
    with pytest.raises(TooManyFailures):
        tried.ask(mint()[1])


def test_what_is_no_address_is_never_limited(colour: str) -> None:
    """All transports of scripts, and all clients behind a Unix socket, would have one address."""
    tried = Tried(colour)
    good = tried.authority.issue(tenant="acme").token
    for nobody in ("", "unix:"):
        tried.fail(3 * BURST, nobody)
    assert tried.ask(good, "")


def test_a_token_that_nobody_has_seen_gets_its_turn_when_it_is_sent_again(colour: str) -> None:
    """However many others are tried from its address meanwhile."""
    tried = Tried(colour)
    good = tried.authority.issue(tenant="acme").token
    tried.fail(BURST)
    with pytest.raises(TooManyFailures) as refusal:
        tried.ask(good)
    for _ in range(64):
        tried.timer.now += (refusal.value.retry_after or 0.0) / 64
        with pytest.raises((TooManyFailures, Unauthenticated)):
            tried.ask(mint()[1])
    assert tried.ask(good)
    assert tried.ask(good)


def test_turns_are_bounded_too(colour: str) -> None:
    """Ten a second for what comes again, and a token that was wrong has had its turn."""
    tried = Tried(colour)
    tried.fail(BURST)
    guesses = [mint()[1] for _ in range(30)]
    outcomes = []
    for _ in range(2):
        asked = tried.store.asked
        for guess in guesses:
            with pytest.raises((TooManyFailures, Unauthenticated)):
                tried.ask(guess)
        outcomes.append(tried.store.asked - asked)
        tried.timer.now += 1.0
    assert outcomes == [0, 1 + AGAIN]
    with pytest.raises(Unauthenticated):
        tried.ask(mint()[1])
    with pytest.raises(TooManyFailures):
        tried.ask(guesses[0])


class SlowStore(CountingMemoryStore):
    """A store that answers when it is told to; `asking` is how many wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = threading.Event()
        self.full = threading.Event()

    def find(self, token_id: str) -> StoredToken | None:
        found = super().find(token_id)
        if self.asked >= BURST:
            self.full.set()
        assert self.answer.wait(20)
        return found


def all_at_once(store: SlowStore, tokens: list[str], colour: str) -> list[str]:
    """Present tokens of one address together, and let the store answer when as many ask as may; tell how each ended."""
    part = ClientTokens(store, Verified(bound=1000.0))

    def outcome(error: BaseException | object) -> str:
        return type(error).__name__

    if colour == "sync":

        def ask(token: str) -> str:
            try:
                return outcome(authenticate(part, "sync", presented(token)))
            except ProxyError as error:
                return outcome(error)

        with ThreadPoolExecutor(len(tokens)) as pool:
            asked = [pool.submit(ask, token) for token in tokens]
            assert store.full.wait(20)
            store.answer.set()
            return [one.result(20) for one in asked]

    async def ask_all() -> list[str]:
        bound = part.bind(ASYNC)
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(BURST + 5))
        tasks = [asyncio.ensure_future(bound.authenticate(presented(token), a_request())) for token in tokens]
        assert await asyncio.to_thread(store.full.wait, 20)
        store.answer.set()
        return [outcome(ended) for ended in await asyncio.gather(*tasks, return_exceptions=True)]

    return asyncio.run(ask_all())


def test_guesses_that_come_all_at_once_are_as_slow(colour: str) -> None:
    """A failure is booked before the store is asked, so no more are asked than may fail."""
    store = SlowStore()
    outcomes = all_at_once(store, [mint()[1] for _ in range(60)], colour)
    assert store.asked == outcomes.count("Unauthenticated") == BURST
    assert outcomes.count("TooManyFailures") == 60 - BURST


def test_good_tokens_that_come_all_at_once_are_all_let_in(colour: str) -> None:
    """As after a restart, behind one address: what was booked is given back, and the others wait for it."""
    store = SlowStore()
    authority = TokenAuthority(store, Verified(bound=1.0))
    tokens = [authority.issue(tenant="acme").token for _ in range(60)]
    assert all_at_once(store, tokens, colour) == ["Caller"] * 60


def tried_by(guessing: Guessing, address: str, digest: bytes) -> bool:
    """Tell whether a wrong token of that address was looked at."""

    async def ask() -> None:
        with await guessing.turn(SYNC, address, digest):
            raise Unauthenticated("wrong")

    try:
        run(ask())
    except Unauthenticated:
        return True
    except TooManyFailures:
        return False
    raise AssertionError("neither")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:0:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
    ],
)
def test_who_counts_as_one(one: str, other: str, same: bool) -> None:
    """A subscriber has a whole /64."""
    guessing = Guessing(Hand(0.0))
    for number in range(BURST):
        assert tried_by(guessing, one, b"%d" % number)
    assert tried_by(guessing, other, b"other") is not same


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What came longest ago makes room; an address that fails on stays."""
    monkeypatch.setattr(guessing_module, "MOST", 100)
    guessing = Guessing(Hand(0.0))
    for number in range(3000):
        tried_by(guessing, f"2001:db8:{number:x}::1", b"%d" % number)
        tried_by(guessing, "192.0.2.1", b"%d" % number)
    remembered = (guessing._first, guessing._again, guessing._repeated, guessing._wrong, guessing._refused)
    assert [len(one) <= 100 for one in remembered] == [True] * 5
    assert not tried_by(guessing, "192.0.2.1", b"new")
    assert guessing._running == {}
