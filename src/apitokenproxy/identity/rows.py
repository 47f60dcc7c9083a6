"""Client tokens and their events as rows of tables, and back.

Rules:
1. Times are microseconds since the epoch: exact, ordered, and without a time zone to lose.
2. Scopes and attributes are JSON.
3. A row that cannot be read is a fault of the store, never a token with something left out.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import attrgetter
from typing import Any

from apitokenproxy.errors import StoreUnavailable
from apitokenproxy.interfaces import Generation, StoredToken, TokenEvent, Uses

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def of(token: StoredToken) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the token's row and the rows of its generations, without their uses."""
    row = {
        "id": token.id,
        "tenant": token.tenant,
        "subject": token.subject,
        "scopes": json.dumps(sorted(token.scopes)),
        "attributes": json.dumps(dict(token.attributes)),
        "created": micros(token.created),
        "expires": _micros_or_none(token.expires),
        "revoked": _micros_or_none(token.revoked),
        "suspended": _micros_or_none(token.suspended),
    }
    return row, [of_generation(token.id, generation) for generation in token.generations]


def of_generation(token_id: str, generation: Generation) -> dict[str, Any]:
    """Return a generation's row, without its uses."""
    return {
        "token_id": token_id,
        "number": generation.number,
        "digest": generation.digest,
        "created": micros(generation.created),
        "retired": _micros_or_none(generation.retired),
        "replaced": _micros_or_none(generation.replaced),
        "idle": None if generation.idle is None else generation.idle // _MICROSECOND,
        "latest": _micros_or_none(generation.latest),
        "rotation": generation.rotation,
    }


def of_event(event: TokenEvent) -> dict[str, Any]:
    """Return an event's row."""
    return {
        "token_id": event.token_id,
        "at": micros(event.at),
        "actor": event.actor,
        "action": event.action,
        "details": json.dumps(dict(event.details)),
    }


def of_uses(uses: Uses) -> dict[str, Any]:
    """Return the parameters that add uses to a generation."""
    return {
        "of": uses.token_id,
        "at": uses.generation,
        "first": micros(uses.first),
        "last": micros(uses.last),
        "count": uses.count,
    }


def event(row: Any) -> TokenEvent:
    """Put together an event. Raises StoreUnavailable for a row that cannot have been written here."""
    with _undamaged():
        return TokenEvent(row.token_id, _moment(row.at), row.actor, row.action, json.loads(row.details))


def one(rows: Iterable[Any]) -> StoredToken | None:
    """Put together the only token in the rows; None when there are none. Raises StoreUnavailable."""
    return next(iter(tokens(rows)), None)


def tokens(rows: Iterable[Any]) -> list[StoredToken]:
    """Put together the tokens whose rows (one a generation) stand next to each other.

    Raises StoreUnavailable for a row that cannot have been written here.
    """
    groups = [tuple(group) for _, group in groupby(rows, key=attrgetter("id"))]
    with _undamaged():
        return [_token(group) for group in groups]


def _token(rows: tuple[Any, ...]) -> StoredToken:
    row = rows[0]
    return StoredToken(
        id=row.id,
        tenant=row.tenant,
        created=_moment(row.created),
        subject=row.subject,
        scopes=frozenset(json.loads(row.scopes)),
        attributes=json.loads(row.attributes),
        expires=_moment_or_none(row.expires),
        suspended=_moment_or_none(row.suspended),
        revoked=_moment_or_none(row.revoked),
        generations=tuple(_generation(row) for row in rows if row.number is not None),
    )


def _generation(row: Any) -> Generation:
    return Generation(
        number=row.number,
        digest=row.digest,
        created=_moment(row.generation_created),
        replaced=_moment_or_none(row.replaced),
        retired=_moment_or_none(row.retired),
        idle=None if row.idle is None else timedelta(microseconds=row.idle),
        latest=_moment_or_none(row.latest),
        rotation=row.rotation,
        first_used=_moment_or_none(row.first_used),
        last_used=_moment_or_none(row.last_used),
        uses=row.uses,
    )


@contextmanager
def _undamaged() -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, OverflowError) as error:
        raise StoreUnavailable(f"the token store holds a damaged row ({type(error).__name__})") from None


def _moment(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


def _moment_or_none(micros: int | None) -> datetime | None:
    return None if micros is None else _moment(micros)


def micros(moment: datetime) -> int:
    """Return an aware time as it is kept."""
    return (moment - _EPOCH) // _MICROSECOND


def _micros_or_none(moment: datetime | None) -> int | None:
    return None if moment is None else micros(moment)
