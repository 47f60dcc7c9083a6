"""Tokens that are made of secrets somewhere else: for whom, for how long, and how often they are asked for."""

import asyncio
from typing import Any

import pytest
from credential_calls import ACME, COLOURS

from apitokenproxy import Caller, Credential, Secret, SecretUnavailable
from apitokenproxy._colour import ASYNC, SYNC, run
from apitokenproxy.credentials.access_token import LEEWAY, AccessToken
from apitokenproxy.credentials.tokens import FRESH, PAUSE, Tokens
from apitokenproxy.loading import Loaded
from loopback import wait_until


class Place:
    """Makes tokens, numbered, of two secrets by the caller's tenant; `fails` is raised instead. A hand sets `now`."""

    def __init__(self, colour: str) -> None:
        self.now = 0.0
        self.asked: list[tuple[bytes, ...]] = []
        self.fails: Exception | None = None
        self.material = {"acme": ("one", "two"), "globex": ("onet", "wo")}
        self.tokens = Tokens("the place", clock=lambda: self.now)
        self._colour = ASYNC if colour == "async" else SYNC
        self._loop = asyncio.new_event_loop()
        self._obtain = self.tokens.bind([self._read(0), self._read(1)], self._fetch, self._colour)

    def _read(self, number: int) -> Any:
        async def read(caller: Caller) -> Secret:
            return Secret(self.material[caller.tenant][number], version="v")

        return read

    def _fetch(self, *secrets: Secret) -> Loaded[Credential]:
        self.asked.append(tuple(secret.reveal() for secret in secrets))
        if self.fails is not None:
            raise self.fails
        return AccessToken(f"token-{len(self.asked)}", 100 + LEEWAY).loaded("v")

    def made(self, caller: Caller = ACME) -> Credential:
        asked = self._obtain(caller)
        return run(asked) if self._colour is SYNC else self._loop.run_until_complete(asked)  # type: ignore[arg-type]

    def get(self, caller: Caller = ACME) -> bytes:
        return bytes(self.made(caller).headers[0][1])

    def settle(self, asked: int) -> None:
        """Let loads land that nobody waits for."""

        def landed() -> bool:
            self._loop.run_until_complete(asyncio.sleep(0))
            return len(self.asked) == asked and not self.tokens._process.flights

        wait_until(landed)

    def close(self) -> None:
        self._loop.close()


@pytest.fixture(params=COLOURS)
def place(request: pytest.FixtureRequest) -> Any:
    place = Place(request.param)
    yield place
    place.close()


def test_a_token_is_renewed_ahead_and_never_used_after_its_end(place: Place) -> None:
    """Past 80 % of its life in the background; and past its end nobody goes without asking."""
    assert place.get() == b"Bearer token-1"
    place.now = 79
    assert place.get() == b"Bearer token-1"
    place.now = 81
    assert place.get() == b"Bearer token-1"
    place.settle(2)
    assert place.get() == b"Bearer token-2"
    place.now, place.fails = 81 + 100, SecretUnavailable("nobody there", outage=True)
    with pytest.raises(SecretUnavailable):
        place.get()


def test_while_nobody_answers_a_token_goes_on_to_its_end(place: Place) -> None:
    """A renewal that fails is tried again once a second, and not by every request."""
    place.get()
    place.now, place.fails = 90, SecretUnavailable("nobody there", outage=True)
    for _ in range(50):
        assert place.get() == b"Bearer token-1"
    place.settle(2)
    assert place.get() == b"Bearer token-1"
    place.now += PAUSE
    place.fails = None
    place.get()
    place.settle(3)
    assert place.get() == b"Bearer token-3"


def test_callers_with_other_secrets_get_other_tokens(place: Place) -> None:
    """Also where the secrets run together to the same text."""
    assert (place.get(), place.get(Caller("globex"))) == (b"Bearer token-1", b"Bearer token-2")
    assert (place.get(), place.get(Caller("globex"))) == (b"Bearer token-1", b"Bearer token-2")
    place.material["acme"] = ("one", "three")
    assert place.get() == b"Bearer token-3"


def test_a_failure_is_told_again_for_a_second(place: Place) -> None:
    """For those secrets alone; then the place is asked again."""
    place.fails = SecretUnavailable("status 401")
    for _ in range(100):
        with pytest.raises(SecretUnavailable, match="status 401"):
            place.get()
    assert len(place.asked) == 1
    place.fails = None
    assert place.get(Caller("globex")) == b"Bearer token-2"
    place.now += PAUSE
    assert place.get() == b"Bearer token-3"


def test_an_endpoint_that_says_when_to_ask_again_is_not_asked_before(place: Place) -> None:
    """For a minute at most; what is told to clients says how long."""
    place.fails = SecretUnavailable("status 429", outage=True, retry_after=3600)
    with pytest.raises(SecretUnavailable):
        place.get()
    place.now += 59
    with pytest.raises(SecretUnavailable, match="status 429") as refused:
        place.get()
    assert (len(place.asked), refused.value.retry_after) == (1, 1)
    place.now += 1
    place.fails = None
    assert place.get() == b"Bearer token-2"


def test_a_token_that_the_api_refused_is_fetched_anew(place: Place) -> None:
    """That of whom it was refused to, and not one that is fresh: a 403 may have another cause."""
    mine, theirs = place.made(), place.made(Caller("globex"))
    joined = Credential(version="v,w", token=f"other,{mine.token}")
    for moment, asked in ((FRESH - 1, 2), (FRESH, 3), (FRESH + 1, 3), (2 * FRESH, 3)):
        place.now = moment
        place.tokens.refused(joined)
        place.made()
        assert len(place.asked) == asked
    assert place.made(Caller("globex")) is theirs
    assert place.made() is not mine
