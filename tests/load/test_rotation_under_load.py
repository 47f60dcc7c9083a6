"""Upstream secrets are rotated while four worker processes serve 200 requests a second. Figures: `-rP`."""

import asyncio
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import httpx
import pytest
from attrs import Factory, define
from moto.server import ThreadedMotoServer

from loopback import Received, running_upstream, wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

CONFIGURATION = """
[proxy]
store = "sqlite:///tokens.db"
[upstreams.api]
url = "{url}"
allow_private = true
{terms}
[[rules]]
id = "all"
effect = "allow"
"""
WORKERS = 4
CLIENTS = 20
RATE = 200
OLD, NEW, BAD = "old-7d1f4c0a52b9", "new-0c6f1d7a94e2", "bad-5d20c7f4e1a8"


@define
class Api:
    """The upstream: it takes some keys, and counts which it saw."""

    accepted: set[str] = Factory(set)
    seen: Counter[str] = Factory(Counter)
    lock: threading.Lock = Factory(threading.Lock)

    def authorised(self, received: Received) -> bool:
        key = received.header("authorization")[0].removeprefix("Bearer ")
        with self.lock:
            self.seen[key] += 1
        return key in self.accepted


@define
class Served:
    """A running proxy before a running upstream. `said` fills with what it says."""

    folder: Path
    url: str
    api: Api
    token: str
    said: list[str]

    def alerts(self, text: str) -> list[str]:
        return [line for line in self.said if text in line]


@contextmanager
def served(folder: Path, terms: str, accepted: set[str], **variables: str) -> Iterator[Served]:
    """Run `serve` with four workers."""
    api = Api(accepted)
    environment = {**os.environ, **variables}
    with running_upstream() as upstream:
        upstream.authorised = api.authorised
        (folder / "apitokenproxy.toml").write_text(CONFIGURATION.format(url=upstream.url, terms=terms))
        command = [sys.executable, "-m", "apitokenproxy"]
        issued = subprocess.run(
            [*command, "tokens", "issue", "--tenant", "acme"],
            cwd=folder, env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        process = subprocess.Popen(
            [*command, "serve", "--port", "0", "--workers", str(WORKERS)],
            cwd=folder,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        said: list[str] = []
        assert process.stderr is not None
        first = process.stderr.readline() + process.stderr.readline()
        reader = threading.Thread(target=lambda: said.extend(process.stderr or []))
        reader.start()
        try:
            found = re.search(r"http://[^/]+:\d+", first)
            assert found, first
            wait_until(lambda: all(_is_quick(found[0]) for _ in range(5 * WORKERS)), 60)
            yield Served(folder, f"{found[0]}/proxy/api/x", api, issued.stdout.strip(), said)
        finally:
            process.terminate()
            process.wait(timeout=30)
            reader.join(10)
            process.stderr.close()


def _is_quick(url: str) -> bool:
    """Tell whether a worker answers a new connection at once: those that are still starting keep one waiting."""
    try:
        return httpx.get(f"{url}/healthz", timeout=0.5).is_success
    except httpx.HTTPError:
        return False


def load(
    one: Served, seconds: float, meanwhile: Callable[[], Awaitable[None]] | None = None, method: str = "GET"
) -> Counter[int]:
    """Ask 200 times a second with twenty clients, each with a connection of its own; return the statuses."""
    statuses: Counter[int] = Counter()

    async def run() -> None:
        end = time.monotonic() + seconds

        async def client() -> None:
            content = b'{"n": 1}' if method == "POST" else None
            async with httpx.AsyncClient(timeout=20) as http:
                while time.monotonic() < end:
                    began = time.monotonic()
                    answer = await http.request(
                        method, one.url, headers={"Authorization": f"Bearer {one.token}"}, content=content
                    )
                    statuses[answer.status_code] += 1
                    await asyncio.sleep(max(0.0, CLIENTS / RATE - (time.monotonic() - began)))

        await asyncio.gather(*(client() for _ in range(CLIENTS)), *([meanwhile()] if meanwhile else []))

    asyncio.run(run())
    return statuses


def test_a_bad_candidate_is_rolled_back_and_nobody_notices(tmp_path: Path) -> None:
    """A share of a half, four workers: no error, one alert, at most one request more for each that was on its way."""
    terms = """credential = { type = "bearer", secret = "env:OLD" }
candidate = { type = "bearer", secret = "env:BAD" }
rotation = { share = 0.5, successes = 20 }"""
    with served(tmp_path, terms, {OLD}, OLD=OLD, BAD=BAD) as one:
        statuses = load(one, 10)
    alerts = one.alerts("was rolled back")
    print(f"bad candidate: {dict(statuses)}, {one.api.seen[BAD]} requests carried it, alerts: {len(alerts)}")  # noqa: T201 - what was measured
    assert set(statuses) == {200}
    assert len(alerts) == 1
    assert one.api.seen[BAD] <= WORKERS * CLIENTS


def test_a_good_candidate_takes_over_and_the_old_one_can_be_revoked(tmp_path: Path) -> None:
    """Proven on a tenth of the traffic, live in all workers, and then the old one is refused: no error at all."""
    terms = """credential = { type = "bearer", secret = "env:OLD" }
candidate = { type = "bearer", secret = "env:NEW" }
rotation = { share = 0.1, successes = 20 }"""

    async def revoke() -> None:
        await asyncio.to_thread(wait_until, lambda: one.alerts("is the live one"), 30)
        await asyncio.sleep(2)
        one.api.accepted = {NEW}
        one.api.seen.clear()

    with served(tmp_path, terms, {OLD, NEW}, OLD=OLD, NEW=NEW) as one:
        statuses = load(one, 12, revoke)
    print(f"good candidate: {dict(statuses)}; after the old one was revoked: {dict(one.api.seen)}")  # noqa: T201 - what was measured
    assert set(statuses) == {200}
    assert len(one.alerts("is the live one")) == 1
    assert set(one.api.seen) == {NEW}


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_bad_current_with_a_good_previous(tmp_path: Path, method: str) -> None:
    """At most one request more for each worker before all traffic uses the previous one; one alert."""
    terms = """credential = { type = "bearer", secret = "env:BAD" }
previous = { type = "bearer", secret = "env:OLD" }"""
    with served(tmp_path, terms, {OLD}, OLD=OLD, BAD=BAD) as one:
        statuses: Counter[int] = Counter()
        first = load_one_by_one(one, 40, method)
        extra = one.api.seen[BAD]
        statuses = load(one, 8, method=method)
    alerts = one.alerts("refuses its credential")
    print(f"bad current ({method}): {dict(first + statuses)}, {extra} requests carried it, alerts: {len(alerts)}")  # noqa: T201 - what was measured
    assert set(first + statuses) == {200}
    assert extra <= WORKERS
    assert one.api.seen[BAD] <= 2 * WORKERS
    assert len(alerts) == 1


def load_one_by_one(one: Served, times: int, method: str) -> Counter[int]:
    """Ask one after the other, each on a connection of its own, so that every worker gets some."""
    content = b'{"n": 1}' if method == "POST" else None
    headers = {"Authorization": f"Bearer {one.token}"}
    return Counter(httpx.request(method, one.url, headers=headers, content=content).status_code for _ in range(times))


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_aws_rotates_its_secrets_and_no_request_fails(tmp_path: Path, method: str) -> None:
    """Ten rotations as AWS makes them: pending, tested, current; what was current is revoked at once each time.

    moto stands in for AWS, and the API takes exactly what is current, and what is pending when it is tested.
    """
    name = f"app-{method.lower()}"
    terms = f"""credential = {{ type = "bearer", secret = "aws:{name}#key" }}
candidate = {{ type = "bearer", secret = "aws:{name}#key@AWSPENDING" }}
previous = {{ type = "bearer", secret = "aws:{name}#key@AWSPREVIOUS" }}"""
    aws = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    aws.start()
    host, port = aws.get_host_and_port()
    variables = {
        "AWS_ACCESS_KEY_ID": "AKIATESTTESTTESTTEST",
        "AWS_SECRET_ACCESS_KEY": "testtesttesttesttesttesttesttesttesttest",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }
    manager = boto3.client(
        "secretsmanager",
        endpoint_url=variables["AWS_ENDPOINT_URL"],
        region_name="eu-central-1",
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
    )
    current = manager.create_secret(Name=name, SecretString='{"key": "key-00-4f1d"}')["VersionId"]

    def rotate(number: int) -> None:
        nonlocal current
        key = f"key-{number:02}-4f1d"
        pending = manager.put_secret_value(
            SecretId=name, SecretString=f'{{"key": "{key}"}}', VersionStages=["AWSPENDING"]
        )["VersionId"]
        one.api.accepted = {*one.api.accepted, key}
        time.sleep(0.5)
        manager.update_secret_version_stage(
            SecretId=name, VersionStage="AWSCURRENT", MoveToVersionId=pending, RemoveFromVersionId=current
        )
        current = pending
        one.api.accepted = {key}

    async def rotations() -> None:
        for number in range(1, 11):
            await asyncio.sleep(2)
            await asyncio.to_thread(rotate, number)

    try:
        with served(tmp_path, terms, {"key-00-4f1d"}, **variables) as one:
            statuses = load(one, 28, rotations, method)
    finally:
        manager.close()
        aws.stop()
    print(f"AWS rotations ({method}): 10, {dict(statuses)}; keys seen: {len(one.api.seen)}")  # noqa: T201 - what was measured
    assert set(statuses) == {200}
    assert len(one.api.seen) == 11


def test_the_upstream_of_these_tests_refuses(tmp_path: Path) -> None:
    """So that none of the above is green because nobody looked."""
    with served(tmp_path, 'credential = { type = "bearer", secret = "env:BAD" }', {OLD}, BAD=BAD) as one:
        assert load_one_by_one(one, 3, "GET") == Counter({502: 3})
