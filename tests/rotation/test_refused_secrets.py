"""A secret that the upstream refuses: read again, and the previous one in its place."""

import re

import pytest
from rotation_calls import BAD, COLOURS, NEW, OLD, World

from apitokenproxy import Bearer


@pytest.fixture(params=COLOURS)
def colour(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what was read a moment ago be read again."""
    monkeypatch.setattr("apitokenproxy.loading._PAUSE", 0.0)


@pytest.mark.parametrize("refusal", [401, 403])
def test_a_secret_that_has_changed_is_read_again_and_the_client_notices_nothing(colour: str, refusal: int) -> None:
    """One request more upstream, and from then on none; the record names the version that was accepted."""
    world = World(colour, OLD, refusal=refusal, key=OLD)
    assert world.ask() == 200
    world.places.material["key"], world.accepted = NEW, {NEW}
    assert [world.ask(), world.ask("POST"), world.ask()] == [200, 200, 200]
    assert world.seen == [OLD, OLD, NEW, NEW, NEW]
    first, second = world.audit.records[0].credential, world.audit.records[1].credential
    assert (first != second, world.audit.records[1].code) == (True, "")


def test_a_secret_that_is_the_same_is_not_sent_again(colour: str) -> None:
    """The refusal is told as ever: the upstream's 401 is nobody's business but the operator's."""
    world = World(colour, key=BAD)
    assert world.ask() == 502
    assert world.seen == [BAD]
    assert world.audit.records[0].code == "upstream_auth_failed"
    forbidding = World(colour, refusal=403, key=BAD)
    assert forbidding.ask() == 403
    assert forbidding.seen == [BAD]


def test_a_provider_that_does_not_answer_then_leaves_the_refusal(colour: str) -> None:
    """The client is told that the credential cannot be had, and nothing is sent without one."""
    world = World(colour, OLD, key=OLD)
    assert world.ask() == 200
    world.accepted = {NEW}
    del world.places.material["key"]
    assert world.ask() == 503
    assert world.audit.records[-1].code == "secret_unavailable"


def test_while_the_new_one_is_refused_the_previous_one_is_used(colour: str, caplog: pytest.LogCaptureFixture) -> None:
    """One request more upstream before all traffic uses it, and one line in the log."""
    world = World(colour, OLD, terms={"previous": Bearer("places:before")}, key=BAD, before=OLD)
    assert [world.ask() for _ in range(5)] == [200] * 5
    assert world.seen == [BAD, OLD, OLD, OLD, OLD, OLD]
    [told] = [record.message for record in caplog.records if "refuses its credential" in record.message]
    assert re.search(r"\(version places#\w+\) and accepts another one \(places#\w+\), which is used$", told)
    assert BAD not in caplog.text
    assert {re.match("places#", record.credential) is not None for record in world.audit.records} == {True}
    assert len({record.credential for record in world.audit.records}) == 1


def test_if_both_are_refused_that_is_told(colour: str) -> None:
    """And the next request begins with the new one again."""
    world = World(colour, terms={"previous": Bearer("places:before")}, key=BAD, before=OLD)
    assert [world.ask(), world.ask()] == [502, 502]
    assert world.seen == [BAD, OLD, BAD, OLD]
