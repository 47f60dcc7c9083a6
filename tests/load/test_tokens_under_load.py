"""Tokens are rotated and revoked while four worker processes serve. What was measured is printed with `-rP`."""

import asyncio
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from attrs import define

from apitokenproxy.identity.authority import TokenAuthority
from apitokenproxy.identity.stores import open_store
from apitokenproxy.identity.verified import Verified
from loopback import REAL_KEY, running_upstream

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

CONFIGURATION = """
[proxy]
store = "{store}"
[upstreams.api]
url = "{url}"
credential = {{ type = "bearer", secret = "env:DEMO_KEY" }}
allow_private = true
[[rules]]
id = "all"
effect = "allow"
"""
WORKERS = 4
CLIENTS = 20
RATE = 200
SECONDS = 60
ROTATIONS = 10
OVERLAP = 4.0
BOUND = 1.0


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/tokens.db"
    new: Callable[[], str] = request.getfixturevalue("new_postgres")
    return new()


@pytest.fixture
def authority(store_url: str) -> Iterator[TokenAuthority]:
    store = open_store(store_url)
    yield TokenAuthority(store, Verified(bound=BOUND))
    store.close()


@contextmanager
def workers(folder: Path, store_url: str) -> Iterator[str]:
    """Run `serve` with four workers over a store, and yield the URL of the upstream behind it."""
    with running_upstream() as upstream:
        (folder / "apitokenproxy.toml").write_text(CONFIGURATION.format(store=store_url, url=upstream.url))
        process = subprocess.Popen(
            [sys.executable, "-m", "apitokenproxy", "serve", "--port", "0", "--workers", str(WORKERS)],
            cwd=folder,
            env={**os.environ, "DEMO_KEY": REAL_KEY},
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stderr is not None
            said = process.stderr.readline() + process.stderr.readline()
            found = re.search(r"http://[^/]+:\d+", said)
            assert found, said
            yield f"{found[0]}/proxy/api/x"
        finally:
            process.terminate()
            process.communicate(timeout=30)


@define
class Client:
    """A program with one token, which it changes when it comes to it."""

    token: str
    next_token: str = ""
    changes_at: float = 0.0

    def use(self) -> str:
        if self.next_token and time.monotonic() >= self.changes_at:
            self.token, self.next_token = self.next_token, ""
        return self.token


async def ask(http: httpx.AsyncClient, url: str, token: str) -> int:
    answer = await http.get(url, headers={"Authorization": f"Bearer {token}"})
    return answer.status_code


def test_rotation_under_load_is_noticed_by_nobody(  # noqa: C901 - four kinds of work at once
    authority: TokenAuthority, store_url: str, tmp_path: Path
) -> None:
    """200 requests a second for a minute, ten rotations, clients that change over when they like."""
    issued = [authority.issue(tenant="acme") for _ in range(ROTATIONS)]
    # Two programs share each token, and do not change over together.
    clients = [[Client(one.token) for _ in range(CLIENTS // ROTATIONS)] for one in issued]
    statuses: Counter[int] = Counter()
    retired: list[tuple[str, float]] = []
    late: Counter[int] = Counter()

    async def load(url: str) -> None:
        end = time.monotonic() + SECONDS
        async with httpx.AsyncClient(limits=httpx.Limits(max_connections=CLIENTS + 4), timeout=20) as http:

            async def run(client: Client) -> None:
                while time.monotonic() < end:
                    began = time.monotonic()
                    statuses[await ask(http, url, client.use())] += 1
                    await asyncio.sleep(max(0.0, CLIENTS / RATE - (time.monotonic() - began)))

            async def rotate() -> None:
                for one, group in zip(issued, clients, strict=True):
                    await asyncio.sleep(SECONDS / (ROTATIONS + 1))
                    old = group[0].token
                    made = await authority.arotate(one.id, overlap=timedelta(seconds=OVERLAP))
                    ends = time.monotonic() + OVERLAP
                    for client in group:
                        client.next_token = made.token or ""
                        client.changes_at = time.monotonic() + random.uniform(0, OVERLAP - 0.5)  # noqa: S311 - not for secrets
                    retired.append((old, ends))

            async def try_old() -> None:
                while time.monotonic() < end + OVERLAP:
                    for token, ends in retired:
                        if time.monotonic() > ends:
                            late[await ask(http, url, token)] += 1
                    await asyncio.sleep(0.1)

            await asyncio.gather(rotate(), try_old(), *(run(client) for group in clients for client in group))

    with workers(tmp_path, store_url) as url:
        asyncio.run(load(url))
    print(f"{sum(statuses.values())} requests: {dict(statuses)}; old tokens after their overlap: {dict(late)}")  # noqa: T201 - `pytest -rP` shows it
    assert set(statuses) == {200}
    assert sum(statuses.values()) > RATE * SECONDS * 0.8
    # All of them come from one address, which has to wait (429) after so many wrong tokens.
    assert (set(late) | {401, 429}, late[401] > 0, len(retired)) == ({401, 429}, True, ROTATIONS)


def test_a_revocation_is_in_force_everywhere_within_the_bound(
    authority: TokenAuthority, store_url: str, tmp_path: Path
) -> None:
    """200 revocations; the latest request that was begun after `revoke` returned and was still accepted."""
    issued = [authority.issue(tenant="acme") for _ in range(200)]
    revoked: dict[str, float] = {}
    latest = 0.0
    asked = 0

    async def load(url: str) -> None:
        limits = httpx.Limits(max_connections=32, max_keepalive_connections=0)  # so that every worker is asked
        async with httpx.AsyncClient(limits=limits, timeout=20) as http:
            for batch in (issued[number : number + 10] for number in range(0, len(issued), 10)):
                done = asyncio.Event()

                async def poll(tokens: list[str], done: asyncio.Event = done) -> None:
                    nonlocal latest, asked
                    while not done.is_set():
                        token = random.choice(tokens)  # noqa: S311 - not for secrets
                        began = time.monotonic()
                        status = await ask(http, url, token)
                        asked += 1
                        assert status in {200, 401, 429}  # the last: too many wrong ones came from this address
                        if status == 200 and token in revoked and began > revoked[token]:
                            latest = max(latest, began - revoked[token])

                polls = [asyncio.create_task(poll([one.token for one in batch])) for _ in range(8)]
                await asyncio.sleep(0.3)
                for one in batch:
                    await authority.arevoke(one.id)
                    revoked[one.token] = time.monotonic()
                await asyncio.sleep(BOUND + 0.3)
                done.set()
                await asyncio.gather(*polls)

    with workers(tmp_path, store_url) as url:
        asyncio.run(load(url))
    print(f"{len(revoked)} revocations, {asked} requests: the latest acceptance came {latest:.3f} s after `revoke`")  # noqa: T201 - `pytest -rP` shows it
    assert len(revoked) == 200
    assert 0 <= latest <= BOUND
