"""What every kind shares: read the secret, make the credential, keep it while the secret is the same."""

from collections.abc import Awaitable, Callable

from apitokenproxy.errors import SecretUnavailable
from apitokenproxy.interfaces import SecretReader
from apitokenproxy.messages import Caller, Credential, Secret


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
