"""Stand-ins for the parts of a proxy, in plain Python."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from apitokenproxy._colour import ASYNC, Colour, nonblocking
from apitokenproxy.errors import AuditUnavailable, SecretMissing
from apitokenproxy.messages import AuditRecord, Caller, Credential, Headers, Hidden, Outbound, Reply, Secret


class MemoryAudit:
    """An AuditSink that keeps its records in `records`. Set `full` to make it refuse."""

    def __init__(self) -> None:
        self.records: list[AuditRecord] = []
        self.reserved = 0
        self.full = False

    def reserve(self) -> None:
        """Count a reservation. Raises AuditUnavailable when `full` is set."""
        if self.full:
            raise AuditUnavailable("the sink was told to be full")
        self.reserved += 1

    def write(self, record: AuditRecord) -> None:
        """Keep the record."""
        self.records.append(record)

    def close(self) -> None:
        """Do nothing: there is nothing to write down."""


class FixedCredential:
    """A TokenProvider that puts one header on every request."""

    def __init__(self, name: str = "Authorization", value: str = "Bearer fixed") -> None:
        self._credential = Credential(headers=((name.encode(), Hidden(value.encode())),), version="fixed")

    @nonblocking
    def credential(self, _caller: Caller) -> Credential:
        """Return the credential."""
        return self._credential


class FixedSecrets:
    """A SecretProvider over a mapping. `fetched` counts how often each reference was asked for."""

    ttl = 60.0

    def __init__(self, **material: str) -> None:
        self._material = material
        self.fetched: dict[str, int] = {}

    @nonblocking
    def fetch(self, reference: str) -> Secret:
        """Return the secret. Raises SecretMissing for a name that is not there."""
        self.fetched[reference] = self.fetched.get(reference, 0) + 1
        if reference not in self._material:
            raise SecretMissing(f"the fixed secrets have no {reference}")
        return Secret(self._material[reference])


class RecordingForwarder:
    """A forwarder that keeps what it was to send in `sent` and answers from memory, in both colours.

    Set `error` to have it raise instead. `aborted` counts replies that were given up or closed.
    """

    def __init__(self, status: int = 200, headers: Headers | None = None, chunks: tuple[bytes, ...] = (b"ok",)) -> None:
        self.status = status
        self.headers = [] if headers is None else headers
        self.chunks = chunks
        self.error: BaseException | None = None
        self.sent: list[Outbound] = []
        self.aborted = 0

    def bind(self, colour: Colour) -> Callable[[Outbound], Awaitable[Reply]]:
        """Return the function that answers."""

        async def forward(outbound: Outbound) -> Reply:
            self.sent.append(outbound)
            if self.error is not None:
                raise self.error
            body: Any = self._aiter() if colour is ASYNC else self._iter()
            return Reply(self.status, list(self.headers), body, self._abort)

        return forward

    async def _aiter(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            yield chunk

    def _iter(self) -> Iterator[bytes]:
        yield from self.chunks

    def _abort(self) -> None:
        self.aborted += 1

    async def aclose(self) -> None:
        """Do nothing: there is nothing to close."""

    def close(self) -> None:
        """Do nothing: there is nothing to close."""
