"""What is loaded: once for all, renewed ahead, used on in an outage, given up when it hangs; in both colours."""

import asyncio
import gc
import logging
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from apitokenproxy import loading
from apitokenproxy._colour import ASYNC, SYNC, run
from apitokenproxy.errors import SecretUnavailable, StoreUnavailable
from apitokenproxy.loading import Loaded, Loads
from loopback import wait_until

COLOURS = ["async", "sync"]
PATIENCE = 10.0
MATERIAL = "s3cret/m4terial+0f7a9c2e51d84b06"


class Hand:
    """A clock that a test sets by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Place:
    """Where a value is asked for: it brings what `says` is at the time, or raises it; `gate` holds it up."""

    def __init__(self, says: Any = "one", ttl: float = 100.0, at_most: float = float("inf")) -> None:
        self.says = says
        self.ttl = ttl
        self.at_most = at_most
        self.gate: threading.Event | None = None
        self.asked = 0

    def ask(self) -> Loaded[str]:
        self.asked += 1
        if self.gate is not None:
            assert self.gate.wait(PATIENCE)
        if isinstance(self.says, BaseException):
            raise self.says
        return Loaded(self.says, self.ttl, self.at_most)


class Caller:
    """Asks in one colour; under ASYNC always on the same event loop, which `turn` lets go on."""

    def __init__(self, colour: str, loads: Loads[str], place: Place) -> None:
        self.loads = loads
        self._colour = ASYNC if colour == "async" else SYNC
        self._load: Callable[[], Awaitable[Loaded[str]]] = self._colour.lift_apart(place.ask, Loaded)
        self._loop = asyncio.new_event_loop() if colour == "async" else None

    def get(self, key: str = "key", tenant: str = "") -> str:
        asked = self.loads.get(key, self._load, self._colour, tenant)
        return self._loop.run_until_complete(asked) if self._loop is not None else run(asked)

    def refusal(self, key: str = "key", tenant: str = "") -> StoreUnavailable:
        with pytest.raises(StoreUnavailable) as refused:
            self.get(key, tenant)
        return refused.value

    def turn(self) -> None:
        """Let what runs on the event loop go on."""
        if self._loop is not None:
            self._loop.run_until_complete(asyncio.sleep(0.001))

    def settle(self) -> None:
        """Let every load that nobody waits for land."""

        def landed() -> bool:
            self.turn()
            return not self.loads._process.flights

        wait_until(landed)

    def hung_has_ended(self) -> bool:
        """Tell whether every load that was given up has come to its end."""
        self.settle()
        return all(flight.ended() for flight in self.loads._process.hanging)

    def close(self) -> None:
        if self._loop is not None:
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self._loop.run_until_complete(asyncio.sleep(0))
            self._loop.close()


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def place() -> Place:
    return Place()


@pytest.fixture(params=COLOURS)
def caller(request: pytest.FixtureRequest, clock: Hand, place: Place) -> Iterator[Caller]:
    caller = Caller(request.param, Loads("the place", StoreUnavailable, clock=clock, outage=300.0), place)
    yield caller
    if place.gate is not None:
        place.gate.set()
    caller.close()


OUTAGE = StoreUnavailable("nobody is at home", outage=True)
GONE = StoreUnavailable("there is no such thing")


# --- ahead ----------------------------------------------------------------------------------


def test_past_four_fifths_of_its_life_a_value_is_renewed_and_nobody_waits(
    caller: Caller, clock: Hand, place: Place
) -> None:
    """The old one is returned at once, however long the new one takes; then the new one is there."""
    assert caller.get() == "one"
    clock.now, place.says, place.gate = 79.9, "two", threading.Event()
    assert (caller.get(), place.asked) == ("one", 1)
    clock.now = 80.0
    assert caller.get() == "one"
    place.gate.set()
    caller.settle()
    assert (caller.get(), place.asked) == ("two", 2)
    clock.now = 159.9  # counted from when the new one was there
    assert (caller.get(), place.asked) == ("two", 2)


def test_there_are_never_two_renewals_at_once(caller: Caller, clock: Hand, place: Place) -> None:
    """However many ask meanwhile."""
    caller.get()
    clock.now, place.gate = 90.0, threading.Event()
    assert [caller.get() for _ in range(50)] == ["one"] * 50
    wait_until(lambda: (caller.get(), place.asked)[1] == 2)
    place.gate.set()
    caller.settle()
    assert place.asked == 2


def test_who_comes_at_the_end_of_its_life_waits_for_the_renewal(caller: Caller, clock: Hand, place: Place) -> None:
    """It is not asked for a second time."""
    caller.get()
    clock.now, place.says, place.gate = 90.0, "two", threading.Event()
    caller.get()
    clock.now = 100.0
    threading.Timer(0.05, place.gate.set).start()
    assert (caller.get(), place.asked) == ("two", 2)


@pytest.mark.parametrize("failure", [OUTAGE, GONE, RuntimeError(MATERIAL)], ids=lambda failure: type(failure).__name__)
def test_a_renewal_that_fails_is_tried_again_after_a_second(
    caller: Caller, clock: Hand, place: Place, failure: Exception
) -> None:
    """Nobody is told while the value lives, and nobody waits."""
    caller.get()
    asked = []
    for moment, says in [(85.0, failure), (85.9, failure), (86.0, "two"), (86.5, "three")]:
        clock.now, place.says = moment, says
        assert caller.get() == ("two" if moment == 86.5 else "one")
        caller.settle()
        asked.append(place.asked)
    assert asked == [2, 2, 3, 3]


def test_only_so_many_renewals_run_at_once(caller: Caller, clock: Hand, place: Place) -> None:
    """The others wait for a place among them, or for the end of their life."""
    keys = [f"key-{number}" for number in range(30)]
    for key in keys:
        caller.get(key)
    clock.now, place.gate = 90.0, threading.Event()
    assert [caller.get(key) for key in keys] == ["one"] * 30
    assert len(caller.loads._process.flights) == 8
    place.gate.set()
    caller.settle()
    place.gate = None
    for _ in range(4):
        assert [caller.get(key) for key in keys] == ["one"] * 30
        caller.settle()
    assert place.asked == 60


# --- in an outage ---------------------------------------------------------------------------


def test_in_an_outage_the_last_good_value_stands_in_for_a_while(
    caller: Caller, clock: Hand, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried once a second, one warning says so, and after `outage` seconds everyone is refused."""
    caller.get()
    place.says = OUTAGE
    asked = []
    with caplog.at_level(logging.WARNING):
        for moment in (100.0, 100.9, 101.0, 101.5, 102.0, 399.9):
            clock.now = moment
            assert caller.get() == "one"
            caller.settle()
            asked.append(place.asked)
    assert asked == [2, 2, 3, 3, 4, 5]
    assert [(record.name, record.getMessage()) for record in caplog.records] == [
        (
            "apitokenproxy",
            "the place does not answer; what it said last is used for 300 more seconds at most: nobody is at home",
        )
    ]
    clock.now = 400.0
    assert str(caller.refusal()) == "nobody is at home"
    place.says = "two"
    assert caller.get() == "two"


def test_in_an_outage_nobody_waits_but_who_first_notices(caller: Caller, clock: Hand, place: Place) -> None:
    """A place that hangs does not hold up every request for its timeout."""
    caller.get()
    clock.now, place.says = 100.0, OUTAGE
    assert caller.get() == "one"
    clock.now, place.gate = 102.0, threading.Event()
    assert [caller.get() for _ in range(10)] == ["one"] * 10


def test_every_outage_is_told(caller: Caller, clock: Hand, place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """Once each."""
    with caplog.at_level(logging.WARNING):
        for begin in (0.0, 1000.0):
            clock.now, place.says = begin, "one"
            caller.get()
            place.says = OUTAGE
            for second in (101.0, 105.0):
                clock.now = begin + second
                caller.get()
                caller.settle()
    assert len(caplog.records) == 2


@pytest.mark.parametrize("failure", [GONE, RuntimeError(MATERIAL)], ids=["gone", "fault"])
def test_what_answers_is_no_outage(caller: Caller, clock: Hand, place: Place, failure: Exception) -> None:
    """A place that says no ends the value with its life, also when nobody answers any more after that."""
    caller.get()
    clock.now, place.says = 100.0, failure
    told = str(caller.refusal())
    assert MATERIAL not in told
    assert told in {"there is no such thing", "the place: raised RuntimeError"}
    place.says = OUTAGE
    assert str(caller.refusal()) == "nobody is at home"


def test_a_no_in_the_middle_of_an_outage_ends_it(caller: Caller, clock: Hand, place: Place) -> None:
    """It is back, and has spoken."""
    caller.get()
    clock.now, place.says = 100.0, OUTAGE
    assert caller.get() == "one"
    clock.now, place.says = 102.0, GONE
    assert caller.get() == "one"  # nobody waits
    caller.settle()
    assert str(caller.refusal()) == "there is no such thing"


def test_a_lease_is_never_used_longer(caller: Caller, clock: Hand, place: Place) -> None:
    """`at_most` ends it: before its time to live, and in an outage."""
    place.at_most = 50.0
    caller.get()
    clock.now, place.says = 39.9, OUTAGE
    assert (caller.get(), place.asked) == ("one", 1)
    clock.now = 49.9
    assert caller.get() == "one"
    caller.settle()
    clock.now = 50.0
    assert str(caller.refusal()) == "nobody is at home"


def test_a_lease_counts_from_when_it_was_asked_for(clock: Hand) -> None:
    """The place began it at some moment in between; a time to live begins when the value is there."""

    class Slow(Place):
        def ask(self) -> Loaded[str]:
            clock.now += 20.0
            return super().ask()

    place = Slow(ttl=100.0, at_most=50.0)
    caller = Caller("sync", Loads("the place", StoreUnavailable, clock=clock), place)
    caller.get()
    place.says = OUTAGE
    clock.now = 49.0
    assert caller.get() == "one"
    caller.settle()
    clock.now = 50.0
    caller.refusal()


def test_what_is_not_to_be_kept_does_not_stand_in(caller: Caller, place: Place) -> None:
    """A time to live of nothing means: ask each time."""
    place.ttl = 0.0
    assert [caller.get(), caller.get(), place.asked] == ["one", "one", 2]
    place.says = OUTAGE
    assert str(caller.refusal()) == "nobody is at home"


# --- failures -------------------------------------------------------------------------------


def test_failures_are_told_with_what_belongs_to_them(caller: Caller, place: Place) -> None:
    """When to try again and whether anybody answered; each caller has an exception of their own, without a cause."""
    place.says = StoreUnavailable("sealed", retry_after=30.0, outage=True)
    first, second = caller.refusal(), caller.refusal()
    assert [(each.detail, each.retry_after, each.outage) for each in (first, second)] == [("sealed", 30.0, True)] * 2
    assert (first is second, first.__cause__, first.__suppress_context__) == (False, None, True)
    assert place.asked == 2  # a failure is not remembered


class NotKept(StoreUnavailable):
    """The place knows of none."""


class Detailed(StoreUnavailable):
    """An error that is made in a way of its own."""

    def __init__(self, number: int) -> None:
        super().__init__(f"number {number}")


@pytest.mark.parametrize(
    ("failure", "told"), [(NotKept("none", retry_after=5.0), NotKept), (Detailed(5), StoreUnavailable)]
)
def test_failures_are_told_as_what_they_are(
    caller: Caller, place: Place, failure: StoreUnavailable, told: type
) -> None:
    """With the code of their own; one that cannot be made again is told as its kind."""
    place.says = failure
    refusal = caller.refusal()
    assert (type(refusal), refusal.detail, refusal.retry_after) == (told, failure.detail, failure.retry_after)
    assert refusal is not failure


@pytest.mark.parametrize("failure", [ValueError(MATERIAL), KeyError(MATERIAL), SecretUnavailable(MATERIAL)])
def test_errors_of_other_kinds_are_told_by_their_type(caller: Caller, place: Place, failure: Exception) -> None:
    """Their text could hold material; nothing that hangs on the refusal leads to it."""
    place.says = failure
    refusal = caller.refusal()
    assert str(refusal) == f"the place: raised {type(failure).__name__}"
    assert refusal.__cause__ is None
    assert refusal.__suppress_context__


def test_a_load_that_brings_no_number_is_told(caller: Caller, place: Place) -> None:
    """Nobody waits for ever because of it."""
    place.ttl = "100"  # type: ignore[assignment]
    assert str(caller.refusal()) == "the place: raised TypeError"


# --- what hangs -----------------------------------------------------------------------------


@pytest.fixture(params=COLOURS)
def impatient(request: pytest.FixtureRequest, clock: Hand, place: Place) -> Iterator[Caller]:
    """A caller who waits a tenth of a second."""
    loads = Loads[str]("the place", StoreUnavailable, clock=clock, outage=300.0, timeout=0.1)
    caller = Caller(request.param, loads, place)
    yield caller
    if place.gate is not None:
        place.gate.set()
    caller.close()


def test_a_load_that_hangs_is_given_up(impatient: Caller, place: Place) -> None:
    """Who waits is told; while it hangs the next are told at once, and when it has ended they may try again."""
    place.gate = threading.Event()
    refusals = [impatient.refusal() for _ in range(3)]
    assert [(str(refusal), refusal.outage) for refusal in refusals] == [
        ("the place did not answer within 0.1 seconds", True),
        *[("the place does not answer: attempts hang already, or too many run", True)] * 2,
    ]
    assert place.asked == 1
    place.gate.set()
    wait_until(impatient.hung_has_ended)
    assert (impatient.get(), place.asked) == ("one", 2)


def test_what_comes_late_is_not_used(impatient: Caller, place: Place) -> None:
    """It was asked for too long ago; the next one asks anew."""
    place.gate, place.says = threading.Event(), "late"
    impatient.refusal()
    place.gate.set()
    wait_until(impatient.hung_has_ended)
    place.says = "two"
    assert (impatient.get(), place.asked) == ("two", 2)


def test_a_key_that_hangs_holds_up_no_other(impatient: Caller, clock: Hand, place: Place) -> None:
    """One tenant's secret hangs and is asked for a hundred times: of the others each is served, and renewed."""
    others = [f"tenant-{number}" for number in range(20)]
    for moment in (0.0, 85.0):  # loaded, then renewed
        clock.now, place.gate = moment, threading.Event()
        for _ in range(50):
            impatient.refusal("hanging")
        hung, place.gate = place.gate, None
        asked = place.asked
        for other in others:
            assert impatient.get(other) == "one"
            impatient.settle()
        assert place.asked == asked + 20
        hung.set()
        wait_until(impatient.hung_has_ended)


def test_a_hundred_that_wait_for_a_key_that_hangs_hold_up_no_other(clock: Hand) -> None:
    """All at once, tasks and threads: it is asked for once, and whoever asks for another key is served meanwhile."""
    hanging, place = Place(), Place()
    hanging.gate = threading.Event()
    loads = Loads[str]("the place", StoreUnavailable, clock=clock)
    refused: list[str] = []

    async def many() -> None:
        loaded = ASYNC.lift_apart(hanging.ask, Loaded)
        waiting = [asyncio.ensure_future(loads.get("hanging", loaded, ASYNC)) for _ in range(50)]
        assert await loads.get("other", ASYNC.lift(place.ask, Loaded), ASYNC) == "one"
        clock.now = 31.0
        with pytest.raises(StoreUnavailable):
            await loads.get("hanging", loaded, ASYNC)
        refused.extend(str(error) for error in await asyncio.gather(*waiting, return_exceptions=True))

    def one() -> None:
        try:
            run(loads.get("hanging", SYNC.lift_apart(hanging.ask, Loaded), SYNC))
        except StoreUnavailable as error:
            refused.append(str(error))

    threads = [threading.Thread(target=one, daemon=True) for _ in range(50)]
    for thread in threads:
        thread.start()
    wait_until(lambda: hanging.asked == 1)
    assert run(loads.get("another", SYNC.lift(place.ask, Loaded), SYNC)) == "one"
    asyncio.run(many())
    for thread in threads:
        thread.join(PATIENCE)
    hanging.gate.set()
    assert (set(refused), len(refused)) == ({"the place did not answer within 30 seconds"}, 100)
    assert (hanging.asked, place.asked) == (1, 2)


def test_a_renewal_that_hangs_leaves_its_place_to_others(caller: Caller, clock: Hand, place: Place) -> None:
    """Also when nobody asks for what it would bring: it is given up in its time."""
    keys = [f"key-{number}" for number in range(9)]
    for key in keys:
        caller.get(key)
    clock.now, hung = 85.0, threading.Event()
    place.gate = hung
    for key in keys[:8]:
        caller.get(key)
    wait_until(lambda: (caller.turn(), place.asked)[1] == 17)
    place.gate = None
    clock.now, place.says = 115.0, "two"
    assert caller.get(keys[8]) == "two"
    assert (len(caller.loads._process.hanging), len(caller.loads._process.behind)) == (8, 0)
    hung.set()


@pytest.mark.long
def test_loads_that_hang_do_not_pile_up(
    impatient: Caller, clock: Hand, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond a bound nothing is begun, and nobody waits; when one ends, it is tried again."""
    monkeypatch.setattr(loading, "_MOST_HANGING", 32)
    keys = [f"key-{number}" for number in range(40)]
    for key in keys:
        impatient.get(key)
    clock.now, place.gate = 90.0, threading.Event()
    for key in keys:
        clock.now += 1.0  # by which the renewal before is given up
        impatient.get(key)
    assert (len(impatient.loads._process.hanging), len(impatient.loads._process.flights)) == (32, 0)
    refusal = impatient.refusal("new")
    assert (str(refusal), refusal.outage) == ("the place does not answer: attempts hang already, or too many run", True)
    assert place.asked == 72
    place.gate.set()
    wait_until(impatient.hung_has_ended)
    assert impatient.get("new") == "one"


def test_a_tenant_whose_places_hang_takes_its_own_share_alone(
    impatient: Caller, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many references it has, as one for each subject: the others are served."""
    monkeypatch.setattr(loading, "_MOST_OF_ONE", 4)
    place.gate = threading.Event()
    for number in range(10):
        impatient.refusal(f"acme-{number}", "acme")
    assert (len(impatient.loads._process.hanging), place.asked) == (4, 4)
    hung, place.gate = place.gate, None
    assert [impatient.get(f"other-{number}", "other") for number in range(10)] == ["one"] * 10
    impatient.refusal("acme-new", "acme")
    hung.set()
    wait_until(impatient.hung_has_ended)
    assert impatient.get("acme-new", "acme") == "one"


@pytest.mark.parametrize("colour", COLOURS)
def test_two_hundred_tenants_may_begin_at_once(colour: str) -> None:
    """A cold start is no outage."""
    place, loads = Place(), Loads[str]("the place", StoreUnavailable)
    names = [f"tenant-{number}" for number in range(200)]
    if colour == "async":

        async def all_at_once() -> list[str]:
            loaded = ASYNC.lift_apart(place.ask, Loaded)
            return await asyncio.gather(*(loads.get(name, loaded, ASYNC, name) for name in names))

        assert asyncio.run(all_at_once()) == ["one"] * 200
        return
    ready = threading.Barrier(200)

    def get(name: str) -> str:
        ready.wait(PATIENCE)
        return run(loads.get(name, SYNC.lift_apart(place.ask, Loaded), SYNC, name))

    with ThreadPoolExecutor(200) as pool:
        assert list(pool.map(get, names)) == ["one"] * 200


def test_a_place_that_hangs_is_an_outage(impatient: Caller, clock: Hand, place: Place) -> None:
    """The last good value stands in; who notices first waits for the timeout, the others do not."""
    impatient.get()
    clock.now, place.gate = 100.0, threading.Event()
    assert [impatient.get() for _ in range(3)] == ["one"] * 3
    assert place.asked == 2
    for number in range(20):
        clock.now = 110.0 + 2 * number  # by which the renewal before is given up
        assert impatient.get() == "one"
    assert (len(impatient.loads._process.hanging), len(impatient.loads._process.flights)) == (1, 0)
    assert place.asked == 2


# --- both colours, threads and loops --------------------------------------------------------


def test_tasks_threads_and_loops_share_one_load() -> None:
    """A process asks once, however it is written."""
    place, loads = Place(), Loads[str]("the place", StoreUnavailable)
    place.gate = threading.Event()
    got: list[str] = []

    def ask(colour: str) -> None:
        caller = Caller(colour, loads, place)
        got.append(caller.get())
        caller.close()

    threads = [threading.Thread(target=ask, args=(colour,)) for colour in COLOURS * 10]
    for thread in threads:
        thread.start()
    wait_until(lambda: place.asked == 1)
    place.gate.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert (got, place.asked) == (["one"] * 20, 1)


def test_a_renewal_that_dies_with_its_event_loop_is_begun_anew(clock: Hand) -> None:
    """Under `asyncio.run` a script ends before it lands; a later one does not wait for it."""
    place, loads = Place(), Loads[str]("the place", StoreUnavailable, clock=clock)

    async def load() -> Loaded[str]:
        if clock.now == 90.0:
            await asyncio.Event().wait()
        return place.ask()

    for moment, value in [(0.0, "one"), (90.0, "one"), (95.0, "one"), (96.0, "two")]:
        clock.now, place.says = moment, "two" if moment == 95.0 else "one"

        async def ask() -> str:
            got = await loads.get("key", load, ASYNC)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return got

        assert asyncio.run(ask()) == value
    assert loads._process.flights == {}


def test_a_renewal_on_an_event_loop_that_was_closed_around_it_is_begun_anew(clock: Hand) -> None:
    """Not everybody ends their tasks as asyncio.run does."""
    place, loads = Place(), Loads[str]("the place", StoreUnavailable, clock=clock)

    async def load() -> Loaded[str]:
        if clock.now == 90.0:
            await asyncio.Event().wait()
        return place.ask()

    def ask_and_close() -> str:
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda *_: None)  # it would say that a task was destroyed
        got = loop.run_until_complete(loads.get("key", load, ASYNC))
        loop.close()
        return got

    ask_and_close()
    clock.now = 90.0
    assert ask_and_close() == "one"
    clock.now = 100.0
    assert (ask_and_close(), place.asked) == ("one", 2)
    gc.collect()


FORKED = """
import os, threading
from apitokenproxy._colour import SYNC, run
from apitokenproxy.errors import StoreUnavailable
from apitokenproxy.loading import Loaded, Loads

loads = Loads("the place", StoreUnavailable)
begun, gate = threading.Event(), threading.Event()

async def slow():
    begun.set()
    gate.wait(30)
    return Loaded("slow", 60.0)

async def quick():
    return Loaded("quick", 60.0)

asking = threading.Thread(target=lambda: run(loads.get("key", slow, SYNC)))
asking.start()
begun.wait(30)
with loads._process.lock:  # as another thread may hold it
    child = os.fork()
    if not child:
        print(run(loads.get("key", quick, SYNC)), flush=True)
        os._exit(0)
os.waitpid(child, 0)
gate.set()
asking.join(30)
print(loads.kept("key"))
"""


def test_nothing_is_in_flight_after_a_fork() -> None:
    """The child has no thread that would land it, and a lock that nobody would open; the parent goes on."""
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, check=False, timeout=30)
    assert done.stdout == "quick\nslow\n", done.stderr


def test_keys_are_bounded(caller: Caller) -> None:
    """The one that came first makes room."""
    caller.loads._max_keys = 3
    for key in "abcd":
        caller.get(key)
    assert [caller.loads.last(key) for key in "abcd"] == [None, "one", "one", "one"]
