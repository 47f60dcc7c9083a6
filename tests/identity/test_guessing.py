"""Trying tokens is slow, and takes nothing from those who have one."""

import pytest
from identity_calls import COLOURS, CountingMemoryStore, Hand, authenticate

from apitokenproxy.errors import StoreUnavailable, TooManyFailures, Unauthenticated
from apitokenproxy.identity import guessing as guessing_module
from apitokenproxy.identity.authority import TokenAuthority
from apitokenproxy.identity.client_tokens import ClientTokens
from apitokenproxy.identity.format import mint
from apitokenproxy.identity.guessing import BURST, Guessing
from apitokenproxy.identity.verified import Verified
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
    for wrong in (mint()[1], "atp_nonsense", tried.authority.issue(tenant="acme").token):
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


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:0:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("", "", True),
        ("unix:", "unix:", True),
    ],
)
def test_who_counts_as_one(one: str, other: str, same: bool) -> None:
    """A subscriber has a whole /64; what is no address is taken as it is."""
    guessing = Guessing(Hand(0.0))
    for _ in range(BURST):
        guessing.failed(one)
    assert (guessing.wait(other) > 0) is same


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address that failed longest ago makes room; one that fails on stays."""
    monkeypatch.setattr(guessing_module, "MOST_ADDRESSES", 100)
    guessing = Guessing(Hand(0.0))
    for number in range(10_000):
        guessing.failed(f"2001:db8:{number:x}::1")
        guessing.failed("192.0.2.1")
    assert len(guessing._forgotten) == 100
    assert guessing.wait("192.0.2.1") == 1.0
    assert guessing.wait("2001:db8:1::1") == 0.0
