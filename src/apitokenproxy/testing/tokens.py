"""Client tokens as stores keep them, for tests of stores."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from attrs import evolve

from apitokenproxy.identity.format import digest, mint
from apitokenproxy.interfaces import Generation, StoredToken, TokenEvent, TokenStore

START = datetime(2026, 11, 24, 12, 0, 0, 123456, tzinfo=UTC)
_HOUR = timedelta(hours=1)
_EMPTY: Mapping[str, Any] = {}


def a_token(tenant: str = "acme", created: datetime = START, **more: Any) -> StoredToken:
    """Return a token that no store has."""
    identifier, token = mint()
    first = Generation(1, digest(token.encode()), created)
    return StoredToken(identifier, tenant, created, **{"generations": (first,), **more})


def full_token() -> StoredToken:
    """Return a token in which every field is set, to what is hard to keep."""
    identifier, first = mint()
    old = Generation(
        1,
        digest(first.encode()),
        START,
        replaced=START + timedelta(minutes=1),
        retired=START + _HOUR,
        idle=timedelta(minutes=5, microseconds=1),
        latest=START + 2 * _HOUR,
    )
    new = Generation(
        2, digest(mint(identifier)[1].encode()), START + timedelta(minutes=1), rotation=b"\0" * 31 + b"\xff"
    )
    return StoredToken(
        identifier,
        "Größe & Söhne",
        START,
        subject="build 雪",
        scopes=frozenset({"github:read", "a"}),
        attributes={"org": "x", "n": 1.5, "on": True, "none": None, "list": [1, {"a": "'; DROP TABLE tokens; --"}]},
        expires=START + timedelta(days=30, microseconds=7),
        suspended=START + timedelta(hours=3),
        revoked=START + timedelta(days=1),
        generations=(old, new),
    )


def an_event(token_id: str, action: str = "issue", details: Mapping[str, Any] = _EMPTY) -> TokenEvent:
    """Return what was done to a token."""
    return TokenEvent(token_id, START, "a test", action, details)


def add(store: TokenStore, *tokens: StoredToken) -> None:
    """Keep tokens."""
    for token in tokens:
        store.add(token, an_event(token.id))


def revoke(store: TokenStore, token_id: str, when: datetime) -> StoredToken | None:
    """Mark a token revoked."""
    return store.change(token_id, lambda token: (evolve(token, revoked=when), an_event(token_id, "revoke")))
