"""Who is calling, by the client token they present."""

import asyncio
import logging
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from identity_calls import (
    COLOURS,
    STORES,
    CountingMemoryStore,
    Hand,
    a_request,
    at,
    authenticate,
    bearer,
    counting_store,
)

from apitokenproxy._colour import ASYNC, SYNC, nonblocking, run
from apitokenproxy.errors import (
    ConfigurationError,
    InternalFault,
    StoreUnavailable,
    TooManyFailures,
    Unauthenticated,
)
from apitokenproxy.identity import client_tokens
from apitokenproxy.identity.authority import TokenAuthority
from apitokenproxy.identity.client_tokens import ClientTokens
from apitokenproxy.identity.format import digest, mint
from apitokenproxy.identity.memory import MemoryStore
from apitokenproxy.identity.sql import SqlStore
from apitokenproxy.identity.verified import Verified
from apitokenproxy.interfaces import Edit, Generation, StoredToken
from apitokenproxy.messages import Caller, Presented
from apitokenproxy.testing.tokens import add

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    with counting_store(request.param, tmp_path) as opened:
        yield opened


@pytest.fixture(params=COLOURS)
def colour(request: pytest.FixtureRequest) -> str:
    return request.param


def stored(token: str, identifier: str, **more: Any) -> StoredToken:
    first = Generation(1, digest(token.encode()), NOW)
    return StoredToken(identifier, "acme", NOW, **{"generations": (first,), **more})


def refused(part: Any, colour: str, presented: Presented) -> Unauthenticated:
    with pytest.raises(Unauthenticated) as error:
        authenticate(part, colour, presented)
    return error.value


# --- who ------------------------------------------------------------------------------------


def test_a_client_token_says_who_is_calling(store: Any, colour: str) -> None:
    """Tenant, subject, scopes and attributes come from the store, with the token's id and generation."""
    verified = Verified(bound=1.0)
    issued = TokenAuthority(store, verified).issue(
        tenant="acme", subject="build", scopes=["github:read"], attributes={"org": "x", "teams": ["a", "b"]}
    )
    caller = authenticate(ClientTokens(store, verified), colour, bearer(issued.token))
    assert (caller.tenant, caller.subject, caller.scopes) == ("acme", "build", frozenset({"github:read"}))
    assert (caller.token_id, caller.generation) == (issued.id, 1)
    assert (caller.attributes["org"], caller.attributes["teams"]) == ("x", ("a", "b"))


def test_a_callers_attributes_cannot_be_changed(store: Any) -> None:
    """One caller serves many requests; no part may change what the next one sees."""
    verified = Verified(bound=1.0)
    issued = TokenAuthority(store, verified).issue(tenant="acme", attributes={"deep": {"org": "x"}, "list": [{"a": 1}]})
    attributes: Any = authenticate(ClientTokens(store, verified), "sync", bearer(issued.token)).attributes
    for mapping in (attributes, attributes["deep"], attributes["list"][0]):
        with pytest.raises(TypeError, match="does not support item assignment"):
            mapping["org"] = "y"


def test_a_verified_token_is_not_looked_up_again(store: Any, colour: str) -> None:
    """Within the revocation bound a token costs one question to the store."""
    verified = Verified(bound=1000.0)
    issued = TokenAuthority(store, verified).issue(tenant="acme")
    part = ClientTokens(store, verified)
    first = authenticate(part, colour, bearer(issued.token))
    second = authenticate(part, colour, bearer(issued.token))
    assert first is second
    assert store.asked == 1


@pytest.mark.parametrize("place", ["bearer", "token", "basic", "x-api-key", "sigv4", "token-header"])
def test_the_place_does_not_matter(store: Any, place: str) -> None:
    """The guard took the token from its place; here it only has to be good."""
    verified = Verified(bound=1.0)
    issued = TokenAuthority(store, verified).issue(tenant="acme")
    presented = Presented(place, bearer(issued.token).value)
    assert authenticate(ClientTokens(store, verified), "sync", presented).tenant == "acme"


@pytest.mark.parametrize("presented", [None, bearer(b""), bearer(b"eyJhbGciOi"), bearer(b"ATP_x"), bearer(b" atp_x")])
def test_what_is_no_client_token_is_left_to_others(store: Any, colour: str, presented: Presented | None) -> None:
    """Another kind of credential is not refused here, and costs the store nothing."""
    assert authenticate(ClientTokens(store, Verified(bound=1.0)), colour, presented) is None
    assert store.asked == 0


# --- who not --------------------------------------------------------------------------------


@pytest.fixture
def refusals(store: Any, colour: str) -> dict[str, Unauthenticated]:
    """Every reason for which a well-formed client token is refused."""
    found = {}
    kinds: dict[str, dict[str, Any]] = {
        "expired": {"expires": NOW - timedelta(seconds=1)},
        "revoked": {"revoked": NOW - timedelta(days=1)},
        "expired and revoked": {"expires": NOW, "revoked": NOW},
        "no generation": {"generations": ()},
    }
    part = ClientTokens(store, Verified(bound=1000.0), at(NOW))
    for kind, more in kinds.items():
        identifier, token = mint()
        add(store, stored(token, identifier, **more))
        found[kind] = refused(part, colour, bearer(token))
    identifier, token = mint()
    ended = Generation(1, digest(token.encode()), NOW, replaced=NOW, retired=NOW)
    add(store, stored(token, identifier, generations=(ended,)))
    found["retired"] = refused(part, colour, bearer(token))
    _, other = mint(identifier)
    found["wrong secret"] = refused(part, colour, bearer(other))
    found["unknown"] = refused(part, colour, bearer(mint()[1]))
    found["garbage"] = refused(part, colour, bearer(b"atp_garbage"))
    return found


def test_a_client_cannot_tell_why_it_was_refused(refusals: dict[str, Unauthenticated]) -> None:
    """Unknown, expired, revoked, retired, wrong and garbage give one and the same answer."""
    answers = {(type(each), each.status, each.code, each.title, each.retry_after) for each in refusals.values()}
    assert len(answers) == 1


def test_the_audit_record_can_tell(refusals: dict[str, Unauthenticated]) -> None:
    """The detail, which is never sent, says which it was."""
    words = {
        "expired": "has expired",
        "revoked": "is revoked",
        "expired and revoked": "is revoked",
        "no generation": "the secret is not that of",
        "retired": "is retired",
        "wrong secret": "the secret is not that of",
        "unknown": "there is no client token",
        "garbage": "is not one",
    }
    assert {kind: words[kind] in each.detail for kind, each in refusals.items()} == dict.fromkeys(words, True)


def test_every_refusal_costs_the_same_work(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One question and one comparison in constant time, whether there is such a token or not."""
    compared = []
    monkeypatch.setattr(client_tokens, "compare_digest", lambda a, b: compared.append((len(a), len(b))) or a == b)
    part = ClientTokens(store, Verified(bound=1000.0), at(NOW))
    tokens = [mint()[1]]
    for more in ({"expires": NOW}, {"revoked": NOW}, {"generations": ()}):
        identifier, token = mint()
        add(store, stored(token, identifier, **more))
        tokens.append(token)
    for token in tokens:
        refused(part, "sync", bearer(token))
    assert (store.asked, compared) == (len(tokens), [(32, 32)] * len(tokens))


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"expires": NOW}, None),
        ({"expires": NOW + timedelta(microseconds=1)}, "acme"),
        ({"revoked": NOW + timedelta(days=1)}, None),
    ],
)
def test_the_edges_of_a_tokens_life(more: dict[str, Any], expected: str | None) -> None:
    """A token ends at its expiry, not after it; a revocation counts whenever it is dated."""
    store = MemoryStore()
    identifier, token = mint()
    add(store, stored(token, identifier, **more))
    part = ClientTokens(store, Verified(bound=1.0), at(NOW))
    if expected is None:
        refused(part, "sync", bearer(token))
    else:
        assert authenticate(part, "sync", bearer(token)).tenant == expected


@pytest.mark.parametrize("end", ["token", "generation"])
def test_a_cached_token_ends_on_time(end: str) -> None:
    """The cache outlives neither the token nor a retired generation of it."""
    clock = at(NOW)
    store = MemoryStore()
    identifier, token = mint()
    later = NOW + timedelta(seconds=10)
    if end == "token":
        add(store, stored(token, identifier, expires=later))
    else:
        ended = Generation(1, digest(token.encode()), NOW, replaced=NOW, retired=later)
        add(store, stored(token, identifier, generations=(ended,)))
    part = ClientTokens(store, Verified(bound=1000.0), clock)
    assert authenticate(part, "sync", bearer(token)).tenant == "acme"
    clock.now += 10
    refused(part, "sync", bearer(token))


def test_every_live_generation_is_accepted(store: Any, colour: str) -> None:
    """While two generations overlap, both work, and the caller says which it was."""
    identifier, first = mint()
    _, second = mint(identifier)
    generations = (
        Generation(1, digest(first.encode()), NOW, replaced=NOW, retired=NOW + timedelta(days=7)),
        Generation(2, digest(second.encode()), NOW),
    )
    add(store, stored(first, identifier, generations=generations))
    part = ClientTokens(store, Verified(bound=1.0), at(NOW))
    found = [authenticate(part, colour, bearer(token)).generation for token in (first, second)]
    assert found == [1, 2]


# --- garbage --------------------------------------------------------------------------------

GOOD = mint()[1].encode()


@pytest.mark.parametrize(
    "garbage",
    [
        b"atp_",
        b"atp_" + b"A" * 200_000,
        GOOD[:-1],
        GOOD + b"0",
        GOOD + b"\n",
        GOOD.swapcase().replace(b"ATP_", b"atp_"),
        GOOD[:-1] + b"\xff",
        b"atp_" + b"' OR 1=1 --".ljust(52, b" "),
    ],
    ids=range(8),
)
def test_garbage_never_touches_the_store(store: Any, colour: str, garbage: bytes) -> None:
    """It is refused by its form, for the price of a hash at most."""
    refused(ClientTokens(store, Verified(bound=1.0)), colour, bearer(garbage))
    assert store.asked == 0


@given(data=st.data())
def test_no_mutation_of_a_token_is_accepted(data: st.DataObject) -> None:
    """Whatever byte is changed, put in or left out, the token is refused, cached or not."""
    store, verified = CountingMemoryStore(), Verified(bound=1000.0)
    token = TokenAuthority(store, verified).issue(tenant="acme").token.encode()
    part = ClientTokens(store, verified)
    if data.draw(st.booleans()):
        authenticate(part, "sync", bearer(token))
    position = data.draw(st.integers(4, len(token)))
    mutation = token[:position] + data.draw(st.binary(max_size=3)) + token[position + data.draw(st.integers(0, 3)) :]
    if mutation != token:
        refused(part, "sync", bearer(mutation))


@given(st.text("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", min_size=12, max_size=12))
def test_a_right_checksum_alone_is_worth_nothing(identifier: str) -> None:
    """Anybody can compute a checksum; the secret behind it decides."""
    store = MemoryStore()
    issued = TokenAuthority(store, Verified(bound=1.0)).issue(tenant="acme")
    part = ClientTokens(store, Verified(bound=1.0))
    for forged in (mint(identifier)[1], mint(issued.id)[1]):
        refused(part, "sync", bearer(forged))


# --- faults ---------------------------------------------------------------------------------


class BrokenStore(MemoryStore):
    """A store that can be told not to answer."""

    broken = False

    @nonblocking
    def find(self, token_id: str) -> StoredToken | None:
        if self.broken:
            raise StoreUnavailable("told to be broken")
        return super().find(token_id)


def test_a_store_that_does_not_answer_is_never_a_refusal(colour: str) -> None:
    """The client gets 503 and may come again; the fault is not remembered."""
    store, verified = BrokenStore(), Verified(bound=0.0)
    issued = TokenAuthority(store, verified).issue(tenant="acme")
    part = ClientTokens(store, verified)
    store.broken = True
    with pytest.raises(StoreUnavailable) as error:
        authenticate(part, colour, bearer(issued.token))
    assert (error.value.status, error.value.retry_after) == (503, 1.0)
    store.broken = False
    assert authenticate(part, colour, bearer(issued.token)).tenant == "acme"


def test_a_real_database_that_is_gone_is_never_a_refusal(tmp_path: Path, colour: str) -> None:
    """Known and unknown tokens alike get 503 when the file is not there any more."""
    store = SqlStore(f"sqlite:///{tmp_path}/tokens.db")
    token = TokenAuthority(store, Verified(bound=1.0)).issue(tenant="acme").token
    store.close()
    (tmp_path / "tokens.db").unlink()
    for each in (token, mint()[1]):
        with pytest.raises(StoreUnavailable, match="cannot be opened"):
            authenticate(ClientTokens(store, Verified(bound=1.0)), colour, bearer(each))


def test_no_refusal_is_cached(store: Any) -> None:
    """A token that comes to be is good at once, though it was unknown a moment ago."""
    part = ClientTokens(store, Verified(bound=1000.0), at(NOW))
    identifier, token = mint()
    refused(part, "sync", bearer(token))
    add(store, stored(token, identifier))
    assert authenticate(part, "sync", bearer(token)).tenant == "acme"


class AsyncStore(MemoryStore):
    """A store written as `async def`."""

    async def find(self, token_id: str) -> StoredToken | None:
        return MemoryStore.find(self, token_id)


def test_an_async_store_works_under_asgi_and_is_refused_under_wsgi() -> None:
    """The colour of a store is judged when the pipeline is built."""
    store = AsyncStore()
    identifier, token = mint()
    add(store, stored(token, identifier))
    part = ClientTokens(store, Verified(bound=1.0))
    assert authenticate(part, "async", bearer(token)).tenant == "acme"
    with pytest.raises(ConfigurationError, match="is async def"):
        part.bind(SYNC)


class TruthyStore(MemoryStore):
    """A store that returns what a store must not."""

    @nonblocking
    def find(self, token_id: str) -> Any:
        return True


def test_a_store_that_returns_nonsense_lets_nobody_in(colour: str) -> None:
    """Only a StoredToken is read as one."""
    with pytest.raises(InternalFault):
        authenticate(ClientTokens(TruthyStore(), Verified(bound=1.0)), colour, bearer(mint()[1]))


# --- nothing shows --------------------------------------------------------------------------


def test_neither_token_nor_digest_shows(store: Any, colour: str, caplog: pytest.LogCaptureFixture) -> None:
    """Not in a repr, an exception, its traceback with all that led to it, or a log."""
    caplog.set_level(logging.DEBUG)
    verified = Verified(bound=1000.0)
    authority = TokenAuthority(store, verified)
    issued = authority.issue(tenant="acme")
    part = ClientTokens(store, verified)
    shown = [repr(issued), repr(authority.get(issued.id)), repr(store.find(issued.id)), repr(part), repr(verified)]
    shown += [repr(authenticate(part, colour, bearer(issued.token))), repr(bearer(issued.token)), repr(part.bind(SYNC))]
    authority.revoke(issued.id)
    error = refused(part, colour, bearer(issued.token))
    shown += [repr(error), "".join(traceback.format_exception(error)), caplog.text]
    context: BaseException | None = error
    while context is not None:
        shown.append(repr(context))
        context = context.__context__
    material = digest(issued.token.encode())
    for form in (issued.token[17:], repr(material)[2:-1], material.hex()):
        assert [text for text in shown if form in text] == []


# --- revocation -----------------------------------------------------------------------------


def test_a_revoked_token_ends_at_once_in_its_own_process(store: Any, colour: str) -> None:
    """However long the revocation bound is."""
    verified = Verified(bound=10_000.0)
    authority = TokenAuthority(store, verified)
    issued, other = authority.issue(tenant="acme"), authority.issue(tenant="acme")
    part = ClientTokens(store, verified)
    assert authenticate(part, colour, bearer(issued.token)) is not None
    assert authenticate(part, colour, bearer(other.token)) is not None
    authority.revoke(issued.id)
    assert "is revoked" in refused(part, colour, bearer(issued.token)).detail
    assert authenticate(part, colour, bearer(other.token)) is not None


def test_a_revoked_token_ends_elsewhere_within_the_revocation_bound(tmp_path: Path) -> None:
    """Another process, with its own connection and cache, sees it when its entry has ended."""
    here, there = (SqlStore(f"sqlite:///{tmp_path}/tokens.db") for _ in range(2))
    timer = Hand(0.0)
    theirs = ClientTokens(there, Verified(bound=1.0, timer=timer))
    authority = TokenAuthority(here, Verified(bound=1.0))
    issued = authority.issue(tenant="acme")
    assert authenticate(theirs, "sync", bearer(issued.token)) is not None
    authority.revoke(issued.id)
    timer.now = 0.99
    assert authenticate(theirs, "sync", bearer(issued.token)) is not None
    timer.now = 1.0
    refused(theirs, "sync", bearer(issued.token))
    here.close()
    there.close()


class SlowStore(MemoryStore):
    """A store that has read the token, and takes its time to answer."""

    def __init__(self) -> None:
        super().__init__()
        self.has_read = threading.Event()
        self.may_answer = threading.Event()

    def find(self, token_id: str) -> StoredToken | None:
        found = super().find(token_id)
        self.has_read.set()
        assert self.may_answer.wait(20)
        return found


def test_a_slow_answer_never_brings_a_revoked_token_back(colour: str) -> None:
    """A question that began before the revocation may end well, but it is not remembered."""
    store, verified = SlowStore(), Verified(bound=10_000.0)
    authority = TokenAuthority(store, verified)
    issued = authority.issue(tenant="acme")
    part = ClientTokens(store, verified)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(authenticate, part, colour, bearer(issued.token))
        assert store.has_read.wait(20)
        authority.revoke(issued.id)
        store.may_answer.set()
        assert slow.result(20).token_id == issued.id
    refused(part, colour, bearer(issued.token))


class TornStore(MemoryStore):
    """A store that revokes and then loses the connection before it can say so."""

    def change(self, token_id: str, edit: Edit) -> StoredToken | None:
        super().change(token_id, edit)
        raise StoreUnavailable("lost the connection")


def test_a_revocation_that_may_have_failed_still_empties_the_cache() -> None:
    """The caller hears of the fault, and the next request asks the store."""
    store, verified = TornStore(), Verified(bound=10_000.0)
    authority = TokenAuthority(store, verified)
    issued = authority.issue(tenant="acme")
    part = ClientTokens(store, verified)
    authenticate(part, "sync", bearer(issued.token))
    with pytest.raises(StoreUnavailable):
        authority.revoke(issued.id)
    refused(part, "sync", bearer(issued.token))


@pytest.mark.long
def test_threads_never_see_a_token_after_its_revocation(store: Any) -> None:
    """32 threads ask while tokens are revoked; whoever begins after a revocation returned is refused."""
    verified = Verified(bound=10_000.0)
    authority = TokenAuthority(store, verified)
    issued = [authority.issue(tenant="acme") for _ in range(10)]
    bound = ClientTokens(store, verified).bind(SYNC)
    request = a_request()
    revoked: set[str] = set()
    done = threading.Event()
    late: list[str] = []

    def ask() -> None:
        while not done.is_set():
            for token in issued:
                was_revoked = token.id in revoked
                try:
                    run(bound.authenticate(bearer(token.token), request))
                except (Unauthenticated, TooManyFailures):
                    continue
                if was_revoked:
                    late.append(token.id)

    threads = [threading.Thread(target=ask) for _ in range(32)]
    for thread in threads:
        thread.start()
    try:
        for token in issued:
            authority.revoke(token.id)
            revoked.add(token.id)
    finally:
        done.set()
        for thread in threads:
            thread.join(20)
    assert late == []


def test_several_event_loops_share_one_authenticator(store: Any) -> None:
    """The bound part belongs to no loop."""
    verified = Verified(bound=0.0)
    token = TokenAuthority(store, verified).issue(tenant="acme").token
    part = ClientTokens(store, verified)

    def in_a_loop(_number: int) -> list[Caller | None]:
        async def many() -> list[Caller | None]:
            bound = part.bind(ASYNC)
            return await asyncio.gather(*(bound.authenticate(bearer(token), a_request()) for _ in range(10)))

        return asyncio.run(many())

    with ThreadPoolExecutor(4) as pool:
        found = [caller for callers in pool.map(in_a_loop, range(4)) for caller in callers]
    assert [caller.tenant for caller in found if caller is not None] == ["acme"] * 40
