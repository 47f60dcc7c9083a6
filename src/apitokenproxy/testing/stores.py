"""What every token store must do: inherit from `TokenStoreConformance`.

    class TestMine(TokenStoreConformance):
        def make(self):
            return MyStore("a place that nobody has used before")

Every fact asks for a new, empty store and closes it.
"""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta

from attrs import evolve

from apitokenproxy.errors import StoreUnavailable
from apitokenproxy.interfaces import Generation, StoredToken, TokenEvent, TokenStore, Uses
from apitokenproxy.testing.tokens import START, a_token, add, an_event, full_token, revoke

_HOUR = timedelta(hours=1)
_MANY = 40


class TokenStoreConformance:
    """The facts, one a method. Override `make`."""

    def make(self) -> TokenStore:
        """Return a store that nobody has used before."""
        raise NotImplementedError

    @contextmanager
    def _store(self) -> Iterator[TokenStore]:
        store = self.make()
        try:
            yield store
        finally:
            store.close()

    # --- what is added is found -------------------------------------------------------------

    def test_a_token_is_found_as_it_was_added(self) -> None:
        """Every field comes back unchanged, microseconds, generations and nested attributes included."""
        with self._store() as store:
            for token in (a_token(), full_token(), StoredToken("0" * 12, "t", START)):
                add(store, token, a_token())
                assert store.find(token.id) == token

    def test_times_come_back_aware(self) -> None:
        """A time in another zone is the same moment in UTC."""
        zone = datetime.fromisoformat("2026-11-24T14:00:00.000001+02:00")
        with self._store() as store:
            token = a_token(created=zone, expires=zone)
            add(store, token)
            found = store.find(token.id)
            assert found is not None
            assert (found.created, found.expires) == (zone, zone)
            assert found.created.utcoffset() is not None

    def test_an_unknown_id_finds_nothing(self) -> None:
        """Whatever stands in the id, it is compared and never interpreted; case counts."""
        with self._store() as store:
            token = a_token()
            add(store, token)
            for identifier in ("000000000000", "", "%", "' OR 1=1 --", "x" * 10_000, token.id.swapcase()):
                assert store.find(identifier) is None

    def test_an_id_cannot_be_added_twice(self) -> None:
        """A collision is refused and leaves the first token as it was."""
        with self._store() as store:
            token = a_token()
            add(store, token)
            _refused(lambda: add(store, StoredToken(token.id, "other", START)))
            assert list(store.list()) == [token]
            assert len(store.events(token.id)) == 1

    def test_a_digest_cannot_be_added_twice(self) -> None:
        """One token string is one token; what was half added is gone, and no digest is in the text."""
        with self._store() as store:
            token = a_token()
            add(store, token)
            said = _refused(lambda: add(store, a_token("other", generations=token.generations)))
            assert list(store.list()) == [token]
            assert repr(token.generations[0].digest)[2:-1] not in said

    def test_digests_do_not_show(self) -> None:
        """The repr of what a store returns can be logged."""
        with self._store() as store:
            token = full_token()
            add(store, token)
            assert repr(token.generations[0].digest)[2:-1] not in repr(store.find(token.id))

    # --- lists --------------------------------------------------------------------------------

    def test_tokens_are_listed_oldest_first(self) -> None:
        """The order is that of creation, whatever the order of adding."""
        with self._store() as store:
            assert list(store.list()) == []
            tokens = [a_token(created=START + timedelta(minutes=n)) for n in (3, 1, 2)]
            add(store, *tokens)
            assert list(store.list()) == sorted(tokens, key=lambda token: token.created)

    def test_one_tenants_tokens_are_listed(self) -> None:
        """A tenant's name is compared as it is: no wildcard, no folding of case."""
        with self._store() as store:
            mine, other, third = a_token("acme"), a_token("ACME"), a_token("a%")
            add(store, mine, other, third, full_token())
            assert list(store.list("acme")) == [mine]
            assert list(store.list("a%")) == [third]
            assert list(store.list("nobody")) == []

    # --- changes ------------------------------------------------------------------------------

    def test_a_change_replaces_the_token(self) -> None:
        """Every field but the id may change; what is returned is what is found; other tokens stay."""
        with self._store() as store:
            token, other = a_token(), a_token()
            add(store, token, other)
            target = evolve(full_token(), id=token.id, created=token.created)
            changed = store.change(token.id, lambda _: (target, an_event(token.id, "edit")))
            assert changed == store.find(token.id) == target
            assert store.find(other.id) == other

    def test_a_change_sees_what_it_replaces(self) -> None:
        """Many at once are made one after the other: none is lost."""
        with self._store() as store:
            token = a_token(attributes={"n": 0})
            add(store, token)

            def count(found: StoredToken) -> tuple[StoredToken, TokenEvent]:
                return evolve(found, attributes={"n": found.attributes["n"] + 1}), an_event(found.id, "edit")

            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda _: store.change(token.id, count), range(_MANY)))
            found = store.find(token.id)
            assert found is not None
            assert found.attributes == {"n": _MANY}
            assert len(store.events(token.id)) == _MANY + 1

    def test_a_change_may_leave_it_as_it_is(self) -> None:
        """Then there is no event, and nobody's cache is emptied."""
        with self._store() as store:
            token = a_token()
            add(store, token)
            before = store.changes()
            assert store.change(token.id, lambda _: None) == token
            assert (store.changes(), len(store.events(token.id))) == (before, 1)

    def test_a_change_that_raises_changes_nothing(self) -> None:
        """What it raised is raised."""
        with self._store() as store:
            token = a_token()
            add(store, token)
            before = store.changes()

            def fail(_: StoredToken) -> None:
                raise LookupError

            with suppress(LookupError):
                store.change(token.id, fail)
                raise AssertionError("what the edit raised was swallowed")
            assert (store.find(token.id), store.changes()) == (token, before)
            assert revoke(store, token.id, START) is not None

    def test_a_change_of_nothing_is_none(self) -> None:
        """For an id that is not there, nothing is called and nothing is kept."""
        with self._store() as store:
            assert store.change("000000000000", _never) is None
            assert list(store.events("000000000000")) == []
            assert store.delete("000000000000", an_event("000000000000", "delete")) is False

    def test_a_digest_of_another_token_cannot_be_changed_in(self) -> None:
        """One token string stays one token, and what was half changed is undone."""
        with self._store() as store:
            token, other = a_token(), a_token()
            add(store, token, other)
            second = Generation(2, other.generations[0].digest, START)
            edited = evolve(token, subject="x", generations=(*token.generations, second))
            _refused(lambda: store.change(token.id, lambda _: (edited, an_event(token.id, "rotate"))))
            assert (store.find(token.id), len(store.events(token.id))) == (token, 1)

    def test_a_deleted_token_is_gone_and_its_events_stay(self) -> None:
        """Somebody may ask later what became of it."""
        with self._store() as store:
            token, other = full_token(), a_token()
            add(store, token, other)
            assert store.delete(token.id, an_event(token.id, "delete")) is True
            assert (store.find(token.id), list(store.list())) == (None, [other])
            assert [event.action for event in store.events(token.id)] == ["issue", "delete"]
            assert store.delete(token.id, an_event(token.id, "delete")) is False

    def test_every_change_makes_another_number(self) -> None:
        """Adding takes nothing away from anybody, so it need not; using a token must not."""
        with self._store() as store:
            token = a_token()
            assert store.changes() == store.changes()
            add(store, token)
            before = store.changes()
            store.note([Uses(token.id, 1, START, START, 1)])
            assert store.changes() == before
            revoke(store, token.id, START)
            between = store.changes()
            store.delete(token.id, an_event(token.id, "delete"))
            after = store.changes()
            assert before != between != after != before

    def test_events_come_back_in_order(self) -> None:
        """Each as it was, with details that JSON can hold."""
        with self._store() as store:
            token = a_token()
            add(store, token, a_token())
            details = {"scopes": [["a"], ["b", "雪"]], "n": 1.5, "none": None}
            for number in range(5):
                told = evolve(token, subject=str(number)), an_event(token.id, f"edit{number}", details)
                store.change(token.id, lambda _, told=told: told)  # type: ignore[misc]
            found = list(store.events(token.id))
            assert [event.action for event in found] == ["issue", "edit0", "edit1", "edit2", "edit3", "edit4"]
            assert found[1] == an_event(token.id, "edit0", json.loads(json.dumps(details)))

    # --- uses -----------------------------------------------------------------------------------

    def test_uses_are_added_up(self) -> None:
        """By generation: the first and the last moment, and how often; batches may come out of order."""
        with self._store() as store:
            token = full_token()
            add(store, token, a_token())
            store.note(
                [
                    Uses(token.id, 1, START + _HOUR, START + 2 * _HOUR, 3),
                    Uses(token.id, 2, START, START, 1),
                    Uses("000000000000", 1, START, START, 5),
                    Uses(token.id, 9, START, START, 5),
                ]
            )
            store.note([Uses(token.id, 1, START, START + _HOUR, 4)])
            store.note([])
            found = store.find(token.id)
            assert found is not None
            told = [(one.first_used, one.last_used, one.uses) for one in found.generations]
            assert told == [(START, START + 2 * _HOUR, 7), (START, START, 1)]

    def test_a_change_keeps_the_uses(self) -> None:
        """Those that were added while it was being made too."""
        with self._store() as store:
            token = a_token()
            add(store, token)
            store.note([Uses(token.id, 1, START, START, 1)])
            store.change(token.id, lambda _: (evolve(token, subject="x"), an_event(token.id, "edit")))
            stale = evolve(token.generations[0], replaced=START, retired=START)
            store.change(token.id, lambda _: (evolve(token, generations=(stale,)), an_event(token.id, "edit")))
            found = store.find(token.id)
            assert found is not None
            assert (found.generations[0].uses, found.generations[0].last_used) == (1, START)

    # --- life -------------------------------------------------------------------------------------

    def test_a_closed_store_opens_again(self) -> None:
        """Closing lets go of files and connections, not of tokens."""
        with self._store() as store:
            token = a_token()
            add(store, token)
            store.close()
            store.close()
            assert store.find(token.id) == token

    def test_threads_share_a_store(self) -> None:
        """Tokens added and revoked by many threads at once are all there."""
        with self._store() as store:
            start = threading.Barrier(8)

            def work(number: int) -> list[str]:
                start.wait(10)
                tokens = [a_token(f"t{number}") for _ in range(10)]
                for token in tokens:
                    add(store, token)
                    assert store.find(token.id) == token
                    revoke(store, token.id, START)
                return [token.id for token in tokens]

            with ThreadPoolExecutor(8) as pool:
                expected = {identifier for identifiers in pool.map(work, range(8)) for identifier in identifiers}
            assert {token.id for token in store.list()} == expected
            assert all(token.revoked == START for token in store.list())


def _refused(call: Callable[[], object]) -> str:
    """Return what a store says that must raise StoreUnavailable."""
    try:
        call()
    except StoreUnavailable as error:
        return f"{error!r} {error}"
    raise AssertionError("the store took what it must refuse")


def _never(_: StoredToken) -> None:
    raise AssertionError("an edit was called for a token that is not there")
