"""SqlStore: client tokens in an SQL database. The only module that imports SQLAlchemy.

Rules:
1. Values reach SQL as parameters only. Neither they nor a digest show in SQLAlchemy's log or errors.
2. An engine is made lazily and belongs to one process: a forked child makes its own and neither
   uses nor closes what it inherited (SQLite: "How To Corrupt", 2.6).
3. A statement that writes comes first in its transaction: SQLite waits for the write lock only there.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial

from apitokenproxy.errors import ConfigurationError, StoreUnavailable
from apitokenproxy.identity import rows, sqlite_file
from apitokenproxy.interfaces import StoredToken
from apitokenproxy.messages import Hidden

try:
    import sqlalchemy as sa
    from sqlalchemy.exc import DBAPIError, InvalidRequestError, OperationalError, SQLAlchemyError
    from sqlalchemy.pool import QueuePool
except ImportError:
    raise ConfigurationError("store: an SQL store needs SQLAlchemy; install apitokenproxy[sql]") from None

_VERSION = 1


class _Digest(sa.TypeDecorator[bytes]):
    """A digest; SQLAlchemy logs the rows it reads at DEBUG, so what it reads is hidden."""

    impl = sa.LargeBinary(32)
    cache_ok = True

    def process_result_value(self, value: bytes | None, _dialect: sa.Dialect) -> bytes | None:
        return None if value is None else Hidden(value)


# `rows` says what stands in the columns.
_METADATA = sa.MetaData()
_META = sa.Table(
    "meta",
    _METADATA,
    sa.Column("name", sa.String(32), primary_key=True),
    sa.Column("value", sa.String(64), nullable=False),
)
_TOKENS = sa.Table(
    "tokens",
    _METADATA,
    sa.Column("id", sa.String(12), primary_key=True),
    sa.Column("tenant", sa.String(128), nullable=False, index=True),
    sa.Column("subject", sa.String(256), nullable=False),
    sa.Column("scopes", sa.Text, nullable=False),
    sa.Column("attributes", sa.Text, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("expires", sa.BigInteger),
    sa.Column("revoked", sa.BigInteger),
)
_GENERATIONS = sa.Table(
    "generations",
    _METADATA,
    sa.Column("token_id", sa.ForeignKey("tokens.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("digest", _Digest, nullable=False, unique=True),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("retired", sa.BigInteger),
)
_SELECT = sa.select(
    _TOKENS,
    _GENERATIONS.c.number,
    _GENERATIONS.c.digest,
    _GENERATIONS.c.created.label("generation_created"),
    _GENERATIONS.c.retired,
).outerjoin_from(_TOKENS, _GENERATIONS)
_FIND = _SELECT.where(_TOKENS.c.id == sa.bindparam("token_id")).order_by(_GENERATIONS.c.number)
_LIST = _SELECT.order_by(_TOKENS.c.created, _TOKENS.c.id, _GENERATIONS.c.number)
_REVOKE = (
    sa.update(_TOKENS)
    .where(_TOKENS.c.id == sa.bindparam("token_id"), _TOKENS.c.revoked.is_(None))
    .values(revoked=sa.bindparam("moment"))
)
_READ_VERSION = sa.select(_META.c.value).where(_META.c.name == "schema")


class SqlStore:
    """A TokenStore in an SQLite database: `sqlite:///relative/path.db` or `sqlite:////absolute/path.db`.

    Building one tries it: the file is made when it is not there (mode 0600) and the schema with it.
    Nothing stays open. `busy_timeout` (seconds) is how long a call waits for another program's lock.

    Building raises ConfigurationError with one sentence that says what to do; methods raise
    StoreUnavailable.
    """

    def __init__(self, url: str, *, busy_timeout: float = 5.0) -> None:
        self._path = sqlite_file.path_of(url)
        self._busy_timeout = busy_timeout
        self._engines: dict[int, sa.Engine] = {}
        sqlite_file.prepare(self._path, busy_timeout)
        try:
            self._try()
        except SQLAlchemyError as error:
            raise ConfigurationError(f"store {self._path} {_meaning(error)}") from None
        finally:
            self.close()

    def find(self, token_id: str) -> StoredToken | None:
        """Return the token with that id. Raises StoreUnavailable."""
        with self._translated(), self._engine().connect() as connection:
            return rows.one(connection.execute(_FIND, {"token_id": token_id}))

    def add(self, token: StoredToken) -> None:
        """Keep a new token. Raises StoreUnavailable, also when its id or a digest is there already."""
        row, generations = rows.of(token)
        with self._translated(), self._engine().begin() as connection:
            connection.execute(_TOKENS.insert(), row)
            if generations:
                connection.execute(_GENERATIONS.insert(), generations)

    def revoke(self, token_id: str, when: datetime) -> StoredToken | None:
        """Mark it revoked (the first time stays) and return it; None when there is none.

        Raises StoreUnavailable.
        """
        with self._translated(), self._engine().begin() as connection:
            connection.execute(_REVOKE, {"token_id": token_id, "moment": rows.micros(when)})
            return rows.one(connection.execute(_FIND, {"token_id": token_id}))

    def list(self, tenant: str | None = None) -> list[StoredToken]:
        """Return all tokens, oldest first, or those of one tenant. Raises StoreUnavailable."""
        statement = _LIST if tenant is None else _LIST.where(_TOKENS.c.tenant == tenant)
        with self._translated(), self._engine().connect() as connection:
            return rows.tokens(connection.execute(statement))

    def close(self) -> None:
        """Close this process's connections. A later call opens new ones."""
        engine = self._engines.pop(os.getpid(), None)
        if engine is not None:
            engine.dispose()

    def _engine(self) -> sa.Engine:
        # No lock, which a fork could leave locked: of two engines made at once one is never used.
        pid = os.getpid()
        engine = self._engines.get(pid)
        return engine if engine is not None else self._engines.setdefault(pid, self._make_engine())

    def _make_engine(self) -> sa.Engine:
        return sa.create_engine(
            "sqlite://",
            creator=partial(sqlite_file.connect, self._path, self._busy_timeout),
            poolclass=QueuePool,
            pool_size=8,
            max_overflow=-1,  # a connection a thread at most: the server's threads are the bound
            pool_use_lifo=True,
            hide_parameters=True,
        )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, OSError) as error:
            raise StoreUnavailable(f"store {self._path} {_meaning(error)}") from None

    # --- the schema -------------------------------------------------------------------------

    def _try(self) -> None:
        with self._engine().connect() as plain:
            connection = plain.execution_options(isolation_level="AUTOCOMMIT")
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # of several processes, one makes the schema
            present = set(sa.inspect(connection).get_table_names()).intersection(_METADATA.tables)
            if present:
                self._check_schema(connection, present)
            else:
                _METADATA.create_all(connection, checkfirst=False)
                connection.execute(_META.insert(), {"name": "schema", "value": str(_VERSION)})
            connection.exec_driver_sql("COMMIT")

    def _check_schema(self, connection: sa.Connection, present: set[str]) -> None:
        version = _version(connection) if _META.name in present else None
        if version is not None and version > _VERSION:
            raise ConfigurationError(
                f"store {self._path} has schema version {version}, and this apitokenproxy knows version {_VERSION}; "
                "upgrade apitokenproxy or name another path"
            )
        if version != _VERSION or present != set(_METADATA.tables):
            raise ConfigurationError(f"store {self._path} belongs to another program; name another path")
        # Changes nothing, and fails where SQLite had to open the file read-only.
        connection.execute(sa.update(_META).where(sa.false()).values(value=str(_VERSION)))


def _version(connection: sa.Connection) -> int | None:
    try:
        return int(connection.execute(_READ_VERSION).scalar_one())
    except (OperationalError, InvalidRequestError, ValueError):  # another program's columns, no row, no number
        return None


def _meaning(error: Exception) -> str:
    return sqlite_file.meaning(error.orig if isinstance(error, DBAPIError) else error)
