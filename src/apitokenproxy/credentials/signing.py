"""What is signed to ask for a token: the claims of RFC 7523, section 3. `assertion.py` signs it."""

import secrets
from collections.abc import Callable
from typing import Any

from apitokenproxy.errors import ConfigurationError
from apitokenproxy.messages import HiddenText

ALGORITHMS = ("RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA")
LASTS = 300
"""Seconds from when it was signed until it is accepted no more."""


def check_algorithm(kind: str, algorithm: str) -> None:
    """Raise ConfigurationError for an algorithm that is not known. An empty one is the key's own."""
    if algorithm and algorithm not in ALGORITHMS:
        raise ConfigurationError(f"credential {kind}: algorithm {algorithm!r} is none of {', '.join(ALGORITHMS)}")


def signer() -> Callable[..., HiddenText]:
    """Return `assertion.signed`. Raises ConfigurationError without the package that it needs."""
    from apitokenproxy.credentials.assertion import signed  # noqa: PLC0415 - needs the extra `jwt`

    return signed


def claims(issuer: str, subject: str, audience: str, now: float, lasts: int = LASTS) -> dict[str, Any]:
    """Return what says who asks, of whom and when. No two are the same, so that none can be sent twice."""
    said = {"iss": issuer, "sub": subject, "aud": audience, "iat": int(now), "exp": int(now) + lasts}
    return {**{name: value for name, value in said.items() if value != ""}, "jti": secrets.token_hex(16)}
