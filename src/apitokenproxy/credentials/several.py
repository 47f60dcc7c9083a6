"""Several credentials on one upstream, put on in order."""

from collections.abc import Awaitable, Callable, Sequence

from apitokenproxy.messages import Caller, Credential

Obtain = Callable[[Caller], Awaitable[Credential]]


def combine(bound: Sequence[Obtain]) -> Obtain:
    """Return one function that makes all the credentials; a single one is returned as it is."""
    if len(bound) == 1:
        return bound[0]

    async def obtain(caller: Caller) -> Credential:
        made = [await one(caller) for one in bound]
        return Credential(
            headers=tuple(field for credential in made for field in credential.headers),
            query=tuple(field for credential in made for field in credential.query),
            version=",".join(credential.version for credential in made),
        )

    return obtain
