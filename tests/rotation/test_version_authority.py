"""What people do with versions: look, probe, promote, take back. In both colours, and seen by every process."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from rotation_calls import BAD, COLOURS, NEW, OLD, World

from apitokenproxy import Bearer, ConfigurationError, Rotation, SecretUnavailable


@pytest.fixture(params=COLOURS)
def colour(request: pytest.FixtureRequest) -> str:
    return request.param


def world(colour: str, *accepted: str, **material: str) -> World:
    terms = {
        "candidate": Bearer("places:next"),
        "previous": Bearer("places:before"),
        "rotation": Rotation(probe="/v1/me", successes=2),
    }
    return World(colour, *accepted, terms=terms, **({"key": OLD, "next": NEW, "before": BAD} | material))


def do(one: World, name: str, *arguments: Any, **named: Any) -> Any:
    versions = one.proxy.versions
    if one.colour == "sync":
        return getattr(versions, name)(*arguments, **named)
    return asyncio.run(getattr(versions, f"a{name}")(*arguments, **named))


def standings(one: World) -> dict[str, str]:
    return {info.role: info.standing for info in do(one, "status", "api", tenant="acme")}


def test_the_status_tells_each_role(colour: str) -> None:
    """Ids that tell nothing, and why one cannot be had."""
    one = world(colour, OLD)
    del one.places.material["before"]
    candidate, current, previous = do(one, "status")
    assert (candidate.role, candidate.standing, candidate.accepted, candidate.since) == (
        "candidate",
        "proving",
        0,
        None,
    )
    assert (current.role, current.standing) == ("current", "live")
    assert (previous.role, previous.standing, previous.version) == ("previous", "missing", "")
    assert previous.problem == "there is no before"
    assert candidate.version.startswith("places#")
    assert not {NEW, OLD} & set(repr((candidate, current)).split("'"))


def test_a_person_promotes_and_takes_back(colour: str) -> None:
    """At once, and whatever is known of it; who did it is kept."""
    one = world(colour, OLD, NEW)
    info = do(one, "promote", "api", by="ann")
    assert (info.role, info.standing, info.by) == ("candidate", "live", "ann")
    assert one.ask("POST") == 200
    assert one.seen == [NEW]
    assert standings(one) == {"candidate": "live", "current": "ready", "previous": "ready"}
    assert do(one, "roll_back", "api", by="bob").standing == "rolled back"
    assert one.ask("POST") == 200
    assert one.seen == [NEW, OLD]
    assert standings(one)["current"] == "live"
    assert do(one, "promote", "api").standing == "live", "and can be promoted again"


def test_one_that_was_rolled_back_is_promoted_also_as_the_current_one(colour: str) -> None:
    """Else a candidate that was refused for a while would never be live, wherever it is named later."""
    one = World(
        colour,
        OLD,
        NEW,
        terms={"credential": Bearer("places:next"), "previous": Bearer("places:key")},
        key=OLD,
        next=NEW,
    )
    with pytest.raises(ConfigurationError, match="has no candidate"):
        do(one, "promote", "api")
    do(one, "roll_back", "api")
    assert standings(one) == {"current": "rolled back", "previous": "live"}
    info = do(one, "promote", "api", by="ann")
    assert (info.role, info.standing) == ("current", "live")
    assert one.ask("POST") == 200
    assert one.seen == [NEW]


def test_where_there_is_no_candidate_the_current_one_is_taken_back(colour: str) -> None:
    """For the previous one; and it can be promoted again."""
    one = World(colour, OLD, BAD, terms={"previous": Bearer("places:before")}, key=OLD, before=BAD)
    assert do(one, "roll_back", "api").role == "current"
    assert standings(one) == {"current": "rolled back", "previous": "live"}
    assert one.ask() == 200
    assert do(one, "promote", "api").standing == "live"
    assert one.ask() == 200
    assert one.seen == [BAD, OLD]


def test_what_a_person_does_is_no_alert(colour: str, caplog: pytest.LogCaptureFixture) -> None:
    """They know; and nothing is taken back twice, by a second command that was meant for the first."""
    one = world(colour, OLD, NEW)
    for name in ("promote", "roll_back", "promote", "roll_back"):
        do(one, name, "api", by="ann")
    with pytest.raises(ConfigurationError, match="was rolled back already"):
        do(one, "roll_back", "api", by="ann")
    assert standings(one)["current"] == "live"
    assert [record for record in caplog.records if record.name == "apitokenproxy"] == []


def test_a_probe_that_is_accepted_lets_one_begin_anew_that_was_rolled_back(colour: str) -> None:
    """It may have been tried before the upstream knew it."""
    one = world(colour, OLD)
    assert do(one, "probe", "api")[0].standing == "rolled back"
    one.accepted = {OLD, NEW}
    assert [do(one, "probe", "api")[0].standing for _ in range(2)] == ["proving", "live"]


def test_a_probe_shows_what_each_one_is_answered_and_counts(colour: str) -> None:
    """So many of them promote a candidate."""
    one = world(colour, OLD, NEW)
    found = do(one, "probe", "api")
    assert [(info.role, info.status, info.standing) for info in found] == [
        ("candidate", 200, "proving"),
        ("current", 200, "live"),
        ("previous", 401, "ready"),
    ]
    assert set(one.paths) == {"/v1/me"}
    assert [info.standing for info in do(one, "probe", "api", "/other")] == ["live", "ready", "ready"]
    assert one.paths[-1] == "/other"


def test_a_probe_that_is_refused_takes_it_back(colour: str) -> None:
    """If the current one is accepted there."""
    one = world(colour, OLD, next=BAD)
    assert do(one, "probe", "api")[0].standing == "rolled back"
    neither = world(colour)
    assert do(neither, "probe", "api")[0].standing == "proving"


def test_what_one_process_learns_another_knows(colour: str, tmp_path: Any) -> None:
    """Through the store, within a second: here at its first request."""
    store = f"sqlite:///{tmp_path}/tokens.db"
    terms = {"candidate": Bearer("places:next")}
    first, second = (World(colour, OLD, NEW, terms=terms, store=store, key=OLD, next=NEW) for _ in range(2))
    do(first, "promote", "api")
    assert second.ask("POST") == 200
    assert second.seen == [NEW]
    first.proxy.close()
    second.proxy.close()


def _plain(colour: str) -> World:
    return World(colour, OLD, key=OLD)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda one: do(one, "status", "apu"), "there is no upstream apu; there are: api"),
        (lambda one: do(one, "promote", "api"), "has no candidate; name one"),
        (lambda one: do(one, "roll_back", "api"), "has no candidate or previous version; nothing was rolled back"),
        (lambda one: do(one, "probe", "api"), "has no probe in its rotation; name a path"),
        (lambda one: do(one, "probe", "api", "me"), "must be a path such as /v1/me"),
    ],
)
def test_what_cannot_be_done_is_said(colour: str, call: Callable[[World], Any], sentence: str) -> None:
    """In one sentence, and nothing is changed."""
    one = _plain(colour)
    with pytest.raises(ConfigurationError, match=sentence):
        call(one)
    assert one.records() == []


def test_a_candidate_that_cannot_be_had_is_not_promoted(colour: str) -> None:
    """Requests would have nothing to carry."""
    one = world(colour, OLD)
    del one.places.material["next"]
    with pytest.raises(SecretUnavailable, match="there is no next"):
        do(one, "promote", "api")
    assert one.records() == []


def test_each_tenant_has_its_own(colour: str) -> None:
    """A tenant's secret is promoted for that tenant."""
    terms = {"credential": Bearer("places:{tenant}-key"), "candidate": Bearer("places:{tenant}-next")}
    material = {"acme-key": OLD, "acme-next": NEW, "other-key": "o1-6f3b", "other-next": "o2-6f3b"}
    one = World(colour, *material.values(), terms=terms, **material)
    other = one.proxy.tokens.issue(tenant="other").token
    do(one, "promote", "api", tenant="acme")
    assert one.ask("POST") == 200
    one.token = other
    assert one.ask("POST") == 200
    assert one.seen == [NEW, "o1-6f3b"]
