"""Opening a token store by its URL."""

from apitokenproxy.errors import ConfigurationError
from apitokenproxy.identity.memory import MemoryStore
from apitokenproxy.interfaces import TokenStore


def open_store(url: str) -> TokenStore:
    """Return the store that `url` names: `memory:`, `sqlite:///PATH` or `postgresql://USER:PASSWORD@HOST/DATABASE`.

    An SQL store is tried, and its file and tables made when they are not there; nothing stays open.
    Raises ConfigurationError, without the URL in its text: one may hold a password.
    """
    if url == "memory:":
        return MemoryStore()
    if ":" not in url:
        raise ConfigurationError(
            "store is not a URL; write memory:, sqlite:///PATH or postgresql://USER:PASSWORD@HOST/DATABASE"
        )
    from apitokenproxy.identity.sql import SqlStore  # noqa: PLC0415 - needs the extra `sql`

    return SqlStore(url)
