"""How a candidate becomes the live version of a secret, and what takes it back: values, nothing that waits.

candidate ── accepted often enough ──► promoted ──► the live one; the one before it stands in for it
    │                                      │
    └──────────── refused where the current one is accepted ────► rolled back
"""

import json
import re
from datetime import timedelta
from typing import Any, Literal

from attrs import asdict, evolve, field, fields, frozen

from apitokenproxy.errors import ConfigurationError, StoreUnavailable

FAILING = 60.0
"""Seconds for which a version that was refused is not tried again, while the one before it works."""
_QUIET = 600.0
"""Seconds after which a version that fails once more is told of once more."""
_PATH = re.compile(r"/[A-Za-z0-9._~!$&'()*+,=:@/?%-]*")


@frozen(kw_only=True)
class Rotation:
    """How the `candidate` of an upstream is proven, when it becomes the live version, and what rolls it back.

    It is proven by a `probe`, the path of a GET below the upstream's URL that the proxy sends with it, at most
    once a second while requests come; and by a `share` (0 to 1) of the requests that may be sent twice. It
    becomes the live one after `successes` answers that accept it and `soak` after the first of these, by itself
    unless `automatic` is False. `failures` refusals, where the upstream accepts the current one, roll it
    back. The version before it stands in for it until `previous_for` after that; None: as long as it is named.

    Raises ConfigurationError.
    """

    probe: str = ""
    share: float = 0.0
    successes: int = 10
    soak: timedelta = timedelta(0)
    automatic: bool = True
    failures: int = 1
    previous_for: timedelta | None = None

    def __attrs_post_init__(self) -> None:
        if self.probe and (not _PATH.fullmatch(self.probe) or "//" in self.probe or "/." in self.probe):
            raise ConfigurationError(f"rotation: probe is {self.probe!r}; it must be a path such as /v1/me")
        for name, length in (("soak", self.soak), ("previous_for", self.previous_for)):
            if not isinstance(length, timedelta) and (length is not None or name == "soak"):
                raise ConfigurationError(
                    f"rotation: {name} is {length!r}; it must be a timedelta, as timedelta(days=1)"
                )
        if not 0 <= self.share <= 1:
            raise ConfigurationError(f"rotation: share is {self.share}; it must be between 0 and 1, as 0.05 for 5 %")
        for name, value in (("successes", self.successes), ("failures", self.failures)):
            if value < 1:
                raise ConfigurationError(f"rotation: {name} is {value}; it must be at least 1")


_TEXTS = frozenset({"upstream", "version", "by"})

Standing = Literal["proving", "promoted", "rolled back", "failing"]


@frozen
class Record:
    """What is known of one version at one upstream, by all processes. Times are seconds since the epoch, 0: never.

    `by` is who promoted it or took it back; empty: the proxy itself.
    """

    upstream: str
    version: str
    accepted: int = 0
    first_accepted: float = 0.0
    refused: int = 0
    promoted: float = 0.0
    rolled_back: float = 0.0
    failing_until: float = 0.0
    by: str = field(default="", kw_only=True)

    def standing(self, now: float) -> Standing:
        """Return what it is now, in a word."""
        if self.rolled_back:
            return "rolled back"
        if self.failing_until > now:
            return "failing"
        return "promoted" if self.promoted else "proving"

    def to_bytes(self) -> bytes:
        """Return it as it is kept."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, kept: bytes) -> "Record":
        """Return what was kept, less what a newer program put beside it. Raises StoreUnavailable."""
        try:
            kept_now: dict[str, Any] = json.loads(kept)
            return cls(**{one.name: _of_its_type(one.name, kept_now) for one in fields(cls) if one.name in kept_now})
        except (ValueError, TypeError, RecursionError):
            raise StoreUnavailable("the token store holds a damaged record of a secret's version") from None


def _of_its_type(name: str, kept: dict[str, Any]) -> Any:
    if not isinstance(kept[name], str if name in _TEXTS else int | float):
        raise TypeError(name)
    return kept[name]


# --- what may happen to a version; each returns what its record becomes -----------------------


def accepted(record: Record, now: float, count: int, rotation: Rotation) -> Record:
    """Count answers that accepted it; promote it when that is enough."""
    if record.promoted or record.rolled_back:
        return record
    record = evolve(record, accepted=record.accepted + count, first_accepted=record.first_accepted or now)
    proven = record.accepted >= rotation.successes and now - record.first_accepted >= rotation.soak.total_seconds()
    return promoted(record, now) if proven and rotation.automatic else record


def seen_accepted(record: Record, now: float, rotation: Rotation) -> Record:
    """Count an answer that somebody saw accept it; one that was rolled back begins anew."""
    begun = Record(record.upstream, record.version) if record.rolled_back else record
    return accepted(begun, now, 1, rotation)


def refused(record: Record, now: float, rotation: Rotation) -> Record:
    """Count a refusal where the current one was accepted; roll it back when that is enough."""
    record = evolve(record, refused=record.refused + 1)
    return rolled_back(record, now) if record.refused >= rotation.failures else record


def failing(record: Record, now: float) -> Record:
    """Take note that the upstream refuses it and accepts another one."""
    return evolve(record, failing_until=now + FAILING)


def promoted(record: Record, now: float, by: str = "") -> Record:
    """Make it the live one."""
    if record.promoted:
        return record
    return evolve(record, promoted=now, rolled_back=0.0, failing_until=0.0, refused=0, by=by)


def rolled_back(record: Record, now: float, by: str = "") -> Record:
    """Take it back: it is not used again before somebody promotes it."""
    return record if record.rolled_back else evolve(record, promoted=0.0, rolled_back=now, by=by)


def working(record: Record, now: float) -> Record:
    """Take note that it is accepted again."""
    return evolve(record, failing_until=min(record.failing_until, now))


def news(before: Record, after: Record, now: float) -> Standing | None:
    """Return what of a change somebody has to be told, if anything."""
    if after.rolled_back and not before.rolled_back:
        return "rolled back"
    if after.promoted and not before.promoted:
        return "promoted"
    return "failing" if after.failing_until and before.failing_until < now - _QUIET else None
