"""What is PostgreSQL's own: one schema for many processes, waits that end, messages without passwords."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from apitokenproxy.errors import ConfigurationError, StoreUnavailable
from apitokenproxy.identity import tables
from apitokenproxy.identity.schema import bring_up_to_date
from apitokenproxy.identity.sql import SqlStore
from apitokenproxy.testing.tokens import START, a_token, add, revoke
from services import url_of


@contextmanager
def opened(url: str, **options: Any) -> Iterator[SqlStore]:
    store = SqlStore(url, **options)
    try:
        yield store
    finally:
        store.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_the_migrations_make_the_tables_that_the_program_uses(
    kind: str, new_postgres: Callable[[], str], tmp_path: Any
) -> None:
    """Column by column: what alembic makes is what SQLAlchemy is told."""
    url = new_postgres() if kind == "postgres" else f"sqlite:///{tmp_path}/tokens.db"
    with opened(url):
        pass
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "version_table": "atp_schema"})
        assert compare_metadata(context, tables.METADATA) == []
        assert context.get_current_revision() == tables.HEAD
        bring_up_to_date(connection, "again")
    engine.dispose()


TOGETHER = """
import sys
from apitokenproxy.identity.sql import SqlStore
SqlStore(sys.argv[1]).close()
"""


@pytest.mark.long
def test_processes_that_start_together_make_one_schema(new_postgres: Callable[[], str]) -> None:
    """Several workers may find an empty database at the same moment."""
    url = new_postgres()
    started = [subprocess.Popen([sys.executable, "-W", "error", "-c", TOGETHER, url]) for _ in range(4)]
    assert [process.wait(50) for process in started] == [0, 0, 0, 0]
    with opened(url) as store:
        assert (store.changes(), store.list()) == (0, [])


def test_tables_of_the_host_may_stand_beside_ours(new_postgres: Callable[[], str]) -> None:
    """Every name of ours begins with `atp_`, so that an application's own database can hold the tokens."""
    url = new_postgres()
    with psycopg.connect(url) as host:
        for name in ("tokens", "events", "alembic_version"):
            host.execute(f"CREATE TABLE {name} (version_num text)")
        host.execute("INSERT INTO alembic_version VALUES ('ff00')")
    with opened(url) as store:
        add(store, a_token())
        assert len(store.list()) == 1
    with psycopg.connect(url) as host:
        assert host.execute("SELECT version_num FROM alembic_version").fetchall() == [("ff00",)]


def test_a_newer_schema_is_refused(new_postgres: Callable[[], str]) -> None:
    """What a newer version wrote is not guessed at."""
    url = new_postgres()
    with opened(url):
        pass
    with psycopg.connect(url) as other:
        other.execute("UPDATE atp_schema SET version_num = '0099'")
    with pytest.raises(ConfigurationError, match="has schema version 0099, and this apitokenproxy knows version 0002"):
        SqlStore(url)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda server: url_of(server, "nobody_made_this"), "does not have that database"),
        (lambda _: "postgresql://user:hunter2@127.0.0.1:9/tokens", "does not answer; see that the server runs"),
        (lambda _: "postgresql://user:hunter2@name.invalid/tokens", "does not answer; see that the server runs"),
    ],
)
def test_a_database_that_cannot_be_had_is_one_sentence(
    postgres_server: str, change: Callable[[str], str], sentence: str
) -> None:
    """With what to do, and without the password."""
    with pytest.raises(ConfigurationError, match=sentence) as refusal:
        SqlStore(change(postgres_server), busy_timeout=0.5)
    assert "hunter2" not in str(refusal.value)


def test_a_user_without_rights_is_one_sentence(postgres_server: str, new_postgres: Callable[[], str]) -> None:
    """Found at the start and not at the first request."""
    url = new_postgres()
    with psycopg.connect(url) as admin:
        admin.execute("DROP ROLE IF EXISTS atp_reader")
        admin.execute("CREATE ROLE atp_reader LOGIN")
    reader = url.replace("postgresql://postgres:@", "postgresql://atp_reader@")
    try:
        if reader == url:
            pytest.skip("the server's URL names another user, with a password")
        with pytest.raises(ConfigurationError, match="does not let this user make or use the tables"):
            SqlStore(reader)
    finally:
        with psycopg.connect(url) as admin:
            admin.execute("DROP ROLE atp_reader")


def test_a_lock_that_somebody_keeps_is_not_waited_for_for_ever(new_postgres: Callable[[], str]) -> None:
    """Changing fails with a sentence; reading goes on, and so does changing when the lock is gone."""
    url, token = new_postgres(), a_token()
    with opened(url, busy_timeout=0.2) as store, psycopg.connect(url) as other:
        add(store, token)
        other.execute("UPDATE atp_changes SET number = number")
        with pytest.raises(StoreUnavailable, match=r"is locked by another program|took too long"):
            revoke(store, token.id, START)
        assert store.find(token.id) == token
        other.rollback()
        assert revoke(store, token.id, START) is not None


def test_a_connection_that_was_cut_is_replaced(new_postgres: Callable[[], str]) -> None:
    """One call fails as a fault of the store; the next has a new connection."""
    url, token = new_postgres(), a_token()
    with opened(url) as store:
        add(store, token)
        with psycopg.connect(url, autocommit=True) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'apitokenproxy'"
            )
        with pytest.raises(StoreUnavailable) as fault:
            store.find(token.id)
        assert fault.value.detail.startswith("store postgresql://")
        assert store.find(token.id) == token
