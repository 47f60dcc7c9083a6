"""What can go wrong with a file, and who may read it."""

import logging
import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from apitokenproxy.errors import ConfigurationError, StoreUnavailable
from apitokenproxy.identity.format import digest, mint
from apitokenproxy.identity.sql import SqlStore
from apitokenproxy.interfaces import Generation, StoredToken
from apitokenproxy.testing.tokens import add, revoke

NOW = datetime(2026, 11, 24, tzinfo=UTC)
NOBODY = 65534


def a_token(tenant: str = "acme") -> StoredToken:
    identifier, token = mint()
    return StoredToken(identifier, tenant, NOW, generations=(Generation(1, digest(token.encode()), NOW),))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.db"


@contextmanager
def opened(path: Path, **options) -> Iterator[SqlStore]:
    store = SqlStore(f"sqlite:///{path}", **options)
    try:
        yield store
    finally:
        store.close()


@contextmanager
def unprivileged() -> Iterator[Path]:
    """Yield a directory of an ordinary user, and be that user: root may do anything, so it proves nothing."""
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as name:
        if root:
            os.chown(name, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        try:
            yield Path(name)
        finally:
            if root:
                os.seteuid(0)


def refusal(path: Path | str) -> str:
    with pytest.raises(ConfigurationError) as error:
        SqlStore(f"sqlite:///{path}")
    return str(error.value)


def modes(path: Path) -> dict[str, str]:
    return {each.name: oct(stat.S_IMODE(each.stat().st_mode)) for each in path.parent.iterdir()}


def run_script(script: str, *arguments: object) -> str:
    command = [sys.executable, "-W", "error", "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


# --- who may read it ------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o277])
def test_only_the_owner_may_read_the_files(path: Path, umask: int) -> None:
    """The database and SQLite's own two files have mode 0600 under every umask."""
    before = os.umask(umask)
    try:
        with opened(path) as store:
            add(store, a_token())
            assert modes(path) == {"tokens.db": "0o600", "tokens.db-wal": "0o600", "tokens.db-shm": "0o600"}
    finally:
        os.umask(before)


@pytest.mark.parametrize("mode", [0o604, 0o602])
@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
def test_a_file_that_everybody_may_read_or_write_is_refused(path: Path, suffix: str, mode: int) -> None:
    """Its mode is not quietly repaired: somebody should know that it was open."""
    with opened(path) as store:
        add(store, a_token())
        name = path.with_name(path.name + suffix)
        name.chmod(mode)
        assert refusal(path) == f"store {name} is open to every user of this machine; run: chmod 600 {name}"


def test_a_file_shared_with_a_group_is_accepted(path: Path) -> None:
    """Kubernetes gives volumes to a group at every mount; a group is somebody's decision."""
    with opened(path):
        pass
    path.chmod(0o660)
    with opened(path) as store:
        assert store.list() == []


def test_neither_digests_nor_parameters_are_logged(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Also when somebody turns on SQLAlchemy's own log in full."""
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "sqlalchemy")
    caplog.set_level(logging.DEBUG, "sqlalchemy.engine")
    token = a_token("tenant-in-a-parameter")
    with opened(path) as store:
        add(store, token)
        assert "INSERT INTO atp_generations" in caplog.text
        assert "tenant-in-a-parameter" not in caplog.text
        store.find(token.id)
        store.list()
        with pytest.raises(StoreUnavailable) as error:
            add(store, token)
    material = token.generations[0].digest
    assert "Row" in caplog.text
    for form in (repr(material)[2:-1], material.hex(), repr(bytes(material[:8]))[2:-1]):
        assert form not in caplog.text + str(error.value) + repr(error.value)


# --- what cannot be opened ------------------------------------------------------------------


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    """One sentence says what is missing and what to do, and nothing is made."""
    path = tmp_path / "no" / "tokens.db"
    assert refusal(path) == f"store {path}: there is no directory {path.parent}; make it or name another path"
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_a_directory_is_named(tmp_path: Path) -> None:
    """A path below a file cannot be."""
    (tmp_path / "file").touch()
    assert f"there is no directory {tmp_path}/file" in refusal(tmp_path / "file" / "tokens.db")


def test_a_directory_is_no_database(tmp_path: Path) -> None:
    """The sentence shows what a right path would look like."""
    assert f"is a directory; name a file in it, as sqlite:///{tmp_path}/tokens.db" in refusal(tmp_path)


def test_a_pipe_is_no_database(tmp_path: Path) -> None:
    """What is not a regular file is not opened, so nothing waits for a writer."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert "is not a file" in refusal(tmp_path / "pipe")


def test_a_link_to_nowhere_makes_the_file_that_it_names(tmp_path: Path) -> None:
    """SQLite would follow the link and make the file under the umask; here it has mode 0600."""
    (tmp_path / "link.db").symlink_to(tmp_path / "real.db")
    with opened(tmp_path / "link.db"):
        assert oct(stat.S_IMODE((tmp_path / "real.db").stat().st_mode)) == "0o600"


def test_a_file_that_is_not_sqlite_is_left_alone(path: Path) -> None:
    """Somebody's notes are neither opened nor overwritten."""
    path.write_bytes(b"not a database, but somebody's notes\n" * 100)
    path.chmod(0o600)
    before = path.read_bytes()
    assert refusal(path) == f"store {path} is not an SQLite database; name another path, or move that file away"
    assert path.read_bytes() == before


def test_a_damaged_database_is_named(path: Path) -> None:
    """A torn file refuses to open instead of losing tokens silently."""
    with opened(path) as store:
        for _ in range(200):
            add(store, a_token())
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + b"\xff" * (len(whole) - 100))
    assert "is damaged; restore it from a backup" in refusal(path)


def test_a_database_of_another_program_is_left_alone(path: Path) -> None:
    """A table with a name of ours that this package did not make is not written to."""
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("CREATE TABLE atp_tokens (id, value)")
    path.chmod(0o600)
    assert "lacks tables of ours, or their version" in refusal(path)


def test_other_tables_may_live_in_the_same_database(path: Path) -> None:
    """A host application's own database can hold the tokens too."""
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("CREATE TABLE users (id)")
    path.chmod(0o600)
    with opened(path) as store:
        assert store.list() == []


@pytest.mark.parametrize("version", ["0003", "0099"])
def test_a_newer_schema_is_refused(path: Path, version: str) -> None:
    """What a newer version wrote is not guessed at."""
    with opened(path):
        pass
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("UPDATE atp_schema SET version_num = ?", (version,))
    expected = f"has schema version {version}, and this apitokenproxy knows version 0002; upgrade apitokenproxy"
    assert expected in refusal(path)


@pytest.mark.parametrize("change", ["DELETE FROM atp_schema", "DROP TABLE atp_generations", "DROP TABLE atp_schema"])
def test_a_schema_that_is_not_whole_is_refused(path: Path, change: str) -> None:
    """A database that only looks like ours is not written to."""
    with opened(path):
        pass
    with closing(sqlite3.connect(path)) as other, other:
        other.execute(change)
    assert "lacks tables of ours, or their version; restore it from a backup" in refusal(path)


def test_a_directory_without_write_permission_is_named() -> None:
    """No file can be made there."""
    with unprivileged() as directory:
        directory.chmod(0o500)
        assert refusal(directory / "tokens.db") == (
            f"store {directory}/tokens.db cannot be made (Permission denied); "
            "give this user write permission on the directory or name another path"
        )


def test_a_read_only_directory_with_a_database_is_named() -> None:
    """SQLite needs its two other files beside the database."""
    with unprivileged() as directory:
        with opened(directory / "tokens.db"):
            pass
        directory.chmod(0o500)
        assert "give this user" in refusal(directory / "tokens.db")


@pytest.mark.parametrize("mode", [0o400, 0o000])
def test_a_file_without_permission_is_named(mode: int) -> None:
    """The sentence says which permission is missing, at the start and not at the first request."""
    with unprivileged() as directory:
        path = directory / "tokens.db"
        with opened(path):
            pass
        path.chmod(mode)
        assert "give this user" in refusal(path)


def test_a_path_without_search_permission_is_named() -> None:
    """A directory that cannot be entered hides even whether the file is there."""
    with unprivileged() as directory:
        with opened(directory / "tokens.db"):
            pass
        directory.chmod(0o000)
        assert "Permission denied" in refusal(directory / "tokens.db")


def test_without_sqlalchemy_the_extra_is_named() -> None:
    """The core works without it, and its absence says what to install."""
    script = (
        "import sys; sys.modules['sqlalchemy'] = None\n"
        "from apitokenproxy.errors import ConfigurationError\n"
        "from apitokenproxy.identity.stores import open_store\n"
        "open_store('memory:')\n"
        "try: open_store('sqlite:///x.db')\n"
        "except ConfigurationError as error: print(error)\n"
    )
    assert run_script(script) == "store: an SQL store needs SQLAlchemy; install apitokenproxy[sql]\n"


# --- what goes wrong later ------------------------------------------------------------------


def test_a_locked_database_is_named_when_built(path: Path) -> None:
    """A store that cannot be written is found at the start."""
    with opened(path):
        pass
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ConfigurationError, match="is locked by another program"):
            SqlStore(f"sqlite:///{path}", busy_timeout=0.05)


def test_writing_past_the_busy_timeout_is_a_fault_of_the_store(path: Path) -> None:
    """A lock that somebody keeps makes issuing and revoking fail, with a sentence; reading goes on."""
    token = a_token()
    with opened(path, busy_timeout=0.05) as store, closing(sqlite3.connect(path, isolation_level=None)) as other:
        add(store, token)
        other.execute("BEGIN IMMEDIATE")
        for write in (lambda: add(store, a_token()), lambda: revoke(store, token.id, NOW)):
            with pytest.raises(StoreUnavailable) as error:
                write()
            assert error.value.detail == f"store {path} is locked by another program; stop that program or try again"
        assert store.find(token.id) == token
        other.execute("ROLLBACK")
        assert revoke(store, token.id, NOW).revoked == NOW


def test_reading_past_the_busy_timeout_is_a_fault_of_the_store(path: Path) -> None:
    """A database that another program keeps for itself is never "no such token"."""
    with opened(path, busy_timeout=0.05) as store, closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        for read in (lambda: store.find("000000000000"), store.list):
            with pytest.raises(StoreUnavailable, match="is locked by another program"):
                read()


def test_a_short_lock_is_waited_for(path: Path) -> None:
    """Somebody's short transaction makes nothing fail."""
    with opened(path) as store, closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        waiting = threading.Timer(0.1, lambda: other.execute("COMMIT"))
        waiting.start()
        token = a_token()
        add(store, token)
        waiting.join()
        assert store.list() == [token]


def test_a_short_lock_is_waited_for_when_built(path: Path) -> None:
    """SQLite itself does not wait for a lock when it turns on WAL."""
    path.touch(0o600)
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("CREATE TABLE users (id)")
        waiting = threading.Timer(0.1, lambda: other.execute("COMMIT"))
        waiting.start()
        with opened(path) as store:
            assert store.list() == []
        waiting.join()


def test_a_database_that_disappears_is_a_fault_of_the_store(path: Path) -> None:
    """No empty database takes its place, in which every token would be unknown."""
    with opened(path) as store:
        path.unlink()
        with pytest.raises(StoreUnavailable, match="cannot be opened"):
            store.find("000000000000")
        assert not path.exists()


@pytest.mark.parametrize(("column", "value"), [("scopes", "{"), ("created", "soon"), ("attributes", "")])
def test_a_row_that_somebody_broke_is_a_fault_of_the_store(path: Path, column: str, value: str) -> None:
    """What cannot be read is not guessed at."""
    token = a_token()
    with opened(path) as store:
        add(store, token)
        with closing(sqlite3.connect(path)) as other, other:
            other.execute(f"UPDATE atp_tokens SET {column} = ?", (value,))  # noqa: S608 - the table above
        with pytest.raises(StoreUnavailable, match="damaged row"):
            store.find(token.id)


def test_a_relative_path_is_taken_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sqlite:///x.db` is in the directory where the store was built, also after a change of directory."""
    monkeypatch.chdir(tmp_path)
    store = SqlStore("sqlite:///x.db")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    token = a_token()
    add(store, token)
    store.close()
    assert [each.name for each in tmp_path.iterdir() if each.is_file()] == ["x.db"]
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("name", ["a b.db", "100%25.db", "#1.db", "Größe.db", "file:x.db", "a&b=c.db"])
def test_odd_names_are_taken_literally(tmp_path: Path, name: str) -> None:
    """A path is no URL: nothing in it is decoded."""
    with opened(tmp_path / name) as store:
        add(store, a_token())
    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_building_leaves_nothing_open(path: Path) -> None:
    """A server that builds the proxy and then forks gives its children no connection."""
    SqlStore(f"sqlite:///{path}")
    assert [each.path for each in psutil.Process().open_files() if "tokens.db" in each.path] == []


FORK = """
import os, sys
from datetime import UTC, datetime
from apitokenproxy.identity.sql import SqlStore
from apitokenproxy.interfaces import StoredToken, TokenEvent
store = SqlStore("sqlite:///" + sys.argv[1])
now = datetime.now(UTC)
def add(store, token): store.add(token, TokenEvent(token.id, now, "", "issue"))
add(store, StoredToken("parent000000", "t", now))
engine = store._engine()
children = []
for number in range(4):
    child = os.fork()
    if child == 0:
        ok = store.find("parent000000") is not None and store._engine() is not engine
        for turn in range(20):
            add(store, StoredToken(f"c{number:03}{turn:08}", "t", now))
        store.close()
        os._exit(0 if ok else 1)
    children.append(child)
for turn in range(20):
    add(store, StoredToken(f"p000{turn:08}", "t", now))
ended = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
print(ended, len(store.list()), store._engine() is engine)
store.close()
"""


def test_a_forked_child_makes_its_own_connections(path: Path) -> None:
    """A server that forks after its first request loses no write and shares no connection."""
    assert run_script(FORK, path) == "[0, 0, 0, 0] 101 True\n"
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


START_TOGETHER = """
import os, sys
from apitokenproxy.identity.sql import SqlStore
children = []
for _ in range(6):
    child = os.fork()
    if child == 0:
        try:
            SqlStore("sqlite:///" + sys.argv[1])
        except BaseException as error:
            print(error, flush=True)
            os._exit(1)
        os._exit(0)
    children.append(child)
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""


def test_processes_that_start_together_make_one_schema(path: Path) -> None:
    """Several workers may find no database at the same moment."""
    assert run_script(START_TOGETHER, path) == "[0, 0, 0, 0, 0, 0]\n"
    with opened(path) as store:
        assert store.list() == []
