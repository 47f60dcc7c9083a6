"""The cache before all providers: one fetch for everyone, told to everyone, kept as long as it may be."""

import asyncio
import gc
import hmac
import logging
import re
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from secret_calls import (
    ACME,
    COLOURS,
    MATERIAL,
    PATIENCE,
    Changing,
    Hand,
    Quick,
    Slow,
    SlowAsync,
    SlowDef,
    Watched,
    in_tasks,
    in_threads,
    read,
    read_all,
    refusal,
    revealed,
)

from apitokenproxy._colour import ASYNC, SYNC, nonblocking, run
from apitokenproxy.errors import ConfigurationError, ProxyError, SecretUnavailable, StoreUnavailable
from apitokenproxy.identity.memory import MemoryStore
from apitokenproxy.identity.sql import SqlStore
from apitokenproxy.messages import Caller, Secret
from apitokenproxy.secrets.cache import MAX_REFERENCES, Secrets

CALLERS = 100
WRITTEN = [("async", SlowAsync), ("async", SlowDef), ("async", Quick), ("sync", SlowDef), ("sync", Quick)]
WAITING = [("async", SlowAsync), ("async", SlowDef), ("sync", SlowDef)]


def at_once(secrets: Secrets, colour: str, watched: Watched, count: int = CALLERS) -> list[Any]:
    """Read the same reference in so many tasks or threads; return what each got or was told."""
    read = secrets.bind(watched).reader("slow:x")
    if colour == "async":
        return in_tasks(count, lambda: read(ACME))
    return in_threads(count, lambda: run(read(ACME)))


def watched(colour: str, expected: int = CALLERS) -> Watched:
    return Watched(ASYNC if colour == "async" else SYNC, expected)


# --- one fetch ------------------------------------------------------------------------------


@pytest.mark.parametrize(("colour", "written"), WRITTEN)
def test_a_hundred_callers_at_once_fetch_once(colour: str, written: type[Slow]) -> None:
    """Tasks of one loop and threads alike wait for the one fetch, and get the very same object."""
    seen = watched(colour)
    provider = written(seen.all_wait)
    got = at_once(Secrets({"slow": provider}), colour, seen)
    assert {MATERIAL.encode()} == {secret.reveal() for secret in got}
    assert (len(got), len(set(map(id, got))), provider.fetched) == (CALLERS, 1, 1)


@pytest.mark.parametrize("written", [SlowAsync, SlowDef])
def test_two_event_loops_in_two_threads_fetch_once(written: type[Slow]) -> None:
    """A process with several loops still asks its secret manager once."""
    seen = watched("async")
    provider = written(seen.all_wait)
    read = Secrets({"slow": provider}).bind(seen).reader("slow:x")
    loops = in_threads(2, lambda: in_tasks(CALLERS // 2, lambda: read(ACME)))
    got = [secret for loop in loops for secret in loop]
    assert {MATERIAL.encode()} == {secret.reveal() for secret in got}
    assert (len(got), provider.fetched) == (CALLERS, 1)


def test_both_colours_share_one_fetch() -> None:
    """A program that mounts the ASGI app and uses a script's transport asks once, too."""
    gate = threading.Event()
    provider = SlowDef(gate)
    secrets = Secrets({"slow": provider})
    seen = [Watched(ASYNC, 1), Watched(SYNC, 1)]
    for each in seen:
        each.all_wait = gate
    awaited, blocking = (secrets.bind(each).reader("slow:x") for each in seen)
    turns = iter([lambda: asyncio.run(_awaited(awaited(ACME))), lambda: run(blocking(ACME))])

    def take_a_turn() -> Secret:
        return next(turns)()

    got = in_threads(2, take_a_turn)
    assert [MATERIAL.encode()] * 2 == [secret.reveal() for secret in got]
    assert provider.fetched == 1


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


@pytest.mark.parametrize("colour", COLOURS)
def test_a_caller_who_looked_just_before_it_arrived_does_not_fetch_again(colour: str) -> None:
    """Between finding the secret expired and asking for it, another caller may have renewed it."""
    provider = Changing(ttl=60.0)
    lag: list[str] = []

    def clock() -> float:
        if lag:
            lag.pop()
            [late] = in_threads(1, lambda: revealed(secrets, colour, "changing:x"))
            assert late == MATERIAL.encode()
        return now

    now = 0.0
    secrets = Secrets({"changing": provider}, clock=clock)
    read(secrets, colour, "changing:x")
    now = 100.0
    lag.append("another caller comes first")
    assert MATERIAL.encode() == revealed(secrets, colour, "changing:x")
    assert provider.fetched == 2


@pytest.mark.parametrize("colour", COLOURS)
def test_different_references_do_not_wait_for_each_other(colour: str) -> None:
    """A secret manager that is slow with one secret holds up nobody who wants another."""
    begun, gate = threading.Event(), threading.Event()

    class Picky:
        def fetch(self, reference: str) -> Secret:
            if reference == "slow":
                begun.set()
                assert gate.wait(PATIENCE)
            return Secret(reference)

    secrets = Secrets({"picky": Picky()})
    got: list[bytes] = []
    slow = threading.Thread(target=lambda: got.append(revealed(secrets, colour, "picky:slow")), daemon=True)
    slow.start()
    assert begun.wait(PATIENCE)
    got.append(revealed(secrets, colour, "picky:quick"))
    gate.set()
    slow.join(PATIENCE)
    assert got == [b"quick", b"slow"]


@pytest.mark.timeout(5)
def test_a_script_called_on_the_event_loop_does_not_wait_for_that_loop() -> None:
    """A blocking client in an async handler is slow, but it must not lock the process up for good.

    The fetch in flight belongs to a task of the loop that the blocking call holds up: it would never land.
    """
    fetched: list[str] = []

    class Both:
        def fetch(self, reference: str) -> Secret:
            fetched.append(reference)
            return Secret(MATERIAL)

    secrets = Secrets({"both": Both()})
    awaited, blocking = secrets.bind(ASYNC).reader("both:x"), secrets.bind(SYNC).reader("both:x")

    async def handler() -> tuple[Any, Secret]:
        in_flight = asyncio.ensure_future(_awaited(awaited(ACME)))
        await asyncio.sleep(0)
        try:
            at_once = run(blocking(ACME))
        except ProxyError as refusal:
            at_once = refusal
        return at_once, await in_flight

    at_once, in_flight = asyncio.run(handler())
    assert isinstance(at_once, Secret | ProxyError)
    assert MATERIAL.encode() == in_flight.reveal()


# --- who gives up ---------------------------------------------------------------------------


@pytest.mark.parametrize("written", [SlowAsync, SlowDef])
def test_when_the_first_caller_is_cancelled_the_others_still_get_it(written: type[Slow]) -> None:
    """Its client left; the fetch goes on for all who are still there, and is not begun again."""
    seen = Watched(ASYNC, CALLERS)
    gate = threading.Event()
    provider = written(gate)

    async def ask() -> list[Any]:
        read = Secrets({"slow": provider}).bind(seen).reader("slow:x")
        tasks = [asyncio.ensure_future(_awaited(read(ACME))) for _ in range(CALLERS)]
        assert await asyncio.to_thread(seen.all_wait.wait, PATIENCE)
        tasks[0].cancel()
        await asyncio.wait(tasks[:1])
        gate.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    leader, *others = asyncio.run(ask())
    assert isinstance(leader, asyncio.CancelledError)
    assert [MATERIAL.encode()] * (CALLERS - 1) == [secret.reveal() for secret in others]
    assert provider.fetched == 1


class Stop(BaseException):
    """What a server or a person ends a worker with."""


def test_when_the_fetch_is_ended_the_others_still_get_it() -> None:
    """KeyboardInterrupt and its like in one fetch are told to whoever began it; the next in line begins anew."""
    seen = watched("sync")
    provider = SlowDef(seen.all_wait, Stop())
    got = at_once(Secrets({"slow": provider}), "sync", seen)
    ended = [str(outcome) for outcome in got if isinstance(outcome, Exception)]
    others = [outcome.reveal() for outcome in got if isinstance(outcome, Secret)]
    assert ended == ["the provider of slow: the attempt was ended before it had an answer"]
    assert [MATERIAL.encode()] * (CALLERS - 1) == others
    assert provider.fetched == 2


@pytest.mark.parametrize("written", [SlowAsync, SlowDef])
def test_when_a_waiter_is_cancelled_nobody_else_notices(written: type[Slow]) -> None:
    """The fetch goes on, and is not begun again."""
    seen = Watched(ASYNC, CALLERS)
    gate = threading.Event()
    provider = written(gate)

    async def ask() -> list[Any]:
        read = Secrets({"slow": provider}).bind(seen).reader("slow:x")
        tasks = [asyncio.ensure_future(_awaited(read(ACME))) for _ in range(CALLERS)]
        assert await asyncio.to_thread(seen.all_wait.wait, PATIENCE)
        for task in tasks[1::2]:
            task.cancel()
        await asyncio.wait(tasks[1::2])
        gate.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    got = asyncio.run(ask())
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in got[1::2])
    assert [MATERIAL.encode()] * (CALLERS // 2) == [secret.reveal() for secret in got[0::2]]
    assert provider.fetched == 1


# --- failures -------------------------------------------------------------------------------

FAILURES = {
    "a refusal": (SecretUnavailable("the vault is sealed"), "the vault is sealed"),
    "a fault": (RuntimeError(f"GET /?key={MATERIAL}"), "the provider of slow: raised RuntimeError"),
    "a fault without text": (KeyError(), "the provider of slow: raised KeyError"),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize(("colour", "written"), WAITING)
def test_a_failed_fetch_is_told_to_all_and_not_remembered(colour: str, written: type[Slow], failure: str) -> None:
    """Everyone who waited is told the same, each with an exception of their own; the next request tries again."""
    error, expected = FAILURES[failure]
    seen = watched(colour)
    provider = written(seen.all_wait, error)
    secrets = Secrets({"slow": provider})
    told = at_once(secrets, colour, seen)
    assert {(SecretUnavailable, expected)} == {(type(each), str(each)) for each in told}
    assert (len({id(each) for each in told}), provider.fetched) == (CALLERS, 1)
    assert MATERIAL.encode() == revealed(secrets, colour, "slow:x")
    assert provider.fetched == 2


@pytest.mark.parametrize(("colour", "written"), WAITING)
def test_all_are_told_when_to_try_again(colour: str, written: type[Slow]) -> None:
    """A provider that knows (a Retry-After of its secret manager) says so to everyone who waited."""
    seen = watched(colour)
    provider = written(seen.all_wait, SecretUnavailable("the vault is sealed", retry_after=30.0))
    told = at_once(Secrets({"slow": provider}), colour, seen)
    assert {30.0} == {each.retry_after for each in told}


@pytest.mark.parametrize("written", [SlowAsync, SlowDef])
def test_a_failure_that_was_told_is_not_logged_again(written: type[Slow], caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is left over that asyncio complains about when it is collected ("exception was never retrieved")."""
    seen = watched("async")
    with caplog.at_level(logging.DEBUG):
        at_once(Secrets({"slow": written(seen.all_wait, SecretUnavailable("sealed"))}), "async", seen)
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.DEBUG] == []


@pytest.mark.parametrize("written", [SlowAsync, SlowDef])
def test_a_failure_after_a_waiter_left_is_not_logged(written: type[Slow], caplog: pytest.LogCaptureFixture) -> None:
    """Whoever was cancelled meanwhile has nobody to be told, and that is no error."""
    seen = Watched(ASYNC, 1)
    gate = threading.Event()

    async def ask() -> None:
        read = Secrets({"slow": written(gate, SecretUnavailable("sealed"))}).bind(seen).reader("slow:x")
        leader, waiter = (asyncio.ensure_future(_awaited(read(ACME))) for _ in range(2))
        assert await asyncio.to_thread(seen.all_wait.wait, PATIENCE)
        waiter.cancel()
        await asyncio.wait([waiter])
        gate.set()
        await asyncio.wait([leader])
        assert isinstance(leader.exception(), SecretUnavailable)

    with caplog.at_level(logging.DEBUG):
        asyncio.run(ask())
        gc.collect()
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.DEBUG] == []


def test_a_fetch_that_outlives_a_waiters_event_loop_ends_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    """A script that gave up and closed its loop is nobody to tell, and that is no error."""
    seen = Watched(ASYNC, 1)
    gate, begun = threading.Event(), threading.Event()

    class Begun(SlowDef):
        def fetch(self, reference: str) -> Secret:
            begun.set()
            return super().fetch(reference)

    read = Secrets({"slow": Begun(gate)}).bind(seen).reader("slow:x")

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(_awaited(read(ACME)), 0.05)

    got: list[Secret] = []
    leader = threading.Thread(target=lambda: got.append(asyncio.run(_awaited(read(ACME)))), daemon=True)
    with caplog.at_level(logging.DEBUG):
        leader.start()
        assert begun.wait(PATIENCE)
        asyncio.run(give_up())
        assert seen.all_wait.is_set()
        gate.set()
        leader.join(PATIENCE)
        gc.collect()
    assert [MATERIAL.encode()] == [secret.reveal() for secret in got]
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.DEBUG] == []


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("failure", [SecretUnavailable("sealed"), OSError("gone")])
def test_an_expired_secret_is_not_used_because_the_new_one_cannot_be_had(colour: str, failure: Exception) -> None:
    """A secret that was withdrawn must stop working, and an unreachable provider cannot say that it was not."""
    clock, provider = Hand(), Changing(ttl=60.0)
    secrets = Secrets({"changing": provider}, clock=clock)
    assert MATERIAL.encode() == revealed(secrets, colour, "changing:x")
    clock.now, provider.material = 60.0, failure
    assert refusal(secrets, colour, "changing:x") in {"sealed", "the provider of changing: raised OSError"}
    provider.material = "new"
    assert revealed(secrets, colour, "changing:x") == b"new"


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("result", [MATERIAL, MATERIAL.encode(), None, True, 5, {"secret": MATERIAL}])
def test_what_is_no_secret_is_refused_and_its_type_is_told(colour: str, result: object) -> None:
    """A provider that forgot `Secret(...)` is told so, without what it returned."""

    class Forgetful:
        @nonblocking
        def fetch(self, reference: str) -> Any:
            return result

    told = refusal(Secrets({"forgetful": Forgetful()}), colour, "forgetful:x")
    assert f"Forgetful.fetch returned {type(result).__name__}" in told
    assert MATERIAL not in told


# --- time to live ---------------------------------------------------------------------------

TTLS = {
    "half a minute": (30.0, [(0, 1), (23.9, 1), (30, 2), (53.9, 2), (60, 3)]),
    "left out: a minute": (None, [(0, 1), (47.9, 1), (60, 2)]),
    "a whole number": (5, [(0, 1), (3, 1), (5, 2)]),
    "none": (0.0, [(0, 1), (0, 2), (0, 3)]),
    "negative": (-1.0, [(0, 1), (0, 2)]),
    "for ever": (float("inf"), [(0, 1), (1e12, 1)]),
    "the clock stands back": (30.0, [(100, 1), (50, 1), (130, 2)]),
}


@pytest.mark.parametrize("ttl", TTLS)
@pytest.mark.parametrize("colour", COLOURS)
def test_a_secret_is_kept_for_its_providers_time_to_live(colour: str, ttl: str) -> None:
    """Seconds, counted from when it was there; at their end it is fetched again (or ahead, if it is used then)."""
    seconds, moments = TTLS[ttl]
    clock, provider = Hand(), Changing(ttl=seconds)
    secrets = Secrets({"changing": provider}, clock=clock)
    fetched = []
    for moment, _ in moments:
        clock.now = moment
        read(secrets, colour, "changing:x")
        fetched.append((moment, provider.fetched))
    assert moments == fetched


@pytest.mark.parametrize("colour", COLOURS)
def test_the_time_to_live_counts_from_when_the_secret_was_there(colour: str) -> None:
    """A slow provider does not hand over what has expired already."""
    clock = Hand()

    class Late(Changing):
        @nonblocking
        def fetch(self, reference: str) -> Any:
            clock.now += 100.0
            return super().fetch(reference)

    provider = Late(ttl=60.0)
    secrets = Secrets({"late": provider}, clock=clock)
    read_all(secrets, colour, [("late:x", ACME)] * 3)
    assert provider.fetched == 1


@pytest.mark.timeout(5)
@pytest.mark.parametrize("ttl", ["30", timedelta(seconds=30), [30]], ids=repr)
@pytest.mark.parametrize("colour", COLOURS)
def test_a_time_to_live_that_is_no_number_is_refused(colour: str, ttl: Any) -> None:
    """It is a mistake in the provider: told, at once or at every request, and nobody waits for ever."""
    secrets = Secrets({"changing": Changing(ttl=ttl)})
    for _ in range(2):
        with pytest.raises((ConfigurationError, SecretUnavailable)):
            read(secrets, colour, "changing:x")


# --- versions -------------------------------------------------------------------------------


@pytest.mark.parametrize("colour", COLOURS)
def test_the_same_material_keeps_its_version_and_a_new_one_gets_another(colour: str) -> None:
    """Audit records tell which secret was used: a renewal is visible, a mere fetch is not."""
    clock, provider = Hand(), Changing(ttl=60.0)
    secrets = Secrets({"changing": provider}, clock=clock)
    read_at = []
    for moment, material in [(0, "a"), (60, "a"), (120, "b"), (180, "b"), (240, "a")]:
        clock.now, provider.material = moment, material
        read_at.append(read(secrets, colour, "changing:x"))
    assert [secret.reveal() for secret in read_at] == [b"a", b"a", b"b", b"b", b"a"]
    assert [read_at[0], read_at[0], read_at[2], read_at[2], read_at[4]] == read_at
    first, second = read_at[0].version, read_at[2].version
    assert [secret.version for secret in read_at] == [first, first, second, second, first]
    assert first != second


@pytest.mark.parametrize("colour", COLOURS)
def test_a_version_tells_nothing_about_the_material(colour: str) -> None:
    """It names the scheme and an HMAC of it under a key of the store: without that nobody can try out materials."""
    versions = set()
    for _ in range(3):
        secrets = Secrets({"changing": Changing(MATERIAL)}, states=MemoryStore())
        found = {read(secrets, colour, f"changing:{name}").version for name in "ab"}
        assert len(found) == 1
        versions |= found
    assert len(versions) == 3
    assert all(re.fullmatch("changing#[0-9a-f]{12}", version) for version in versions)


@pytest.mark.parametrize("colour", COLOURS)
def test_processes_that_share_a_store_name_a_version_alike(colour: str, tmp_path: Path) -> None:
    """An audit record of one can be compared with that of another, and what one learned of it the other may use."""
    found = set()
    for _ in range(3):
        store = SqlStore(f"sqlite:///{tmp_path}/tokens.db")
        found.add(read(Secrets({"changing": Changing(MATERIAL)}, states=store), colour, "changing:x").version)
        store.close()
    assert len(found) == 1


@pytest.mark.parametrize("colour", COLOURS)
def test_a_store_that_is_away_stops_no_secret(colour: str) -> None:
    """The name is this process's own then, and the shared one as soon as the store answers."""
    store = Away()
    store.write_state("fingerprint-key", b"of another process".ljust(32), 0)
    secrets = Secrets({"changing": Changing(MATERIAL)}, states=store)
    first = read(secrets, colour, "changing:a")
    assert first.reveal() == MATERIAL.encode()
    store.away = False
    assert read(secrets, colour, "changing:b").version == read(secrets, colour, "changing:c").version != first.version


@pytest.mark.parametrize("colour", COLOURS)
def test_a_name_that_was_given_without_the_store_is_not_kept(colour: str) -> None:
    """Else what is known of the version in the store would never hold in this process, nor what it learns in others."""
    store = Away()
    store.write_state("fingerprint-key", b"of another process".ljust(32), 0)
    clock = Hand()
    secrets = Secrets({"changing": Changing(MATERIAL)}, states=store, clock=clock)
    first = read(secrets, colour, "changing:a").version
    store.away = False
    clock.now += 1000.0
    assert read(secrets, colour, "changing:a").version != first
    other = Secrets({"changing": Changing(MATERIAL)}, states=store)
    assert read(secrets, colour, "changing:a").version == read(other, colour, "changing:a").version


@pytest.mark.parametrize("kept", [b"", b"short"])
def test_a_key_that_could_be_guessed_is_replaced(kept: bytes) -> None:
    """Under an empty one whoever reads the log could try out what the material is."""
    store = MemoryStore()
    store.write_state("fingerprint-key", kept, 0)
    found = {read(Secrets({"c": Changing(MATERIAL)}, states=store), "sync", "c:a").version for _ in range(2)}
    guess = hmac.digest(kept, MATERIAL.encode(), "sha256").hex()[:12]
    assert len(found) == 1
    assert found != {f"c#{guess}"}
    assert len(store.state("fingerprint-key").value) == 32


class Away(MemoryStore):
    away = True

    def state(self, name: str) -> Any:
        if self.away:
            raise StoreUnavailable("away")
        return super().state(name)


@pytest.mark.parametrize("colour", COLOURS)
def test_a_providers_own_version_is_kept(colour: str) -> None:
    """What a secret manager calls it says more than a fingerprint, which tells 7 of one secret from 7 of another."""
    provider = Changing(Secret(MATERIAL, version="vault/7"))
    assert re.fullmatch("vault/7#[0-9a-f]{12}", read(Secrets({"changing": provider}), colour, "changing:x").version)


# --- bounds ---------------------------------------------------------------------------------


class Counting:
    """A provider of every reference, which counts what it is asked."""

    ttl = float("inf")

    def __init__(self) -> None:
        self.asked: list[str] = []

    @nonblocking
    def fetch(self, reference: str) -> Secret:
        self.asked.append(reference)
        return Secret(f"{MATERIAL}-{reference}")


def held(secrets: Secrets, scheme: str) -> tuple[int, int]:
    """Return how many secrets and fetches the cache holds for a scheme."""
    loads = secrets._kept[scheme]
    return len(loads._kept), len(loads._process.flights)


@pytest.mark.long
@pytest.mark.parametrize("colour", COLOURS)
def test_the_cache_holds_a_bounded_number_of_secrets(colour: str) -> None:
    """However many tenants come, the oldest entries make room, and are fetched again when they are needed."""
    provider = Counting()
    secrets = Secrets({"counting": provider})
    names = [f"{number}" for number in range(MAX_REFERENCES + 100)]
    asked = [(f"counting:{name}", ACME) for name in [*names, names[-1], names[0]]]
    got = read_all(secrets, colour, asked)
    assert [f"{MATERIAL}-{name}".encode() for name in [*names, names[-1], names[0]]] == [one.reveal() for one in got]
    assert [*names, names[0]] == provider.asked
    assert held(secrets, "counting") == (MAX_REFERENCES, 0)


@pytest.mark.parametrize("colour", COLOURS)
def test_failures_take_no_room(colour: str) -> None:
    """References that lead nowhere, as many as there are, leave nothing behind."""
    secrets = Secrets({"changing": Changing(SecretUnavailable("none"))})
    for number in range(100):
        refusal(secrets, colour, f"changing:{number}")
    assert held(secrets, "changing") == (0, 0)


# --- ahead, and in an outage (see tests/test_loading.py) --------------------------------------


@pytest.mark.parametrize("colour", COLOURS)
def test_when_its_place_does_not_answer_the_last_secret_stands_in(colour: str) -> None:
    """For five minutes after its time, if the provider says that it is an outage."""
    clock, provider = Hand(), Changing(ttl=60.0)
    secrets = Secrets({"changing": provider}, clock=clock)
    read(secrets, colour, "changing:x")
    provider.material = SecretUnavailable("nobody answers", outage=True)
    for clock.now in (60.0, 359.9):
        assert MATERIAL.encode() == revealed(secrets, colour, "changing:x")
    clock.now = 360.0
    assert refusal(secrets, colour, "changing:x") == "nobody answers"


@pytest.mark.parametrize("colour", COLOURS)
def test_a_lease_is_not_used_past_its_end(colour: str) -> None:
    """What is good for ten seconds is fetched again after ten, and nothing stands in for it."""
    clock, provider = Hand(), Changing(Secret(MATERIAL, good_for=10.0), ttl=60.0)
    secrets = Secrets({"changing": provider}, clock=clock)
    fetched = []
    for clock.now in (0.0, 7.9, 10.0):
        read(secrets, colour, "changing:x")
        fetched.append(provider.fetched)
    assert fetched == [1, 1, 2]
    clock.now, provider.material = 20.0, SecretUnavailable("nobody answers", outage=True)
    assert refusal(secrets, colour, "changing:x") == "nobody answers"


@pytest.mark.parametrize("colour", COLOURS)
def test_a_provider_that_hangs_holds_up_no_other(colour: str) -> None:
    """Who asks for a secret that hangs is refused; those who want other schemes do not notice."""
    gate = threading.Event()
    secrets = Secrets({"slow": SlowDef(gate), "changing": Changing(ttl=0.0)}, timeout=0.1)
    bound = secrets.bind(ASYNC if colour == "async" else SYNC)

    async def ask() -> list[Any]:
        told = []
        for tenant in ("acme", "acme", "other"):
            with pytest.raises(SecretUnavailable) as refused:
                await bound.reader("slow:{tenant}")(Caller(tenant=tenant))
            told.append(refused.value.detail)
        other = await bound.reader("changing:x")(ACME)
        gate.set()
        return [*told, other.reveal()]

    assert (asyncio.run(ask()) if colour == "async" else run(ask())) == [
        "the provider of slow did not answer within 0.1 seconds",
        "the provider of slow does not answer: attempts hang already, or too many run",
        "the provider of slow did not answer within 0.1 seconds",
        MATERIAL.encode(),
    ]
