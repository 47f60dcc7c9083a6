"""Client tokens as rows of the tables `tokens` and `generations`, and back.

Rules:
1. Times are microseconds since the epoch: exact, ordered, and without a time zone to lose.
2. Scopes and attributes are JSON.
3. A row that cannot be read is a fault of the store, never a token with something left out.
"""

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any

from apitokenproxy.errors import StoreUnavailable
from apitokenproxy.interfaces import Generation, StoredToken

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def of(token: StoredToken) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the token's row and the rows of its generations."""
    row = {
        "id": token.id,
        "tenant": token.tenant,
        "subject": token.subject,
        "scopes": json.dumps(sorted(token.scopes)),
        "attributes": json.dumps(dict(token.attributes)),
        "created": micros(token.created),
        "expires": _micros_or_none(token.expires),
        "revoked": _micros_or_none(token.revoked),
    }
    generations = [
        {
            "token_id": token.id,
            "number": generation.number,
            "digest": generation.digest,
            "created": micros(generation.created),
            "retired": _micros_or_none(generation.retired),
        }
        for generation in token.generations
    ]
    return row, generations


def one(rows: Iterable[Any]) -> StoredToken | None:
    """Put together the only token in the rows; None when there are none. Raises StoreUnavailable."""
    return next(iter(tokens(rows)), None)


def tokens(rows: Iterable[Any]) -> list[StoredToken]:
    """Put together the tokens whose rows (one a generation) stand next to each other.

    Raises StoreUnavailable for a row that cannot have been written here.
    """
    groups = [tuple(group) for _, group in groupby(rows, key=itemgetter(0))]
    try:
        return [_token(group) for group in groups]
    except (ValueError, TypeError, OverflowError) as error:
        raise StoreUnavailable(f"the token store holds a damaged row ({type(error).__name__})") from None


def _token(rows: tuple[Any, ...]) -> StoredToken:
    token_id, tenant, subject, scopes, attributes, created, expires, revoked, *_ = rows[0]
    return StoredToken(
        id=token_id,
        tenant=tenant,
        created=_moment(created),
        subject=subject,
        scopes=frozenset(json.loads(scopes)),
        attributes=json.loads(attributes),
        expires=_moment_or_none(expires),
        revoked=_moment_or_none(revoked),
        generations=tuple(
            Generation(number, digest, _moment(made), _moment_or_none(retired))
            for *_, number, digest, made, retired in rows
            if number is not None
        ),
    )


def _moment(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


def _moment_or_none(micros: int | None) -> datetime | None:
    return None if micros is None else _moment(micros)


def micros(moment: datetime) -> int:
    """Return an aware time as it is kept."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _micros_or_none(moment: datetime | None) -> int | None:
    return None if moment is None else micros(moment)
