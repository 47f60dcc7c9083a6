"""MemoryStore: client tokens that end with the process. For tests, demos and scripts."""

from collections.abc import Sequence
from threading import Lock

from attrs import evolve

from apitokenproxy._colour import nonblocking
from apitokenproxy.errors import StoreUnavailable
from apitokenproxy.interfaces import Edit, Generation, State, StoredToken, TokenEvent, Uses


class MemoryStore:
    """A TokenStore and StateStore in dictionaries of this process."""

    def __init__(self) -> None:
        self._tokens: dict[str, StoredToken] = {}
        self._owners: dict[bytes, str] = {}
        self._events: list[TokenEvent] = []
        self._changes = 0
        self._states: dict[str, State] = {}
        self._lock = Lock()

    @nonblocking
    def find(self, token_id: str) -> StoredToken | None:
        """Return the token with that id."""
        return self._tokens.get(token_id)

    @nonblocking
    def add(self, token: StoredToken, event: TokenEvent) -> None:
        """Keep a new token. Raises StoreUnavailable when its id or a digest is there already."""
        with self._lock:
            if token.id in self._tokens:
                raise StoreUnavailable(f"the memory store has a token with the id {token.id} already")
            self._put(token, event)

    @nonblocking
    def change(self, token_id: str, edit: Edit) -> StoredToken | None:
        """Apply `edit` to a token and return what it is now; None when there is none."""
        with self._lock:
            token = self._tokens.get(token_id)
            edited = None if token is None else edit(token)
            if token is None or edited is None:
                return token
            after, event = edited
            uses = {one.number: (one.first_used, one.last_used, one.uses) for one in token.generations}
            kept = (
                evolve(one, first_used=first, last_used=last, uses=count)
                for one in after.generations
                for first, last, count in (uses.get(one.number, (None, None, 0)),)
            )
            after = evolve(after, generations=tuple(kept))
            self._put(after, event)
            self._changes += 1
            return after

    @nonblocking
    def delete(self, token_id: str, event: TokenEvent) -> bool:
        """Remove a token but not its events; False when there is none."""
        with self._lock:
            token = self._tokens.pop(token_id, None)
            if token is None:
                return False
            for generation in token.generations:
                del self._owners[generation.digest]
            self._events.append(event)
            self._changes += 1
            return True

    @nonblocking
    def changes(self) -> int:
        """Return how many changes were made."""
        return self._changes

    @nonblocking
    def note(self, uses: Sequence[Uses]) -> None:
        """Add to the counts of generations, those that are still there."""
        with self._lock:
            for use in uses:
                if token := self._tokens.get(use.token_id):
                    used = (_used(one, use) if one.number == use.generation else one for one in token.generations)
                    self._tokens[use.token_id] = evolve(token, generations=tuple(used))

    @nonblocking
    def events(self, token_id: str) -> list[TokenEvent]:
        """Return what was done to a token, oldest first."""
        with self._lock:
            return [event for event in self._events if event.token_id == token_id]

    @nonblocking
    def list(self, tenant: str | None = None) -> list[StoredToken]:
        """Return all tokens, oldest first, or those of one tenant."""
        with self._lock:
            tokens = [token for token in self._tokens.values() if tenant is None or token.tenant == tenant]
        return sorted(tokens, key=lambda token: (token.created, token.id))

    @nonblocking
    def state(self, name: str) -> State | None:
        """Return the state of that name."""
        return self._states.get(name)

    @nonblocking
    def states(self, prefix: str) -> Sequence[State]:
        """Return the states whose names begin with `prefix`."""
        with self._lock:
            return [self._states[name] for name in sorted(self._states) if name.startswith(prefix)]

    @nonblocking
    def write_state(self, name: str, value: bytes, number: int) -> bool:
        """Write a state that was read with `number`; False when somebody else wrote it since."""
        with self._lock:
            kept = self._states.get(name)
            if (0 if kept is None else kept.number) != number:
                return False
            self._states[name] = State(name, number + 1, value)
            return True

    @nonblocking
    def close(self) -> None:
        """Do nothing: closing keeps the tokens, as it does in every store."""

    def _put(self, token: StoredToken, event: TokenEvent) -> None:
        digests = {generation.digest for generation in token.generations}
        if len(digests) < len(token.generations) or any(
            self._owners.get(digest, token.id) != token.id for digest in digests
        ):
            raise StoreUnavailable(f"the memory store has a digest of the token {token.id} already")
        self._owners.update(dict.fromkeys(digests, token.id))
        self._tokens[token.id] = token
        self._events.append(event)


def _used(generation: Generation, use: Uses) -> Generation:
    return evolve(
        generation,
        first_used=min(generation.first_used or use.first, use.first),
        last_used=max(generation.last_used or use.last, use.last),
        uses=generation.uses + use.count,
    )
