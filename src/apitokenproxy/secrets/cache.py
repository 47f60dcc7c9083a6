"""Secrets, cached for as long as their provider says, and fetched once however many ask.

Rules:
1. A fetch in flight is a `concurrent.futures.Future`: tasks of any loop and threads wait for the
   same one. The lock is never held while anything is fetched.
2. A fetch that fails is told to everyone who waited for it, and is not remembered.
3. A fetch whose task was cancelled tells nobody anything: the next in line begins anew.
4. `{tenant}` and `{subject}` come from the verified caller, and only if they are plain names.
"""

import difflib
import re
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import CancelledError, Future

from attrs import frozen

from apitokenproxy._colour import Colour
from apitokenproxy.errors import ConfigurationError, InternalFault, SecretUnavailable
from apitokenproxy.interfaces import SecretProvider, SecretReader
from apitokenproxy.messages import Caller, Secret

DEFAULT_TTL = 60.0
MAX_REFERENCES = 10_000

_FIELD = re.compile(r"\{([^{}]*)\}")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}")

Fetch = Callable[[str], Awaitable[Secret]]


@frozen
class _Kept:
    secret: Secret
    until: float


class _Flight(Future[Secret]):
    def __init__(self) -> None:
        super().__init__()
        self.thread = threading.get_ident()


class Secrets:
    """All providers behind one cache, shared by both colours."""

    def __init__(self, providers: Mapping[str, SecretProvider], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._providers = providers
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[str, _Kept] = {}
        self._flights: dict[str, _Flight] = {}
        self._fetched = 0

    def bind(self, colour: Colour) -> SecretReader:
        """Return the reader for one colour."""
        fetches = {name: colour.lift(provider.fetch, Secret) for name, provider in self._providers.items()}
        return _Reader(self, colour, fetches)

    def kept(self, reference: str) -> Secret | None:
        """Return the secret that a full reference (`scheme:rest`) names, if it is here and not too old."""
        kept = self._kept.get(reference)
        return kept.secret if kept is not None and self._clock() < kept.until else None

    async def get(self, reference: str, fetch: Fetch, colour: Colour) -> Secret:
        """Return the secret that a full reference names: kept, awaited or fetched. Raises SecretUnavailable."""
        while True:
            mine = _Flight()
            with self._lock:
                if secret := self.kept(reference):
                    return secret
                flight = self._flights.setdefault(reference, mine)
            if flight is mine:
                return await self._fetch(reference, fetch, mine)
            if colour.blocks and flight.thread == mine.thread:
                return await fetch(reference.partition(":")[2])  # that task cannot go on while this call waits
            try:
                return await colour.wait(flight)
            except CancelledError:
                continue
            except SecretUnavailable as error:
                raise SecretUnavailable(error.detail, retry_after=error.retry_after) from None

    async def _fetch(self, reference: str, fetch: Fetch, flight: "Future[Secret]") -> Secret:
        scheme, _, rest = reference.partition(":")
        try:
            secret = self._named(reference, await fetch(rest))
            until = self._clock() + getattr(self._providers[scheme], "ttl", DEFAULT_TTL)
        except SecretUnavailable as error:
            self._land(reference)
            flight.set_exception(SecretUnavailable(error.detail, retry_after=error.retry_after))
            raise
        except Exception as error:  # noqa: BLE001 - its text could hold the secret
            told = error.detail if isinstance(error, InternalFault) else f"raised {type(error).__name__}"
            failure = f"the provider of {scheme}: {told}"
            self._land(reference)
            flight.set_exception(SecretUnavailable(failure))
            raise SecretUnavailable(failure) from None
        except BaseException:
            self._land(reference)
            flight.cancel()
            raise
        with self._lock:
            if len(self._kept) >= MAX_REFERENCES and reference not in self._kept:
                del self._kept[next(iter(self._kept))]
            self._kept[reference] = _Kept(secret, until)
            del self._flights[reference]
        flight.set_result(secret)
        return secret

    def _land(self, reference: str) -> None:
        with self._lock:
            del self._flights[reference]

    def _named(self, reference: str, secret: Secret) -> Secret:
        """Give it a version that tells nothing about it; keep the old object when nothing changed."""
        with self._lock:
            kept = self._kept.get(reference)
            if kept is not None and kept.secret.reveal() == secret.reveal():
                return kept.secret
            self._fetched += 1
            number = self._fetched
        if not secret.version:
            secret.version = f"{reference.partition(':')[0]}#{number}"
        return secret


class _Reader:
    def __init__(self, secrets: Secrets, colour: Colour, fetches: Mapping[str, Fetch]) -> None:
        self._secrets = secrets
        self._colour = colour
        self._fetches = fetches

    def reader(self, reference: str) -> Callable[[Caller], Awaitable[Secret]]:
        if not isinstance(reference, str):
            reference = ""  # told like any other that names no place
        scheme, colon, rest = reference.partition(":")
        if scheme not in self._fetches or not colon or not rest:
            raise ConfigurationError(_unknown(reference, scheme, list(self._fetches)))
        for name in _FIELD.findall(rest):
            if name not in {"tenant", "subject"}:
                raise ConfigurationError(
                    f"secret reference {scheme}:…: {{{name}}} is not known; use {{tenant}} or {{subject}}"
                )
        fetch, kept, get, colour = self._fetches[scheme], self._secrets.kept, self._secrets.get, self._colour
        if not _FIELD.search(rest):

            async def read(_caller: Caller) -> Secret:
                return kept(reference) or await get(reference, fetch, colour)

            return read

        async def read_for(caller: Caller) -> Secret:
            filled_in = scheme + ":" + _filled_in(rest, caller)
            return kept(filled_in) or await get(filled_in, fetch, colour)

        return read_for


def _filled_in(template: str, caller: Caller) -> str:
    values = {"tenant": caller.tenant, "subject": caller.subject}

    def fill(found: re.Match[str]) -> str:
        value = values[found[1]]
        if not _PLAIN_NAME.fullmatch(value) or ".." in value:
            raise SecretUnavailable(f"the caller's {found[1]} is not a plain name, so no secret is looked up for it")
        return value

    return _FIELD.sub(fill, template)


def _unknown(reference: str, scheme: str, known: list[str]) -> str:
    if ":" not in reference or not reference.partition(":")[2]:
        # What stands here may be the secret itself, written where its reference belongs.
        return f"a secret is named as scheme:place, for example env:API_KEY; schemes: {', '.join(sorted(known))}"
    close = difflib.get_close_matches(scheme, known, n=1)
    hint = f"; did you mean {close[0]}:?" if close else ""
    shown = scheme if re.fullmatch(r"[a-z][a-z0-9_-]{0,15}", scheme) else "…"
    return f"secret reference {shown}:… has an unknown scheme{hint or ';'} known: {', '.join(sorted(known))}"
