"""Four workers share a refresh token for ten minutes. What was counted is printed with `-rP`."""

import asyncio
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, repeat
from pathlib import Path

import httpx
import pytest
from oauth2_server import SECRET, Fault, running_server
from refresh_worker import PACE

from apitokenproxy.identity.authority import TokenAuthority
from apitokenproxy.identity.stores import open_store
from apitokenproxy.identity.verified import Verified
from apitokenproxy.sealing import new_master_key

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

SECONDS = 60.0
LASTS = 30.0
GOOD = Fault()
FAULTS = [
    *[GOOD, GOOD, Fault(status=500), GOOD, Fault(status=429, retry_after="2"), GOOD],
    *[Fault(wait=0.2), GOOD, Fault(wait=0.2, late=True), GOOD, Fault(status=503), Fault(status=500), GOOD],
    *[Fault(wait=1.8), GOOD, Fault(wait=1.8, late=True), GOOD],
]


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_ten_minutes_of_four_workers(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """No refresh token is used twice, and the API sees no bad access token; all refusals are the proxy's own 503.

    What is simulated: time. Clocks, pauses and leases for tokens run ten times as fast, so that a minute stands for
    ten; access tokens live 30 s (3 s here), of which 20 are used. Real are the processes (two in each colour, one of
    them ended and started again each third of the time), the store, and HTTP. The endpoint answers in turn with 500,
    503, 429, and slowly: by 2 s, and by 18 s, which is longer than a request waits (12 s); it decides before it is
    slow or after. Only the two very slow ones may be noticed by clients: tokens are renewed 4 s before their end.
    """
    new: Callable[[], str] | None = request.getfixturevalue("new_postgres") if kind == "postgres" else None
    store = new() if new else f"sqlite:///{tmp_path}/tokens.db"
    with running_server(lasts=LASTS, pace=PACE) as server:
        server.faults.extend(chain.from_iterable(repeat(FAULTS, 20)))
        environment = {"FIRST": server.authorise(), "SECRET": SECRET, "KEY": new_master_key()}

        def work(colour: str, seconds: float) -> Counter[str]:
            worker = Path(__file__).with_name("refresh_worker.py")
            command = [sys.executable, str(worker), server.url, store, colour, str(seconds)]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            assert done.stderr.count("Traceback") == 0, done.stderr
            return Counter(json.loads(done.stdout))

        def restarted(colour: str) -> Counter[str]:
            return sum((work(colour, SECONDS / 3) for _ in range(3)), Counter())

        with ThreadPoolExecutor(4) as pool:
            running = [pool.submit(work, colour, SECONDS) for colour in ("async", "async", "sync")]
            running.append(pool.submit(restarted, "sync"))
            outcomes = sum((each.result() for each in running), Counter[str]())
    told = {name: server.counts[name] for name in ("asked", "refreshes", "reuse", "refused", "429", "500", "503")}
    api = {name: server.counts[name] for name in ("served", "unauthenticated", "expired", "revoked")}
    slow = sum(fault.wait > 1 for fault, _ in zip(chain.from_iterable(repeat(FAULTS)), server.asked, strict=False))
    told["very slow"] = slow
    print(f"{kind}: {outcomes.total()} requests: {dict(outcomes)}")  # noqa: T201 - `pytest -rP` shows it
    print(f"{kind}: the endpoint: {told}; the API: {api}")  # noqa: T201
    assert (told["reuse"], told["refused"]) == (0, 0)
    assert (api["unauthenticated"], api["expired"], api["revoked"]) == (0, 0, 0)
    assert set(outcomes) <= {"200", "secret_unavailable"}
    assert outcomes["200"] == api["served"]
    assert outcomes["secret_unavailable"] < outcomes["200"] / 10
    # One refresh for all: their number follows from the tokens' life, not from the number of workers.
    assert SECONDS / (LASTS / PACE) <= told["refreshes"] <= SECONDS * PACE / 14


CONFIGURATION = """
[proxy]
store = "{store}"
[upstreams.api]
url = "{url}"
allow_private = true
[upstreams.api.credential]
type = "oauth2-refresh-token"
token_url = "{url}/token"
client_id = "me:1"
refresh_token = "env:FIRST"
secret = "env:SECRET"
key = "env:KEY"
allow_private = true
[[rules]]
id = "all"
effect = "allow"
"""
BURST, AT_ONCE = 1000, 100


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_burst_over_four_workers_is_one_refresh(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A thousand requests, a hundred at a time, to `serve --workers 4`, which is then started again: one refresh.

    With the real clock and the bounds of the product.
    """
    new: Callable[[], str] | None = request.getfixturevalue("new_postgres") if kind == "postgres" else None
    store = new() if new else f"sqlite:///{tmp_path}/tokens.db"
    opened = open_store(store)
    token = TokenAuthority(opened, Verified(bound=1.0)).issue(tenant="acme").token
    opened.close()
    statuses: Counter[int] = Counter()

    async def burst(url: str) -> None:
        limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=0)  # so that every worker is asked
        async with httpx.AsyncClient(limits=limits, timeout=60, headers={"Authorization": f"Bearer {token}"}) as http:

            async def run() -> None:
                for _ in range(BURST // AT_ONCE):
                    statuses[(await http.get(url)).status_code] += 1

            await asyncio.gather(*(run() for _ in range(AT_ONCE)))

    with running_server() as server:
        (tmp_path / "apitokenproxy.toml").write_text(CONFIGURATION.format(store=store, url=server.url))
        environment = {"FIRST": server.authorise(), "SECRET": SECRET, "KEY": new_master_key()}
        server.faults.append(Fault(wait=1.0))
        for _ in range(2):
            with serving(tmp_path, environment) as url:
                asyncio.run(burst(url))
        print(f"{kind}: {dict(statuses)}; the endpoint and the API: {dict(server.counts)}")  # noqa: T201
        assert statuses == {200: 2 * BURST}
        assert server.counts == {"asked": 1, "refreshes": 1, "served": 2 * BURST}


@contextmanager
def serving(folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """Run `serve` with four workers, and yield the URL of what is behind it."""
    command = [sys.executable, "-m", "apitokenproxy", "serve", "--port", "0", "--workers", "4"]
    process = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        said = process.stderr.readline() + process.stderr.readline()
        found = re.search(r"http://[^/]+:\d+", said)
        assert found, said
        yield f"{found[0]}/proxy/api/x"
    finally:
        process.terminate()
        process.communicate(timeout=30)
