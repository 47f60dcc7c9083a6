"""What can be done to a token after it was issued, and what is kept of it."""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from attrs import evolve
from identity_calls import COLOURS, authenticate, bearer

from apitokenproxy import Proxy, Rule, Upstream
from apitokenproxy.errors import ConfigurationError, StoreUnavailable, TokenConflict, TokenNotFound, Unauthenticated
from apitokenproxy.identity.authority import TokenAuthority
from apitokenproxy.identity.client_tokens import ClientTokens
from apitokenproxy.identity.format import mint
from apitokenproxy.identity.stores import open_store
from apitokenproxy.identity.verified import Verified
from apitokenproxy.interfaces import StoredToken, TokenEvent, Uses
from apitokenproxy.testing import FixedCredential

DAY = timedelta(days=1)
ALTERNATIVES = ["revoke", "undo", "suspend", "resume", "delete", "edit", "rotate"]


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    if request.param == "postgres":
        new: Callable[[], str] = request.getfixturevalue("new_postgres")
        opened = open_store(new())
    else:
        opened = open_store("memory:" if request.param == "memory" else f"sqlite:///{tmp_path}/tokens.db")
    yield opened
    opened.close()


@pytest.fixture
def authority(store: Any) -> TokenAuthority:
    return TokenAuthority(store, Verified(bound=1.0))


def accepted(store: Any, token: str | None, colour: str = "sync") -> bool:
    assert token is not None
    try:
        return authenticate(ClientTokens(store, Verified(bound=1.0)), colour, bearer(token)) is not None
    except Unauthenticated:
        return False


# --- rotation -------------------------------------------------------------------------------


def test_a_rotated_token_works_under_both_secrets(authority: TokenAuthority, store: Any) -> None:
    """Under one id, with one tenant, and with the end of the old one known."""
    issued = authority.issue(tenant="acme", scopes=["a"])
    made = authority.rotate(issued.id, overlap=DAY)
    assert (made.id, made.generation) == (issued.id, 2)
    assert made.old_ends is not None
    assert [accepted(store, token) for token in (issued.token, made.token)] == [True, True]
    assert [one.state for one in authority.get(issued.id).generations] == ["retiring", "newest"]
    assert made.token not in repr(made)


def test_an_overlap_of_0_is_in_force_at_once(authority: TokenAuthority, store: Any) -> None:
    """In the process that asked for it, also where the old secret was verified a moment ago."""
    verified = Verified(bound=1000.0)
    here = TokenAuthority(store, verified)
    part = ClientTokens(store, verified)
    issued = here.issue(tenant="acme")
    assert authenticate(part, "sync", bearer(issued.token)) is not None
    new = here.rotate(issued.id, overlap=timedelta(0)).token
    with pytest.raises(Unauthenticated):
        authenticate(part, "sync", bearer(issued.token))
    assert authenticate(part, "sync", bearer(new or "")) is not None


@pytest.mark.parametrize("colour", COLOURS)
def test_what_ends_at_once_ends_whatever_another_clock_says(
    authority: TokenAuthority, store: Any, colour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine that rotates is a minute ahead of this one: every old secret is refused, and one that was undone."""

    class Ahead(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + timedelta(minutes=1)

    first, other = authority.issue(tenant="acme"), authority.issue(tenant="acme")
    with monkeypatch.context() as there:
        there.setattr("apitokenproxy.identity.authority.datetime", Ahead)
        second = authority.rotate(first.id, overlap=DAY).token
        third = authority.rotate(first.id, overlap=timedelta(0)).token
        undone = authority.rotate(other.id, overlap=DAY).token
        authority.undo(other.id)
    assert [accepted(store, token, colour) for token in (first.token, second, third)] == [False, False, True]
    assert [accepted(store, token, colour) for token in (other.token, undone)] == [True, False]
    assert [[one.state for one in authority.get(token.id).generations] for token in (first, other)] == [
        ["ended", "ended", "newest"],
        ["newest", "ended"],
    ]


def test_a_repeated_rotation_is_the_same_rotation(authority: TokenAuthority, store: Any) -> None:
    """No second secret, and the first is not shown again; another key, another token: another rotation."""
    issued, other = authority.issue(tenant="acme"), authority.issue(tenant="acme")
    first = authority.rotate(issued.id, key="deploy 7")
    again = authority.rotate(issued.id, key="deploy 7")
    assert (again.token, again.generation, again.old_ends) == (None, first.generation, first.old_ends)
    assert accepted(store, issued.token)
    assert authority.rotate(other.id, key="deploy 7").token is not None
    assert authority.rotate(issued.id, key="deploy 8", overlap=timedelta(0)).generation == 3
    assert authority.rotate(issued.id, key="deploy 7").generation == first.generation


@pytest.mark.parametrize(
    "other", [{"overlap": timedelta(0)}, {"complete_when_idle": DAY}, {"complete_when_idle": DAY, "at_most": 9 * DAY}]
)
def test_a_key_that_is_repeated_with_other_terms_is_refused(authority: TokenAuthority, other: dict[str, Any]) -> None:
    """Whoever meant to end a leaked secret at once must not be told that it was done."""
    issued = authority.issue(tenant="acme")
    authority.rotate(issued.id, key="k")
    before = authority.get(issued.id)
    with pytest.raises(TokenConflict, match="with this key before, on other terms; repeat those"):
        authority.rotate(issued.id, key="k", **other)
    assert authority.get(issued.id) == before


def test_a_key_whose_rotation_was_undone_is_refused(authority: TokenAuthority) -> None:
    """There is no such secret any more; another key makes one."""
    issued = authority.issue(tenant="acme")
    authority.rotate(issued.id, key="k")
    authority.undo(issued.id)
    with pytest.raises(TokenConflict, match="with this key was undone; rotate with another key"):
        authority.rotate(issued.id, key="k")
    assert authority.rotate(issued.id, key="l").generation == 3


def test_a_rotation_that_is_asked_for_by_many_at_once_is_one(authority: TokenAuthority) -> None:
    """Exactly one of them gets the secret."""
    issued = authority.issue(tenant="acme")
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: authority.rotate(issued.id, key="k"), range(8)))
    assert sum(one.token is not None for one in made) == 1
    assert {one.generation for one in made} == {2}


def test_undo_ends_the_new_secret(authority: TokenAuthority, store: Any) -> None:
    """And lets the old one live on."""
    issued = authority.issue(tenant="acme")
    new = authority.rotate(issued.id).token
    authority.undo(issued.id)
    assert [accepted(store, token) for token in (issued.token, new)] == [True, False]


def test_a_rotation_that_cannot_be_is_refused_and_changes_nothing(authority: TokenAuthority) -> None:
    """With a sentence, and without an event."""
    issued = authority.issue(tenant="acme")
    authority.rotate(issued.id)
    before = authority.get(issued.id)
    for wrong in ({}, {"overlap": DAY}):
        with pytest.raises(TokenConflict):
            authority.rotate(issued.id, **wrong)
    for wrong in ({"key": ""}, {"overlap": -DAY}, {"complete_when_idle": timedelta(seconds=1)}, {"by": "x" * 1000}):
        with pytest.raises(ConfigurationError):
            authority.rotate(issued.id, **wrong)
    assert authority.get(issued.id) == before
    assert [event.action for event in authority.events(issued.id)] == ["issue", "rotate"]


def test_uses_follow_the_id(authority: TokenAuthority, store: Any) -> None:
    """The token's count is that of all its generations."""
    issued = authority.issue(tenant="acme")
    authority.rotate(issued.id)
    now = datetime.now(UTC)
    store.note([Uses(issued.id, 1, now, now, 3), Uses(issued.id, 2, now, now, 4)])
    info = authority.get(issued.id)
    assert (info.uses, info.last_used) == (7, now)


def test_no_secret_was_used_before_it_was_made(authority: TokenAuthority, store: Any) -> None:
    """Uses are written every two seconds, with the moment of the write before as the first."""
    issued = authority.issue(tenant="acme")
    now = datetime.now(UTC)
    store.note([Uses(issued.id, 1, now - timedelta(seconds=2), now, 1)])
    used = authority.get(issued.id).generations[0]
    assert (used.first_used, used.last_used) == (used.created, now)


def test_an_old_secret_in_use_past_its_time_is_told_to_the_log_once(
    store: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody should find out who it is before the hard end."""
    authority = TokenAuthority(store, Verified(bound=1.0))
    issued = authority.issue(tenant="acme")
    authority.rotate(issued.id, overlap=DAY, complete_when_idle=DAY, at_most=10 * DAY)
    later = datetime.now(UTC) + DAY
    store.note([Uses(issued.id, 1, later, later, 1)])
    part = ClientTokens(store, Verified(bound=0.0), clock=(later + timedelta(hours=1)).timestamp)
    for _ in range(3):
        assert authenticate(part, "sync", bearer(issued.token)) is not None
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 1
    assert f"generation 1 of client token {issued.id} of acme is still used" in told[0]


def test_an_idle_time_that_no_date_can_reach_breaks_nothing(authority: TokenAuthority, store: Any) -> None:
    """A row as an earlier version wrote it: the old secret ends at its hard end, and everything can be done with it."""
    issued = authority.issue(tenant="acme")
    authority.rotate(issued.id, overlap=DAY, complete_when_idle=DAY)

    def stretched(token: StoredToken) -> tuple[StoredToken, TokenEvent]:
        old, new = token.generations
        after = evolve(token, generations=(evolve(old, idle=timedelta(days=100_000_000)), new))
        return after, TokenEvent(token.id, datetime.now(UTC), "a test", "edit")

    hard_end = store.change(issued.id, stretched).generations[0].latest
    assert [token.generations[0].ends for token in authority.list()] == [hard_end]
    assert accepted(store, issued.token)
    assert [one.state for one in authority.undo(issued.id).generations] == ["newest", "ended"]


# --- pausing, editing, ending ---------------------------------------------------------------


@pytest.mark.parametrize("colour", COLOURS)
def test_a_suspended_token_is_refused_until_it_is_resumed(authority: TokenAuthority, store: Any, colour: str) -> None:
    """Nothing else of it changes; doing it twice changes nothing."""
    issued = authority.issue(tenant="acme")
    first = authority.suspend(issued.id)
    assert (first.state, authority.suspend(issued.id).suspended) == ("suspended", first.suspended)
    assert not accepted(store, issued.token, colour)
    assert authority.resume(issued.id).state == authority.resume(issued.id).state == "active"
    assert accepted(store, issued.token, colour)
    assert [event.action for event in authority.events(issued.id)] == ["issue", "suspend", "resume"]


def test_an_edited_token_says_something_else(authority: TokenAuthority) -> None:
    """What is named changes, the rest stays; the event tells from what to what, and by whom."""
    issued = authority.issue(tenant="acme", subject="s", scopes=["a"], attributes={"org": "x"}, expires_in=DAY)
    info = authority.edit(issued.id, scopes=["b"], attributes=None, expires_in=None, by="Grace")
    assert (info.tenant, info.subject, info.scopes, dict(info.attributes)) == ("acme", "s", frozenset("b"), {})
    assert info.expires is None
    event = authority.events(issued.id)[-1]
    assert (event.action, event.actor, event.details["scopes"]) == ("edit", "Grace", [["a"], ["b"]])
    assert event.details["attributes"] == [{"org": "x"}, {}]
    assert set(event.details) == {"scopes", "attributes", "expires"}
    assert authority.edit(issued.id, tenant="other", subject="t").tenant == "other"
    authority.edit(issued.id, tenant="other")
    assert len(authority.events(issued.id)) == 3


def test_an_edit_that_is_wrong_changes_nothing(authority: TokenAuthority) -> None:
    """The same sentences as when it is issued; and a token that was revoked is left alone."""
    issued = authority.issue(tenant="acme")
    for wrong in ({"tenant": ""}, {"scopes": "a"}, {"attributes": {1: 2}}, {"expires_in": -DAY}):
        with pytest.raises(ConfigurationError):
            authority.edit(issued.id, **wrong)
    authority.revoke(issued.id)
    with pytest.raises(TokenConflict, match="revoked for good"):
        authority.edit(issued.id, tenant="other")
    assert authority.get(issued.id).tenant == "acme"


def test_revoking_a_tenant_goes_on_past_what_cannot_be_revoked(
    authority: TokenAuthority, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is deleted meanwhile, one fails, one is issued meanwhile: all the others end, and the failure is raised."""
    tokens = [authority.issue(tenant="acme").id for _ in range(5)]
    change = store.change
    late: list[str] = []

    def failing(token_id: str, edit: Any) -> Any:
        if token_id == tokens[0]:
            raise StoreUnavailable("the row is locked")
        if not late:
            authority.delete(tokens[2])
            late.append(authority.issue(tenant="acme").id)
        return change(token_id, edit)

    with monkeypatch.context() as there:
        there.setattr(type(store), "change", lambda _, token_id, edit: failing(token_id, edit))
        with pytest.raises(StoreUnavailable):
            authority.revoke_all(tenant="acme")
    states = {one.id: one.state for one in authority.list()}
    assert states == {tokens[0]: "active", **dict.fromkeys((tokens[1], *tokens[3:], *late), "revoked")}
    assert [one.id for one in authority.revoke_all(tenant="acme")] == tokens[:1]


def test_a_whole_tenant_can_be_revoked(authority: TokenAuthority) -> None:
    """Or one subject of it; what was revoked before is not counted again."""
    tokens = [authority.issue(tenant="acme", subject=subject) for subject in ("a", "a", "b")]
    other = authority.issue(tenant="other", subject="a")
    authority.revoke(tokens[0].id)
    assert [one.id for one in authority.revoke_all(tenant="acme", subject="a")] == [tokens[1].id]
    assert [one.id for one in authority.revoke_all(tenant="acme")] == [tokens[2].id]
    assert authority.get(other.id).state == "active"


def test_a_leaked_token_is_revoked_by_its_string(authority: TokenAuthority, store: Any) -> None:
    """In any generation. An id with another secret does not do: it could come from anybody."""
    issued = authority.issue(tenant="acme")
    authority.rotate(issued.id)
    _, forged = mint(issued.id)
    for wrong in (forged, issued.id, "atp_", "", mint()[1], issued.token[:-1]):
        with pytest.raises(TokenNotFound) as refusal:
            authority.revoke_leaked(wrong)
        assert forged not in str(refusal.value)
    assert accepted(store, issued.token)
    assert authority.revoke_leaked(f"  {issued.token}\n").state == "revoked"


def test_a_deleted_token_is_unknown_and_its_events_stay(authority: TokenAuthority, store: Any) -> None:
    """What was done to it can still be read."""
    issued = authority.issue(tenant="acme", by="Ada")
    authority.delete(issued.id, by="Grace")
    assert not accepted(store, issued.token)
    for call in (authority.get, authority.delete):
        with pytest.raises(TokenNotFound):
            call(issued.id)
    assert [(one.action, one.actor) for one in authority.events(issued.id)] == [("issue", "Ada"), ("delete", "Grace")]


@pytest.mark.parametrize("call", ALTERNATIVES)
def test_nothing_is_done_to_a_token_that_is_not_there(authority: TokenAuthority, call: str) -> None:
    """Each says so."""
    with pytest.raises(TokenNotFound):
        getattr(authority, call)("000000000000")


def test_no_event_holds_a_secret(authority: TokenAuthority) -> None:
    """Neither a token nor a digest, whatever is done."""
    issued = authority.issue(tenant="acme", attributes={"org": "x"})
    new = authority.rotate(issued.id, key="secret key").token or ""
    authority.undo(issued.id)
    authority.edit(issued.id, subject="s")
    authority.revoke(issued.id)
    told = repr(authority.events(issued.id))
    assert all(part not in told for part in (issued.token[17:], new[17:], "secret key"))


def test_every_method_has_an_awaitable_twin() -> None:
    """With the same arguments and a name of its own."""
    public = {name for name in vars(TokenAuthority) if not name.startswith("_")}
    plain = {name for name in public if not inspect.iscoroutinefunction(getattr(TokenAuthority, name))}
    assert public == plain | {f"a{name}" for name in plain}
    for name in plain:
        assert getattr(TokenAuthority, f"a{name}").__qualname__ == f"TokenAuthority.a{name}"


def test_the_twins_do_the_same(authority: TokenAuthority) -> None:
    """From issue to delete under a running loop."""

    async def life() -> list[str]:
        issued = await authority.aissue(tenant="acme")
        await authority.arotate(issued.id, key="k")
        await authority.aundo(issued.id)
        await authority.asuspend(issued.id)
        await authority.aresume(issued.id)
        await authority.aedit(issued.id, subject="s")
        await authority.arevoke_leaked(issued.token)
        await authority.adelete(issued.id)
        return [event.action for event in await authority.aevents(issued.id)]

    assert asyncio.run(life()) == ["issue", "rotate", "undo", "suspend", "resume", "edit", "revoke", "delete"]


# --- what the holder is told ----------------------------------------------------------------


def test_an_answer_to_an_old_secret_says_that_it_is_old() -> None:
    """When it was replaced and until when it works, whether the request was allowed or not; nobody else hears of it."""
    forwarder = httpx.MockTransport(lambda _: httpx.Response(200, headers={"Deprecation": "@1"}))
    proxy = Proxy(
        upstreams=[
            Upstream("api", "https://api.example.com", credential=FixedCredential("x-key", "1"), transport=forwarder)
        ],
        rules=[Rule("read", effect="allow", methods=["GET"])],
    )
    issued = proxy.tokens.issue(tenant="acme")
    new = proxy.tokens.rotate(issued.id, overlap=DAY)
    assert new.old_ends is not None
    told = {
        "token-deprecation": f"@{int(proxy.tokens.get(issued.id).generations[1].created.timestamp())}",
        "token-sunset": f"{new.old_ends:%a, %d %b %Y %H:%M:%S} GMT",
    }
    for token, method, expected in (
        (issued.token, "GET", told),
        (issued.token, "POST", told),
        (new.token or "", "GET", {}),
    ):
        with httpx.Client(transport=proxy.transport(token), base_url="http://proxy/api") as client:
            headers = client.request(method, "/x").headers
        assert {name: headers[name] for name in headers if name.startswith("token-")} == expected
    proxy.close()
