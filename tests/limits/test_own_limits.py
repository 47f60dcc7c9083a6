"""The limits that a derived token has of its own."""

import pytest
from attrs import evolve
from limit_calls import Clock, grant

from apitokenproxy import ConfigurationError, Grant, Limit
from apitokenproxy.errors import ConcurrencyExceeded, LimiterUnavailable, QuotaExceeded, RateLimited
from apitokenproxy.limits import memory
from apitokenproxy.limits.limit import own_limits
from apitokenproxy.limits.memory import MemoryLimiter


def limiter(*limits: Limit) -> MemoryLimiter:
    clock = Clock()
    return MemoryLimiter(limits, clock=lambda: clock.now, wall=lambda: clock.wall)


def of(derived: str, **terms: str | int) -> Grant:
    one = grant()
    return evolve(one, caller=evolve(one.caller, derived=derived, limits=tuple(sorted(terms.items()))))


def test_each_derived_token_is_counted_by_itself_and_with_its_parent() -> None:
    """Whichever of the two is exceeded first refuses, and then neither counts."""
    limits = limiter(Limit("per-token", per=["token"], rate="5/minute"))
    one, other = of("one", rate="2/minute"), of("other", rate="10/minute")
    headers = dict(limits.admit(one).headers)
    assert headers[b"ratelimit-policy"] == b'"per-token";q=5;w=60, "own-rate";q=2;w=60'
    assert headers[b"ratelimit"].startswith(b'"per-token";r=4;t=')
    limits.admit(one)
    with pytest.raises(RateLimited):
        limits.admit(one)
    for _ in range(3):
        limits.admit(other)
    with pytest.raises(RateLimited):
        limits.admit(other)
    with pytest.raises(RateLimited):
        limits.admit(grant())


def test_all_kinds_at_once() -> None:
    """A rate with its burst, a quota and a concurrency, without any other limit."""
    limits, terms = limiter(), {"rate": "1/second", "burst": 5, "quota": "3/day", "concurrency": 2}
    one, two = limits.admit(of("one", **terms)), limits.admit(of("one", **terms))
    with pytest.raises(ConcurrencyExceeded):
        limits.admit(of("one", **terms))
    one.settle()
    limits.admit(of("one", **terms)).settle()
    two.settle()
    with pytest.raises(QuotaExceeded):
        limits.admit(of("one", **terms))
    limits.admit(of("two", **terms))


@pytest.mark.parametrize(
    "terms", [{"rate": "often"}, {"burst": 3}, {"quota": "3/second"}, {"concurrency": 0}, {"rate": "1/day", "burst": 0}]
)
def test_terms_that_mean_nothing_are_refused(terms: dict[str, str | int]) -> None:
    """When the token is derived."""
    with pytest.raises(ConfigurationError):
        own_limits(terms)


def test_how_many_different_terms_there_are_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is refused and counts nothing; those that are known go on."""
    monkeypatch.setattr(memory, "MOST_OWN_TERMS", 3)
    limits = limiter(Limit("per-token", per=["token"], rate="5/minute"))
    for number in range(1, 4):
        limits.admit(of("one", rate=f"{number}/minute"))
    with pytest.raises(LimiterUnavailable):
        limits.admit(of("one", rate="4/minute"))
    limits.admit(of("one", rate="3/minute"))
    limits.admit(grant())
