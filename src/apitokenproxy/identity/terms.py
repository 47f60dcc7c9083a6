"""What a client token may be issued with: checked on the way in, with one sentence for what is wrong."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from apitokenproxy.errors import ConfigurationError, TokenNotFound
from apitokenproxy.identity.format import is_id

_MAX_TENANT = 128
_MAX_SUBJECT = 256
_MAX_SCOPE = 128
_MAX_ACTOR = 256
_MAX_KEY = 256


def checked_id(token_id: str) -> str:
    """Return an id. Raises TokenNotFound."""
    if not is_id(token_id):  # perhaps a whole token: not echoed
        raise TokenNotFound(
            "that is not a token's id: an id has 12 letters and digits and stands after atp_ in the token"
        )
    return token_id


def checked_tenant(tenant: str) -> str:
    """Return a tenant. Raises ConfigurationError."""
    return _text("tenant", tenant, 1, _MAX_TENANT)


def checked_subject(subject: str) -> str:
    """Return a subject. Raises ConfigurationError."""
    return _text("subject", subject, 0, _MAX_SUBJECT)


def checked_actor(actor: str) -> str:
    """Return who does something. Raises ConfigurationError."""
    return _text("by", actor, 0, _MAX_ACTOR)


def checked_key(key: str) -> str:
    """Return an idempotency key. Raises ConfigurationError."""
    return _text("key", key, 1, _MAX_KEY)


def checked_scopes(scopes: Iterable[str]) -> frozenset[str]:
    """Return scopes. Raises ConfigurationError."""
    if isinstance(scopes, str):
        raise ConfigurationError(f'scopes must be a list, as ["{_text("a scope", scopes, 1, _MAX_SCOPE)}"]')
    found = frozenset(_text("a scope", scope, 1, _MAX_SCOPE) for scope in scopes)
    for scope in found:
        if " " in scope:
            raise ConfigurationError(f"scope {scope!r} has a space in it; give each scope of its own")
    return found


def expiry(now: datetime, expires_in: timedelta | None) -> datetime | None:
    """Return when a token ends. Raises ConfigurationError."""
    if expires_in is None:
        return None
    if not isinstance(expires_in, timedelta) or expires_in <= timedelta(0):
        raise ConfigurationError("expires_in must be a positive timedelta, as timedelta(days=30)")
    try:
        return now + expires_in
    except OverflowError:
        raise ConfigurationError("expires_in is too long; leave it out for a token that does not expire") from None


def _text(name: str, value: str, shortest: int, longest: int) -> str:
    if not isinstance(value, str) or not shortest <= len(value) <= longest or not _is_plain(value):
        raise ConfigurationError(
            f"{name} must be {shortest} to {longest} printable characters, without spaces at its ends"
        )
    return value


def _is_plain(value: str) -> bool:
    return value.isprintable() and value == value.strip()
