"""The cache of verified tokens."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from identity_calls import Hand

from apitokenproxy.errors import ConfigurationError
from apitokenproxy.identity.verified import Verified
from apitokenproxy.messages import Caller

ONE, TWO = b"1" * 32, b"2" * 32
CALLER = Caller("acme", token_id="one")


def heard(bound: float = 1000.0, **options) -> Verified:
    """Return a cache for which the store was just asked."""
    verified = Verified(bound=bound, **options)
    verified.hear(0, verified.timer())
    return verified


def test_what_is_verified_is_used_within_the_bound_of_a_question_to_the_store() -> None:
    """After the revocation bound nothing is used until the store is asked whether it was changed."""
    timer = Hand(100.0)
    verified = heard(1.0, timer=timer)
    verified.fill(ONE, CALLER, math.inf, verified.begin())
    timer.now = 100.9
    assert (verified.get(ONE, 0.0), verified.is_fresh()) == (CALLER, True)
    timer.now = 101.0
    assert (verified.get(ONE, 0.0), verified.is_fresh()) == (None, False)
    verified.hear(0, 101.0)
    assert (verified.get(ONE, 0.0), verified.is_fresh()) == (CALLER, True)


def test_nothing_is_used_before_the_store_was_asked() -> None:
    """A process that has just begun knows of no change that it might have missed."""
    verified = Verified(bound=1.0)
    verified.fill(ONE, CALLER, math.inf, verified.begin())
    assert (verified.get(ONE, 0.0), verified.is_fresh()) == (None, False)


def test_the_bound_counts_from_the_question_and_not_from_the_answer() -> None:
    """A slow store does not lengthen the time for which a revoked token works."""
    timer = Hand(100.0)
    verified = heard(1.0, timer=timer)
    verified.fill(ONE, CALLER, math.inf, verified.begin())
    timer.now = 101.8
    verified.hear(0, 101.0)
    assert verified.get(ONE, 0.0) is CALLER
    timer.now = 102.0
    assert verified.get(ONE, 0.0) is None
    timer.now = 105.0
    verified.hear(0, 102.0)
    assert not verified.is_fresh()


def test_an_answer_that_comes_out_of_turn_takes_nothing_back() -> None:
    """Two questions may cross; what is fresh by the later one stays so."""
    timer = Hand(100.0)
    verified = heard(1.0, timer=timer)
    verified.hear(0, 99.5)
    timer.now = 100.9
    assert verified.is_fresh()


@pytest.mark.parametrize("number", [1, -1])
def test_a_changed_store_empties_the_cache(number: int) -> None:
    """Another number is a change, be it lower: somebody may have restored a backup."""
    verified = heard()
    verified.fill(ONE, CALLER, math.inf, verified.begin())
    slow = verified.begin()
    verified.hear(number, verified.timer())
    assert verified.get(ONE, 0.0) is None
    verified.fill(ONE, CALLER, math.inf, slow)
    assert verified.get(ONE, 0.0) is None
    verified.fill(ONE, CALLER, math.inf, verified.begin())
    assert verified.get(ONE, 0.0) is CALLER


def test_an_expired_token_is_not_returned() -> None:
    """The token's own end is looked at on every hit."""
    verified = heard()
    verified.fill(ONE, CALLER, 50.0, verified.begin())
    assert verified.get(ONE, 49.9) is CALLER
    assert verified.get(ONE, 50.0) is None


def test_after_a_change_nothing_is_used_but_it_is_known_to_have_been_good() -> None:
    """Every token is looked up anew, and whoever holds one that was good is not taken for a guesser."""
    verified = heard()
    for digest in (ONE, TWO):
        verified.fill(digest, CALLER, math.inf, verified.begin())
    verified.drop()
    assert [verified.get(digest, 0.0) for digest in (ONE, TWO)] == [None, None]
    verified.forget(TWO)
    assert [verified.was_good(digest) for digest in (ONE, TWO, b"3" * 32)] == [True, False, False]


def test_a_fill_that_began_before_a_revocation_is_not_used() -> None:
    """It may have read the token before it was revoked."""
    verified = heard()
    ticket = verified.begin()
    verified.drop()
    verified.fill(ONE, CALLER, math.inf, ticket)
    assert verified.get(ONE, 0.0) is None
    verified.fill(ONE, CALLER, math.inf, verified.begin())
    assert verified.get(ONE, 0.0) is CALLER


def test_dropping_what_is_not_there_or_expired_does_nothing() -> None:
    """Revoking a token that nobody used lately is the usual case."""
    timer = Hand(0.0)
    verified = heard(1.0, timer=timer)
    verified.drop()
    verified.fill(ONE, CALLER, math.inf, verified.begin())
    timer.now = 5.0
    verified.drop()
    assert verified.get(ONE, 0.0) is None


def test_with_a_bound_of_zero_nothing_is_used() -> None:
    """Then every request asks the store."""
    verified = heard(0.0)
    verified.fill(ONE, CALLER, math.inf, verified.begin())
    assert verified.get(ONE, 0.0) is None


@pytest.mark.parametrize("ttl", [-0.1, math.nan, math.inf])
def test_a_bound_that_is_no_time_is_refused(ttl: float) -> None:
    """A revoked token must stop working some day."""
    with pytest.raises(ConfigurationError, match="revocation_bound"):
        Verified(bound=ttl)


def test_the_cache_is_bounded() -> None:
    """A million tokens in use take the memory of `maxsize` of them."""
    verified = heard(maxsize=10)
    for number in range(1000):
        verified.fill(number.to_bytes(32), Caller("t", token_id=str(number)), math.inf, verified.begin())
    assert sum(verified.get(number.to_bytes(32), 0.0) is not None for number in range(1000)) == 10


def test_threads_share_the_cache() -> None:
    """Reading, filling, expiring and dropping at once end with a cache that works."""
    verified = heard(maxsize=50)
    start = threading.Barrier(8)

    def work(seed: int) -> None:
        start.wait(10)
        for turn in range(400):
            number = (seed * 7 + turn) % 100
            verified.fill(number.to_bytes(32), Caller("t", token_id=str(number)), math.inf, verified.begin())
            found = verified.get(number.to_bytes(32), 0.0)
            assert found is None or found.token_id == str(number)
            if turn % 20 == 0:
                verified.drop()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    fresh = Caller("t", token_id="fresh")
    verified.fill(ONE, fresh, math.inf, verified.begin())
    verified.drop()
    assert verified.get(ONE, 0.0) is None
