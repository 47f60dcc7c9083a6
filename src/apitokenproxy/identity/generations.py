"""Generations of a client token: a new secret takes the place of the old one, which ends after an overlap.

Rules:
1. At any time one generation is the newest: it has no end of its own. Numbers are never given twice.
2. An overlap never outlives the token's own expiry.
3. What cannot be done raises TokenConflict, with a sentence that says what can.
"""

from datetime import datetime, timedelta
from hashlib import sha256

from attrs import evolve, frozen

from apitokenproxy.errors import ConfigurationError, TokenConflict
from apitokenproxy.interfaces import Generation, StoredToken

MOST_LIVE = 2
SHORTEST_IDLE = timedelta(minutes=1)
"""Uses are written in batches, some seconds late: whether nobody used a token is not known any sooner."""
LONGEST = timedelta(days=3650)
"""Of an overlap, in each of its terms: ten years."""
_HALF = 16
"""Bytes of a `Generation.rotation` that are the key's; the others are those of the terms."""


@frozen
class Overlap:
    """How long the generation that is replaced lives on.

    `planned` is when it should end. With `idle` it ends when nobody has used it for that long: earlier
    than planned if it can, later if it must, and after `at_most` in any case. `most_live` is how many
    generations may live at once.

    Raises ConfigurationError.
    """

    planned: timedelta
    idle: timedelta | None = None
    at_most: timedelta | None = None
    most_live: int = MOST_LIVE

    def __attrs_post_init__(self) -> None:
        if self.planned < timedelta(0):
            raise ConfigurationError("overlap must not be negative; 0 ends the old secret at once")
        if max(self.planned, self.idle or self.planned, self.at_most or self.planned) > LONGEST:
            raise ConfigurationError(
                f"overlap, complete_when_idle or at_most is too long; each is at most {LONGEST.days}d"
            )
        if self.most_live < MOST_LIVE:
            raise ConfigurationError("most_live must be 2 or more; an overlap of 0 leaves one secret alive")
        if self.idle is None:
            if self.at_most is not None:
                raise ConfigurationError("at_most bounds complete_when_idle; name that too, or leave at_most out")
            return
        if self.idle < SHORTEST_IDLE:
            raise ConfigurationError("complete_when_idle must be a minute or more: uses are known some seconds late")
        if not self.planned:
            raise ConfigurationError("an overlap of 0 ends the old secret at once; leave complete_when_idle out")
        if self.at_most is not None and self.at_most < self.planned:
            raise ConfigurationError("at_most must not be shorter than the overlap")

    @property
    def hard(self) -> timedelta:
        """When the replaced generation ends in any case."""
        return self.planned if self.at_most is None else self.at_most


def rotation_of(key: str, overlap: Overlap) -> bytes:
    """Return what tells a rotation again: 16 bytes of the SHA-256 of its idempotency key, and as many of its terms."""
    terms = f"{overlap.planned} {overlap.idle} {overlap.at_most}"
    return b"".join(sha256(part.encode()).digest()[:_HALF] for part in (key, terms))


def made_before(token: StoredToken, rotation: bytes) -> Generation | None:
    """Return the generation that the same rotation made, None when it is a new one.

    Raises TokenConflict when its terms were others, or when it was undone.
    """
    for made in token.generations:
        if not rotation or made.rotation[:_HALF] != rotation[:_HALF]:
            continue
        if made.rotation != rotation:
            raise TokenConflict(
                f"client token {token.id} was rotated with this key before, on other terms; "
                "repeat those, or rotate with another key"
            )
        if made.replaced is not None and all(one.created != made.replaced for one in token.generations):
            raise TokenConflict(
                f"the rotation of client token {token.id} with this key was undone; rotate with another key"
            )
        return made
    return None


def newest(token: StoredToken) -> Generation:
    """Return the generation that has no end of its own."""
    return next(generation for generation in token.generations if generation.replaced is None)


def live(token: StoredToken, now: datetime) -> list[Generation]:
    """Return the generations that are accepted, as far as they themselves decide it, oldest first."""
    return [generation for generation in token.generations if not generation.is_over(now)]


def rotated(token: StoredToken, digest: bytes, now: datetime, overlap: Overlap, rotation: bytes) -> StoredToken:
    """Return the token with a new generation. Raises TokenConflict."""
    _able(token, now)
    retiring = [generation for generation in live(token, now) if generation.replaced is not None]
    if overlap.planned and len(retiring) + 2 > overlap.most_live:
        raise TokenConflict(
            f"client token {token.id} has generation {retiring[-1].number} retiring until {_when(retiring[-1])}; "
            "undo that rotation, wait for its end, end the old ones with an overlap of 0, or allow more to live at once"
        )
    generations = tuple(_replaced(generation, token, now, overlap) for generation in token.generations)
    number = max(generation.number for generation in generations) + 1
    return evolve(token, generations=(*generations, Generation(number, digest, now, rotation=rotation)))


def undone(token: StoredToken, now: datetime) -> StoredToken:
    """Return the token as it was before its last rotation, while the overlap lasts. Raises TokenConflict."""
    _able(token, now)
    last = newest(token)
    before = [generation for generation in live(token, now) if generation.replaced == last.created]
    if not before or before[0] is last:
        raise TokenConflict(f"client token {token.id} has no rotation to undo: no overlap is running")
    back = {
        last.number: evolve(last, replaced=now, retired=now),
        before[0].number: evolve(before[0], replaced=None, retired=None, idle=None, latest=None),
    }
    return evolve(token, generations=tuple(back.get(one.number, one) for one in token.generations))


def _able(token: StoredToken, now: datetime) -> None:
    if token.revoked is not None:
        raise TokenConflict(f"client token {token.id} is revoked for good; issue a new one")
    if token.expires is not None and token.expires <= now:
        raise TokenConflict(f"client token {token.id} has expired; give it a later expiry first")


def _replaced(generation: Generation, token: StoredToken, now: datetime, overlap: Overlap) -> Generation:
    if generation.is_over(now):
        return generation
    if not overlap.planned:
        # Replaced now, also where it was retiring already: what ends as it is replaced is over on every clock.
        return evolve(generation, replaced=now, retired=now, idle=None, latest=None)
    if generation.replaced is not None:
        return generation
    return evolve(
        generation,
        replaced=now,
        retired=_end(now, overlap.planned, token.expires),
        idle=overlap.idle,
        latest=None if overlap.idle is None else _end(now, overlap.hard, token.expires),
    )


def _end(now: datetime, after: timedelta, expires: datetime | None) -> datetime:
    return now + after if expires is None else min(now + after, expires)


def _when(generation: Generation) -> str:
    return f"{generation.ends:%Y-%m-%d %H:%M} UTC"
