"""Opening a token store by its URL."""

from apitokenproxy.errors import ConfigurationError
from apitokenproxy.identity.memory import MemoryStore
from apitokenproxy.interfaces import TokenStore


def open_store(url: str) -> TokenStore:
    """Return the store that `url` names: `memory:` or `sqlite:///PATH`.

    An SQLite store is tried, and its file made when it is not there; nothing stays open.
    Raises ConfigurationError, without the URL in its text: one may hold a password.
    """
    if url == "memory:":
        return MemoryStore()
    if ":" not in url:
        raise ConfigurationError("store is not a URL; write memory: or sqlite:///PATH")
    from apitokenproxy.identity.sql import SqlStore  # noqa: PLC0415 - needs the extra `sql`

    return SqlStore(url)
