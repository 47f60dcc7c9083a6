"""SigningKeys: the keys that derived tokens are signed with, from wherever secrets are kept.

Rules:
1. The first key signs, each of them verifies: so a key is changed by putting the new one before the old
   one, and taking the old one away when what it signed has ended.
2. A key's id is made from the key. Nothing has to be numbered, and two keys never have one id.
3. A key that cannot be had is the proxy's fault (503), never the client's (401).
"""

from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from hmac import digest

from apitokenproxy._colour import Colour
from apitokenproxy.errors import ConfigurationError, SecretUnavailable
from apitokenproxy.interfaces import SecretReader
from apitokenproxy.messages import Caller, Hidden, Secret

SHORTEST = 32
"""Bytes of a signing key: as many as HMAC-SHA256 gives (RFC 2104, section 3)."""

_NOBODY = Caller(tenant="")


class SigningKeys:
    """The keys that `references` name, newest first. `secrets` returns what reads secrets in a colour."""

    def __init__(self, references: Sequence[str], secrets: Callable[[Colour], SecretReader]) -> None:
        if isinstance(references, str):
            raise ConfigurationError('signing_keys must be a list of secret references, as ["env:TOKEN_KEY"]')
        for reference in references:
            if "{" in reference:
                raise ConfigurationError("signing_keys: a key is the same for every caller; leave {tenant} out")
        self._references = tuple(references)
        self._secrets = secrets

    def must_be_named(self) -> None:
        """Raise ConfigurationError when there are none."""
        if not self._references:
            raise ConfigurationError(
                "tokens are derived with a signing key, and none is named; "
                'set signing_keys = ["env:TOKEN_KEY"], a secret of 32 characters or more'
            )

    def bind(self, colour: Colour) -> "BoundSigningKeys":
        """Return the keys in one colour. Raises ConfigurationError for a reference that names no place."""
        secrets = self._secrets(colour) if self._references else None
        return BoundSigningKeys([secrets.reader(reference) for reference in self._references] if secrets else [])


def _no_secrets(_colour: Colour) -> SecretReader:
    raise ConfigurationError("without signing keys there is nothing to read")


NO_KEYS = SigningKeys((), _no_secrets)
"""With which nothing can be derived."""


class BoundSigningKeys:
    """SigningKeys in one colour."""

    def __init__(self, readers: Sequence[Callable[[Caller], Awaitable[Secret]]]) -> None:
        self._readers = readers

    async def newest(self) -> tuple[str, Hidden]:
        """Return the id and the key to sign with. Raises SecretUnavailable."""
        return _keyed(await self._readers[0](_NOBODY))

    async def find(self, identifier: str) -> Hidden | None:
        """Return the key with that id, None when there is none.

        Raises SecretUnavailable when it is none of those that can be had, and another cannot.
        """
        unavailable = None
        for read in self._readers:
            try:
                known, key = _keyed(await read(_NOBODY))
            except SecretUnavailable as error:
                unavailable = error
                continue
            if known == identifier:
                return key
        if unavailable is not None:
            raise SecretUnavailable(unavailable.detail, retry_after=unavailable.retry_after)
        return None

    async def problems(self) -> list[str]:
        """Try to read each key; return a sentence for each that cannot be had."""
        found = []
        for read in self._readers:
            try:
                _keyed(await read(_NOBODY))
            except SecretUnavailable as error:
                found.append(f"proxy.signing_keys: {error}")
        return found


def _keyed(secret: Secret) -> tuple[str, Hidden]:
    material = secret.reveal()
    if len(material) < SHORTEST:
        raise SecretUnavailable(f"a signing key has {len(material)} characters; it must have {SHORTEST} or more")
    key = Hidden(digest(material, b"apitokenproxy derived tokens", "sha256"))
    return sha256(b"id of " + key).hexdigest()[:8], key
