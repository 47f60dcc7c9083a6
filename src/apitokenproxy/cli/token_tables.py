"""How tokens are shown: as tables and as JSON."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import click

from apitokenproxy.cli.options import printable
from apitokenproxy.identity.told import TokenInfo
from apitokenproxy.interfaces import TokenEvent


def print_table(rows: Sequence[tuple[str, ...]]) -> None:
    """Print rows under their heads."""
    rows = [tuple(map(printable, row)) for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def minute(moment: datetime | None, otherwise: str = "-") -> str:
    """Return a moment to the minute."""
    return otherwise if moment is None else f"{moment:%Y-%m-%d %H:%M}"


def retiring(info: TokenInfo) -> str:
    """Say until when an old generation lives, and whether somebody still uses it."""
    old = [one for one in info.generations if one.state == "retiring"]
    if not old:
        return "-"
    last = old[-1]
    used = "not used" if last.last_used is None else f"used {minute(last.last_used)}"
    return f"{last.number} until {minute(last.ends)}, {used}"


def details(details: Mapping[str, Any]) -> str:
    """Return an event's details on one line."""
    return json.dumps(details, ensure_ascii=False) if details else "-"


def event_as_json(event: TokenEvent) -> dict[str, Any]:
    """Return an event as JSON holds it."""
    return {"at": event.at.isoformat(), "action": event.action, "by": event.actor, "details": dict(event.details)}


def until(info: TokenInfo) -> str:
    """Say until when a token is good."""
    return f"expires {info.expires:%Y-%m-%d %H:%M} UTC" if info.expires else "does not expire"


def iso(moment: datetime | None) -> str | None:
    """Return a moment as RFC 3339 writes it."""
    return None if moment is None else moment.isoformat()


def as_json(info: TokenInfo) -> dict[str, Any]:
    """Return a token as JSON holds it."""
    return {
        "id": info.id,
        "state": info.state,
        "tenant": info.tenant,
        "subject": info.subject,
        "scopes": sorted(info.scopes),
        "attributes": dict(info.attributes),
        "created": iso(info.created),
        "expires": iso(info.expires),
        "suspended": iso(info.suspended),
        "revoked": iso(info.revoked),
        "uses": info.uses,
        "last_used": iso(info.last_used),
        "generations": [
            {
                "number": one.number,
                "state": one.state,
                "created": iso(one.created),
                "ends": iso(one.ends),
                "first_used": iso(one.first_used),
                "last_used": iso(one.last_used),
                "uses": one.uses,
            }
            for one in info.generations
        ],
    }
