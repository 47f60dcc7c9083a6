"""What hangs, a place of secrets or an upstream, holds up who needs it and nobody else."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from attrs import define

from apitokenproxy import Header, Proxy, Rule, Secret, Timeouts, Upstream
from loopback import REAL_KEY, Received, running_upstream, wait_until

HANGING, SERVED = 60, 40
"""Requests that hang, of each kind, and those that are to be answered meanwhile, of each kind."""
TENANTS = ["acme", "globex", "initech"]


@define
class Hanging:
    """A place of secrets that does not answer for one tenant until `go`."""

    go: threading.Event
    asked: list[str]

    def fetch(self, reference: str) -> Secret:
        self.asked.append(reference)
        if reference == "acme":
            self.go.wait()
        return Secret(REAL_KEY)


class HangingAsync(Hanging):
    """The same in the event loop."""

    async def fetch(self, reference: str) -> Secret:
        return await asyncio.to_thread(super().fetch, reference)


@define
class Place:
    """A proxy before an upstream that is well and one that hangs, and what stands in the way."""

    proxy: Proxy
    provider: Hanging
    go: threading.Event
    reached: list[str]
    tokens: dict[str, str]

    def call(self, tenant: str, upstream: str) -> tuple[str, dict[str, str]]:
        return f"http://proxy/{upstream}/x", {"Authorization": f"Bearer {self.tokens[tenant]}"}

    def all_hang(self) -> bool:
        """Tell whether the secret was asked for and every request to the upstream that hangs is there."""
        return self.provider.asked.count("acme") == 1 and len(self.reached) == HANGING


@contextmanager
def place(kind: type[Hanging]) -> Iterator[Place]:
    go, reached = threading.Event(), []

    def hang(received: Received) -> bool:
        reached.append(received.target)
        return go.wait()

    with running_upstream() as well, running_upstream() as hung:
        well.authorised = lambda received: received.header("x-key") == [REAL_KEY]
        hung.authorised = hang
        provider = kind(go, [])
        terms: dict[str, Any] = {
            "credential": Header("X-Key", "own:{tenant}"),
            "allow_private": True,
            "timeouts": Timeouts(pool=60.0, first_byte=60.0),
        }
        proxy = Proxy(
            upstreams=[Upstream("well", well.url, **terms), Upstream("hung", hung.url, **terms)],
            rules=[Rule("all", effect="allow")],
            secret_providers={"own": provider},
        )
        tokens = {tenant: proxy.tokens.issue(tenant=tenant).token for tenant in TENANTS}
        try:
            yield Place(proxy, provider, go, reached, tokens)
        finally:
            go.set()
            proxy.close()


HANG = [("acme", "well"), ("globex", "hung")]
"""Whose secret hangs, and who asks for what hangs."""
SERVE = [("globex", "well"), ("initech", "well")]
"""Another tenant whose secret is there, one whose secret is yet to be fetched, and the upstream that is well."""


@pytest.mark.parametrize("kind", [Hanging, HangingAsync])
def test_what_hangs_holds_up_nobody_else_in_one_event_loop(kind: type[Hanging]) -> None:
    """60 requests wait for a secret and 60 for an upstream; those that need neither are answered, then these."""

    async def main(at: Place) -> None:
        transport = httpx.ASGITransport(app=at.proxy.asgi)
        async with httpx.AsyncClient(transport=transport) as client:

            def begin(pairs: list[tuple[str, str]], times: int) -> list[asyncio.Task[httpx.Response]]:
                calls = [at.call(*pair) for pair in pairs * times]
                return [asyncio.create_task(client.get(url, headers=headers)) for url, headers in calls]

            hanging = begin(HANG, HANGING)
            await asyncio.to_thread(wait_until, at.all_hang)
            served = await asyncio.gather(*begin(SERVE, SERVED))
            assert [response.status_code for response in served] == [200] * 2 * SERVED
            assert not any(task.done() for task in hanging)
            at.go.set()
            assert {response.status_code for response in await asyncio.gather(*hanging)} == {200}
        await at.proxy.aclose()

    with place(kind) as at:
        asyncio.run(main(at))


def test_what_hangs_holds_up_nobody_else_among_threads() -> None:
    """The same under WSGI, where each request that hangs has a thread of the server's."""
    with place(Hanging) as at, ThreadPoolExecutor(2 * HANGING + 8) as threads:
        client = httpx.Client(transport=httpx.WSGITransport(app=at.proxy.wsgi))

        def begin(pairs: list[tuple[str, str]], times: int) -> list[Any]:
            calls = [at.call(*pair) for pair in pairs * times]
            get: Callable[..., httpx.Response] = client.get
            return [threads.submit(get, url, headers=headers) for url, headers in calls]

        try:
            hanging = begin(HANG, HANGING)
            wait_until(at.all_hang)
            served = [each.result(30) for each in begin(SERVE, SERVED)]
            assert [response.status_code for response in served] == [200] * 2 * SERVED
            assert not any(each.done() for each in hanging)
        finally:
            at.go.set()
        assert {each.result(30).status_code for each in hanging} == {200}
