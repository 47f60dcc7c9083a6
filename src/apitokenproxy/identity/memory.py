"""MemoryStore: client tokens that end with the process. For tests, demos and scripts."""

from datetime import datetime
from threading import Lock

from attrs import evolve

from apitokenproxy._colour import nonblocking
from apitokenproxy.errors import StoreUnavailable
from apitokenproxy.interfaces import StoredToken


class MemoryStore:
    """A TokenStore in a dictionary of this process."""

    def __init__(self) -> None:
        self._tokens: dict[str, StoredToken] = {}
        self._digests: set[bytes] = set()
        self._lock = Lock()

    @nonblocking
    def find(self, token_id: str) -> StoredToken | None:
        """Return the token with that id."""
        return self._tokens.get(token_id)

    @nonblocking
    def add(self, token: StoredToken) -> None:
        """Keep a new token. Raises StoreUnavailable when its id or a digest is there already."""
        with self._lock:
            digests = [generation.digest for generation in token.generations]
            if token.id in self._tokens or not self._digests.isdisjoint(digests):
                raise StoreUnavailable(f"the memory store has a token with the id {token.id} or its digest already")
            self._digests.update(digests)
            self._tokens[token.id] = token

    @nonblocking
    def revoke(self, token_id: str, when: datetime) -> StoredToken | None:
        """Mark it revoked (the first time stays) and return it; None when there is none."""
        with self._lock:
            token = self._tokens.get(token_id)
            if token is not None and token.revoked is None:
                token = self._tokens[token_id] = evolve(token, revoked=when)
            return token

    @nonblocking
    def list(self, tenant: str | None = None) -> list[StoredToken]:
        """Return all tokens, oldest first, or those of one tenant."""
        with self._lock:
            tokens = [token for token in self._tokens.values() if tenant is None or token.tenant == tenant]
        return sorted(tokens, key=lambda token: (token.created, token.id))

    @nonblocking
    def close(self) -> None:
        """Do nothing: closing keeps the tokens, as it does in every store."""
