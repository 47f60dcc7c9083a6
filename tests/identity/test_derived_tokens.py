"""Derived tokens: less than their parent, signed, kept nowhere, and over when the parent is."""

import json
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from derived_calls import KEYS, World, pass_by, signed, signing
from hypothesis import given, settings
from hypothesis import strategies as st
from identity_calls import COLOURS, STORES, CountingMemoryStore, authenticate, bearer, counting_store

from apitokenproxy import Caller, ConfigurationError, Grant, Operation, Rule, TokenConflict, narrow
from apitokenproxy.errors import SecretUnavailable, TooManyFailures, Unauthenticated
from apitokenproxy.identity.derived import DERIVE, LONGEST, MOST_CAVEATS, take_apart
from apitokenproxy.identity.memory import MemoryStore
from apitokenproxy.identity.signing import SigningKeys
from apitokenproxy.messages import Request
from apitokenproxy.policy.rules import Rules
from apitokenproxy.secrets.cache import Secrets
from apitokenproxy.testing import FixedSecrets


@pytest.fixture(params=COLOURS)
def colour(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    with counting_store(request.param, tmp_path) as store:
        yield store


@pytest.fixture
def world(store: Any, colour: str) -> World:
    return World(store, colour)


def refused(world: World, token: str) -> str:
    with pytest.raises(Unauthenticated) as refusal:
        world.caller(token)
    return refusal.value.detail


def grant(
    path: str = "/a",
    method: str = "GET",
    upstream: str = "api",
    rule: str = "all",
    address: str = "192.0.2.1",
    others: tuple[str, ...] = (),
) -> Grant:
    readings = tuple(tuple(reading[1:].split("/")) for reading in (path, *others))
    request = Request(method.encode(), path.encode(), [])
    operation = Operation(upstream, method.encode(), b"", b"", readings, [], None, 0, b"", address, request)
    return Grant(Caller("acme"), operation, rule)


# --- what it is ---------------------------------------------------------------------------------


def test_a_derived_token_calls_as_its_parent_does_with_less(world: World) -> None:
    """The same tenant, subject, attributes and id; fewer scopes, and never the one that derives."""
    parent = world.tokens.issue(tenant="acme", subject="ci", scopes=["a", "b", DERIVE], attributes={"org": "octo"})
    derived = world.tokens.derive(parent.id, scopes=["b"])
    caller, all_scopes = world.caller(derived.token), world.caller(world.tokens.derive(parent.id).token)
    assert caller is not None
    assert all_scopes is not None
    assert (caller.tenant, caller.subject, caller.token_id) == ("acme", "ci", parent.id)
    assert (caller.generation, caller.derived, dict(caller.attributes)) == (1, derived.id, {"org": "octo"})
    assert (caller.scopes, all_scopes.scopes) == ({"b"}, {"a", "b"})
    assert derived.parent == parent.id


def test_it_ends_with_its_time_and_never_after_its_parent(world: World) -> None:
    """An hour when nothing else is said."""
    lasting, short = world.tokens.issue(tenant="t"), world.tokens.issue(tenant="t", expires_in=timedelta(minutes=2))
    hour, quarter = world.tokens.derive(lasting.id), world.tokens.derive(lasting.id, expires_in=timedelta(minutes=15))
    of_short = world.tokens.derive(short.id)
    assert of_short.expires <= world.tokens.get(short.id).expires
    for token, seconds in ((of_short, 120), (quarter, 900), (hour, 3600)):
        pass_by(world, seconds - 10 - (world.clock.now - time.time()))
        assert world.caller(token.token) is not None
        pass_by(world, 20)
        assert "expired" in refused(world, token.token)


@pytest.mark.parametrize("end", ["revoke", "suspend", "delete"])
def test_it_ends_with_its_parent(world: World, end: str) -> None:
    """At once in the process that ended the parent."""
    parent = world.tokens.issue(tenant="acme")
    tokens = [world.tokens.derive(parent.id).token for _ in range(3)]
    tokens.append(narrow(tokens[0], methods=["GET"]))
    assert all(world.caller(token) for token in tokens)
    getattr(world.tokens, end)(parent.id)
    for token in tokens:
        assert parent.id in refused(world, token)


def test_in_another_process_it_ends_within_the_revocation_bound(store: Any, colour: str) -> None:
    """As every token does."""
    here, there = World(store, colour), World(store, colour)
    parent = here.tokens.issue(tenant="acme")
    token = here.tokens.derive(parent.id).token
    assert there.caller(token) is not None
    here.tokens.revoke(parent.id)
    pass_by(there, 1.0)
    refused(there, token)


def test_an_edited_parent_is_what_counts(world: World) -> None:
    """A scope that is taken from the parent is gone from what was derived before."""
    parent = world.tokens.issue(tenant="acme", scopes=["a", "b"])
    token = world.tokens.derive(parent.id, scopes=["a", "b"]).token
    world.tokens.edit(parent.id, scopes=["b", "c"], tenant="other")
    caller = world.caller(token)
    assert caller is not None
    assert (caller.tenant, caller.scopes) == ("other", {"b"})


def test_what_was_derived_with_a_secret_ends_with_that_secret(world: World) -> None:
    """A rotation without overlap takes everything from whoever stole the secret; the host's own go on."""
    parent = world.tokens.issue(tenant="acme")
    of_secret, of_host = world.tokens.derive(parent.id, generation=1), world.tokens.derive(parent.id)
    world.tokens.rotate(parent.id, overlap=timedelta(0))
    pass_by(world, 10)  # the authenticator's clock was stopped before
    assert "retired" in refused(world, of_secret.token)
    caller = world.caller(of_host.token)
    assert caller is not None
    assert caller.generation == 2
    assert "generation 7" in refused(world, world.tokens.derive(parent.id, generation=7).token)


def test_a_thousand_children_cost_one_look_up(colour: str) -> None:
    """They are verified by their signature; the parent is looked up once, and after a change once more."""
    store = CountingMemoryStore()
    world = World(store, colour)
    parent = world.tokens.issue(tenant="acme")
    tokens = [world.tokens.derive(parent.id).token for _ in range(1000 if colour == "sync" else 50)]
    for looked_up in (1, 2):
        store.asked = 0
        assert all(world.caller(token) for token in tokens)
        assert store.asked == 1, looked_up
        world.tokens.revoke(world.tokens.issue(tenant="other").id)


def test_a_store_without_anything_new_about_it_keeps_nothing_of_it(world: World) -> None:
    """Deriving leaves no row, no event and no change."""
    parent = world.tokens.issue(tenant="acme")
    before = world.store.changes(), world.tokens.events(parent.id), world.store.list()
    world.tokens.derive(parent.id)
    assert (world.store.changes(), world.tokens.events(parent.id), world.store.list()) == before


# --- what it cannot do --------------------------------------------------------------------------

LESS = [
    ({"upstreams": ["api"]}, {}, {"upstream": "other"}, "upstream"),
    ({"methods": ["GET", "HEAD"]}, {"method": "HEAD"}, {"method": "POST"}, "method"),
    ({"paths": ["/repos/acme"]}, {"path": "/repos/acme/x"}, {"path": "/repos/acmeevil"}, "path"),
    ({"paths": ["/repos/acme/"]}, {"path": "/repos/acme"}, {"path": "/repos"}, "path"),
    ({"paths": ["/a", "/b/c"]}, {"path": "/b/c"}, {"path": "/b"}, "path"),
    ({"paths": ["/"]}, {"path": "/whatever"}, None, ""),
    ({"paths": ["/a"]}, {"path": "/a/b"}, {"path": "/a/b", "others": ("/x/b",)}, "path"),
    ({"rules": ["read"]}, {"rule": "read"}, {"rule": "all"}, "rule"),
    ({"addresses": ["192.0.2.0/24"]}, {}, {"address": "198.51.100.1"}, "address"),
    ({"addresses": ["192.0.2.1"]}, {"address": "::ffff:192.0.2.1"}, {"address": "192.0.2.2"}, "address"),
    ({"addresses": ["2001:db8::/32"]}, {"address": "2001:db8::1"}, {"address": ""}, "address"),
    ({"addresses": ["192.0.2.1"]}, {}, {"address": "unix:"}, "address"),
]


@pytest.mark.parametrize("offline", [False, True])
@pytest.mark.parametrize(("less", "may", "may_not", "word"), LESS)
def test_what_it_was_narrowed_to(less: Any, may: Any, may_not: Any, word: str, offline: bool) -> None:
    """By the proxy when it is derived, or by its holder without asking anybody."""
    world = World(MemoryStore())
    parent = world.tokens.issue(tenant="acme").id
    token = narrow(world.tokens.derive(parent).token, **less) if offline else world.tokens.derive(parent, **less).token
    assert world.excludes(token, grant(**may)) == ""
    if may_not is not None:
        assert world.excludes(token, grant(**may_not)) == word


def test_caveats_add_up() -> None:
    """Each takes something away; what one leaves another may take."""
    world = World(MemoryStore())
    parent = world.tokens.issue(tenant="acme", scopes=["a", "b", "c"]).id
    token = world.tokens.derive(parent, paths=["/a"], scopes=["a", "b"]).token
    lesser = narrow(
        narrow(token, paths=["/a/b", "/c"], scopes=["b", "c"]), methods=["GET"], expires_in=timedelta(hours=9)
    )
    caller = world.caller(lesser)
    assert caller is not None
    assert caller.scopes == {"b"}
    assert [world.excludes(lesser, grant(path)) for path in ("/a", "/a/b", "/c")] == ["path", "", "path"]
    assert world.excludes(lesser, grant("/a/b", "PUT")) == "method"
    pass_by(world, 3600)
    refused(world, lesser)


paths = st.lists(st.sampled_from(["/", "/a", "/a/b", "/b", "/b/c/"]), min_size=1, max_size=3)
terms = st.fixed_dictionaries(
    {},
    optional={
        "methods": st.lists(st.sampled_from(["GET", "PUT", "HEAD"]), min_size=1),
        "upstreams": st.lists(st.sampled_from(["api", "other"]), min_size=1),
        "paths": paths,
        "addresses": st.lists(st.sampled_from(["192.0.2.0/24", "192.0.2.1", "2001:db8::/64"]), min_size=1),
        "rules": st.lists(st.sampled_from(["all", "read"]), min_size=1),
        "scopes": st.lists(st.sampled_from(["a", "b", "c"])),
        "expires_in": st.integers(1, 7200).map(lambda seconds: timedelta(seconds=seconds)),
    },
).filter(bool)
grants = st.builds(
    grant,
    path=st.sampled_from(["/", "/a", "/a/b", "/a/bc", "/b/c/d"]),
    method=st.sampled_from(["GET", "PUT", "HEAD"]),
    upstream=st.sampled_from(["api", "other"]),
    rule=st.sampled_from(["all", "read"]),
    address=st.sampled_from(["192.0.2.1", "192.0.2.9", "2001:db8::5", "unix:"]),
    others=st.sampled_from([(), ("/a",), ("/x",)]),
)


@pytest.mark.long
@settings(max_examples=300, deadline=None)
@given(st.lists(terms, min_size=1, max_size=6), st.lists(grants, min_size=1, max_size=6), st.integers(0, 7200))
def test_no_caveat_ever_widens_a_token(sequence: list[dict[str, Any]], asked: list[Grant], later: int) -> None:
    """Whatever is appended, in whatever order: what the lesser token may, the token before it may."""
    world = World(MemoryStore())
    parent = world.tokens.issue(tenant="acme", scopes=["a", "b", "c", DERIVE])
    token = world.tokens.derive(parent.id).token
    chain = [token := narrow(token, **less) for less in sequence]
    pass_by(world, later)
    before: Caller | None = world.caller(parent.token)
    for number, lesser in enumerate([world.tokens.derive(parent.id, expires_in=timedelta(hours=9)).token, *chain]):
        try:
            after = world.caller(lesser)
        except (Unauthenticated, TooManyFailures):
            after = None
        if number and before is None:
            assert after is None
        elif after is not None and before is not None:
            assert after.scopes <= before.scopes
            assert (after.tenant, after.token_id, after.limits) == (before.tenant, before.token_id, before.limits)
            assert all(not before.excludes(one) for one in asked if not after.excludes(one))
        before = after


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_bit_flip_verifies(data: st.DataObject) -> None:
    """Nor any other byte in any place, nor any shorter token: not one that leaves the last caveat out."""
    world = World(MemoryStore())
    token = world.tokens.derive(world.tokens.issue(tenant="acme").id, paths=["/a"]).token
    token = narrow(token, methods=["GET"])
    raw = bytearray(token.encode())
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    derived = take_apart(token.encode())
    changed = [
        bytes(raw),
        token.encode()[:place],
        b".".join((*derived.parts[:-1], derived.signature)),
    ]
    for one in changed:
        try:
            assert authenticate(world.part, "sync", bearer(one)) is None  # not even the prefix of a token of ours
            assert not one.startswith(b"atp_")
        except Unauthenticated:
            pass


def test_every_bit_of_a_token_counts() -> None:
    """All of them, one after the other."""
    world = World(MemoryStore())
    token = narrow(world.tokens.derive(world.tokens.issue(tenant="acme").id).token, methods=["GET"]).encode()
    _, key = world.signing_key()
    for place in range(len(token)):
        for bit in range(8):
            changed = bytearray(token)
            changed[place] ^= 1 << bit
            try:
                assert not take_apart(bytes(changed)).is_signed_with(key)
            except Unauthenticated:
                continue
    assert take_apart(token).is_signed_with(key)


def test_a_denial_holds_whatever_scopes_were_given_up() -> None:
    """A rule that denies who has a scope is not got round by dropping that scope, nor by deriving at all."""
    world = World(MemoryStore())
    parent = world.tokens.issue(tenant="acme", scopes=["use", "contractor", DERIVE]).id
    rules = Rules(
        [
            Rule("use", effect="allow", scopes=["use"]),
            Rule("no-contractors", effect="deny", path="/admin/**", scopes=["contractor"]),
            Rule("no-derivers", effect="deny", path="/keys/**", scopes=[DERIVE]),
        ]
    )
    token = world.tokens.derive(parent).token
    for lesser in (token, narrow(token, scopes=["use"]), narrow(token, scopes=["use"], rules=["use"])):
        caller = world.caller(lesser)
        assert caller is not None
        verdicts = [rules.decide(caller, grant(path).operation) for path in ("/a", "/admin/a", "/keys/a")]
        assert [isinstance(verdict, Grant) for verdict in verdicts] == [True, False, False]


def test_another_rule_may_be_the_one_that_is_left() -> None:
    """The first rule that allows it is not among those that were kept; the second is."""
    world = World(MemoryStore())
    token = world.tokens.derive(world.tokens.issue(tenant="acme").id, rules=["second"]).token
    caller = world.caller(token)
    assert caller is not None
    verdict = Rules([Rule("first", effect="allow"), Rule("second", effect="allow")]).decide(caller, grant().operation)
    assert isinstance(verdict, Grant)
    assert verdict.rule == "second"


def test_lesser_tokens_push_out_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever holds one can make any number of others; they are kept apart, and fewer."""
    monkeypatch.setattr("apitokenproxy.identity.verified.MOST_DERIVED", 10)
    store = CountingMemoryStore()
    world = World(store)
    victim = world.tokens.issue(tenant="victim").token
    derived = world.tokens.derive(world.tokens.issue(tenant="acme").id).token
    assert world.caller(victim) is not None
    for number in range(50):
        assert world.caller(narrow(derived, paths=[f"/{number}"])) is not None
    store.asked = 0
    assert world.caller(victim) is not None
    assert (store.asked, len(world.part._verified._derived)) == (0, 10)


# --- what is not understood ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "caveat",
    [
        b'{"unknown": ["x"]}',
        b'{"methods": ["GET"], "unknown": 1}',
        b'{"methods": ["GET"], "methods": ["PUT"]}',
        b'{"methods": "GET"}',
        b'{"methods": []}',
        b'{"methods": ["get"]}',
        b'{"methods": [1]}',
        b'{"paths": ["a"]}',
        b'{"paths": ["/a/../b"]}',
        b'{"expires": true}',
        b'{"expires": 1.5}',
        b'{"expires": "9999999999"}',
        b'{"expires": -1}',
        b'{"expires": NaN}',
        b'{"expires": 1e999}',
        b'{"expires": 99999999999999999999999}',
        b'{"addresses": ["10.0.0.1/8"]}',
        b'{"addresses": ["somewhere"]}',
        b"{}",
        b"[]",
        b"null",
        b"",
        b"nonsense",
        b"\xff",
        b"[" * 2000,
        '{"rules": ["ü"]}'.encode(),
    ],
)
def test_a_caveat_that_is_not_understood_refuses_the_token(caveat: bytes) -> None:
    """Signed or not: nothing of a token may be overlooked."""
    world = World(MemoryStore())
    assert world.caller(signed(world, b'{"methods": ["GET"]}', {})) is not None
    refused(world, signed(world, caveat, {}))


@pytest.mark.parametrize(
    "head",
    [
        {"id": "short"},
        {"id": 5},
        {"generation": True},
        {"generation": -1},
        {"generation": None},
        {"more": 1},
        {"limits": []},
        {"limits": {"rate": ["1/day"]}},
        {"limits": {"speed": "1/day"}},
        {"key": 7},
    ],
)
def test_a_head_that_is_not_understood_refuses_the_token(head: dict[str, Any]) -> None:
    """The proxy of tomorrow may say more there; that of today does not guess what."""
    world = World(MemoryStore())
    refused(world, signed(world, b'{"methods": ["GET"]}', head))


# --- keys ---------------------------------------------------------------------------------------


def test_two_keys_live_while_one_takes_the_place_of_the_other(colour: str) -> None:
    """The first signs, both verify; what the old one signed is refused when it is taken away."""
    store = MemoryStore()
    before = World(store, colour, keys=signing("old"))
    parent = before.tokens.issue(tenant="acme").id
    old = before.tokens.derive(parent).token
    during, after = World(store, colour, keys=signing("new", "old")), World(store, colour, keys=signing("new"))
    new = during.tokens.derive(parent).token
    assert [during.caller(old) is None, during.caller(new) is None, after.caller(new) is None] == [False] * 3
    assert "not signed with a key that is known" in refused(after, old)
    assert "not signed with a key that is known" in refused(before, new)


def test_a_key_that_cannot_be_had_is_not_the_clients_fault(colour: str) -> None:
    """503, unless another key is the one."""
    store = MemoryStore()
    parent = World(store).tokens.issue(tenant="acme").id
    signed_new = World(store, keys=signing("new")).tokens.derive(parent).token
    signed_old = World(store, keys=signing("old")).tokens.derive(parent).token
    world = World(store, colour, keys=signing("lost", "new", keys={"new": KEYS["new"]}))
    assert world.caller(signed_new) is not None
    with pytest.raises(SecretUnavailable):
        world.caller(signed_old)
    with pytest.raises(SecretUnavailable):
        world.tokens.derive(parent)


def test_a_key_that_was_taken_away_verifies_nothing_a_minute_later(colour: str) -> None:
    """Where secrets change in their place, what was verified with the old one is not kept for long."""
    fixed = {"key": KEYS["old"]}
    secrets = signing("key", keys=fixed)
    world = World(MemoryStore(), colour, keys=secrets)
    token = world.tokens.derive(world.tokens.issue(tenant="acme").id).token
    assert world.caller(token) is not None
    world.part._keys = signing("new")
    pass_by(world, 60)
    refused(world, token)


def test_a_short_key_signs_nothing() -> None:
    """One sentence says how long it must be, and none shows it."""
    world = World(MemoryStore(), keys=signing("short"))
    with pytest.raises(SecretUnavailable, match="31 characters; it must have 32") as refusal:
        world.tokens.derive(world.tokens.issue(tenant="acme").id)
    assert KEYS["short"] not in str(refusal.value)


def test_without_a_key_nothing_is_derived_and_nothing_derived_is_accepted(colour: str) -> None:
    """The sentence says what to set."""
    store = MemoryStore()
    world = World(store, colour, keys=signing())
    parent = world.tokens.issue(tenant="acme").id
    with pytest.raises(ConfigurationError, match="signing_keys"):
        world.tokens.derive(parent)
    refused(world, World(store).tokens.derive(parent).token)


def test_the_key_of_a_caller_is_nobodys() -> None:
    """A key that depends on who calls would sign for one and verify for another."""
    with pytest.raises(ConfigurationError, match="tenant"):
        signing("{tenant}")


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"scopes": ["z"]}, "has no scope z"),
        ({"scopes": "a"}, "must be a list"),
        ({"paths": "/a"}, "paths must be a list"),
        ({"paths": []}, "good for nothing"),
        ({"paths": ["a"]}, "must begin with a slash"),
        ({"methods": ["get"]}, "in capitals"),
        ({"addresses": ["10.0.0.1/8"]}, "not an address or network"),
        ({"expires_in": timedelta(0)}, "a second or more"),
        ({"expires_in": 60}, "a timedelta"),
        ({"rate": "often"}, "100/minute"),
        ({"burst": 5}, "goes with rate"),
        ({"concurrency": 0}, "at least 1"),
    ],
)
def test_what_is_wrong_is_said(values: Any, sentence: str) -> None:
    """In one sentence."""
    world = World(MemoryStore())
    with pytest.raises(ConfigurationError, match=sentence):
        world.tokens.derive(world.tokens.issue(tenant="acme", scopes=["a"]).id, **values)


@pytest.mark.parametrize("end", ["revoke", "suspend"])
def test_nothing_is_derived_from_a_token_that_is_not_active(end: str) -> None:
    """It would be refused anyway."""
    world = World(MemoryStore())
    parent = world.tokens.issue(tenant="acme").id
    getattr(world.tokens, end)(parent)
    with pytest.raises(TokenConflict, match="nothing can be derived"):
        world.tokens.derive(parent)


def test_a_client_token_cannot_be_narrowed_by_itself() -> None:
    """The store holds its digest: if that could verify a narrowed token, whoever reads the store could make one."""
    token = World(MemoryStore()).tokens.issue(tenant="acme").token
    for one in (token, "", "nonsense", "atp_ü"):
        with pytest.raises(ConfigurationError, match="only a derived token"):
            narrow(one, methods=["GET"])


def test_a_token_can_be_full() -> None:
    """Neither the count nor the length of caveats is without bound."""
    token = World(MemoryStore()).tokens
    derived = token.derive(token.issue(tenant="acme").id).token
    for _ in range(MOST_CAVEATS - 1):
        derived = narrow(derived, methods=["GET"])
    with pytest.raises(ConfigurationError, match="full"):
        narrow(derived, methods=["GET"])
    with pytest.raises(ConfigurationError, match="full"):
        narrow(token.derive(token.issue(tenant="acme").id).token, paths=["/" + "a" * LONGEST])
    with pytest.raises(ConfigurationError, match="full"):
        token.derive(token.issue(tenant="acme").id, paths=["/" + "a" * LONGEST])
    with pytest.raises(ConfigurationError, match="nothing is named"):
        narrow(token.derive(token.issue(tenant="acme").id).token)


def test_how_much_a_token_lists_is_bounded() -> None:
    """Each value costs something to judge: neither is a longer token made, nor is one accepted."""
    world = World(MemoryStore())
    parent = world.tokens.issue(tenant="acme").id
    many = [f"10.0.{number}.1" for number in range(60)]
    token = world.tokens.derive(parent, addresses=many).token
    with pytest.raises(ConfigurationError, match="full"):
        narrow(token, addresses=many)
    assert world.caller(signed(world, json.dumps({"paths": ["/a"] * 100}).encode(), {})) is not None
    refused(world, signed(world, json.dumps({"paths": ["/a"] * 101}).encode(), {}))


def test_a_derived_token_that_is_signed_is_no_guess(colour: str) -> None:
    """Though nobody has seen it, and others guess from the same address."""
    world = World(MemoryStore(), colour)
    parent = world.tokens.issue(tenant="acme").id
    good = world.tokens.derive(parent).token
    for number in range(20):
        refused(world, good[:-2] + f"{number:02}")
    assert world.caller(world.tokens.derive(parent).token) is not None


def test_a_provider_of_another_colour_under_another_scheme_does_not_matter() -> None:
    """Only the signing key is read, and it is read where nothing may wait."""

    class Elsewhere:
        async def fetch(self, _reference: str) -> Any:
            raise NotImplementedError

    secrets = Secrets({"fixed": FixedSecrets(**KEYS), "elsewhere": Elsewhere()})
    world = World(MemoryStore(), keys=SigningKeys(["fixed:new"], secrets.bind))
    assert world.tokens.derive(world.tokens.issue(tenant="acme").id).token


def test_a_derived_token_is_shown_once_and_nowhere_else() -> None:
    """Neither in the repr of what is returned, nor when it is to be revoked."""
    tokens = World(MemoryStore()).tokens
    derived = tokens.derive(tokens.issue(tenant="acme").id)
    assert derived.token not in repr(derived)
    with pytest.raises(TokenConflict, match="ends with it") as refusal:
        tokens.revoke_leaked(derived.token)
    assert derived.token not in str(refusal.value)
    assert derived.parent in str(refusal.value)


def test_wrong_derived_tokens_are_guesses(colour: str) -> None:
    """They count as failures of their address, as wrong client tokens do."""
    world = World(MemoryStore(), colour)
    good = world.tokens.derive(world.tokens.issue(tenant="acme").id).token
    assert world.caller(good) is not None
    for number in range(20):
        refused(world, good[:-2] + f"{number:02}")
    with pytest.raises(TooManyFailures):
        world.caller(good[:-2] + "zz")
    assert world.caller(good) is not None
