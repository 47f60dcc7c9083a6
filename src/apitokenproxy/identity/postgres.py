"""PostgreSQL under an SqlStore, by psycopg 3.

Rules:
1. Every wait is bounded: for a connection, for a statement, for a server that went away without a word.
2. The URL holds a password, so no message shows more of it than host and database.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError

from apitokenproxy.errors import ConfigurationError

_LOCK = 0x617470  # "atp": one number for all of PostgreSQL, taken while the schema is made
_POOL = 8

_MEANINGS = {
    "08": "does not answer; see that the server runs and may be reached",
    "28": "refuses the user or the password; mend them in the URL",
    "3D": "does not have that database; make it, or name another one",
    "42": "does not let this user make or use the tables; grant it that",
    "53": "has no connections or no room left",
    "55": "is locked by another program; stop that program or try again",
    "57": "is shutting down, or took too long to answer",
    "23": "has a token with that id or digest already",
}
"""By the class of SQLSTATE (PostgreSQL, "Error Codes")."""


class Postgres:
    """The database at `postgresql://user:password@host/database`. Raises ConfigurationError."""

    def __init__(self, url: str, busy_timeout: float) -> None:
        parsed = _parsed(url)
        if parsed is None or parsed.drivername not in {"postgresql", "postgresql+psycopg"} or not parsed.database:
            raise ConfigurationError("store: write memory:, sqlite:///PATH or postgresql://USER:PASSWORD@HOST/DATABASE")
        self._url = parsed.set(drivername="postgresql+psycopg")
        self.name = f"postgresql://{parsed.host or ''}/{parsed.database}"
        self._milliseconds = max(1, int(busy_timeout * 1000))

    def prepare(self) -> None:
        """See that the driver is there. Raises ConfigurationError."""
        try:
            import psycopg  # noqa: F401, PLC0415 - an extra of its own
        except ImportError:
            raise ConfigurationError("store: PostgreSQL needs psycopg; install apitokenproxy[postgres]") from None

    def make_engine(self) -> sa.Engine:
        """Return an engine of this process."""
        wait = self._milliseconds
        return sa.create_engine(
            self._url,
            pool_size=_POOL,
            max_overflow=0,
            pool_timeout=wait / 1000,
            pool_use_lifo=True,
            hide_parameters=True,
            connect_args={
                "connect_timeout": max(2, wait // 1000),  # what libpq allows at least
                "tcp_user_timeout": wait,
                "options": f"-c statement_timeout={wait} -c lock_timeout={wait} -c timezone=UTC",
                "application_name": "apitokenproxy",
            },
        )

    @contextmanager
    def alone(self, engine: sa.Engine) -> Iterator[sa.Connection]:
        """Yield a connection that holds a lock of the whole server until the transaction ends."""
        with engine.begin() as connection:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            yield connection

    def meaning(self, error: Exception) -> str:
        """Return what an error says, and what to do, as the rest of a sentence."""
        cause = error.orig if isinstance(error, DBAPIError) else error
        state = getattr(cause, "sqlstate", None) or _state_of_refusal(str(cause))
        return _MEANINGS.get(state[:2], f"cannot be used (SQLSTATE {state})")


def _state_of_refusal(text: str) -> str:
    """Return the SQLSTATE of a connection that was not made: libpq tells it in words alone."""
    if "authentication" in text or "pg_hba.conf" in text or "role" in text:
        return "28000"
    return "3D000" if "database" in text and "does not exist" in text else "08001"


def _parsed(url: str) -> sa.URL | None:
    try:
        return sa.make_url(url)
    except (ArgumentError, ValueError):  # a port that is no number, for one
        return None
