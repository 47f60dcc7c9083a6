"""JwkSet: the public keys of an issuer of JWTs (RFC 7517), fetched when they are needed and kept.

Rules:
1. Keys come over https from the address that was named, or from the issuer's own metadata (OpenID Connect
   Discovery 1.0), whose `issuer` must be the one that was asked; `asking.py` says how. No more than 256 KiB
   are read.
2. They are fetched once however many ask, and renewed every five minutes. While nobody answers, those
   that were fetched last go on for `outage` seconds; then requests get 503.
3. A key that is not there may be new: then, at most once in ten seconds, all are fetched again.
4. What is no key of a kind that signs is passed over (RFC 7517, section 5).
"""

import base64
import time
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import urlsplit

from attrs import frozen

from apitokenproxy._colour import Colour
from apitokenproxy.asking import ask
from apitokenproxy.errors import ConfigurationError, KeysUnavailable
from apitokenproxy.loading import Loaded, Loads

try:
    from joserfc.errors import JoseError
    from joserfc.jwk import ECKey, OKPKey, RSAKey, import_key
except ImportError:
    raise ConfigurationError("identity by JWT needs joserfc; install apitokenproxy[jwt]") from None

Key = RSAKey | ECKey | OKPKey

TTL = 300.0
"""Seconds."""
_COOLDOWN = 10.0
_TIMEOUT = 5.0
_LARGEST = 256 * 1024
_MOST_KEYS = 100
_KINDS = {"RSA", "EC", "OKP"}
"""With a public key. With a symmetric one whoever can verify can sign."""
_SHORTEST_RSA = 2048
"""Bits (RFC 7518, section 3.3)."""
_METADATA = "/.well-known/openid-configuration"


@frozen
class Keys:
    """The keys of one answer. `named` are those with an id."""

    named: Mapping[str, Key]
    nameless: tuple[Key, ...]

    def find(self, identifier: str | None) -> Key | None:
        """Return the key with that id; for a token that names none, the only key there is."""
        if identifier is not None:
            return self.named.get(identifier)
        every = (*self.named.values(), *self.nameless)
        return every[0] if len(every) == 1 else None


class JwkSet:
    """The keys at `url`, or those that the metadata of `issuer` names when it is None.

    `allow_private` permits plain http. Raises ConfigurationError.
    """

    def __init__(
        self,
        issuer: str,
        url: str | None,
        *,
        allow_private: bool,
        outage: float,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer
        self._url = url
        self._schemes = {"https", "http"} if allow_private else {"https"}
        self._check(url or issuer)
        self._timer = timer
        self._round = 0
        self._fetched_again = -_COOLDOWN
        self._again = ""
        self._loads: Loads[Keys] = Loads(
            f"the keys of {issuer}", KeysUnavailable, clock=timer, outage=outage, timeout=3 * _TIMEOUT, max_keys=2
        )

    def bind(self, colour: Colour) -> Callable[[str | None], Awaitable[Key | None]]:
        """Return the function that finds a key by its id, in a colour. It raises KeysUnavailable."""
        load: Callable[[], Awaitable[Loaded[Keys]]] = colour.lift_apart(self._fetch, Loaded)

        async def find(identifier: str | None) -> Key | None:
            name = str(self._round)
            keys = self._loads.kept(name) or await self._loads.get(name, load, colour)
            key = keys.find(identifier)
            if key is None and (self._again == name or self._timer() >= self._fetched_again + _COOLDOWN):
                self._fetched_again, self._again = self._timer(), name  # whoever else misses a key waits as well
                try:
                    keys = await self._loads.get(str(int(name) + 1), load, colour)
                    self._round = int(name) + 1
                finally:
                    self._again = ""
                key = keys.find(identifier)
            return key

        return find

    def _check(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in self._schemes or not parts.hostname:
            raise ConfigurationError(f"identity: the keys of {self._issuer} must be had over https, not at {url!r}")

    def _fetch(self) -> Loaded[Keys]:
        """Fetch the keys. Raises KeysUnavailable."""
        url = self._url or self._url_in(self._get(self._issuer.rstrip("/") + _METADATA))
        return Loaded(self._read(self._get(url)), TTL)

    def _get(self, url: str) -> dict[str, Any]:
        answer = ask("GET", url, error=KeysUnavailable, most=_LARGEST, seconds=_TIMEOUT)
        if answer.status != HTTPStatus.OK:
            raise KeysUnavailable(f"{url} answers with status {answer.status}", outage=True)
        return answer.said

    def _url_in(self, metadata: dict[str, Any]) -> str:
        url = metadata.get("jwks_uri")
        if metadata.get("issuer") != self._issuer or not isinstance(url, str):
            raise KeysUnavailable(f"the metadata of {self._issuer} is another issuer's, or names no keys")
        try:
            self._check(url)
        except ConfigurationError as error:
            raise KeysUnavailable(str(error)) from None
        return url

    def _read(self, said: dict[str, Any]) -> Keys:
        listed = said.get("keys")
        if not isinstance(listed, list):
            raise KeysUnavailable(f"what {self._issuer} publishes is no set of keys")
        named: dict[str, Key] = {}
        nameless = []
        for one in listed[:_MOST_KEYS]:
            key = _key(one)
            if key is None:
                continue
            if key.kid is None:
                nameless.append(key)
            else:
                named[key.kid] = key
        if not named and not nameless:
            raise KeysUnavailable(f"{self._issuer} publishes no key that signs")
        return Keys(named, tuple(nameless))


def _key(stated: Any) -> Key | None:
    """Return a public key that signs; None for whatever else stands there."""
    if not isinstance(stated, dict) or stated.get("use", "sig") != "sig" or "d" in stated:
        return None
    try:
        if stated.get("kty") not in _KINDS or (stated["kty"] == "RSA" and _bits(stated["n"]) < _SHORTEST_RSA):
            return None
        return cast("Key", import_key(stated))
    except (JoseError, ValueError, TypeError, KeyError):
        return None


def _bits(number: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(number + "=" * (-len(number) % 4))).bit_length()
