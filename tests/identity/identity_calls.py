"""What the tests of identity share: calling in both colours, stores of both kinds, requests."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from apitokenproxy._colour import ASYNC, SYNC, nonblocking, run
from apitokenproxy.identity.memory import MemoryStore
from apitokenproxy.identity.sql import SqlStore
from apitokenproxy.interfaces import StoredToken
from apitokenproxy.messages import Caller, Hidden, Presented, Request

COLOURS = ["async", "sync"]
STORES = ["memory", "sqlite"]


def authenticate(part: Any, colour: str, presented: Presented | None, request: Request | None = None) -> Caller | None:
    """Bind a part in one colour and ask it once."""
    asked = request or a_request()
    if colour == "async":

        async def ask() -> Caller | None:
            return await part.bind(ASYNC).authenticate(presented, asked)

        return asyncio.run(ask())
    return run(part.bind(SYNC).authenticate(presented, asked))


def bearer(token: str | bytes) -> Presented:
    return Presented("bearer", Hidden(token.encode() if isinstance(token, str) else token))


def a_request(method: bytes = b"GET", *headers: tuple[bytes, bytes], context: Any = None, token: Any = None) -> Request:
    return Request(method, b"/proxy/demo/x", [(b"Host", b"app.example"), *headers], context=context, token=token)


class CountingMemoryStore(MemoryStore):
    """A memory store that counts how often it is asked."""

    asked = 0

    @nonblocking
    def find(self, token_id: str) -> StoredToken | None:
        self.asked += 1
        return super().find(token_id)


class CountingSqlStore(SqlStore):
    """An SQLite store that counts how often it is asked."""

    asked = 0

    def find(self, token_id: str) -> StoredToken | None:
        self.asked += 1
        return super().find(token_id)


@contextmanager
def counting_store(kind: str, directory: Path) -> Iterator[Any]:
    """Yield a store of that kind that counts, and close it."""
    store = CountingMemoryStore() if kind == "memory" else CountingSqlStore(f"sqlite:///{directory}/tokens.db")
    try:
        yield store
    finally:
        store.close()


class Hand:
    """A clock that a test sets by hand."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def at(moment: datetime) -> Hand:
    return Hand(moment.timestamp())
