"""What the tests of rotation share: a proxy before an upstream that accepts some keys, in one colour."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx

from apitokenproxy import Bearer, Proxy, Rotation, Rule, Secret, Upstream, nonblocking
from apitokenproxy.errors import SecretUnavailable
from apitokenproxy.rotation.terms import Record
from apitokenproxy.testing import MemoryAudit

COLOURS = ["async", "sync"]
NEW, OLD, BAD = "new-0c6f1d7a94e2", "old-7d1f4c0a52b9", "bad-5d20c7f4e1a8"


class Places:
    """A provider whose secrets a test changes."""

    ttl = 3600.0

    def __init__(self, **material: str) -> None:
        self.material = material
        self.fetched: list[str] = []

    @nonblocking
    def fetch(self, reference: str) -> Secret:
        self.fetched.append(reference)
        if reference not in self.material:
            raise SecretUnavailable(f"there is no {reference}")
        return Secret(self.material[reference])


class World:
    """A proxy before an upstream that accepts some keys, in one colour. `terms` are those of the upstream."""

    def __init__(
        self,
        colour: str,
        *accepted: str,
        refusal: int = 401,
        store: Any = "memory:",
        terms: dict[str, Any] | None = None,
        **material: str,
    ) -> None:
        self.colour = colour
        self.accepted = set(accepted)
        self.refusal = refusal
        self.status = 200
        self.seen: list[str] = []
        self.paths: list[str] = []
        self.places = Places(**material)
        self.audit = MemoryAudit()
        transport = httpx.MockTransport(self.answer if colour == "sync" else self.aanswer)
        self.proxy = Proxy(
            upstreams=[
                Upstream(
                    "api",
                    "https://a.example",
                    **{"credential": Bearer("places:key"), "transport": transport} | (terms or {}),
                )
            ],
            rules=[Rule("all", effect="allow")],
            audit=self.audit,
            store=store,
            secret_providers={"places": self.places},
        )
        self.token = self.proxy.tokens.issue(tenant="acme").token

    def answer(self, request: httpx.Request) -> httpx.Response:
        key = request.headers["authorization"].removeprefix("Bearer ")
        self.seen.append(key)
        self.paths.append(request.url.raw_path.decode())
        return httpx.Response(self.status if key in self.accepted else self.refusal)

    async def aanswer(self, request: httpx.Request) -> httpx.Response:
        return self.answer(request)

    def ask(self, method: str = "GET", content: bytes | None = None) -> int:
        return self.asks(1, method, content)[0]

    def asks(self, times: int, method: str = "GET", content: bytes | None = None, pause: float = 0.0) -> list[int]:
        """Ask several times, `pause` seconds apart, in one event loop; what goes on in the background may end."""
        found = []
        if self.colour == "sync":
            with httpx.Client(transport=self.proxy.transport(self.token)) as client:
                for _ in range(times):
                    found.append(client.request(method, "http://proxy/api/x", content=content).status_code)
                    time.sleep(pause)
            for thread in threading.enumerate():
                if thread.name == "apitokenproxy-load":
                    thread.join(10)
            return found

        async def send() -> None:
            async with httpx.AsyncClient(transport=self.proxy.async_transport(self.token)) as client:
                for _ in range(times):
                    answer = await client.request(method, "http://proxy/api/x", content=content)
                    found.append(answer.status_code)
                    await asyncio.sleep(pause)
                ours = asyncio.all_tasks() - {asyncio.current_task()}
                if ours:
                    await asyncio.wait(ours, timeout=10)

        asyncio.run(send())
        return found

    def records(self) -> list[Record]:
        """Return what the store knows of versions."""
        states = self.proxy._states.states("version/")
        return [Record.from_bytes(state.value) for state in states]


Answer = Callable[[httpx.Request, str], httpx.Response]


class Deciding(World):
    """A world whose upstream answers as a test says."""

    def __init__(self, colour: str, answers: Answer, *, store: Any = "memory:", **terms: Any) -> None:
        self.answers = answers
        rotation = {"share": 1.0, "successes": 3} | terms.pop("rotation", {})
        terms = {"candidate": Bearer("places:next"), "rotation": Rotation(**rotation)} | terms
        super().__init__(colour, store=store, terms=terms, key=OLD, next=NEW, bad=BAD)

    def answer(self, request: httpx.Request) -> httpx.Response:
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        self.seen.append(key)
        return self.answers(request, key)


def by_key(**statuses: int) -> Answer:
    """Return an upstream that answers to each key with a status."""
    told = {{"old": OLD, "new": NEW, "bad": BAD}[name]: status for name, status in statuses.items()}
    return lambda _, key: httpx.Response(told[key])
