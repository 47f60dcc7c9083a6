"""Limiters on clocks that only the test moves, and grants to count."""

from typing import Any

from attrs import Factory, define

from apitokenproxy import Caller, Grant, Limit, Operation
from apitokenproxy.limits.memory import MemoryLimiter
from apitokenproxy.messages import Admission, Request

NOON = 1_790_000_000.0 - 1_790_000_000.0 % 86400 + 43200
"""Seconds since the epoch of some day's noon in UTC."""


@define
class Clock:
    """Time that only the test moves: seconds, and seconds since the epoch."""

    now: float = 1000.0
    wall: float = NOON

    def pass_by(self, seconds: float) -> None:
        self.now += seconds
        self.wall += seconds


@define
class Counted:
    """A limiter with its clock."""

    limits: list[Limit]
    max_keys: int = 100_000
    clock: Clock = Factory(Clock)
    limiter: MemoryLimiter = Factory(
        lambda self: MemoryLimiter(
            self.limits, max_keys=self.max_keys, clock=lambda: self.clock.now, wall=lambda: self.clock.wall
        ),
        takes_self=True,
    )

    def admit(self, **who: Any) -> Admission:
        return self.limiter.admit(grant(**who))

    def left(self) -> dict[str, int]:
        """Return what RateLimit says is left, by limit."""
        items = dict(self.admit().headers)[b"ratelimit"].decode().split(", ")
        return {item.split('"')[1]: int(item.split("r=")[1].split(";")[0]) for item in items}


def grant(
    token: str = "t1",  # noqa: S107 - an id
    tenant: str = "acme",
    subject: str = "ada",
    upstream: str = "api",
    address: str = "192.0.2.1",
) -> Grant:
    caller = Caller(tenant=tenant, subject=subject, token_id=token)
    request = Request(b"GET", b"/", [])
    return Grant(caller, Operation(upstream, b"GET", b"/", b"", ((),), [], None, 0, b"proxy", address, request), "rule")
