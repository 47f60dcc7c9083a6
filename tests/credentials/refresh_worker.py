"""A worker that lives ten times as fast: sends requests for so many seconds, and prints what became of them.

    python refresh_worker.py URL STORE COLOUR SECONDS

Its clocks and pauses for tokens run at `PACE`; the bounds of a request to the endpoint and of a lease are twice
what they are in the product, so that a busy machine does not exceed them.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx

from apitokenproxy import OAuth2RefreshToken, Proxy, Rule, Upstream
from apitokenproxy.credentials import refresh, shared_token

PACE = 10.0
CLIENTS = 4
PAUSE = 0.1
"""Seconds between two requests of a client."""


def made(url: str, store: str) -> Proxy:
    shared_token.LEASE, shared_token.REQUEST = 60.0, 40.0
    refresh.REQUEST = shared_token.REQUEST / PACE
    references = {"refresh_token": "env:FIRST", "key": "env:KEY", "secret": "env:SECRET"}
    kind = OAuth2RefreshToken(
        f"{url}/token", "me:1", **references, allow_private=True, clock=lambda: time.time() * PACE
    )
    kind._shared._sleep = lambda seconds: time.sleep(seconds / PACE)
    kind._loads._clock = lambda: time.monotonic() * PACE
    api = Upstream("api", url, credential=kind, allow_private=True)
    return Proxy(upstreams=[api], rules=[Rule("all", effect="allow")], store=store)


def outcome(answer: httpx.Response) -> str:
    return answer.headers.get("x-proxy-error", str(answer.status_code))


def sync(proxy: Proxy, token: str, end: float) -> Counter[str]:
    counts: Counter[str] = Counter()

    def run(_: int) -> None:
        with httpx.Client(transport=proxy.transport(token)) as client:
            while time.monotonic() < end:
                counts[outcome(client.get("http://proxy/api/x"))] += 1
                time.sleep(PAUSE)

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(run, range(CLIENTS)))
    return counts


async def asynchronous(proxy: Proxy, token: str, end: float) -> Counter[str]:
    counts: Counter[str] = Counter()

    async def run() -> None:
        async with httpx.AsyncClient(transport=proxy.async_transport(token)) as client:
            while time.monotonic() < end:
                counts[outcome(await client.get("http://proxy/api/x"))] += 1
                await asyncio.sleep(PAUSE)

    await asyncio.gather(*(run() for _ in range(CLIENTS)))
    return counts


def main() -> None:
    url, store, colour, seconds = sys.argv[1:]
    proxy = made(url, store)
    token = proxy.tokens.issue(tenant="acme").token
    end = time.monotonic() + float(seconds)
    counts = sync(proxy, token, end) if colour == "sync" else asyncio.run(asynchronous(proxy, token, end))
    proxy.close()
    print(json.dumps(counts))  # noqa: T201 - the test reads it


if __name__ == "__main__":
    main()
