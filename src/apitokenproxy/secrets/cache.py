"""Secrets, cached for as long as their provider says, and fetched once however many ask.

Rules:
1. `loading.py` says how they are kept, renewed ahead, and used on in an outage. Each scheme has its own, so
   that a provider that hangs holds up no other.
2. A secret that says for how long it is good is never used longer.
3. A version is named by what its provider calls it, or its scheme, and a fingerprint: alike in all processes. One
   that was named while the store did not answer is named anew.
4. `{tenant}` and `{subject}` come from the verified caller, and only if they are plain names (`places.py`).
   Where there is no secret for them, the caller is refused: trying again does not help.
"""

import difflib
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import NoReturn

from apitokenproxy._colour import Colour
from apitokenproxy.errors import ConfigurationError, NoSecretForCaller, SecretMissing, SecretUnavailable
from apitokenproxy.interfaces import SecretProvider, SecretReader, StateStore
from apitokenproxy.loading import Loaded, Loads
from apitokenproxy.messages import Caller, Secret
from apitokenproxy.places import fields_of, fill_in
from apitokenproxy.secrets.naming import Fingerprints

DEFAULT_TTL = 60.0
MAX_REFERENCES = 10_000

Fetch = Callable[[str], Awaitable[Secret]]


class Secrets:
    """All providers behind one cache, shared by both colours.

    `states` is what this process shares with others, if it does.
    `outage` (seconds) is for how long a secret is used on after its time when its provider says that its
    place does not answer. Nobody waits longer than `timeout` (seconds) for a secret.
    """

    def __init__(
        self,
        providers: Mapping[str, SecretProvider],
        *,
        states: StateStore | None = None,
        clock: Callable[[], float] = time.monotonic,
        outage: float = 300.0,
        timeout: float = 30.0,
    ) -> None:
        self._states = states
        names = Fingerprints(states)
        self._kept = {
            scheme: _OfOneScheme(scheme, provider, names, clock=clock, outage=outage, timeout=timeout)
            for scheme, provider in providers.items()
        }

    def bind(self, colour: Colour) -> SecretReader:
        """Return the reader for one colour."""
        return _Reader(self._kept, self._states, colour)


class _OfOneScheme(Loads[Secret]):
    def __init__(
        self,
        scheme: str,
        provider: SecretProvider,
        names: Fingerprints,
        *,
        clock: Callable[[], float],
        outage: float,
        timeout: float,
    ) -> None:
        super().__init__(
            f"the provider of {scheme}",
            SecretUnavailable,
            clock=clock,
            outage=outage,
            timeout=timeout,
            max_keys=MAX_REFERENCES,
        )
        self.provider = provider
        self.names = names
        self._scheme = scheme

    async def fetch(self, fetch: Fetch, name: Callable[[bytes], Awaitable[str]], reference: str) -> Loaded[Secret]:
        """Return what the provider returns for `reference`, and for how long it is good."""
        secret = await fetch(reference)
        ttl = getattr(self.provider, "ttl", DEFAULT_TTL)
        at_most = float("inf") if secret.good_for is None else secret.good_for
        last, material = self.last(reference), secret.reveal()
        fingerprint = self.names.known(material) or await name(material)
        if last is not None and last.reveal() == material and last.version.endswith(f"#{fingerprint}"):
            return Loaded(last, ttl, at_most)  # what was made of it is still good
        version = f"{secret.version or self._scheme}#{fingerprint}"
        return Loaded(Secret(material, version=version, good_for=secret.good_for), ttl, at_most)

    def refuse_lines(self, reference: str) -> NoReturn:
        """Refuse what cannot stand in a header, and read it anew for the next: it may have been mended by then."""
        self.expire(reference)
        shown = reference.strip().partition(" ")[0]  # of a command the program alone
        raise SecretUnavailable(f"{self._scheme}:{shown} holds a newline or control character; write it again without")


class _Reader:
    def __init__(self, kept: Mapping[str, _OfOneScheme], states: StateStore | None, colour: Colour) -> None:
        self._kept = kept
        self.states = states
        self.colour = colour

    def reader(self, reference: str, *, lines: bool = False) -> Callable[[Caller], Awaitable[Secret]]:
        if not isinstance(reference, str):
            reference = ""  # told like any other that names no place
        scheme, colon, place = reference.partition(":")
        if scheme not in self._kept or not colon or not place:
            raise ConfigurationError(_unknown(reference, scheme, list(self._kept)))
        for name in fields_of(place):
            if name not in {"tenant", "subject"}:
                raise ConfigurationError(
                    f"secret reference {scheme}:…: {{{name}}} is not known; use {{tenant}} or {{subject}}"
                )
        of_scheme, colour = self._kept[scheme], self.colour
        prepare = getattr(of_scheme.provider, "prepare", None)
        if prepare is not None:
            prepare()  # what is missing is told when the proxy is mounted
        lifted: Fetch = colour.lift_apart(of_scheme.provider.fetch, Secret)
        naming = colour.lift_apart(of_scheme.names.of, str)
        kept, get, fetch = of_scheme.kept, of_scheme.get, partial(of_scheme.fetch, lifted, naming)
        if not fields_of(place):

            async def read(_caller: Caller) -> Secret:
                secret = kept(place) or await get(place, partial(fetch, place), colour)
                return secret if secret.one_line or lines else of_scheme.refuse_lines(place)

            return read

        async def read_for(caller: Caller) -> Secret:
            filled_in = _filled_in(place, caller)
            try:
                secret = kept(filled_in) or await get(filled_in, partial(fetch, filled_in), colour, caller.tenant)
            except SecretMissing as error:
                raise NoSecretForCaller(error.detail) from None
            return secret if secret.one_line or lines else of_scheme.refuse_lines(filled_in)

        return read_for

    def expire(self, reference: str, caller: Caller) -> None:
        scheme, _, place = reference.partition(":")
        self._kept[scheme].expire(_filled_in(place, caller))


def _filled_in(place: str, caller: Caller) -> str:
    return fill_in(place, tenant=caller.tenant, subject=caller.subject)


def _unknown(reference: str, scheme: str, known: list[str]) -> str:
    if ":" not in reference or not reference.partition(":")[2]:
        # What stands here may be the secret itself, written where its reference belongs.
        return f"a secret is named as scheme:place, for example env:API_KEY; schemes: {', '.join(sorted(known))}"
    close = difflib.get_close_matches(scheme, known, n=1)
    hint = f"; did you mean {close[0]}:?" if close else ""
    shown = scheme if re.fullmatch(r"[a-z][a-z0-9_-]{0,15}", scheme) else "…"
    return f"secret reference {shown}:… has an unknown scheme{hint or ';'} known: {', '.join(sorted(known))}"
