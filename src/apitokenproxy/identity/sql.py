"""SqlStore: client tokens in an SQL database, SQLite or PostgreSQL.

Rules:
1. Values reach SQL as parameters only. Neither they nor a digest show in SQLAlchemy's log or errors.
2. An engine is made lazily and belongs to one process: a forked child makes its own and neither
   uses nor closes what it inherited (SQLite: "How To Corrupt", 2.6).
3. A change counts itself first: that takes the write lock of SQLite, and in PostgreSQL that of the one
   row that holds the count. So what it then reads is what it replaces.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from apitokenproxy.errors import ConfigurationError, StoreUnavailable
from apitokenproxy.identity import rows
from apitokenproxy.interfaces import Edit, Generation, State, StoredToken, TokenEvent, Uses
from apitokenproxy.messages import HiddenText

try:
    import sqlalchemy as sa
    from sqlalchemy.exc import IntegrityError, SQLAlchemyError

    from apitokenproxy.identity import tables
    from apitokenproxy.identity.postgres import Postgres
    from apitokenproxy.identity.schema import bring_up_to_date
    from apitokenproxy.identity.sqlite import SqliteFile
except ImportError:
    raise ConfigurationError("store: an SQL store needs SQLAlchemy; install apitokenproxy[sql]") from None


class Database(Protocol):
    """A kind of database. `name` is what it is called in messages; it holds no password."""

    name: str

    def prepare(self) -> None:
        """Make what must be there before the first connection. Raises ConfigurationError."""

    def make_engine(self) -> sa.Engine:
        """Return an engine of this process."""

    def alone(self, engine: sa.Engine) -> AbstractContextManager[sa.Connection]:
        """Return a connection in a transaction that no other process may hold at the same time."""

    def meaning(self, error: Exception) -> str:
        """Return what an error says, and what to do, as the rest of a sentence."""


class SqlStore:
    """A TokenStore and StateStore at `sqlite:///relative/path.db`, `sqlite:////absolute/path.db` or `postgresql://user:pw@host/db`.

    Building one tries it: an SQLite file is made when it is not there (mode 0600), and the schema is
    made or brought up to date. Nothing stays open. `busy_timeout` (seconds) is how long a call waits
    for another program's lock.

    Building raises ConfigurationError with one sentence that says what to do; methods raise
    StoreUnavailable.
    """

    def __init__(self, url: str, *, busy_timeout: float = 5.0) -> None:
        url = HiddenText(url)
        kind = SqliteFile if url.startswith("sqlite:") else Postgres
        self._database: Database = kind(url, busy_timeout)
        self._engines: dict[int, sa.Engine] = {}
        self._database.prepare()
        try:
            with self._database.alone(self._engine()) as connection:
                bring_up_to_date(connection, self._database.name)
        except SQLAlchemyError as error:
            raise ConfigurationError(f"store {self._database.name} {self._database.meaning(error)}") from None
        finally:
            self.close()

    def find(self, token_id: str) -> StoredToken | None:
        """Return the token with that id. Raises StoreUnavailable."""
        with self._connection() as connection:
            return rows.one(connection.execute(tables.FIND, {"token_id": token_id}))

    def add(self, token: StoredToken, event: TokenEvent) -> None:
        """Keep a new token. Raises StoreUnavailable, also when its id or a digest is there already."""
        row, generations = rows.of(token)
        with self._connection() as connection:
            connection.execute(tables.TOKENS.insert(), row)
            if generations:
                connection.execute(tables.GENERATIONS.insert(), generations)
            connection.execute(tables.EVENTS.insert(), rows.of_event(event))
            connection.commit()

    def change(self, token_id: str, edit: Edit) -> StoredToken | None:
        """Apply `edit` to a token and return what it is now; None when there is none. Raises StoreUnavailable."""
        with self._connection() as connection:
            connection.execute(tables.COUNT)
            token = rows.one(connection.execute(tables.FIND, {"token_id": token_id}))
            edited = None if token is None else edit(token)
            if token is None or edited is None:
                return token
            after, event = edited
            row, _ = rows.of(after)
            connection.execute(tables.UPDATE_TOKEN, {"token_id": row.pop("id"), **row})
            self._change_generations(connection, token, after.generations)
            connection.execute(tables.EVENTS.insert(), rows.of_event(event))
            connection.commit()
            return after

    def _change_generations(self, connection: sa.Connection, token: StoredToken, after: Sequence[Generation]) -> None:
        before = {generation.number: generation for generation in token.generations}
        for generation in after:
            row = rows.of_generation(token.id, generation)
            if generation.number not in before:
                connection.execute(tables.GENERATIONS.insert(), row)
            elif generation != before[generation.number]:
                where = {"of": row.pop("token_id"), "at": row.pop("number")}
                connection.execute(tables.UPDATE_GENERATION, where | row)

    def delete(self, token_id: str, event: TokenEvent) -> bool:
        """Remove a token but not its events; False when there is none. Raises StoreUnavailable."""
        with self._connection() as connection:
            connection.execute(tables.COUNT)
            if not connection.execute(tables.DELETE, {"token_id": token_id}).rowcount:
                return False
            connection.execute(tables.EVENTS.insert(), rows.of_event(event))
            connection.commit()
            return True

    def changes(self) -> int:
        """Return a number that every change makes another. Raises StoreUnavailable."""
        with self._connection() as connection:
            return int(connection.execute(tables.READ_CHANGES).scalar_one())

    def note(self, uses: Sequence[Uses]) -> None:
        """Add to the counts of generations, those that are still there. Raises StoreUnavailable."""
        with self._connection() as connection:
            if uses:
                connection.execute(tables.NOTE, [rows.of_uses(one) for one in uses])
                connection.commit()

    def events(self, token_id: str) -> list[TokenEvent]:
        """Return what was done to a token, oldest first. Raises StoreUnavailable."""
        with self._connection() as connection:
            return [rows.event(row) for row in connection.execute(tables.READ_EVENTS, {"token_id": token_id})]

    def list(self, tenant: str | None = None) -> list[StoredToken]:
        """Return all tokens, oldest first, or those of one tenant. Raises StoreUnavailable."""
        statement = tables.LIST if tenant is None else tables.LIST.where(tables.TOKENS.c.tenant == tenant)
        with self._connection() as connection:
            return rows.tokens(connection.execute(statement))

    def state(self, name: str) -> State | None:
        """Return the state of that name. Raises StoreUnavailable."""
        with self._connection() as connection:
            row = connection.execute(tables.READ_STATE, {"state": name}).first()
        return None if row is None else State(row.name, row.number, row.value)

    def states(self, prefix: str) -> Sequence[State]:
        """Return the states whose names begin with `prefix`. Raises StoreUnavailable."""
        with self._connection() as connection:
            found = connection.execute(tables.READ_STATES, {"prefix": prefix}).all()
        return sorted((State(row.name, row.number, row.value) for row in found), key=lambda state: state.name)

    def write_state(self, name: str, value: bytes, number: int) -> bool:
        """Write a state that was read with `number`; False when somebody else did since. Raises StoreUnavailable."""
        with self._connection() as connection:
            try:
                if not number:
                    connection.execute(tables.STATES.insert(), {"name": name, "number": 1, "value": value})
                else:
                    parameters = {"state": name, "read": number, "value": value}
                    if not connection.execute(tables.WRITE_STATE, parameters).rowcount:
                        return False
            except IntegrityError:  # somebody else wrote the first one
                return False
            connection.commit()
        return True

    def close(self) -> None:
        """Close this process's connections. A later call opens new ones."""
        engine = self._engines.pop(os.getpid(), None)
        if engine is not None:
            engine.dispose()

    def _engine(self) -> sa.Engine:
        # No lock, which a fork could leave locked: of two engines made at once one is never used.
        pid = os.getpid()
        engine = self._engines.get(pid)
        return engine if engine is not None else self._engines.setdefault(pid, self._database.make_engine())

    @contextmanager
    def _connection(self) -> Iterator[sa.Connection]:
        """Yield a connection; what is not committed is undone."""
        try:
            with self._engine().connect() as connection:
                yield connection
        except (SQLAlchemyError, OSError) as error:
            raise StoreUnavailable(f"store {self._database.name} {self._database.meaning(error)}") from None
