"""What processes tell each other through the store, and a store that was made before there was that."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from apitokenproxy.errors import StoreUnavailable
from apitokenproxy.identity.sql import SqlStore
from apitokenproxy.identity.stores import open_store
from apitokenproxy.testing import StateStoreConformance
from apitokenproxy.testing.tokens import a_token, add


class TestMemory(StateStoreConformance):
    """In a dictionary."""

    def make(self) -> Any:
        return open_store("memory:")


class TestSqlite(StateStoreConformance):
    """In a file."""

    @pytest.fixture(autouse=True)
    def _in(self, tmp_path: Path) -> None:
        self.directory = tmp_path

    def make(self) -> Any:
        return open_store(f"sqlite:///{self.directory}/tokens.db")


class TestPostgres(StateStoreConformance):
    """In a real server."""

    @pytest.fixture(autouse=True)
    def _in(self, new_postgres: Callable[[], str]) -> None:
        self.new = new_postgres

    def make(self) -> Any:
        return open_store(self.new())


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_store_of_the_version_before_is_brought_up_to_date(
    kind: str, new_postgres: Callable[[], str], tmp_path: Path
) -> None:
    """Its tokens are kept, and states can be written."""
    url = new_postgres() if kind == "postgres" else f"sqlite:///{tmp_path}/tokens.db"
    store = SqlStore(url)
    token = a_token()
    add(store, token)
    store.close()
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE atp_states")
        connection.exec_driver_sql("UPDATE atp_schema SET version_num = '0001'")
    engine.dispose()
    store = SqlStore(url)
    assert store.find(token.id) == token
    assert store.write_state("a", b"1", 0)
    store.close()


COUNTING = """
import sys
from apitokenproxy.identity.sql import SqlStore
store = SqlStore(sys.argv[1])
for _ in range(50):
    while True:
        state = store.state("n")
        if store.write_state("n", str(int(state.value) + 1).encode(), state.number):
            break
store.close()
"""


@pytest.mark.long
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_processes_do_not_overwrite_each_other(kind: str, new_postgres: Callable[[], str], tmp_path: Path) -> None:
    """Three processes count to fifty each: it is a hundred and fifty."""
    url = new_postgres() if kind == "postgres" else f"sqlite:///{tmp_path}/tokens.db"
    store = SqlStore(url)
    store.write_state("n", b"0", 0)
    started = [subprocess.Popen([sys.executable, "-W", "error", "-c", COUNTING, url]) for _ in range(3)]
    assert [process.wait(50) for process in started] == [0, 0, 0]
    state = store.state("n")
    assert state is not None
    assert state.value == b"150"
    store.close()


def test_a_store_that_is_away_says_so(tmp_path: Path) -> None:
    """Every call raises StoreUnavailable, as for tokens."""
    store = SqlStore(f"sqlite:///{tmp_path}/tokens.db")
    for name in list(tmp_path.iterdir()):
        name.unlink()
    tmp_path.rmdir()
    for call in (lambda: store.state("a"), lambda: store.states(""), lambda: store.write_state("a", b"", 0)):
        with pytest.raises(StoreUnavailable):
            call()
    store.close()
    tmp_path.mkdir()
