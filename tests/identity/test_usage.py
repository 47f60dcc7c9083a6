"""How often tokens are used: counted off the hot path, written in batches."""

import gc
import logging
import os
import threading
import time
import weakref
from pathlib import Path

import pytest
from identity_calls import COLOURS, Hand, authenticate, bearer

from apitokenproxy._colour import nonblocking
from apitokenproxy.errors import StoreUnavailable, Unauthenticated
from apitokenproxy.identity import usage as usage_module
from apitokenproxy.identity.authority import TokenAuthority
from apitokenproxy.identity.client_tokens import ClientTokens
from apitokenproxy.identity.memory import MemoryStore
from apitokenproxy.identity.stores import open_store
from apitokenproxy.identity.usage import Usage
from apitokenproxy.identity.verified import Verified
from apitokenproxy.messages import Caller


def writers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "apitokenproxy-usage"]


@pytest.fixture(autouse=True)
def no_writers_of_others() -> None:
    gc.collect()
    for thread in writers():
        thread.join(5)


@pytest.mark.parametrize("colour", COLOURS)
def test_every_use_is_counted_by_generation(colour: str) -> None:
    """The first and the last moment too; what was refused is no use."""
    store = MemoryStore()
    authority = TokenAuthority(store, Verified(bound=1.0))
    issued = authority.issue(tenant="acme")
    part = ClientTokens(store, Verified(bound=1.0))
    for _ in range(3):
        authenticate(part, colour, bearer(issued.token))
    part.close()
    second = authority.rotate(issued.id).token
    part = ClientTokens(store, Verified(bound=1.0))
    authenticate(part, colour, bearer(issued.token))
    authenticate(part, colour, bearer(second))
    with pytest.raises(Unauthenticated):
        authenticate(part, colour, bearer(second[:-1] + ("0" if second[-1] != "0" else "1")))
    part.close()
    found = authority.get(issued.id)
    assert [one.uses for one in found.generations] == [4, 1]
    assert found.last_used is not None


def test_uses_are_written_without_being_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a thread, within the interval."""
    monkeypatch.setattr(usage_module, "INTERVAL", 0.05)
    store = MemoryStore()
    authority = TokenAuthority(store, Verified(bound=1.0))
    issued = authority.issue(tenant="acme")
    part = ClientTokens(store, Verified(bound=1.0))
    authenticate(part, "sync", bearer(issued.token))
    end = time.monotonic() + 10
    while not authority.get(issued.id).uses and time.monotonic() < end:
        time.sleep(0.01)
    assert authority.get(issued.id).uses == 1
    part.close()


def test_moments_are_those_between_two_writes() -> None:
    """A use is not later than it was written, and not earlier than the write before."""
    store, clock = MemoryStore(), Hand(1000.0)
    issued = TokenAuthority(store, Verified(bound=1.0)).issue(tenant="acme")
    usage = Usage(store, clock)
    for now in (1010.0, 1020.0, 1030.0):
        clock.now = now
        if now != 1020.0:
            usage.count(Caller("acme", token_id=issued.id, generation=1))
        usage.write()
    generation = store.find(issued.id).generations[0]
    assert (generation.first_used.timestamp(), generation.last_used.timestamp(), generation.uses) == (1000, 1030, 2)


class Down(MemoryStore):
    """A store that may be down."""

    down = True

    @nonblocking
    def note(self, uses) -> None:
        if self.down:
            raise StoreUnavailable("the store is down")
        super().note(uses)


def test_what_the_store_does_not_take_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    """And told once, not every time."""
    store = Down()
    issued = TokenAuthority(store, Verified(bound=1.0)).issue(tenant="acme")
    usage = Usage(store)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            usage.count(Caller("acme", token_id=issued.id, generation=1))
            usage.write()
    assert [record.getMessage() for record in caplog.records] == [
        "uses of tokens cannot be written now: the store is down"
    ]
    store.down = False
    usage.write()
    assert store.find(issued.id).generations[0].uses == 3


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is down for a day does not fill the memory."""
    monkeypatch.setattr(usage_module, "_MOST_WAITING", 10)
    usage = Usage(Down())
    for number in range(100):
        usage.count(Caller("acme", token_id=str(number), generation=1))
        usage.write()
    assert len(usage._waiting) == 10


def test_nobody_is_kept_alive_by_the_thread() -> None:
    """It ends with what it writes for."""
    usage = Usage(MemoryStore())
    usage.keep_writing()
    usage.keep_writing()
    assert len(writers()) == 1
    reference = weakref.ref(usage)
    del usage
    gc.collect()
    for thread in writers():
        thread.join(5)
    assert (reference(), writers()) == (None, [])


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_writes_its_own_and_nothing_twice(tmp_path: Path) -> None:
    """A server may fork after its first requests; what waited then is the parent's."""
    store = open_store(f"sqlite:///{tmp_path}/tokens.db")
    authority = TokenAuthority(store, Verified(bound=1.0))
    issued = authority.issue(tenant="acme")
    part = ClientTokens(store, Verified(bound=0.0))
    for _ in range(5):
        authenticate(part, "sync", bearer(issued.token))
    child = os.fork()
    if child == 0:
        for _ in range(3):
            authenticate(part, "sync", bearer(issued.token))
        part.close()
        store.close()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert authority.get(issued.id).uses == 3
    part.close()
    assert authority.get(issued.id).uses == 8
    store.close()
