"""The values of rotation: what may be written, and what becomes of a version's record."""

from datetime import timedelta
from typing import Any

import pytest

from apitokenproxy import ConfigurationError, Rotation
from apitokenproxy.errors import StoreUnavailable
from apitokenproxy.rotation.terms import (
    FAILING,
    Record,
    accepted,
    failing,
    news,
    promoted,
    refused,
    rolled_back,
    working,
)

NEW = Record("api", "v2")
TERMS = Rotation(successes=3, soak=timedelta(seconds=60), failures=2)


@pytest.mark.parametrize(
    ("terms", "sentence"),
    [
        ({"probe": "v1/me"}, "must be a path such as /v1/me"),
        ({"probe": "/a/../b"}, "must be a path"),
        ({"probe": "//evil.example"}, "must be a path"),
        ({"probe": "/a b"}, "must be a path"),
        ({"share": -0.1}, "between 0 and 1"),
        ({"share": 1.1}, "between 0 and 1"),
        ({"share": float("nan")}, "between 0 and 1"),
        ({"successes": 0}, "successes is 0; it must be at least 1"),
        ({"failures": 0}, "failures is 0; it must be at least 1"),
        ({"soak": "1m"}, "soak is '1m'; it must be a timedelta"),
        ({"previous_for": 60}, "previous_for is 60; it must be a timedelta"),
    ],
)
def test_what_is_wrong_is_said_when_it_is_built(terms: Any, sentence: str) -> None:
    """In one sentence."""
    with pytest.raises(ConfigurationError, match=sentence):
        Rotation(**terms)


def test_a_candidate_is_promoted_after_enough_answers_and_enough_time() -> None:
    """Both are needed."""
    record = accepted(NEW, 100.0, 3, TERMS)
    assert (record.standing(100.0), record.accepted) == ("proving", 3)
    assert accepted(NEW, 0.0, 2, TERMS).standing(0.0) == "proving"
    record = accepted(record, 160.0, 1, TERMS)
    assert (record.standing(160.0), record.promoted) == ("promoted", 160.0)


def test_one_that_is_promoted_by_hand_waits_for_that() -> None:
    """However often it was accepted."""
    assert accepted(NEW, 1.0, 99, Rotation(automatic=False)).standing(1.0) == "proving"


def test_so_many_refusals_roll_it_back_for_good() -> None:
    """Being accepted later changes nothing; a person may promote it."""
    record = refused(NEW, 1.0, TERMS)
    assert record.standing(1.0) == "proving"
    record = refused(record, 2.0, TERMS)
    assert record.standing(2.0) == "rolled back"
    assert accepted(record, 999.0, 99, TERMS) == record
    assert rolled_back(record, 3.0) == record
    record = promoted(record, 4.0, "ann")
    assert (record.standing(4.0), record.by, record.refused) == ("promoted", "ann", 0)


def test_one_that_was_promoted_can_be_rolled_back() -> None:
    """There is a way back after the promotion too."""
    record = refused(refused(promoted(NEW, 1.0), 2.0, TERMS), 3.0, TERMS)
    assert (record.standing(3.0), record.promoted) == ("rolled back", 0.0)


def test_a_failing_one_is_tried_again_after_a_minute_or_when_it_works() -> None:
    """It stays what it was."""
    record = failing(promoted(NEW, 1.0), 10.0)
    assert record.standing(10.0 + FAILING - 1) == "failing"
    assert record.standing(10.0 + FAILING) == "promoted"
    assert working(record, 20.0).standing(20.0) == "promoted"


def test_somebody_is_told_once() -> None:
    """A version that fails again and again is told of every ten minutes at the most."""
    told = []
    record = NEW
    for now in (1000.0, 1061.0, 1122.0, 1122.0 + FAILING + 601):
        after = failing(record, now)
        told.append(news(record, after, now))
        record = after
    assert told == ["failing", None, None, "failing"]
    assert news(NEW, promoted(NEW, 1.0), 1.0) == "promoted"
    assert news(NEW, rolled_back(NEW, 1.0), 1.0) == "rolled back"
    assert news(NEW, accepted(NEW, 1.0, 1, TERMS), 1.0) is None


@pytest.mark.parametrize(
    "kept",
    [
        b"",
        b"[]",
        b"{}",
        b"3",
        b"[" * 100_000,
        b'{"upstream": "a"}',
        b'{"upstream": "a", "version": 3}',
        b'{"upstream": "a", "version": "v", "promoted": "soon"}',
    ],
)
def test_a_damaged_record_is_refused(kept: bytes) -> None:
    """It is not guessed at."""
    with pytest.raises(StoreUnavailable, match="damaged record"):
        Record.from_bytes(kept)
    assert Record.from_bytes(NEW.to_bytes()) == NEW


def test_what_a_newer_program_put_beside_it_is_left_out() -> None:
    """So two versions of the program may share a store while one takes the place of the other."""
    assert Record.from_bytes(b'{"upstream": "a", "version": "v", "refused": 2, "later": 1}') == Record(
        "a", "v", refused=2
    )
