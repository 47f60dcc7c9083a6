"""Issuing, showing and revoking client tokens."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from attrs.exceptions import FrozenInstanceError
from identity_calls import STORES, counting_store

from apitokenproxy.errors import ConfigurationError, TokenNotFound
from apitokenproxy.identity.authority import TokenAuthority
from apitokenproxy.identity.format import digest, id_in, mint
from apitokenproxy.identity.verified import Verified
from apitokenproxy.interfaces import Generation, StoredToken
from apitokenproxy.testing.tokens import add


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    with counting_store(request.param, tmp_path) as opened:
        yield opened


@pytest.fixture
def authority(store: Any) -> TokenAuthority:
    return TokenAuthority(store, Verified(bound=1.0))


def test_what_was_issued_can_be_shown(authority: TokenAuthority) -> None:
    """Everything but the token itself."""
    issued = authority.issue(
        tenant="acme", subject="s", scopes=["b", "a"], attributes={"org": "x"}, expires_in=timedelta(days=30)
    )
    info = authority.get(issued.id)
    assert id_in(issued.token.encode()) == issued.id == info.id
    assert (issued.tenant, issued.expires) == (info.tenant, info.expires) == ("acme", info.created + timedelta(days=30))
    assert (info.subject, info.scopes, info.attributes) == ("s", frozenset("ab"), {"org": "x"})
    assert (info.revoked, info.state) == (None, "active")


def test_the_token_is_shown_once(authority: TokenAuthority, store: Any) -> None:
    """It is in the issued value, outside its repr; the store has the digest only."""
    issued = authority.issue(tenant="acme")
    assert issued.token not in repr(issued)
    assert [generation.digest for generation in store.find(issued.id).generations] == [digest(issued.token.encode())]
    with pytest.raises(FrozenInstanceError):
        issued.token = "other"


def test_without_expiry_a_token_stays(authority: TokenAuthority) -> None:
    """Expiry is a choice."""
    assert authority.issue(tenant="acme").expires is None


def test_the_state_says_how_a_token_ended(authority: TokenAuthority, store: Any) -> None:
    """Active, expired or revoked; revoked wins."""
    now = datetime.now(UTC)
    past = now - timedelta(days=1)
    states = {}
    for name, more in {
        "active": {"expires": now + timedelta(days=1)},
        "expired": {"expires": past},
        "revoked": {"expires": past, "revoked": past},
    }.items():
        identifier, token = mint()
        generation = Generation(1, digest(token.encode()), past)
        add(store, StoredToken(identifier, "t", past, generations=(generation,), **more))
        states[name] = authority.get(identifier).state
    assert states == {name: name for name in states}


def test_tokens_are_listed_by_tenant(authority: TokenAuthority) -> None:
    """Oldest first, all or one tenant's."""
    first, second, third = (authority.issue(tenant=tenant).id for tenant in ("a", "b", "a"))
    assert [info.id for info in authority.list()] == [first, second, third]
    assert [info.id for info in authority.list(tenant="a")] == [first, third]


def test_revoking_tells_when(authority: TokenAuthority) -> None:
    """Revoking again changes nothing."""
    issued = authority.issue(tenant="acme")
    first = authority.revoke(issued.id)
    assert first.state == "revoked"
    assert authority.revoke(issued.id) == first == authority.get(issued.id)


@pytest.mark.parametrize("call", ["get", "revoke"])
def test_an_unknown_id_is_not_found(authority: TokenAuthority, call: str) -> None:
    """The sentence names the id."""
    with pytest.raises(TokenNotFound, match="there is no client token 0123456789AB"):
        getattr(authority, call)("0123456789AB")


@pytest.mark.parametrize("call", ["get", "revoke"])
def test_a_whole_token_in_the_place_of_an_id_is_not_repeated(authority: TokenAuthority, store: Any, call: str) -> None:
    """Somebody pastes the wrong thing; it must not end up in a log."""
    issued = authority.issue(tenant="acme")
    for wrong in (issued.token, "", "\ud800", "x" * 100):
        with pytest.raises(TokenNotFound, match="that is not a token's id") as error:
            getattr(authority, call)(wrong)
        assert issued.token not in str(error.value)
    assert store.asked == 0


WRONG = {
    "tenant empty": ({"tenant": ""}, "tenant must be 1 to 128 printable characters"),
    "tenant long": ({"tenant": "x" * 129}, "tenant must be 1 to 128"),
    "tenant newline": ({"tenant": "a\nb"}, "tenant must be"),
    "tenant escape": ({"tenant": "a\x1b[31m"}, "tenant must be"),
    "tenant bidi": ({"tenant": "a\u202eb"}, "tenant must be"),
    "tenant nul": ({"tenant": "a\0"}, "tenant must be"),
    "tenant surrogate": ({"tenant": "\ud800"}, "tenant must be"),
    "tenant space": ({"tenant": "acme "}, "without spaces at its ends"),
    "tenant number": ({"tenant": 7}, "tenant must be"),
    "tenant bytes": ({"tenant": b"acme"}, "tenant must be"),
    "subject long": ({"subject": "x" * 257}, "subject must be 0 to 256"),
    "subject control": ({"subject": "\x7f"}, "subject must be"),
    "scopes text": ({"scopes": "github:read"}, r'scopes must be a list, as \["github:read"\]'),
    "scopes bytes": ({"scopes": b"ab"}, "a scope must be"),
    "scope space": ({"scopes": ["a b"]}, "scope 'a b' has a space in it"),
    "scope empty": ({"scopes": [""]}, "a scope must be"),
    "scope number": ({"scopes": [1]}, "a scope must be"),
    "attributes date": ({"attributes": {"a": datetime.now(UTC)}}, "attributes must be what JSON can hold"),
    "attributes key": ({"attributes": {1: "a"}}, "attributes must be"),
    "attributes deep key": ({"attributes": {"a": [{None: "a"}]}}, "attributes must be"),
    "attributes nan": ({"attributes": {"a": float("nan")}}, "attributes must be"),
    "attributes tuple": ({"attributes": {"a": (1, 2)}}, "attributes must be"),
    "attributes list": ({"attributes": ["a"]}, "attributes must be"),
    "attributes long": ({"attributes": {"a": "x" * 9000}}, "at most 8192 are kept"),
    "expires zero": ({"expires_in": timedelta(0)}, "expires_in must be a positive timedelta"),
    "expires past": ({"expires_in": timedelta(days=-1)}, "expires_in must be"),
    "expires number": ({"expires_in": 30}, "expires_in must be"),
    "expires far": ({"expires_in": timedelta.max}, "expires_in is too long"),
}


@pytest.mark.parametrize(("values", "sentence"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_said_and_nothing_is_kept(authority: TokenAuthority, values: Any, sentence: str) -> None:
    """Each mistake gets a sentence that says what to write."""
    with pytest.raises(ConfigurationError, match=sentence):
        authority.issue(**{"tenant": "acme", **values})
    assert authority.list() == []


def test_attributes_that_contain_themselves_are_refused(authority: TokenAuthority) -> None:
    """Neither a circle nor a tower of lists ends the process."""
    circle: dict[str, Any] = {}
    circle["a"] = circle
    tower: list[Any] = []
    for _ in range(100_000):
        tower = [tower]
    for attributes in (circle, {"a": tower}):
        with pytest.raises(ConfigurationError, match="attributes must be"):
            authority.issue(tenant="acme", attributes=attributes)


def test_attributes_are_kept_as_they_were_when_issued(authority: TokenAuthority) -> None:
    """Changing the dictionary afterwards changes no token; any mapping is accepted."""
    attributes = {"list": ["a"]}
    issued = authority.issue(tenant="acme", attributes=MappingProxyType(attributes))
    attributes["list"].append("b")
    attributes["org"] = "x"
    assert authority.get(issued.id).attributes == {"list": ("a",)}


@pytest.mark.parametrize("tenant", ["a", "x" * 128, "Größe & Söhne", "雪", "a b", "a/../b"])
def test_printable_tenants_are_accepted(authority: TokenAuthority, tenant: str) -> None:
    """A tenant's name is people's to choose."""
    assert authority.issue(tenant=tenant).tenant == tenant


def test_every_call_has_an_awaitable_twin(authority: TokenAuthority) -> None:
    """The twins do the same without blocking the event loop."""

    async def story() -> None:
        issued = await authority.aissue(
            tenant="acme", subject="s", scopes=["a"], attributes={"b": 1}, expires_in=timedelta(days=1)
        )
        assert await authority.aget(issued.id) == authority.get(issued.id)
        assert await authority.alist(tenant="acme") == authority.list() == [authority.get(issued.id)]
        assert await authority.alist(tenant="other") == []
        assert (await authority.arevoke(issued.id)).state == "revoked"
        with pytest.raises(TokenNotFound):
            await authority.aget("0123456789AB")

    asyncio.run(story())
