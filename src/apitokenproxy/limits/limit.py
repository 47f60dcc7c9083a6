"""Limit: one declared limit. A value that checks itself."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import Factory, field, frozen

from apitokenproxy.errors import ConfigurationError

SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "month": 31 * 86400}

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_COUNTED = re.compile(r"([1-9][0-9]{0,14})/([a-z]+)")
_PER = ("token", "tenant", "subject", "upstream", "ip")
_RATE_UNITS = ("second", "minute", "hour", "day")
_QUOTA_UNITS = ("hour", "day", "month")


def _tuple(value: Iterable[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


@frozen
class Limit:
    """One of `rate` (`"100/minute"`), `quota` (`"10000/month"`) or `concurrency` (`20`), counted `per` key.

    `per` names what makes the key: `token`, `tenant`, `subject`, `upstream`, `ip` (IPv6 by /64), or
    several. A rate spreads evenly, and `burst` says how many may come at once (left out: as many as
    the rate's count). A quota counts in calendar windows in UTC. Raises ConfigurationError.
    """

    name: str
    per: tuple[str, ...] = field(kw_only=True, converter=_tuple)
    rate: str | None = field(default=None, kw_only=True)
    burst: int | None = field(default=None, kw_only=True)
    quota: str | None = field(default=None, kw_only=True)
    concurrency: int | None = field(default=None, kw_only=True)

    count: int = field(init=False, repr=False, default=Factory(lambda self: self._counted()[0], takes_self=True))
    unit: str = field(init=False, repr=False, default=Factory(lambda self: self._counted()[1], takes_self=True))

    def __attrs_post_init__(self) -> None:
        if not self.per:
            raise ConfigurationError(f"limit {self.name}: per is empty; use one or several of {', '.join(_PER)}")
        for part in self.per:
            if part not in _PER:
                raise ConfigurationError(f"limit {self.name}: per {part!r} is not known; use {', '.join(_PER)}")
        if len(self.per) != len(set(self.per)):
            raise ConfigurationError(f"limit {self.name}: per names something twice")
        if self.burst is not None and (self.rate is None or self.burst < 1):
            raise ConfigurationError(f"limit {self.name}: burst goes with rate and must be at least 1")

    def _counted(self) -> tuple[int, str]:
        if not _NAME.fullmatch(self.name):
            raise ConfigurationError(f"limit {self.name!r}: a name has letters, digits, '_', '.' and '-', at most 64")
        if sum(value is not None for value in (self.rate, self.quota, self.concurrency)) != 1:
            raise ConfigurationError(f"limit {self.name}: give exactly one of rate, quota and concurrency")
        if self.concurrency is not None:
            if self.concurrency < 1:
                raise ConfigurationError(f"limit {self.name}: concurrency is {self.concurrency}; it must be at least 1")
            return self.concurrency, ""
        kind, text, units = ("rate", self.rate, _RATE_UNITS) if self.rate else ("quota", self.quota, _QUOTA_UNITS)
        found = _COUNTED.fullmatch(text or "")
        if not found or found[2] not in units:
            example = "100/minute" if kind == "rate" else "10000/month"
            raise ConfigurationError(
                f"limit {self.name}: {kind} {text!r} is not like {example!r}; the unit is one of {', '.join(units)}"
            )
        return int(found[1]), found[2]


def own_limits(terms: Mapping[str, str | int]) -> tuple[Limit, ...]:
    """Return the limits of a derived token: any of `rate` (with `burst`), `quota` and `concurrency`, each for itself.

    Raises ConfigurationError.
    """
    kinds = [kind for kind in ("rate", "quota", "concurrency") if kind in terms]
    burst = {"burst": terms["burst"]} if "burst" in terms else {}
    if burst and "rate" not in kinds:
        raise ConfigurationError("burst goes with rate")
    values: list[dict[str, Any]] = [{kind: terms[kind], **(burst if kind == "rate" else {})} for kind in kinds]
    return tuple(Limit(f"own-{kind}", per=["token"], **value) for kind, value in zip(kinds, values, strict=True))
