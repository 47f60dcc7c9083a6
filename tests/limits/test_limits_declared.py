"""Limits as they are declared: what is accepted, and the sentence for what is not."""

from typing import Any

import pytest

from apitokenproxy import Limit
from apitokenproxy.errors import ConfigurationError
from apitokenproxy.limits.memory import MemoryLimiter

PER = "token, tenant, subject, upstream, ip"
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "limit l: give exactly one of rate, quota and concurrency"),
    "two": ({"rate": "1/second", "quota": "1/day"}, "limit l: give exactly one of rate, quota and concurrency"),
    "name": (
        {"name": "a b", "rate": "1/second"},
        "limit 'a b': a name has letters, digits, '_', '.' and '-', at most 64",
    ),
    "rate without unit": (
        {"rate": "100"},
        "limit l: rate '100' is not like '100/minute'; the unit is one of second, minute, hour, day",
    ),
    "rate of none": (
        {"rate": "0/minute"},
        "limit l: rate '0/minute' is not like '100/minute'; the unit is one of second, minute, hour, day",
    ),
    "rate per month": (
        {"rate": "1/month"},
        "limit l: rate '1/month' is not like '100/minute'; the unit is one of second, minute, hour, day",
    ),
    "quota per second": (
        {"quota": "1/second"},
        "limit l: quota '1/second' is not like '10000/month'; the unit is one of hour, day, month",
    ),
    "quota below none": (
        {"quota": "-1/day"},
        "limit l: quota '-1/day' is not like '10000/month'; the unit is one of hour, day, month",
    ),
    "huge": (
        {"quota": "1" + "0" * 40 + "/day"},
        f"limit l: quota '1{'0' * 40}/day' is not like '10000/month'; the unit is one of hour, day, month",
    ),
    "no room": ({"concurrency": 0}, "limit l: concurrency is 0; it must be at least 1"),
    "burst with quota": ({"quota": "1/day", "burst": 2}, "limit l: burst goes with rate and must be at least 1"),
    "burst of none": ({"rate": "1/day", "burst": 0}, "limit l: burst goes with rate and must be at least 1"),
    "per nothing": ({"rate": "1/day", "per": []}, f"limit l: per is empty; use one or several of {PER}"),
    "per what": ({"rate": "1/day", "per": ["user"]}, f"limit l: per 'user' is not known; use {PER}"),
    "per the same": ({"rate": "1/day", "per": ["ip", "ip"]}, "limit l: per names something twice"),
}


@pytest.mark.parametrize(("terms", "sentence"), BAD.values(), ids=BAD)
def test_a_bad_limit_is_one_sentence(terms: dict[str, Any], sentence: str) -> None:
    """It names the limit and says what to do."""
    given = {"name": "l", "per": ["token"]} | terms
    with pytest.raises(ConfigurationError) as refusal:
        Limit(given.pop("name"), **given)
    assert str(refusal.value) == sentence


def test_limits_have_names_of_their_own() -> None:
    """The headers and the records tell them apart by name."""
    limit = Limit("same", per="token", rate="1/second")
    with pytest.raises(ConfigurationError, match="limit same: another limit has this name; give each its own"):
        MemoryLimiter([limit, limit])
