"""What limits count, exactly: against an oracle, at the borders of calendars, all or nothing."""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from limit_calls import Clock, Counted

from apitokenproxy import Limit
from apitokenproxy.errors import ConcurrencyExceeded, LimiterUnavailable, QuotaExceeded, RateLimited

# --- rate -----------------------------------------------------------------------------------


class Bucket:
    """The oracle: a bucket of `burst` tokens that fills evenly, in exact fractions.

    GCRA admits the same requests as a token bucket; the two are written down differently.
    """

    def __init__(self, count: int, seconds: int, burst: int) -> None:
        self.rate = Fraction(count, seconds)
        self.burst = Fraction(burst)
        self.level = self.burst
        self.at = Fraction(0)

    def admits(self, at: Fraction) -> bool:
        self.level = min(self.burst, self.level + (at - self.at) * self.rate)
        self.at = at
        if self.level < 1:
            return False
        self.level -= 1
        return True


@settings(max_examples=300)
@given(
    st.integers(1, 200),
    st.sampled_from(["second", "minute", "hour"]),
    st.none() | st.integers(1, 50),
    st.lists(st.integers(0, 4000), min_size=1, max_size=120),
)
def test_a_rate_admits_what_a_token_bucket_admits(count: int, unit: str, burst: int | None, gaps: list[int]) -> None:
    """Request by request, over any arrivals; gaps are quarters of the pace, in which floats are not exact."""
    seconds = {"second": 1, "minute": 60, "hour": 3600}[unit]
    counted = Counted([Limit("r", per=["token"], rate=f"{count}/{unit}", burst=burst)], clock=Clock(now=0.0))
    oracle = Bucket(count, seconds, burst or count)
    at = Fraction(0)
    for gap in gaps:
        at += Fraction(gap % 17, 4) * Fraction(seconds, count)
        counted.clock.now = float(at)
        assert admits(counted) == oracle.admits(at)


def admits(counted: Counted, **who: Any) -> bool:
    try:
        counted.admit(**who)
    except RateLimited:
        return False
    return True


def test_a_burst_comes_at_once_and_then_the_pace_holds() -> None:
    """60 a minute with a burst of 3: three now, then one a second."""
    counted = Counted([Limit("r", per=["token"], rate="60/minute", burst=3)])
    assert [admits(counted) for _ in range(4)] == [True, True, True, False]
    counted.clock.pass_by(0.99)
    assert not admits(counted)
    counted.clock.pass_by(0.01)
    assert [admits(counted), admits(counted)] == [True, False]


def test_a_refusal_says_when_to_come_again_and_means_it() -> None:
    """`retry_after` is the exact wait; a moment before it is too early."""
    counted = Counted([Limit("r", per=["token"], rate="7/minute", burst=2)])
    counted.admit()
    counted.admit()
    with pytest.raises(RateLimited) as refusal:
        counted.admit()
    assert refusal.value.retry_after == pytest.approx(60 / 7)
    counted.clock.pass_by(60 / 7 - 0.001)
    assert not admits(counted)
    counted.clock.pass_by(0.001)
    assert admits(counted)


def test_refused_requests_are_not_counted() -> None:
    """Knocking does not keep the door shut."""
    counted = Counted([Limit("r", per=["token"], rate="1/second", burst=1)])
    assert admits(counted)
    for _ in range(1000):
        assert not admits(counted)
    counted.clock.pass_by(1.0)
    assert admits(counted)


def test_rest_saves_no_more_than_a_burst() -> None:
    """A year of silence gives no more than three at once."""
    counted = Counted([Limit("r", per=["token"], rate="1/second", burst=3)])
    counted.clock.pass_by(31_536_000)
    assert [admits(counted) for _ in range(4)] == [True, True, True, False]


# --- quota ----------------------------------------------------------------------------------


def utc(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


WINDOWS = {
    "hour": ("2026-11-24T13:59:59", "2026-11-24T14:00:00"),
    "day": ("2026-11-24T23:59:59", "2026-11-25T00:00:00"),
    "month": ("2026-11-30T23:59:59", "2026-12-01T00:00:00"),
    "month of 31": ("2026-12-31T23:59:59", "2027-01-01T00:00:00"),
    "February": ("2027-02-28T23:59:59", "2027-03-01T00:00:00"),
    "February of a leap year": ("2028-02-29T23:59:59", "2028-03-01T00:00:00"),
}


@pytest.mark.parametrize(("unit", "last", "first"), [(name.split()[0], *ends) for name, ends in WINDOWS.items()])
def test_a_quota_turns_with_the_calendar_in_utc(unit: str, last: str, first: str) -> None:
    """The last second belongs to the old window, the border to the new one."""
    unit = unit if unit in {"hour", "day"} else "month"
    counted = Counted([Limit("q", per=["token"], quota=f"2/{unit}")], clock=Clock(wall=utc(last)))
    counted.admit()
    counted.admit()
    with pytest.raises(QuotaExceeded) as refusal:
        counted.admit()
    assert refusal.value.retry_after == 1.0
    counted.clock.wall = utc(first)
    assert counted.left() == {"q": 1}


def test_a_wall_clock_that_steps_back_reopens_no_window() -> None:
    """What was used stays used."""
    counted = Counted([Limit("q", per=["token"], quota="1/hour")])
    counted.admit()
    counted.clock.wall -= 7200
    with pytest.raises(QuotaExceeded):
        counted.admit()


# --- concurrency ----------------------------------------------------------------------------


def test_as_many_as_may_be_are_in_flight_and_no_more() -> None:
    """Each that ends makes room for one."""
    counted = Counted([Limit("c", per=["token"], concurrency=2)])
    first, second = counted.admit(), counted.admit()
    with pytest.raises(ConcurrencyExceeded):
        counted.admit()
    first.settle()
    third = counted.admit()
    second.settle()
    third.settle()
    assert [len(counter) for _, counter in counted.limiter._limits] == [0]


def test_settling_twice_counts_out_once() -> None:
    """Whoever calls, and however often."""
    counted = Counted([Limit("c", per=["token"], concurrency=2)])
    first = counted.admit()
    counted.admit()
    first.settle()
    first.settle()
    counted.admit()
    with pytest.raises(ConcurrencyExceeded):
        counted.admit()


# --- several --------------------------------------------------------------------------------

RATE = Limit("rate", per=["token"], rate="10/minute")
QUOTA = Limit("quota", per=["tenant"], quota="10/month")
PARALLEL = Limit("parallel", per=["token", "upstream"], concurrency=10)
FULL = {
    "rate": (Limit("full", per=["tenant"], rate="1/hour"), RateLimited),
    "quota": (Limit("full", per=["tenant"], quota="1/month"), QuotaExceeded),
    "concurrency": (Limit("full", per=["tenant"], concurrency=1), ConcurrencyExceeded),
}


@pytest.mark.parametrize("kind", FULL)
@pytest.mark.parametrize("place", range(4))
def test_a_refusal_by_one_takes_nothing_from_the_others(kind: str, place: int) -> None:
    """All or nothing, wherever the full one stands."""
    full, refusal = FULL[kind]
    limits = [RATE, QUOTA, PARALLEL]
    limits.insert(place, full)
    counted = Counted(limits)
    counted.admit(token="t2")
    for _ in range(20):
        with pytest.raises(refusal):
            counted.admit(token="t1")
    counts = {limit.name: len(counter) for limit, (_, counter) in zip(limits, counted.limiter._limits, strict=True)}
    assert counts == {"rate": 1, "quota": 1, "parallel": 1, "full": 1}  # of t2's request, and of acme


KEYS: dict[str, tuple[list[str], dict[str, str], bool]] = {
    "another token": (["token"], {"token": "t2"}, True),
    "another tenant's same subject": (["subject"], {"tenant": "other"}, True),
    "another subject": (["subject"], {"subject": "bob"}, True),
    "the tenant's other token": (["tenant"], {"token": "t2"}, False),
    "another upstream": (["upstream"], {"upstream": "other"}, True),
    "another address": (["ip"], {"address": "192.0.2.2"}, True),
    "the same address": (["ip"], {"token": "t2"}, False),
    "the token elsewhere": (["token", "upstream"], {"upstream": "other"}, True),
    "address and token": (["ip", "token"], {"token": "t2"}, True),
    "address, tenant and upstream": (["tenant", "ip", "upstream"], {"address": "192.0.2.9"}, True),
    "no token, another subject": (["token"], {"token": "", "subject": "bob"}, True),
}


@pytest.mark.parametrize(("per", "other", "apart"), KEYS.values(), ids=KEYS)
def test_keys_are_counted_apart(per: list[str], other: dict[str, str], apart: bool) -> None:
    """One is used up; the other has its own count, or has not."""
    counted = Counted([Limit("r", per=per, rate="1/hour")])
    counted.admit()
    assert admits(counted, **other) is apart


ADDRESSES = {
    "2001:db8:1:2::1 2001:db8:1:2:ffff::9": False,
    "2001:db8:1:2::1 2001:db8:1:3::1": True,
    "::ffff:192.0.2.1 192.0.2.1": False,
    "192.0.2.1 192.0.2.2": True,
}


@pytest.mark.parametrize(("pair", "apart"), ADDRESSES.items())
@pytest.mark.parametrize("per", [["ip"], ["tenant", "ip"]])
def test_an_ipv6_address_is_counted_by_its_64(pair: str, apart: bool, per: list[str]) -> None:
    """A customer has at least a /64, so counting addresses would count nothing."""
    one, two = pair.split()
    counted = Counted([Limit("r", per=per, rate="1/hour")])
    counted.admit(address=one)
    assert admits(counted, address=two) is apart


# --- what the client is told ----------------------------------------------------------------


def test_the_headers_say_what_is_left_of_each() -> None:
    """`RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers); concurrency has no window."""
    counted = Counted(
        [
            Limit("fast", per=["token"], rate="60/minute", burst=5),
            Limit("many", per=["tenant"], quota="100/day"),
            Limit("parallel", per=["token"], concurrency=3),
        ]
    )
    counted.admit()
    assert dict(counted.admit().headers) == {
        b"ratelimit-policy": b'"fast";q=5;w=5, "many";q=100;w=86400',
        b"ratelimit": b'"fast";r=3;t=3, "many";r=98;t=43200',
    }


def test_concurrency_alone_tells_nothing() -> None:
    """There is no window to speak of."""
    assert Counted([Limit("c", per=["token"], concurrency=3)]).admit().headers == ()
    assert Counted([]).admit().headers == ()


def test_what_is_left_counts_down_to_the_refusal() -> None:
    """It never says that there is more, or less."""
    counted = Counted([Limit("r", per=["token"], rate="5/hour"), Limit("q", per=["token"], quota="5/month")])
    assert [counted.left() for _ in range(5)] == [{"r": left, "q": left} for left in (4, 3, 2, 1, 0)]
    with pytest.raises(RateLimited):
        counted.admit()


# --- memory ---------------------------------------------------------------------------------


def test_a_full_rate_forgets_the_key_that_was_idle_longest() -> None:
    """Which costs at most one burst; the others stay counted."""
    counted = Counted([Limit("r", per=["token"], rate="1/hour")], max_keys=2)
    for token in ("a", "b", "c"):
        counted.admit(token=token)
    assert not admits(counted, token="c")
    assert not admits(counted, token="b")
    assert admits(counted, token="a")


def test_a_full_quota_refuses_new_keys_and_forgets_none() -> None:
    """A cap is never passed by making others forgotten; it ends with the window."""
    counted = Counted([Limit("q", per=["token"], quota="2/hour")], max_keys=2)
    counted.admit(token="a")
    counted.admit(token="b")
    with pytest.raises(LimiterUnavailable) as refusal:
        counted.admit(token="c")
    assert refusal.value.retry_after == 3600.0
    counted.admit(token="a")
    counted.clock.pass_by(3600)
    counted.admit(token="c")


def _rate(counted: Counted, number: int) -> None:
    counted.admit(token=f"t{number}")


def _quota(counted: Counted, number: int) -> None:
    with suppress(LimiterUnavailable):
        counted.admit(token=f"t{number}")


def _parallel(counted: Counted, number: int) -> None:
    counted.admit(token=f"t{number}").settle()


MILLION: dict[str, tuple[Limit, Callable[[Counted, int], None], int]] = {
    "rate": (Limit("l", per=["token"], rate="1/hour"), _rate, 1000),
    "quota": (Limit("l", per=["token"], quota="1/month"), _quota, 1000),
    "concurrency": (Limit("l", per=["token"], concurrency=1), _parallel, 0),
}


@pytest.mark.long
@pytest.mark.parametrize(("limit", "use", "kept"), MILLION.values(), ids=MILLION)
def test_a_million_keys_take_the_memory_of_those_that_may_be_kept(
    limit: Limit, use: Callable[[Counted, int], None], kept: int
) -> None:
    """Strangers cannot fill it."""
    counted = Counted([limit], max_keys=1000)
    counter = counted.limiter._limits[0][1]
    for number in range(2000):
        use(counted, number)
    assert len(counter) == kept
    for number in range(1_000_000):  # the counter itself, for a grant for each would only cost time
        key = f"k{number}"
        try:
            so_far = counter.check(key, 2000.0, counted.clock.wall)
        except LimiterUnavailable:
            continue
        counter.take(key, 2000.0, so_far)
        if kept == 0:
            counter.release(key)  # type: ignore[union-attr]
    assert len(counter) == kept
