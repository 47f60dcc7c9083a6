"""Rotation: a new secret takes the place of the old one, and the id stays."""

from datetime import UTC, datetime, timedelta

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from apitokenproxy.errors import ConfigurationError, TokenConflict
from apitokenproxy.identity.generations import Overlap, live, newest, rotated, undone
from apitokenproxy.interfaces import Generation, StoredToken

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
HOUR, DAY, WEEK = timedelta(hours=1), timedelta(days=1), timedelta(days=7)


def a_token(**more) -> StoredToken:
    return StoredToken("0" * 12, "acme", NOW, generations=(Generation(1, b"1" * 32, NOW),), **more)


def rotate(token: StoredToken, now: datetime, overlap: timedelta = WEEK, **terms) -> StoredToken:
    number = len(token.generations) + 1
    return rotated(token, bytes([number]) * 32, now, Overlap(overlap, **terms), b"")


def living(token: StoredToken, now: datetime) -> list[int]:
    return [generation.number for generation in live(token, now)]


def test_both_secrets_work_until_the_overlap_ends() -> None:
    """The new one at once, the old one to the end and not a microsecond longer."""
    token = rotate(a_token(), NOW + DAY)
    end = NOW + DAY + WEEK
    assert living(token, NOW + DAY) == living(token, end - timedelta(microseconds=1)) == [1, 2]
    assert living(token, end) == [2]
    assert (token.id, newest(token).number) == ("0" * 12, 2)


def test_an_overlap_of_0_ends_every_old_secret_at_once() -> None:
    """The answer to a leak: whatever else was still retiring ends too."""
    token = rotate(rotate(a_token(), NOW), NOW + HOUR, timedelta(0))
    assert living(token, NOW + HOUR) == [3]


def test_an_overlap_never_outlives_the_token() -> None:
    """Not by its plan, and not by its hard end."""
    token = rotate(a_token(expires=NOW + DAY), NOW)
    assert token.generations[0].ends == NOW + DAY
    idle = rotate(a_token(expires=NOW + DAY), NOW, idle=2 * DAY, at_most=2 * WEEK)
    assert idle.generations[0].ends == NOW + DAY


def test_at_most_two_live_at_once_unless_asked() -> None:
    """A third would leave nobody knowing which one is used; the sentence says what can be done."""
    token = rotate(a_token(), NOW)
    with pytest.raises(TokenConflict, match=r"generation 1 retiring until 2026-12-01 12:00 UTC; undo that"):
        rotate(token, NOW + HOUR)
    assert living(rotate(token, NOW + HOUR, most_live=3), NOW + HOUR) == [1, 2, 3]
    assert living(rotate(token, NOW + WEEK), NOW + WEEK) == [2, 3]


@pytest.mark.parametrize(
    ("state", "sentence"),
    [({"revoked": NOW}, "is revoked for good"), ({"expires": NOW}, "has expired")],
)
def test_a_token_that_has_ended_is_not_rotated(state: dict, sentence: str) -> None:
    """A new secret for it would not work."""
    for change in (rotate, undone):
        with pytest.raises(TokenConflict, match=sentence):
            change(a_token(**state), NOW)


def test_undo_brings_the_old_secret_back() -> None:
    """While the overlap lasts. The new secret ends at once, and its number is never given again."""
    token = undone(rotate(a_token(), NOW), NOW + HOUR)
    assert (living(token, NOW + HOUR), newest(token).number) == ([1], 1)
    assert living(token, NOW + 10 * WEEK) == [1]
    again = rotate(token, NOW + DAY)
    assert living(again, NOW + DAY) == [1, 3]


def test_undo_needs_a_running_overlap() -> None:
    """After it there is nothing to go back to; nor is there without a rotation, or twice."""
    token = rotate(a_token(), NOW)
    for state, now in ((a_token(), NOW), (token, NOW + WEEK), (undone(token, NOW), NOW)):
        with pytest.raises(TokenConflict, match="no rotation to undo"):
            undone(state, now)


def used(token: StoredToken, number: int, when: datetime) -> StoredToken:
    generations = (evolve(one, last_used=when) if one.number == number else one for one in token.generations)
    return evolve(token, generations=tuple(generations))


def test_an_old_secret_that_nobody_uses_ends_early() -> None:
    """Two days after the rotation, or after its last use."""
    token = rotate(a_token(), NOW, 4 * WEEK, idle=2 * DAY, at_most=8 * WEEK)
    assert token.generations[0].ends == NOW + 2 * DAY
    assert used(token, 1, NOW - DAY).generations[0].ends == NOW + 2 * DAY
    assert used(token, 1, NOW + DAY).generations[0].ends == NOW + 3 * DAY


def test_an_old_secret_that_somebody_uses_lives_longer_up_to_a_hard_end() -> None:
    """Past the overlap while it is used, and never past `at_most`, which is the overlap when left out."""
    token = rotate(a_token(), NOW, WEEK, idle=2 * DAY, at_most=2 * WEEK)
    assert used(token, 1, NOW + WEEK).generations[0].ends == NOW + WEEK + 2 * DAY
    assert used(token, 1, NOW + 2 * WEEK).generations[0].ends == NOW + 2 * WEEK
    assert used(rotate(a_token(), NOW, WEEK, idle=2 * DAY), 1, NOW + WEEK).generations[0].ends == NOW + WEEK


@pytest.mark.parametrize(
    ("terms", "sentence"),
    [
        ({"planned": -HOUR}, "must not be negative"),
        ({"planned": WEEK, "at_most": WEEK}, "name that too"),
        ({"planned": WEEK, "idle": timedelta(seconds=59)}, "a minute or more"),
        ({"planned": timedelta(0), "idle": DAY}, "leave complete_when_idle out"),
        ({"planned": WEEK, "most_live": 1}, "an overlap of 0 leaves one"),
        ({"planned": WEEK, "idle": DAY, "at_most": DAY}, "must not be shorter than the overlap"),
    ],
)
def test_terms_that_make_no_sense_are_refused(terms: dict, sentence: str) -> None:
    """Each with what to do instead."""
    with pytest.raises(ConfigurationError, match=sentence):
        Overlap(**terms)


@pytest.mark.parametrize("far", [timedelta.max, timedelta(days=100_000_000), timedelta(days=3650, seconds=1)])
@pytest.mark.parametrize("term", ["planned", "idle", "at_most"])
def test_an_overlap_that_is_too_long_is_refused(far: timedelta, term: str) -> None:
    """Ten years are enough for each of its terms, and no date is so far away as others could reach."""
    terms = {"planned": WEEK, "idle": DAY, "at_most": 2 * WEEK, term: far}
    with pytest.raises(ConfigurationError, match="too long; each is at most 3650d"):
        Overlap(**terms)
    Overlap(timedelta(days=3650), timedelta(days=3650), timedelta(days=3650))


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(st.sampled_from(["rotate", "at once", "undo", "three", "use"]), st.integers(1, 20 * 24 * 60)),
        max_size=12,
    )
)
def test_whatever_is_done_one_generation_is_the_newest(steps: list[tuple[str, int]]) -> None:
    """Numbers only grow, none is given twice, at most as many live as were asked for, and one always lives."""
    token, now, numbers = a_token(), NOW, {1}
    for action, minutes in steps:
        now += timedelta(minutes=minutes)
        before = token
        try:
            if action == "undo":
                token = undone(token, now)
            elif action == "use":
                token = used(token, living(token, now)[0], now)
            else:
                terms = {"rotate": (WEEK, 2), "at once": (timedelta(0), 2), "three": (WEEK, 3)}[action]
                token = rotate(token, now, terms[0], most_live=terms[1])
                made = token.generations[-1].number
                assert made not in numbers
                numbers.add(made)
        except TokenConflict:
            token = before
        assert sum(one.replaced is None for one in token.generations) == 1
        assert newest(token).number in living(token, now)
        assert len(living(token, now)) <= 3
