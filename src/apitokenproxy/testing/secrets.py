"""What every secret provider must do: inherit from `SecretProviderConformance`.

    class TestMine(SecretProviderConformance):
        def make(self):
            return MyProvider(...)

        def put(self, name, material):
            ...  # write it to the place
            return the reference to it

A fact about what a place cannot do (hang, hold garbage) is skipped where its method is not overridden.
"""

import asyncio
import inspect
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from apitokenproxy._colour import ASYNC, SYNC, Colour, run
from apitokenproxy.errors import SecretMissing, SecretUnavailable
from apitokenproxy.interfaces import SecretProvider
from apitokenproxy.messages import Secret

WITHIN = 10.0
"""Seconds after which what must happen has not happened."""

_MATERIAL = "s3cret/m4terial+0f7a9c2e51d84b06"
_OTHER = "an0ther-m4terial~9b1c"
_LINES = "-----BEGIN A KEY-----\nMC4CAQAwBQYDK2Vw\n\tBCIEIM\n-----END A KEY-----"


class SecretProviderConformance:
    """The facts, one a method. Override `make` and `put`, and what else the place has."""

    def make(self) -> SecretProvider:
        """Return a provider whose place is there."""
        raise NotImplementedError

    def put(self, name: str, material: str) -> str:
        """Keep a secret in the place, over one of that name, and return the reference to it (without scheme)."""
        raise NotImplementedError

    def missing(self) -> Sequence[str]:
        """Return references that lead nowhere: well-formed ones, and such as are none."""
        raise NotImplementedError

    def absent(self) -> Sequence[str]:
        """Return those of them to which the place answers that there is no such secret, or no such key in it."""
        return ()

    def garbage(self) -> Sequence[str]:
        """Return references to what is there and no secret: empty, of another type, too large."""
        return ()

    def away(self) -> Sequence[tuple[SecretProvider, str]]:
        """Return providers with a timeout below a second whose place is away, hangs or is broken; and what to ask."""
        return ()

    def own_secrets(self) -> Sequence[str]:
        """Return what the provider itself logs in with."""
        return ()

    # --- what is there ----------------------------------------------------------------------

    def test_a_secret_is_fetched(self) -> None:
        """In each colour that it is written for; and again."""
        reference = self.put("first", _MATERIAL)
        provider = self.make()
        for colour in _colours(provider):
            for _ in range(2):
                assert _fetch(provider, reference, colour).reveal() == _MATERIAL.encode()

    def test_a_secret_may_have_several_lines(self) -> None:
        """As a private key has: every byte of it comes back, and who asked for it judges where it may stand."""
        reference = self.put("lines", _LINES)
        assert _fetch(self.make(), reference).reveal() == _LINES.encode()

    def test_secrets_are_kept_apart(self) -> None:
        """Each reference leads to its own."""
        first, second = self.put("first", _MATERIAL), self.put("second", _OTHER)
        provider = self.make()
        got = [_fetch(provider, reference).reveal() for reference in (first, second, first)]
        assert got == [_MATERIAL.encode(), _OTHER.encode(), _MATERIAL.encode()]

    def test_a_changed_secret_is_seen(self) -> None:
        """By the provider that returned the old one: it remembers nothing past its `ttl`, and has another version."""
        reference = self.put("first", _MATERIAL)
        provider = self.make()
        before = _fetch(provider, reference)
        assert self.put("first", _OTHER) == reference
        after = _fetch(provider, reference)
        assert (before.reveal(), after.reveal()) == (_MATERIAL.encode(), _OTHER.encode())
        assert before.version != after.version or not after.version

    def test_the_version_is_that_of_the_place(self) -> None:
        """What was not changed keeps it, and it tells nothing about the material."""
        reference = self.put("first", _MATERIAL)
        first, second = (_fetch(self.make(), reference) for _ in range(2))
        assert first.version == second.version
        assert _MATERIAL not in first.version

    def test_it_says_for_how_long_a_secret_may_be_kept(self) -> None:
        """`ttl` is a number of seconds; a secret that ends by itself says when."""
        provider = self.make()
        ttl = getattr(provider, "ttl", 60.0)
        assert isinstance(ttl, int | float)
        assert ttl > 0
        good_for = _fetch(provider, self.put("first", _MATERIAL)).good_for
        assert good_for is None or good_for > 0

    def test_threads_may_share_it(self) -> None:
        """Many at once get what each asked for."""
        wanted = {self.put(f"n{number}", f"{_MATERIAL}-{number}"): f"{_MATERIAL}-{number}" for number in range(4)}
        provider = self.make()
        with ThreadPoolExecutor(8) as pool:
            got = list(pool.map(lambda reference: (reference, _fetch(provider, reference).reveal()), [*wanted] * 4))
        assert got == [(reference, wanted[reference].encode()) for reference in [*wanted] * 4]

    # --- what is not ------------------------------------------------------------------------

    def test_what_is_missing_is_refused(self) -> None:
        """With a sentence; it is an answer, so nothing stands in for it. The provider goes on working."""
        provider = self.make()
        for reference in self.missing():
            refusal = _refusal(provider, reference)
            assert not refusal.outage, (reference, refusal.detail)
        assert _fetch(provider, self.put("first", _MATERIAL)).reveal() == _MATERIAL.encode()

    def test_a_place_that_says_that_there_is_none_is_believed(self) -> None:
        """SecretMissing tells it from all else that can be wrong: the caller is not set up there."""
        provider = self.make()
        for reference in self.absent():
            assert isinstance(_refusal(provider, reference), SecretMissing), reference

    def test_garbage_is_refused(self) -> None:
        """And not shown."""
        provider = self.make()
        for reference in self.garbage():
            refusal = _refusal(provider, reference)
            assert not refusal.outage, (reference, refusal.detail)
            assert not isinstance(refusal, SecretMissing), (reference, refusal.detail)
            assert _MATERIAL not in refusal.detail

    def test_a_place_that_does_not_answer_is_an_outage(self) -> None:
        """Told as such, and soon: the last good secret may stand in then."""
        for provider, reference in self.away():
            refusal = _within(partial(_refusal, provider, reference))
            assert refusal.outage, refusal.detail
            assert not isinstance(refusal, SecretMissing), refusal.detail

    def test_nothing_of_it_shows(self) -> None:
        """Neither its repr, nor that of what it returns, nor a refusal shows material or what it logs in with."""
        provider = self.make()
        secret = _fetch(provider, self.put("first", _MATERIAL))
        shown = [repr(provider), repr(secret), *(_refusal(provider, reference).detail for reference in self.missing())]
        shown += [repr(other) + _refusal(other, reference).detail for other, reference in self.away()]
        for hidden in (_MATERIAL, *self.own_secrets()):
            assert [text for text in shown if hidden in text] == []


def _colours(provider: SecretProvider) -> list[Colour]:
    return [ASYNC] if inspect.iscoroutinefunction(provider.fetch) else [ASYNC, SYNC]


def _fetch(provider: SecretProvider, reference: str, colour: Colour | None = None) -> Secret:
    colour = colour or _colours(provider)[-1]
    fetch = colour.lift(provider.fetch, Secret)

    async def ask() -> Secret:
        return await fetch(reference)

    return asyncio.run(ask()) if colour is ASYNC else run(ask())


def _refusal(provider: SecretProvider, reference: str) -> SecretUnavailable:
    """Return the refusal: one sentence, on which nothing hangs that leads to the material."""
    try:
        _fetch(provider, reference)
    except SecretUnavailable as error:
        refusal = error
    else:
        raise AssertionError(f"{reference} was not refused")
    assert refusal.detail.strip()
    assert "\n" not in refusal.detail
    assert refusal.__cause__ is None
    assert refusal.__suppress_context__ or refusal.__context__ is None
    return refusal


def _within(act: Callable[[], Any]) -> Any:
    """Return what `act` returns, if it does so soon."""
    returned: list[Any] = []
    thread = threading.Thread(target=lambda: returned.append(act()), daemon=True)
    thread.start()
    thread.join(WITHIN)
    assert returned, "it took too long, or raised what it must not"
    return returned[0]
