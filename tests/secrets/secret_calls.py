"""What the tests of secrets share: reading in both colours, a clock set by hand, providers that wait."""

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from apitokenproxy._colour import ASYNC, SYNC, Colour, nonblocking, run
from apitokenproxy.errors import SecretUnavailable
from apitokenproxy.messages import Caller, Secret
from apitokenproxy.secrets.cache import Secrets

COLOURS = ["async", "sync"]
MATERIAL = "s3cret/m4terial+0f7a9c2e51d84b06"
ACME = Caller(tenant="acme", subject="ci")
PATIENCE = 10.0
"""Seconds after which a test gives up on another thread; nothing that works takes a hundredth of it."""


class Hand:
    """A clock that a test sets by hand."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def read(secrets: Secrets, colour: str, reference: str, caller: Caller = ACME, *, lines: bool = False) -> Secret:
    """Read a reference once, in one colour."""
    [secret] = read_all(secrets, colour, [(reference, caller)], lines=lines)
    return secret


def read_all(secrets: Secrets, colour: str, asked: list[tuple[str, Caller]], *, lines: bool = False) -> list[Secret]:
    """Read several references one after another, in one colour."""
    bound = secrets.bind(ASYNC if colour == "async" else SYNC)

    async def ask() -> list[Secret]:
        return [await bound.reader(reference, lines=lines)(caller) for reference, caller in asked]

    return asyncio.run(ask()) if colour == "async" else run(ask())


def revealed(secrets: Secrets, colour: str, reference: str, caller: Caller = ACME) -> bytes:
    return read(secrets, colour, reference, caller).reveal()


def refusal(secrets: Secrets, colour: str, reference: str, caller: Caller = ACME) -> str:
    """Return why a secret cannot be had."""
    with pytest.raises(SecretUnavailable) as refused:
        read(secrets, colour, reference, caller)
    assert str(refused.value) == refused.value.detail
    return refused.value.detail


class Watched:
    """A colour that tells when so many callers wait for what another one fetches."""

    def __init__(self, colour: Colour, expected: int) -> None:
        self._colour = colour
        self._expected = expected
        self._count = 0
        self._lock = threading.Lock()
        self.all_wait = threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._colour, name)

    async def wait(self, future: Any, timeout: float | None = None) -> Any:
        with self._lock:
            self._count += 1
            if self._count == self._expected:
                self.all_wait.set()
        return await self._colour.wait(future, timeout)


class Slow:
    """A provider whose first fetch goes on until `gate` opens, and that counts its fetches."""

    ttl = 60.0

    def __init__(self, gate: threading.Event, first: BaseException | None = None) -> None:
        self._gate = gate
        self._first = first
        self._lock = threading.Lock()
        self.fetched = 0

    def _begin(self) -> bool:
        with self._lock:
            self.fetched += 1
            return self.fetched == 1

    def _end(self, opened: bool, first: bool) -> Secret:
        if not opened:
            raise AssertionError("nobody opened the gate")
        if first and self._first is not None:
            raise self._first
        return Secret(MATERIAL)

    def _fetch(self) -> Secret:
        first = self._begin()
        return self._end(self._gate.wait(PATIENCE), first)


class SlowDef(Slow):
    """Written as `def`."""

    def fetch(self, reference: str) -> Secret:
        return self._fetch()


class SlowAsync(Slow):
    """Written as `async def`."""

    async def fetch(self, reference: str) -> Secret:
        first = self._begin()
        return self._end(await asyncio.to_thread(self._gate.wait, PATIENCE), first)


class Quick(Slow):
    """Written as `@nonblocking def`, and therefore not waiting for the gate."""

    @nonblocking
    def fetch(self, reference: str) -> Secret:
        return self._end(True, self._begin())


class Changing:
    """A provider that returns what `material` is at the time, or raises it."""

    def __init__(self, material: Any = MATERIAL, ttl: float | None = None) -> None:
        self.material = material
        self.fetched = 0
        if ttl is not None:
            self.ttl = ttl

    @nonblocking
    def fetch(self, reference: str) -> Any:
        self.fetched += 1
        if isinstance(self.material, BaseException):
            raise self.material
        return self.material if isinstance(self.material, Secret) else Secret(self.material)


def in_threads(count: int, call: Callable[[], Any]) -> list[Any]:
    """Call in so many threads at once; return what each returned, or what it raised."""
    outcomes: list[Any] = []

    def record() -> None:
        try:
            outcome = call()
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            outcome = error
        outcomes.append(outcome)

    threads = [threading.Thread(target=record, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads)
    return outcomes


def in_tasks(count: int, call: Callable[[], Awaitable[Any]]) -> list[Any]:
    """Call in so many tasks of one event loop; return what each returned, or what it raised."""

    async def gather() -> list[Any]:
        return await asyncio.gather(*(call() for _ in range(count)), return_exceptions=True)

    outcomes = asyncio.run(gather())
    gc.collect()  # what asyncio complains about when it is collected, it complains about here
    return outcomes
