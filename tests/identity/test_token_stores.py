"""What every token store does: one table for all of them."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from identity_calls import STORES

from apitokenproxy.errors import ConfigurationError, StoreUnavailable
from apitokenproxy.identity.format import digest, mint
from apitokenproxy.identity.stores import open_store
from apitokenproxy.interfaces import Generation, StoredToken, TokenStore

START = datetime(2026, 11, 24, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TokenStore]:
    opened = open_store("memory:" if request.param == "memory" else f"sqlite:///{tmp_path}/tokens.db")
    yield opened
    opened.close()


def a_token(tenant: str = "acme", created: datetime = START, **more) -> StoredToken:
    identifier, token = mint()
    first = Generation(1, digest(token.encode()), created)
    return StoredToken(identifier, tenant, created, **{"generations": (first,), **more})


def full_token() -> StoredToken:
    identifier, first = mint()
    _, second = mint(identifier)
    return StoredToken(
        identifier,
        "Größe & Söhne",
        START,
        subject="build 雪",
        scopes=frozenset({"github:read", "a"}),
        attributes={"org": "x", "n": 1.5, "on": True, "none": None, "list": [1, {"a": "'; DROP TABLE tokens; --"}]},
        expires=START + timedelta(days=30, microseconds=7),
        revoked=START + timedelta(days=1),
        generations=(
            Generation(1, digest(first.encode()), START, START + timedelta(hours=1)),
            Generation(2, digest(second.encode()), START + timedelta(minutes=1)),
        ),
    )


@pytest.mark.parametrize("make", [a_token, full_token])
def test_a_token_is_found_as_it_was_added(store: TokenStore, make) -> None:
    """Every field comes back unchanged, microseconds, generations and nested attributes included."""
    token = make()
    store.add(token)
    store.add(a_token())
    assert store.find(token.id) == token


def test_times_come_back_aware(store: TokenStore) -> None:
    """A time in another zone is the same moment in UTC."""
    zone = datetime.fromisoformat("2026-11-24T14:00:00.000001+02:00")
    token = a_token(created=zone, expires=zone)
    store.add(token)
    found = store.find(token.id)
    assert (found.created, found.expires) == (zone, zone)
    assert found.created.utcoffset() is not None


@pytest.mark.parametrize("identifier", ["000000000000", "", "%", "' OR 1=1 --", "x" * 10_000])
def test_an_unknown_id_finds_nothing(store: TokenStore, identifier: str) -> None:
    """Whatever stands in the id, it is compared and never interpreted."""
    store.add(a_token())
    assert store.find(identifier) is None


def test_ids_are_case_sensitive(store: TokenStore) -> None:
    """Two ids that differ only in case are two tokens."""
    token = a_token()
    store.add(token)
    assert store.find(token.id.swapcase()) is None


def test_the_first_revocation_stays(store: TokenStore) -> None:
    """Revoking again changes nothing, so the record tells when it really ended."""
    token = a_token()
    store.add(token)
    first = store.revoke(token.id, START + timedelta(hours=1))
    second = store.revoke(token.id, START + timedelta(hours=2))
    assert first.revoked == START + timedelta(hours=1)
    assert first == second == store.find(token.id)


def test_revoking_touches_no_other_token(store: TokenStore) -> None:
    """A revocation is for one id; for one that is not there it does nothing."""
    token, other = a_token(), a_token()
    store.add(token)
    store.add(other)
    store.revoke(token.id, START)
    assert store.revoke("000000000000", START) is None
    assert store.find(other.id) == other


def test_tokens_are_listed_oldest_first(store: TokenStore) -> None:
    """The order is that of creation, whatever the order of adding."""
    tokens = [a_token(created=START + timedelta(minutes=n)) for n in (3, 1, 2)]
    for token in tokens:
        store.add(token)
    assert store.list() == sorted(tokens, key=lambda token: token.created)


def test_one_tenants_tokens_are_listed(store: TokenStore) -> None:
    """A tenant's name is compared as it is: no wildcard, no folding of case."""
    mine, other, third = a_token("acme"), a_token("ACME"), a_token("a%")
    for token in (mine, other, third, full_token()):
        store.add(token)
    assert store.list("acme") == [mine]
    assert store.list("a%") == [third]
    assert store.list("nobody") == []


def test_an_empty_store_lists_nothing(store: TokenStore) -> None:
    """Nothing is not an error."""
    assert store.list() == []


def test_the_same_id_cannot_be_added_twice(store: TokenStore) -> None:
    """A collision is refused and leaves the first token as it was."""
    token = a_token()
    store.add(token)
    with pytest.raises(StoreUnavailable, match="already"):
        store.add(StoredToken(token.id, "other", START))
    assert store.list() == [token]


def test_the_same_digest_cannot_be_added_twice(store: TokenStore) -> None:
    """One token string is one token; what was half added is gone, and no digest is in the text."""
    token = a_token()
    store.add(token)
    with pytest.raises(StoreUnavailable, match="already") as refusal:
        store.add(a_token("other", generations=token.generations))
    assert store.list() == [token]
    assert repr(token.generations[0].digest) not in str(refusal.value)


def test_a_closed_store_opens_again(store: TokenStore) -> None:
    """Closing lets go of files, not of tokens."""
    token = a_token()
    store.add(token)
    store.close()
    store.close()
    assert store.find(token.id) == token


def test_threads_share_a_store(store: TokenStore) -> None:
    """Tokens added and revoked by many threads at once are all there."""
    start = threading.Barrier(8)

    def work(number: int) -> list[str]:
        start.wait(10)
        tokens = [a_token(f"t{number}") for _ in range(10)]
        for token in tokens:
            store.add(token)
            assert store.find(token.id) == token
            store.revoke(token.id, START)
        return [token.id for token in tokens]

    with ThreadPoolExecutor(8) as pool:
        expected = {identifier for identifiers in pool.map(work, range(8)) for identifier in identifiers}
    assert {token.id for token in store.list()} == expected
    assert all(token.revoked == START for token in store.list())


def test_digests_do_not_show(store: TokenStore) -> None:
    """The repr of what a store returns can be logged."""
    token = a_token()
    store.add(token)
    assert "digest" not in repr(store.find(token.id))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://user:hunter2@db/tokens",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "redis://x",
        "mysql:x",
    ],
)
def test_other_urls_are_refused_without_being_repeated(url: str) -> None:
    """A URL may hold a password, so the sentence says what is supported and nothing else."""
    with pytest.raises(ConfigurationError, match=r"sqlite:///PATH") as refusal:
        open_store(url)
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize("url", ["tokens.db", "", "memory", "sqlite:///x.db?mode=ro", "sqlite:///a\0b"])
def test_what_is_no_store_url_is_refused(url: str) -> None:
    """A path alone, options and control characters each get a sentence."""
    with pytest.raises(ConfigurationError, match="store"):
        open_store(url)
