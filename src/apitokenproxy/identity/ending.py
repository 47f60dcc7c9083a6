"""Ending many tokens at once, and finding the one that leaked.

Rules:
1. What cannot be ended holds up nothing else: it is told when the rest has ended.
2. A token is found by every letter of its string, or else whoever knows an id could end it.
"""

from collections.abc import Callable, Sequence
from typing import Final

from apitokenproxy.errors import TokenConflict, TokenNotFound
from apitokenproxy.identity.derived import is_derived
from apitokenproxy.identity.format import digest, id_in
from apitokenproxy.identity.told import TokenInfo
from apitokenproxy.interfaces import StoredToken, TokenStore
from apitokenproxy.messages import Hidden

MOST_ROUNDS: Final = 10


def end_all(
    found: Callable[[], Sequence[StoredToken]], subject: str | None, revoke: Callable[[str], TokenInfo]
) -> list[TokenInfo]:
    """Revoke what is found, of all subjects or one, until nothing is left, and return what was revoked.

    A token that was deleted meanwhile is passed over. What `revoke` raises is raised when nothing else is left,
    and TokenConflict where tokens are made faster than they are revoked.
    """
    ended: list[TokenInfo] = []
    for _ in range(MOST_ROUNDS):
        identifiers = [one.id for one in found() if one.revoked is None and subject in (None, one.subject)]
        if not identifiers:
            return ended
        failure: Exception | None = None
        before = len(ended)
        for identifier in identifiers:
            try:
                ended.append(revoke(identifier))
            except TokenNotFound:
                continue
            except Exception as error:  # noqa: BLE001 - whatever it is, the others must end
                failure = failure or error
        if failure is not None and len(ended) == before:
            raise failure
    raise TokenConflict(f"{len(ended)} tokens are revoked, and others were issued meanwhile; revoke again")


def owner_of(store: TokenStore, token: Hidden) -> str:
    """Return the id of the token of which this is the string. Raises TokenNotFound, TokenConflict."""
    if is_derived(token):
        parent = token[4:16].decode("ascii", "replace")
        raise TokenConflict(f"that token was derived from {parent} and ends with it, or by itself; revoke {parent}")
    identifier = id_in(token)
    stored = None if identifier is None else store.find(identifier)
    found = digest(token)
    if stored is None or all(generation.digest != found for generation in stored.generations):
        raise TokenNotFound("that is no client token of this store")
    return stored.id
