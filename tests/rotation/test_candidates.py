"""A candidate: proven on a share of the traffic or by a probe, promoted, rolled back. Clients notice nothing."""

import logging
import time
from datetime import timedelta
from typing import Any

import pytest
from rotation_calls import BAD, COLOURS, NEW, OLD, World

from apitokenproxy import Bearer, Rotation


@pytest.fixture(params=COLOURS)
def colour(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what was read or noted a moment ago be read and noted again."""
    monkeypatch.setattr("apitokenproxy.loading._PAUSE", 0.0)
    monkeypatch.setattr("apitokenproxy.rotation.versions._EVERY", 0.0)
    monkeypatch.setattr("apitokenproxy.rotation.records.FRESH", 0.0)


def world(colour: str, *accepted: str, next_one: str = NEW, **rotation: Any) -> World:
    terms = {"candidate": Bearer("places:next"), "rotation": Rotation(**{"share": 1.0, "successes": 3} | rotation)}
    return World(colour, *accepted, terms=terms, key=OLD, next=next_one)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the lines of the log that somebody should read."""
    return [one.message for one in caplog.records if one.levelno >= logging.WARNING and one.name == "apitokenproxy"]


def test_a_candidate_that_is_accepted_often_enough_becomes_the_live_one(
    colour: str, caplog: pytest.LogCaptureFixture
) -> None:
    """From then on all requests use it, also those that cannot be sent twice; the log says so once."""
    one = world(colour, OLD, NEW)
    assert one.asks(3) == [200] * 3
    assert one.asks(1, "POST", b"x") == [200]
    assert one.seen == [NEW] * 4
    [record] = one.records()
    assert (record.standing(0.0), record.accepted) == ("promoted", 3)
    [line] = told(caplog)
    assert line.endswith("was accepted and is the live one now")


def test_only_requests_that_may_be_sent_twice_prove_it(colour: str) -> None:
    """A body that is gone, or a method that is not idempotent, is not tried with it (RFC 9110, section 9.2.2)."""
    one = world(colour, OLD, NEW)
    assert one.asks(2, "POST", b"x") == [200] * 2
    assert one.asks(2, "POST") == [200] * 2
    assert one.asks(1, "DELETE") == [200]
    assert one.seen == [OLD] * 4 + [NEW]


def test_a_share_is_a_share(colour: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others begin with the current one."""
    drawn = iter([0.09, 0.1, 0.5, 0.05])
    monkeypatch.setattr("random.random", lambda: next(drawn))
    one = world(colour, OLD, NEW, share=0.1, successes=99)
    assert one.asks(4) == [200] * 4
    assert one.seen == [NEW, OLD, OLD, NEW]


def test_a_bad_candidate_is_rolled_back_and_no_client_notices(colour: str, caplog: pytest.LogCaptureFixture) -> None:
    """One request more upstream, one line in the log, and it is not tried again."""
    one = world(colour, OLD, next_one=BAD)
    assert one.asks(5) == [200] * 5
    assert one.seen == [BAD] + [OLD] * 5
    [record] = one.records()
    assert record.standing(0.0) == "rolled back"
    [line] = told(caplog)
    assert line.endswith("it was rolled back")
    assert BAD not in line
    assert {record.code for record in one.audit.records} == {""}


def test_a_new_candidate_begins_with_a_clean_slate(colour: str) -> None:
    """The state is of a version."""
    one = world(colour, OLD, NEW, next_one=BAD)
    assert one.asks(2) == [200] * 2
    one.places.material["next"] = NEW
    one.places.ttl = 0.0
    other = world(colour, OLD, NEW, next_one=NEW)
    other.proxy._states = one.proxy._states
    assert other.asks(3) == [200] * 3
    assert other.seen == [NEW] * 3


def test_so_many_refusals_are_wanted(colour: str) -> None:
    """As `failures` says."""
    one = world(colour, OLD, next_one=BAD, failures=2)
    assert one.asks(5) == [200] * 5
    assert one.seen.count(BAD) == 2


def test_a_refusal_of_both_says_nothing_about_the_candidate(colour: str) -> None:
    """The upstream may forbid this to everybody."""
    one = world(colour)
    one.refusal = 403
    assert one.asks(2) == [403] * 2
    assert one.seen == [NEW, OLD] * 2
    assert one.records() == []


@pytest.mark.parametrize("status", [500, 503, 429])
def test_an_answer_that_says_nothing_is_not_counted(colour: str, status: int) -> None:
    """An upstream that fails has not looked at the secret, maybe."""
    one = world(colour, OLD, NEW)
    one.status = status
    assert one.asks(4) == [status] * 4
    assert one.records() == []


def test_one_that_is_not_automatic_waits_for_a_person(colour: str) -> None:
    """It goes on being proven."""
    one = world(colour, OLD, NEW, automatic=False)
    assert one.asks(5) == [200] * 5
    [record] = one.records()
    assert (record.standing(0.0), record.accepted) == ("proving", 5)
    assert one.asks(1, "POST", b"x") == [200]
    assert one.seen[-1] == OLD


def test_a_candidate_that_cannot_be_had_disturbs_nobody(colour: str) -> None:
    """It is not there yet, for one."""
    one = world(colour, OLD)
    del one.places.material["next"]
    assert one.asks(3) == [200] * 3
    assert one.seen == [OLD] * 3
    assert one.places.fetched.count("next") == 1, "and it is not asked for by every request"


def test_a_candidate_that_is_the_current_one_is_not_tried(colour: str) -> None:
    """As when a secret manager has moved its labels."""
    one = world(colour, OLD, next_one=OLD)
    assert one.asks(3) == [200] * 3
    assert one.records() == []


def test_when_the_current_one_dies_the_candidate_takes_over(colour: str, caplog: pytest.LogCaptureFixture) -> None:
    """Somebody revoked the old one early: one request more, and the candidate is the live one."""
    one = world(colour, NEW, share=0.0)
    assert one.asks(3) == [200] * 3
    assert one.seen == [OLD, NEW, NEW, NEW]
    assert len(told(caplog)) == 2  # the current one fails, the candidate is live


def test_a_candidate_takes_over_after_401_alone(colour: str) -> None:
    """A 403 may be about what was asked for: nobody makes a candidate live by asking for what is forbidden."""
    one = world(colour, NEW, share=0.0)
    one.refusal = 403
    assert one.asks(3) == [403] * 3
    assert one.seen == [OLD] * 3
    assert one.records() == []


def test_after_the_promotion_the_one_before_stands_in(colour: str) -> None:
    """A candidate that turns bad later is rolled back as well; a client notices nothing."""
    one = world(colour, OLD, NEW)
    assert one.asks(4) == [200] * 4
    one.accepted = {OLD}
    assert one.asks(3) == [200] * 3
    assert one.seen[4:] == [NEW, OLD, OLD, OLD]
    assert {record.standing(0.0) for record in one.records()} == {"rolled back"}


def test_a_403_takes_nothing_live_back_for_good(colour: str) -> None:
    """It may be about what was asked for, which a client chooses: the one before stands in for a minute."""
    one = world(colour, OLD, NEW)
    assert one.asks(4) == [200] * 4
    one.accepted, one.refusal = {OLD}, 403
    assert one.asks(3) == [200] * 3
    assert one.seen[4:] == [NEW, OLD, OLD, OLD]
    [record] = one.records()
    assert (record.standing(time.time()), record.standing(time.time() + 61)) == ("failing", "promoted")


def test_it_stands_in_as_long_as_is_said(colour: str) -> None:
    """After that it is used no more, so that it can be revoked."""
    one = world(colour, OLD, NEW, previous_for=timedelta(0))
    assert one.asks(4) == [200] * 4
    one.accepted = {OLD}
    assert one.asks(2) == [502] * 2
    assert one.seen[4:] == [NEW, NEW]


# --- probes ------------------------------------------------------------------------------------


def test_a_probe_proves_it(colour: str) -> None:
    """No client's request carries it before; the probe is a GET of the path below the upstream's URL."""
    one = world(colour, OLD, NEW, share=0.0, probe="/v1/me?brief=1", successes=2)
    assert one.asks(6, pause=0.05) == [200] * 6
    probes = [key for key, path in zip(one.seen, one.paths, strict=True) if path == "/v1/me?brief=1"]
    assert probes[:2] == [NEW, NEW]
    assert set(probes) == {NEW}
    assert [record.standing(0.0) for record in one.records()] == ["promoted"]
    assert one.ask() == 200
    assert one.seen[-1] == NEW
    assert len(one.audit.records) == 7, "a probe is not an exchange"


def test_a_probe_that_is_refused_rolls_it_back(colour: str, caplog: pytest.LogCaptureFixture) -> None:
    """If the current one is accepted there."""
    one = world(colour, OLD, next_one=BAD, share=0.0, probe="/v1/me")
    assert one.asks(3, pause=0.05) == [200] * 3
    assert [record.standing(0.0) for record in one.records()] == ["rolled back"]
    assert len(told(caplog)) == 1
    assert one.seen.count(BAD) == 1


@pytest.mark.parametrize("status", [404, 500])
def test_a_probe_that_finds_nothing_proves_nothing(colour: str, status: int) -> None:
    """The path may be wrong."""
    one = world(colour, OLD, NEW, share=0.0, probe="/v1/me")
    one.status = status
    assert one.asks(3, pause=0.05) == [status] * 3
    assert one.records() == []
