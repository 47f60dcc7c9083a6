"""An access token that processes share, without HTTP and with a clock set by hand: who asks, what is stored, when."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from attrs import evolve

from apitokenproxy._colour import nonblocking
from apitokenproxy.credentials import shared_token
from apitokenproxy.credentials.access_token import token_name
from apitokenproxy.credentials.held_token import Held, Place
from apitokenproxy.credentials.shared_token import LEASE, PATIENCE, GrantRefused, Renewed, SharedTokens
from apitokenproxy.credentials.tokens import FRESH
from apitokenproxy.errors import SecretUnavailable, StoreUnavailable
from apitokenproxy.identity.memory import MemoryStore
from apitokenproxy.loading import Loaded
from apitokenproxy.messages import Secret
from apitokenproxy.sealing import MasterKey, new_master_key
from loopback import wait_until

BEGIN = 1_800_000_000.0
LIFE = 100.0
KEY = MasterKey(Secret(new_master_key()))


class Store(MemoryStore):
    """One that can be away: `away` says for which calls."""

    def __init__(self) -> None:
        super().__init__()
        self.away: set[str] = set()
        self.loses_answers = False

    @nonblocking
    def state(self, name: str) -> Any:
        if "state" in self.away:
            raise StoreUnavailable("the store is away")
        return super().state(name)

    @nonblocking
    def write_state(self, name: str, value: bytes, number: int) -> bool:
        if "write" in self.away:
            raise StoreUnavailable("the store is away")
        written = super().write_state(name, value, number)
        if self.loses_answers:
            raise StoreUnavailable("the answer was lost")
        return written


class World:
    """Processes that share a store, an endpoint that gives what `answers` says, and a clock."""

    def __init__(self) -> None:
        self.now = BEGIN
        self.store = Store()
        self.used: list[str] = []
        self.answers: list[Any] = []
        self.rotates = True
        self.slept = 0.0
        self.while_asked: Callable[[], None] = lambda: None

    def process(self) -> SharedTokens:
        return SharedTokens(lambda: self.now, self.sleep)

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        self.now += seconds

    def place(self, **terms: Any) -> Place:
        return Place(**({"states": self.store, "key": KEY, "seed": "seed", "scope": "", "what": "it"} | terms))

    def ask(self, refresh: str) -> Renewed:
        self.used.append(refresh)
        number = len(self.used)
        self.while_asked()
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        return answer or Renewed(f"access-{number}", LIFE, f"refresh-{number}" if self.rotates else "")

    def get(self, process: SharedTokens, known: str = "", **terms: Any) -> Loaded[str]:
        return process.get(self.place(**terms), self.ask, token_name(known))

    def held(self) -> Held:
        return self.place().read()[0]

    def write(self, **changed: Any) -> None:
        held, number = self.place().read()
        assert self.place().write(evolve(held, **changed), number)

    def refusal(self, process: SharedTokens, known: str = "", **terms: Any) -> Any:
        with pytest.raises((SecretUnavailable, GrantRefused)) as refused:
            self.get(process, known, **terms)
        return refused.value


@pytest.fixture
def world() -> World:
    return World()


# --- one for all ----------------------------------------------------------------------------


def test_what_one_process_asked_for_all_use(world: World) -> None:
    """Also one that is started later; each for what is left of the token's life."""
    assert world.get(world.process()) == Loaded("access-1", LIFE, LIFE)
    world.now += 30
    assert world.get(world.process()) == Loaded("access-1", 70.0, 70.0)
    assert world.used == ["seed"]


def test_it_is_renewed_ahead_with_the_newest_refresh_token(world: World) -> None:
    """Past 80 % of its life, by a process that has it already; whoever has an older one takes it."""
    one, other = world.process(), world.process()
    world.get(one)
    world.now += 79
    assert world.get(one, "access-1").value == "access-1"
    world.now += 2
    assert world.get(world.process()) == Loaded("access-1", 1.0, 19.0)  # for a moment, and renews it then
    assert world.get(one, "access-1").value == "access-2"
    assert world.get(other, "access-1").value == "access-2"
    assert world.used == ["seed", "refresh-1"]


def test_without_a_new_refresh_token_the_old_one_goes_on(world: World) -> None:
    """RFC 6749, section 6."""
    world.rotates = False
    world.get(world.process())
    world.now += LIFE
    world.get(world.process())
    assert world.used == ["seed", "seed"]


def test_many_at_once_ask_once(world: World) -> None:
    """Twenty processes with a real clock; those who wait get what the one brings."""
    world.while_asked = lambda: time.sleep(0.2)
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda _: SharedTokens().get(world.place(), world.ask, ""), range(20)))
    assert {each.value for each in found} == {"access-1"}
    assert world.used == ["seed"]


def test_another_scope_is_asked_for_with_the_newest_refresh_token(world: World) -> None:
    """A changed configuration does not go back to the first one, which is spent."""
    world.get(world.process())
    assert world.get(world.process(), scope="less").value == "access-2"
    assert world.get(world.process(), scope="less").value == "access-2"
    assert world.used == ["seed", "refresh-1"]


# --- leases ---------------------------------------------------------------------------------


def test_a_process_that_died_while_it_asked_holds_up_others_until_its_lease_ends(world: World) -> None:
    """Nobody waits longer than ten seconds; after thirty another one asks."""
    world.write(holder="dead", lease=BEGIN + LEASE)
    refusal = world.refusal(world.process())
    assert (refusal.outage, world.used) == (True, [])
    assert PATIENCE <= world.slept < PATIENCE + 0.3
    world.now = BEGIN + LEASE - 1
    assert world.get(world.process()).value == "access-1"
    assert BEGIN + LEASE <= world.now < BEGIN + LEASE + 0.3


def test_while_another_one_asks_the_good_token_is_used(world: World) -> None:
    """At once, and looked at again after a second."""
    world.get(world.process())
    world.write(holder="another", lease=BEGIN + 90 + LEASE)
    world.now += 90
    assert world.get(world.process(), "access-1") == Loaded("access-1", 1.0, 10.0)
    assert (world.slept, world.used) == (0.0, ["seed"])


def test_who_lost_its_lease_takes_what_the_next_one_stored(world: World) -> None:
    """A process that slept through its lease, beside one that went on from the same refresh token."""

    def meanwhile() -> None:
        world.while_asked = lambda: None
        world.now += LEASE + 1
        world.get(world.process())

    world.while_asked = meanwhile
    assert world.get(world.process()).value == "access-2"
    assert world.held().refresh == "refresh-2"
    assert world.used == ["seed", "seed"]


def test_a_refusal_is_not_believed_when_somebody_else_went_on_meanwhile(world: World) -> None:
    """The store is read again first."""
    newer = Held("newer", "theirs", since=BEGIN, until=BEGIN + LIFE)

    def meanwhile() -> None:
        _, number = world.place().read()
        world.place().write(newer, number)

    world.while_asked = meanwhile
    world.answers = [GrantRefused("invalid_grant")]
    assert world.get(world.process()).value == "theirs"
    assert world.held() == newer


@pytest.mark.parametrize("meanwhile", ["it took long", "another one was faster"])
def test_the_lease_is_looked_at_again_before_anything_is_asked(
    world: World, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    """The store may have taken so long that the lease ends before the request must, or has it for another one."""
    read, done = Place.read, []

    def slowly(place: Place) -> Any:
        held, number = read(place)
        if held.holder and not done:
            done.append(place)
            if meanwhile == "it took long":
                world.now += LEASE / 2
            else:
                place.write(held.leased("another", world.now + LEASE), number)
            return slowly(place)
        return held, number

    monkeypatch.setattr(Place, "read", slowly)
    world.refusal(world.process())
    assert world.used == []


# --- the store ------------------------------------------------------------------------------


def test_nothing_is_asked_for_that_could_not_be_stored(world: World) -> None:
    """The store is away, to read or to write."""
    for away in ("state", "write"):
        world.store.away = {away}
        refusal = world.refusal(world.process())
        assert (refusal.outage, "the store is away" in refusal.detail) == (True, True)
    assert world.used == []


def test_what_cannot_be_stored_is_not_used_and_never_lost(world: World) -> None:
    """It is stored when the store is back, by a request or without; the old refresh token is not used again."""
    process = world.process()
    world.while_asked = lambda: world.store.away.update({"state", "write"})
    assert world.refusal(process).outage
    assert world.refusal(process).outage
    world.while_asked = lambda: None
    world.store.away.clear()
    assert world.get(process).value == "access-1"
    assert (world.held().refresh, world.used) == ("refresh-1", ["seed"])


def test_what_cannot_be_stored_is_stored_also_when_nobody_asks(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the background, as long as the process lives."""
    monkeypatch.setattr(shared_token, "_STORE", 0.02)
    process = world.process()
    world.while_asked = lambda: world.store.away.update({"write"})
    world.refusal(process)
    assert world.held().access == ""
    world.store.away.clear()
    wait_until(lambda: world.held().refresh == "refresh-1")
    assert world.get(world.process()).value == "access-1"


def test_what_came_is_stored_also_where_the_state_was_lost(world: World) -> None:
    """As when the store was emptied: the first refresh token is spent, and must not be used again."""
    process = world.process()
    world.get(process)
    world.now += LIFE
    world.while_asked = world.store._states.clear
    assert world.get(process, "access-1").value == "access-2"
    assert world.held().refresh == "refresh-2"


def test_a_write_whose_answer_was_lost_is_not_written_again(world: World) -> None:
    """It is found in the store."""
    process = world.process()
    world.while_asked = lambda: setattr(world.store, "loses_answers", True)
    world.refusal(process)
    world.store.loses_answers = False
    number = world.place().read()[1]
    assert world.get(process).value == "access-1"
    assert (world.place().read()[1], world.used) == (number, ["seed"])


def test_another_master_key_is_refused_and_overwrites_nothing(world: World) -> None:
    """In one sentence; it is no outage."""
    world.get(world.process())
    value = world.store.state(world.place().name).value
    refusal = world.refusal(world.process(), key=MasterKey(Secret(new_master_key())))
    assert ("sealed under another master key" in refusal.detail, refusal.outage) == (True, False)
    assert (world.store.state(world.place().name).value, world.used) == (value, ["seed"])


def test_a_state_that_was_moved_does_not_open(world: World) -> None:
    """As one tenant's to the place of another one."""
    world.get(world.process())
    value, other = world.store.state(world.place().name).value, world.place(seed="another")
    world.store.write_state(other.name, value, 0)
    assert "is damaged" in world.refusal(world.process(), seed="another").detail
    assert (world.store.state(other.name).value, world.used) == (value, ["seed"])


@pytest.mark.parametrize("damage", [b"", b"{}", b"[]", b"\xff", b"[" * 100_000, "cut"])
def test_damage_is_refused_and_left_as_it_is(world: World, damage: Any) -> None:
    """Whatever it is."""
    world.get(world.process())
    state = world.store.state(world.place().name)
    damaged = state.value.replace(b'"sealed": "', b'"sealed": "AAAA') if damage == "cut" else damage
    world.store.write_state(world.place().name, damaged, state.number)
    assert "is damaged" in world.refusal(world.process()).detail
    assert (world.store.state(world.place().name).value, world.used) == (damaged, ["seed"])


def test_neither_the_store_nor_a_repr_shows_a_token(world: World) -> None:
    """What is stored is sealed."""
    world.get(world.process())
    shown = repr(
        [world.store.state(world.place().name).value, world.held(), world.place(), Renewed("access-1", 1.0, "seed")]
    )
    assert [token for token in ("seed'", "access-1", "refresh-1") if token in shown] == []


# --- when nothing is given ------------------------------------------------------------------


def outage(retry_after: float = 1.0) -> SecretUnavailable:
    return SecretUnavailable("it answers with status 503", retry_after=retry_after, outage=True)


def test_pauses_grow_to_a_minute_and_are_for_all_processes(world: World) -> None:
    """Nobody asks before one is over; all of them are told why there is no token."""
    pauses = []
    for _ in range(9):
        world.answers = [outage()]
        began, asked = world.now, len(world.used)
        assert world.refusal(world.process()).detail == "it answers with status 503"
        while len(world.used) == asked + 1:
            world.now += 0.5
            world.answers = [outage()]
            refusal = world.refusal(world.process())
            assert (refusal.detail, refusal.outage, refusal.retry_after >= 1) == (
                "it answers with status 503",
                True,
                True,
            )
        pauses.append(world.now - began)
        world.now += 3600
    assert pauses[:3] == [1.0, 4.0, 16.0]
    assert max(pauses) == 60.0


def test_an_outage_may_last_for_days(world: World) -> None:
    """After a thousand failures and more a pause is still a minute, and a good token is still used."""
    world.place().write(Held("seed", "access", "", BEGIN - LIFE, BEGIN + 10.0, failures=2000), 0)
    world.answers = [SecretUnavailable("nobody answers", outage=True)]
    assert world.get(world.process(), "access").value == "access"
    assert (world.held().pause, world.held().failures, world.held().lease) == (BEGIN + 60.0, 2001, 0.0)


def test_an_endpoint_that_says_when_to_come_back_is_believed(world: World) -> None:
    """Retry-After is longer than the pause would be."""
    world.answers = [outage(retry_after=30.0)]
    world.refusal(world.process())
    world.now += 29
    assert world.refusal(world.process()).retry_after == 1.0
    assert len(world.used) == 1
    world.now += 1
    assert world.get(world.process()).value == "access-2"


def test_a_good_token_goes_on_while_no_other_is_given(world: World) -> None:
    """To its end, in old and new processes; then requests are refused."""
    process = world.process()
    world.get(process)
    world.now += 85
    world.answers = [outage(), GrantRefused("invalid_grant"), SecretUnavailable("invalid_client")]
    for _ in range(3):
        assert world.get(process, "access-1").value == "access-1"
        assert world.get(world.process()).value == "access-1"
        world.now += 5
    assert len(world.used) == 4
    world.now = BEGIN + LIFE
    world.answers = [outage()]
    world.refusal(process, "access-1")


def test_a_refused_refresh_token_is_not_tried_again_for_some_seconds(world: World) -> None:
    """In no process."""
    world.answers = [GrantRefused("invalid_grant")]
    for _ in range(3):
        assert str(world.refusal(world.process())) == "invalid_grant"
    assert world.used == ["seed"]
    world.now += 5
    assert world.get(world.process()).value == "access-2"


def test_a_new_refresh_token_is_kept_also_beside_what_is_no_access_token(world: World) -> None:
    """It is the next one to be used; so is the access token that there was."""
    process = world.process()
    world.answers = [Renewed("", 0.0, "kept", "it gave no bearer token")]
    assert world.refusal(process).detail == "it gave no bearer token"
    world.now += 5
    world.get(process)
    assert world.used == ["seed", "kept"]


def test_an_access_token_that_ends_before_it_can_be_used_is_refused(world: World) -> None:
    """After some attempts, not endlessly."""
    world.while_asked = lambda: world.sleep(3.0)
    world.answers = [Renewed(f"short-{number}", 1.0, f"r{number}") for number in range(9)]
    assert "no access token came in time" in world.refusal(world.process()).detail
    assert world.used == ["seed", "r0", "r1", "r2"]


def test_a_token_that_the_api_refused_is_renewed_when_it_is_not_fresh(world: World) -> None:
    """After thirty seconds and not before: an API that says 403 for other reasons causes no storm."""
    process = world.process()
    world.get(process)
    process.withdraw([token_name("another")])
    world.now += FRESH - 1
    assert world.get(process, "access-1").value == "access-1"
    process.withdraw([token_name("access-1")])
    assert world.get(process, "access-1").value == "access-1"
    world.now += 1
    assert world.get(process, "access-1").value == "access-2"
    assert world.get(process, "access-2").value == "access-2"


def test_what_the_asking_raises_besides_is_raised(world: World) -> None:
    """And nothing is left running."""
    world.answers = [TypeError("a bug")]
    with pytest.raises(TypeError):
        world.get(world.process())
    wait_until(lambda: all(thread.name != "apitokenproxy-refresh" for thread in threading.enumerate()))
