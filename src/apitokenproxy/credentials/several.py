"""Several credentials on one upstream, put on in order; kept while each of them is the same."""

from collections.abc import Awaitable, Callable, Sequence

from apitokenproxy._colour import Colour
from apitokenproxy.credentials.making import kept_while_same
from apitokenproxy.errors import ConfigurationError, ProxyError
from apitokenproxy.interfaces import CredentialKind, SecretReader, TokenProvider
from apitokenproxy.messages import Caller, Credential, Reply, Secret
from apitokenproxy.rotation.versions import Obtain, Source

Kinds = Sequence[CredentialKind | TokenProvider]


def bind_all(kinds: Kinds, secrets: SecretReader, colour: Colour) -> Source:
    """Return how all these credentials are made, as one, and how they are made anew."""
    noting = _Noting(secrets)
    obtain = combine(
        [kind.bind(noting) if hasattr(kind, "bind") else colour.lift(kind.credential, Credential) for kind in kinds]
    )

    def expire(caller: Caller, refused: Credential) -> None:
        for reference, _ in noting.noted:
            secrets.expire(reference, caller)
        for kind in kinds:
            if hasattr(kind, "expire"):
                kind.expire(refused)

    return Source(obtain, expire)


async def unreadable(kinds: Kinds, secrets: SecretReader) -> list[str]:
    """Try to read each secret that does not depend on the caller; return a sentence for each that cannot be read."""
    noting, problems = _Noting(secrets), []
    for kind in kinds:
        try:
            if hasattr(kind, "bind"):
                kind.bind(noting)
        except ConfigurationError as error:
            problems.append(str(error))
    for reference, lines in noting.noted:
        if "{" not in reference:
            try:
                await secrets.reader(reference, lines=lines)(Caller(tenant=""))
            except (ConfigurationError, ProxyError) as error:
                problems.append(str(error))
    return problems


class _Noting:
    """A SecretReader that takes note of what is read."""

    def __init__(self, secrets: SecretReader) -> None:
        self._secrets = secrets
        self.colour = secrets.colour
        self.states = secrets.states
        self.noted: list[tuple[str, bool]] = []

    def reader(self, reference: str, *, lines: bool = False) -> Callable[[Caller], Awaitable[Secret]]:
        read = self._secrets.reader(reference, lines=lines)
        self.noted.append((reference, lines))
        return read

    def expire(self, reference: str, caller: Caller) -> None:
        self._secrets.expire(reference, caller)


def combine(bound: Sequence[Obtain]) -> Obtain:
    """Return one function that makes all the credentials; a single one is returned as it is."""
    return bound[0] if len(bound) == 1 else kept_while_same(bound, _joined)


def _joined(made: list[Credential]) -> Credential:
    return Credential(
        headers=tuple(field for credential in made for field in credential.headers),
        query=tuple(field for credential in made for field in credential.query),
        version=",".join(credential.version for credential in made),
        token=",".join(credential.token for credential in made if credential.token),
        finish=tuple(sorted((one for credential in made for one in credential.finish), key=lambda one: one.signs)),
        again=_any_again(made),
        shown=tuple(value for credential in made for value in credential.shown),
    )


def _any_again(made: list[Credential]) -> Callable[[Reply], Awaitable[Credential | None]] | None:
    """Return what asks those that may answer a challenge, in order, and puts the others on beside the answer."""
    if all(credential.again is None for credential in made):
        return None

    async def again(reply: Reply) -> Credential | None:
        for place, credential in enumerate(made):
            if credential.again is not None and (answer := await credential.again(reply)) is not None:
                return _joined([*made[:place], answer, *made[place + 1 :]])
        return None

    return again
