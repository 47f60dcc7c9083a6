"""What is known of versions while the store is away, hangs, or holds what is damaged."""

import logging
import threading
import time
from typing import Any

import httpx
import pytest
from rotation_calls import COLOURS, NEW, OLD, Deciding, by_key

from apitokenproxy._colour import SYNC
from apitokenproxy.errors import StoreUnavailable
from apitokenproxy.identity.memory import MemoryStore
from apitokenproxy.interfaces import State
from apitokenproxy.rotation.records import Known, VersionRecords
from apitokenproxy.rotation.terms import Record, promoted


@pytest.fixture(params=COLOURS)
def colour(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what was read or noted a moment ago be read and noted again."""
    monkeypatch.setattr("apitokenproxy.loading._PAUSE", 0.0)
    monkeypatch.setattr("apitokenproxy.rotation.versions._EVERY", 0.0)
    monkeypatch.setattr("apitokenproxy.rotation.records.FRESH", 0.0)


class Away(MemoryStore):
    """A store whose states can be away, or slow (seconds)."""

    away, slow = False, 0.0

    def _answer(self) -> None:
        time.sleep(self.slow)
        if self.away:
            raise StoreUnavailable("the store is away")

    def state(self, name: str) -> State | None:
        self._answer()
        return super().state(name)

    def states(self, prefix: str) -> Any:
        self._answer()
        return super().states(prefix)

    def write_state(self, name: str, value: bytes, number: int) -> bool:
        self._answer()
        return super().write_state(name, value, number)


def test_what_is_learned_while_the_store_is_away_holds_and_is_told_once(
    colour: str, caplog: pytest.LogCaptureFixture
) -> None:
    """However many requests come: what the log says is so in this process until the store answers again."""
    store = Away()
    one = Deciding(colour, by_key(old=200, new=200), store=store)
    assert one.asks(1) == [200]
    store.away = True
    assert one.asks(30) == [200] * 30
    told = [record.message for record in caplog.records if "is the live one now" in record.message]
    assert len(told) == 1
    assert one.asks(1, "POST", b"x") == [200]
    assert one.seen[-1] == NEW
    store.away = False
    assert one.asks(8) == [200] * 8
    assert one.records()[0].promoted


def test_a_refused_one_stays_away_while_the_store_does(
    colour: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer than what was learned goes before what is read."""
    monkeypatch.setattr("apitokenproxy.rotation.records._LEARNED", 0.0)
    store = Away()
    one = Deciding(colour, by_key(old=200, new=401), store=store)
    store.away = True
    assert one.asks(10) == [200] * 10
    assert one.seen.count(NEW) <= 2
    assert len([record for record in caplog.records if "was rolled back" in record.message]) == 1


def test_a_store_that_hangs_is_waited_for_a_moment(colour: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was known last goes on then."""
    monkeypatch.setattr("apitokenproxy.rotation.records.VersionRecords.notes", lambda _: [bool] * 16)
    store = Away()
    one = Deciding(colour, by_key(old=200, new=200), store=store)
    one.proxy._routes.records.loads._timeout = 0.2
    assert one.asks(1) == [200]
    store.slow = 2.0
    assert one.asks(2) == [200] * 2
    assert max(record.seconds for record in one.audit.records) < 1.5


def test_a_damaged_record_harms_no_other(colour: str, caplog: pytest.LogCaptureFixture) -> None:
    """What is known of the others is read; the damaged one begins anew, and the log says so once."""
    store = MemoryStore()
    assert Deciding(colour, by_key(old=200, new=401), store=store).asks(1) == [200]
    store.write_state("version/damaged", b"{}", 0)
    again = Deciding(colour, by_key(old=200, new=401), store=store)
    assert again.asks(3) == [200] * 3
    assert again.seen == [OLD] * 3
    assert len([record for record in caplog.records if "damaged" in record.message]) == 1
    [name] = [state.name for state in store.states("version/") if state.name != "version/damaged"]
    store.write_state(name, b"[", store.state(name).number)
    assert again.asks(2) == [200] * 2
    assert b"rolled_back" in store.state(name).value
    assert max(record.levelno for record in caplog.records) == logging.WARNING


def test_only_so_many_changes_wait_for_a_store_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each may have a thread. What was counted meanwhile is noted later."""
    store = Away()
    one = Deciding("sync", by_key(old=200, new=200), store=store, rotation={"successes": 1, "automatic": False})
    assert one.asks(1) == [200]
    monkeypatch.setattr("apitokenproxy.rotation.records.FRESH", 60.0)
    assert one.asks(1) == [200]
    store.slow = 0.5
    before = threading.active_count()
    with httpx.Client(transport=one.proxy.transport(one.token)) as client:
        for _ in range(30):
            assert client.get("http://proxy/api/x").status_code == 200
    assert threading.active_count() - before < 10
    store.slow = 0.0
    assert one.asks(1) == [200]
    assert one.asks(1) == [200]
    assert one.records()[0].accepted > 20


def test_a_clock_that_is_set_back_does_not_make_what_was_learned_last() -> None:
    """What is read goes before it again, at the latest after the seconds that it would have lasted."""
    now = [1_000_000.0]
    bound = VersionRecords(MemoryStore(), lambda: now[0]).bind(SYNC)
    bound.learn(Record("api", "v"), promoted)
    assert bound.find(Known(), "api", "v").promoted
    now[0] -= 3600.0
    assert not bound.find(Known(), "api", "v").promoted
