"""Opening a token store by its URL."""

from pathlib import Path
from typing import cast

from apitokenproxy.errors import ConfigurationError
from apitokenproxy.identity import sqlite_file
from apitokenproxy.identity.memory import MemoryStore
from apitokenproxy.interfaces import StateStore, TokenStore
from apitokenproxy.messages import HiddenText


def open_store(url: str) -> TokenStore:
    """Return the store that `url` names: `memory:`, `sqlite:///PATH` or `postgresql://USER:PASSWORD@HOST/DATABASE`.

    An SQL store is tried, and its file and tables made when they are not there; nothing stays open.
    Raises ConfigurationError, without the URL in its text: one may hold a password.
    """
    url = HiddenText(url)
    if url == "memory:":
        return MemoryStore()
    if ":" not in url:
        raise ConfigurationError(
            "store is not a URL; write memory:, sqlite:///PATH or postgresql://USER:PASSWORD@HOST/DATABASE"
        )
    from apitokenproxy.identity.sql import SqlStore  # noqa: PLC0415 - needs the extra `sql`

    return SqlStore(url)


def states_in(store: TokenStore) -> StateStore:
    """Return where processes that share the store keep their states: there, or where it keeps none in this process."""
    return cast("StateStore", store) if hasattr(store, "write_state") else MemoryStore()


def is_there(url: str) -> bool:
    """Tell whether there is such a store, or must be asked elsewhere: False for an SQLite file that would be made.

    Raises ConfigurationError.
    """
    return not url.startswith("sqlite:") or Path(sqlite_file.path_of(HiddenText(url))).exists()


def name_of(url: str) -> str:
    """Return what a store is called where it is told to people: with neither user nor password nor options.

    Raises ConfigurationError for what is no URL of a store.
    """
    url = HiddenText(url)
    if url == "memory:" or url.startswith("sqlite:"):
        return url
    from apitokenproxy.identity.postgres import Postgres  # noqa: PLC0415 - needs the extra `sql`

    return Postgres(url, 0.0).name
