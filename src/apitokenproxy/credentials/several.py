"""Several credentials on one upstream, put on in order; kept while each of them is the same."""

from collections.abc import Awaitable, Callable, Sequence
from operator import is_

from apitokenproxy._colour import Colour
from apitokenproxy.interfaces import CredentialKind, SecretReader, TokenProvider
from apitokenproxy.messages import Caller, Credential

Obtain = Callable[[Caller], Awaitable[Credential]]


def bind_all(kinds: Sequence[CredentialKind | TokenProvider], secrets: SecretReader, colour: Colour) -> Obtain:
    """Return one function that makes all the credentials of an upstream, in a colour."""
    return combine(
        [kind.bind(secrets) if hasattr(kind, "bind") else colour.lift(kind.credential, Credential) for kind in kinds]
    )


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
