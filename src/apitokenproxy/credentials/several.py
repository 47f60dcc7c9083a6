"""Several credentials on one upstream, put on in order; kept while each of them is the same."""

from collections.abc import Awaitable, Callable, Sequence
from operator import is_

from apitokenproxy._colour import Colour
from apitokenproxy.interfaces import CredentialKind, SecretReader, TokenProvider
from apitokenproxy.messages import Caller, Credential, Secret

Obtain = Callable[[Caller], Awaitable[Credential]]


Kinds = Sequence[CredentialKind | TokenProvider]


def bind_all(kinds: Kinds, secrets: SecretReader, colour: Colour) -> tuple[Obtain, Callable[[Caller], None]]:
    """Return the function that makes all the credentials of an upstream, and one that has them made anew."""
    noting = _Noting(secrets)
    obtain = combine(
        [kind.bind(noting) if hasattr(kind, "bind") else colour.lift(kind.credential, Credential) for kind in kinds]
    )

    def expire(caller: Caller) -> None:
        for reference in noting.references:
            secrets.expire(reference, caller)
        for kind in kinds:
            if hasattr(kind, "expire"):
                kind.expire()

    return obtain, expire


class _Noting:
    """A SecretReader that takes note of what is read."""

    def __init__(self, secrets: SecretReader) -> None:
        self._secrets = secrets
        self.colour = secrets.colour
        self.references: list[str] = []

    def reader(self, reference: str) -> Callable[[Caller], Awaitable[Secret]]:
        self.references.append(reference)
        return self._secrets.reader(reference)

    def expire(self, reference: str, caller: Caller) -> None:
        self._secrets.expire(reference, caller)


def combine(bound: Sequence[Obtain]) -> Obtain:
    """Return one function that makes all the credentials; a single one is returned as it is."""
    if len(bound) == 1:
        return bound[0]

    last: tuple[list[Credential], Credential] | None = None

    async def obtain(caller: Caller) -> Credential:
        nonlocal last
        made = [await one(caller) for one in bound]
        kept = last
        if kept is not None and all(map(is_, kept[0], made)):
            return kept[1]
        whole = Credential(
            headers=tuple(field for credential in made for field in credential.headers),
            query=tuple(field for credential in made for field in credential.query),
            version=",".join(credential.version for credential in made),
            finish=tuple(sorted((one for credential in made for one in credential.finish), key=lambda one: one.signs)),
        )
        last = made, whole
        return whole

    return obtain
