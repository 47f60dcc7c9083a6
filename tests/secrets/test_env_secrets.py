"""`env:NAME`: secrets in environment variables."""

import os

import pytest
from secret_calls import COLOURS, MATERIAL, Hand, refusal, revealed

from apitokenproxy.secrets.cache import Secrets
from apitokenproxy.secrets.env import EnvProvider

NAME = "APITOKENPROXY_TEST_KEY"


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def secrets(clock: Hand, monkeypatch: pytest.MonkeyPatch) -> Secrets:
    monkeypatch.delenv(NAME, raising=False)
    return Secrets({"env": EnvProvider()}, clock=clock)


@pytest.mark.parametrize(
    "value",
    [b"key", b" ", b"a b", b"$HOME", b"${HOME}", b"~", b"a=b", b'"quoted"', "schl\u00fcssel".encode(), b"\xff\xfe"],
)
@pytest.mark.parametrize("colour", COLOURS)
def test_a_variables_bytes_are_the_secret(secrets: Secrets, colour: str, value: bytes) -> None:
    """Exactly as the process got them: nothing is stripped, unquoted or expanded, and they need not be UTF-8."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(NAME, os.fsdecode(value))
        assert value == revealed(secrets, colour, f"env:{NAME}")


UNUSABLE = {
    "unset": (None, f"environment variable {NAME} is not set; export it before starting"),
    "empty": ("", f"environment variable {NAME} is empty; it must hold the secret"),
    **{
        name: (value, f"env:{NAME} holds a newline or control character; write it again without")
        for name, value in {
            "a newline at the end": f"{MATERIAL}\n",
            "a carriage return": f"{MATERIAL}\r",
            "a second header": f"{MATERIAL}\r\nX-Admin: 1",
            "a tab": f"a\t{MATERIAL}",
            "an escape": f"\x1b{MATERIAL}",
            "DEL": f"{MATERIAL}\x7f",
        }.items()
    },
}


@pytest.mark.parametrize("unusable", UNUSABLE)
@pytest.mark.parametrize("colour", COLOURS)
def test_an_unusable_variable_is_refused(
    secrets: Secrets, colour: str, unusable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence, with the variable's name and what to do, and without its value."""
    value, expected = UNUSABLE[unusable]
    if value is not None:
        monkeypatch.setenv(NAME, value)
    assert expected == refusal(secrets, colour, f"env:{NAME}")


@pytest.mark.parametrize("colour", COLOURS)
def test_a_variable_is_read_again_after_a_minute(
    secrets: Secrets, clock: Hand, colour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changed in the process, it is seen within the time to live; deleted, it is gone."""
    seen = []
    for moment, value in [(0, "old"), (47, "new"), (60, "new"), (107, "newer")]:
        clock.now = moment
        monkeypatch.setenv(NAME, value)
        seen.append(revealed(secrets, colour, f"env:{NAME}"))
    assert seen == [b"old", b"old", b"new", b"new"]
    clock.now = 120
    monkeypatch.delenv(NAME)
    assert refusal(secrets, colour, f"env:{NAME}").endswith("is not set; export it before starting")


@pytest.mark.parametrize("reference", ["A\0B", "A=B", " ", "A B", "\u00e9"])
@pytest.mark.parametrize("colour", COLOURS)
def test_a_name_that_no_variable_has_is_not_set(secrets: Secrets, colour: str, reference: str) -> None:
    """Whatever stands after the colon is a name and nothing else."""
    assert refusal(secrets, colour, f"env:{reference}").endswith("is not set; export it before starting")
