"""Every token store does what every token store must."""

from collections.abc import Callable
from pathlib import Path

import pytest

from apitokenproxy.errors import ConfigurationError
from apitokenproxy.identity.stores import open_store
from apitokenproxy.interfaces import TokenStore
from apitokenproxy.testing import TokenStoreConformance


class TestMemory(TokenStoreConformance):
    """In a dictionary."""

    def make(self) -> TokenStore:
        return open_store("memory:")


class TestSqlite(TokenStoreConformance):
    """In a file."""

    @pytest.fixture(autouse=True)
    def _in(self, tmp_path: Path) -> None:
        self.directory = tmp_path

    def make(self) -> TokenStore:
        return open_store(f"sqlite:///{self.directory}/tokens.db")


class TestPostgres(TokenStoreConformance):
    """In a real server."""

    @pytest.fixture(autouse=True)
    def _in(self, new_postgres: Callable[[], str]) -> None:
        self.new = new_postgres

    def make(self) -> TokenStore:
        return open_store(self.new())


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://user:hunter2@db",
        "postgresql+asyncpg://user:hunter2@db/tokens",
        "postgresql://user:hunter2@db:port/tokens",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "redis://x",
        "mysql:x",
    ],
)
def test_other_urls_are_refused_without_being_repeated(url: str) -> None:
    """A URL may hold a password, so the sentence says what is supported and nothing else."""
    with pytest.raises(ConfigurationError, match=r"sqlite:///PATH") as refusal:
        open_store(url)
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize("url", ["tokens.db", "", "memory", "sqlite:///x.db?mode=ro", "sqlite:///a\0b"])
def test_what_is_no_store_url_is_refused(url: str) -> None:
    """A path alone, options and control characters each get a sentence."""
    with pytest.raises(ConfigurationError, match="store"):
        open_store(url)
