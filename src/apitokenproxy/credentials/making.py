"""What every kind shares: read secrets, make the credential, keep it while they are the same."""

from collections.abc import Awaitable, Callable, Sequence
from operator import is_
from typing import TypeVar

from apitokenproxy.errors import SecretUnavailable
from apitokenproxy.interfaces import SecretReader
from apitokenproxy.messages import Caller, Credential, Secret

T = TypeVar("T")


def making(
    secrets: SecretReader, reference: str, make: Callable[[Secret], Credential]
) -> Callable[[Caller], Awaitable[Credential]]:
    """Return the function that makes the credential for a caller."""
    read = secrets.reader(reference)
    last: tuple[Secret, Credential] | None = None

    async def obtain(caller: Caller) -> Credential:
        nonlocal last
        secret = await read(caller)
        kept = last
        if kept is not None and kept[0] is secret:
            return kept[1]
        credential = make(secret)
        if any(value != value.strip(b" ") for _, value in credential.headers):
            raise SecretUnavailable("the secret begins or ends with a blank, which a header cannot carry")
        last = secret, credential
        return credential

    return obtain


def kept_while_same(
    bound: Sequence[Callable[[Caller], Awaitable[T]]], make: Callable[[list[T]], Credential]
) -> Callable[[Caller], Awaitable[Credential]]:
    """Return the function that makes a credential of several things, and keeps it while each of them is the same."""
    last: tuple[list[T], Credential] | None = None

    async def obtain(caller: Caller) -> Credential:
        nonlocal last
        found = [await one(caller) for one in bound]
        kept = last
        if kept is not None and all(map(is_, kept[0], found)):
            return kept[1]
        credential = make(found)
        last = found, credential
        return credential

    return obtain
