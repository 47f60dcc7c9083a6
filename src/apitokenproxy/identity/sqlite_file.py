"""The file under an SQLite store: where it is, who may read it, and what SQLite's errors mean.

Rules:
1. SQLite never makes the file: it would take the umask's word for who may read it. It is made here
   with mode 0600, and SQLite gives its `-wal` and `-shm` files the mode of the database.
2. A path is made absolute once, so that a later change of directory opens no other file.
3. A text names the path and what to do, never a statement or its parameters.
"""

import os
import sqlite3
import stat
import time
from contextlib import closing
from urllib.parse import quote

from apitokenproxy.errors import ConfigurationError

_SCHEME = "sqlite:///"
_PAUSE = 0.02  # seconds

_MEANINGS = {
    "SQLITE_NOTADB": "is not an SQLite database; name another path, or move that file away",
    "SQLITE_CORRUPT": "is damaged; restore it from a backup",
    "SQLITE_BUSY": "is locked by another program; stop that program or try again",
    "SQLITE_LOCKED": "is locked by another program; stop that program or try again",
    "SQLITE_READONLY": "cannot be written; give this user write permission on the file and its directory",
    "SQLITE_PERM": "cannot be written; give this user write permission on the file and its directory",
    "SQLITE_CANTOPEN": "cannot be opened; see that it exists and give this user permission on it and its directory",
    "SQLITE_FULL": "cannot grow because the disk is full; make room",
    "SQLITE_CONSTRAINT": "has a token with that id or digest already",
}


def path_of(url: str) -> str:
    """Return the absolute path in `sqlite:///PATH` (relative) or `sqlite:////PATH` (absolute).

    Raises ConfigurationError, without the URL in its text: another kind may hold a password.
    """
    path = url.removeprefix(_SCHEME)
    if path in {url, "", ":memory:"}:
        raise ConfigurationError("store: for tokens that end with the process write memory:, else sqlite:///PATH")
    if "?" in path or "\0" in path:
        raise ConfigurationError("store: sqlite:///PATH takes no options after it")
    return os.path.abspath(path)  # noqa: PTH100 - Path.resolve would follow links


def prepare(path: str, busy_timeout: float) -> None:
    """Make the database file with mode 0600 when it is not there, look at its kind and mode, turn on WAL.

    Raises ConfigurationError for a place where there can be no database, for a file that users
    outside its group may read or write, and for what SQLite cannot open.
    """
    target = os.path.realpath(path)
    try:
        _make(target)
    except FileExistsError:
        _inspect(target)
    except (FileNotFoundError, NotADirectoryError):
        directory = os.path.dirname(target)  # noqa: PTH120 - plain text
        raise ConfigurationError(
            f"store {path}: there is no directory {directory}; make it or name another path"
        ) from None
    except OSError as error:
        raise ConfigurationError(
            f"store {path} cannot be made ({error.strerror}); "
            "give this user write permission on the directory or name another path"
        ) from None
    try:
        _use_wal(target, busy_timeout)
    except sqlite3.Error as error:
        raise ConfigurationError(f"store {path} {meaning(error)}") from None


def _make(path: str) -> None:
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(handle, 0o600)  # whatever the umask took away
    finally:
        os.close(handle)


def _inspect(path: str) -> None:
    # Never by opening: closing a handle would drop the locks that SQLite holds in this process.
    for name in (path, f"{path}-wal", f"{path}-shm"):
        try:
            mode = os.stat(name).st_mode  # noqa: PTH116 - plain text
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ConfigurationError(
                f"store {name} cannot be opened ({error.strerror}); give this user permission on it"
            ) from None
        if stat.S_ISDIR(mode):
            raise ConfigurationError(f"store {name} is a directory; name a file in it, as sqlite:///{name}/tokens.db")
        if not stat.S_ISREG(mode):
            raise ConfigurationError(f"store {name} is not a file; name another path")
        if mode & 0o007:
            raise ConfigurationError(f"store {name} is open to every user of this machine; run: chmod 600 {name}")


def _use_wal(path: str, busy_timeout: float) -> None:
    # SQLite does not wait for a lock here; two processes that start together would collide.
    deadline = time.monotonic() + busy_timeout
    with closing(connect(path, busy_timeout)) as connection:
        while True:
            try:
                mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                    raise
                time.sleep(_PAUSE)
            else:
                if mode == "wal":
                    return
                raise ConfigurationError(
                    f"store {path} is on a file system without shared memory; name a path on a local disk"
                )


def connect(path: str, busy_timeout: float) -> sqlite3.Connection:
    """Return a connection that waits `busy_timeout` seconds for a lock. Raises sqlite3.Error."""
    connection = sqlite3.connect(f"file:{quote(path)}?mode=rw", uri=True, timeout=busy_timeout, check_same_thread=False)
    try:
        connection.execute("PRAGMA foreign_keys = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def meaning(error: BaseException | None) -> str:
    """Return what an error of SQLite says about the file, and what to do, as the rest of a sentence."""
    name = getattr(error, "sqlite_errorname", None) or type(error).__name__
    for prefix, text in _MEANINGS.items():
        if name.startswith(prefix):
            return text
    return f"cannot be used ({name})"
