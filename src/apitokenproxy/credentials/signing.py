"""What is signed to ask for a token: the claims of RFC 7523, section 3. `assertion.py` signs it."""

import secrets
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from apitokenproxy.errors import ConfigurationError
from apitokenproxy.messages import HiddenText, Secret, not_pickled

ALGORITHMS = ("RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA")
LASTS = 300
"""Seconds from when it was signed until it is accepted no more."""
_MOST_KEYS = 1000


def check_algorithm(kind: str, algorithm: str) -> None:
    """Raise ConfigurationError for an algorithm that is not known. An empty one is the key's own."""
    if algorithm and algorithm not in ALGORITHMS:
        raise ConfigurationError(f"credential {kind}: algorithm {algorithm!r} is none of {', '.join(ALGORITHMS)}")


class Signing:
    """Signs JWTs. Each key is read once: to check one of RSA holds up everything else for more than 0.1 seconds."""

    def __init__(self) -> None:
        self._keys: dict[str, Any] = {}

    def ready(self) -> None:
        """Raise ConfigurationError if the package that it needs is not there."""
        from apitokenproxy.credentials.assertion import signed  # noqa: F401, PLC0415 - needs the extra `jwt`

    def sign(self, secret: Secret, said: Mapping[str, Any], *, algorithm: str = "", key_id: str = "") -> HiddenText:
        """Return what `assertion.signed` makes with the private key that a secret is. Raises SecretUnavailable."""
        from apitokenproxy.credentials.assertion import private_key, signed  # noqa: PLC0415 - needs the extra `jwt`

        name = sha256(secret.reveal()).hexdigest()
        key = self._keys.get(name)
        if key is None:
            key = private_key(secret)
            if len(self._keys) >= _MOST_KEYS:
                self._keys.clear()
            self._keys[name] = key
        return signed(key, said, algorithm=algorithm, key_id=key_id)

    __reduce_ex__ = not_pickled


def claims(issuer: str, subject: str, audience: str, now: float, lasts: int = LASTS) -> dict[str, Any]:
    """Return what says who asks, of whom and when. No two are the same, so that none can be sent twice."""
    said = {"iss": issuer, "sub": subject, "aud": audience, "iat": int(now), "exp": int(now) + lasts}
    return {**{name: value for name, value in said.items() if value != ""}, "jti": secrets.token_hex(16)}
