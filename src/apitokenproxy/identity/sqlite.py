"""SQLite under an SqlStore."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from apitokenproxy.errors import ConfigurationError
from apitokenproxy.identity import sqlite_file


class SqliteFile:
    """The database at `sqlite:///PATH`. Raises ConfigurationError."""

    def __init__(self, url: str, busy_timeout: float) -> None:
        self.name = sqlite_file.path_of(url)
        self._busy_timeout = busy_timeout

    def prepare(self) -> None:
        """Make the file, look at its kind and mode, turn on WAL. Raises ConfigurationError."""
        sqlite_file.prepare(self.name, self._busy_timeout)

    def make_engine(self) -> sa.Engine:
        """Return an engine of this process."""
        return sa.create_engine(
            "sqlite://",
            creator=partial(sqlite_file.connect, self.name, self._busy_timeout),
            poolclass=QueuePool,
            pool_size=8,
            max_overflow=-1,  # a connection a thread at most: the server's threads are the bound
            pool_use_lifo=True,
            hide_parameters=True,
        )

    @contextmanager
    def alone(self, engine: sa.Engine) -> Iterator[sa.Connection]:
        """Yield a connection that holds the write lock, once the file was found whole."""
        with engine.connect() as plain:
            connection = plain.execution_options(isolation_level="AUTOCOMMIT")
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            if connection.exec_driver_sql("PRAGMA quick_check(1)").scalar() != "ok":
                raise ConfigurationError(f"store {self.name} is damaged; restore it from a backup")
            yield connection
            connection.exec_driver_sql("COMMIT")

    def meaning(self, error: Exception) -> str:
        """Return what an error says, and what to do, as the rest of a sentence."""
        return sqlite_file.meaning(error.orig if isinstance(error, DBAPIError) else error)
