"""JwtIdentity: callers who bring a JWT of an issuer that the operator trusts (RFC 7519, OpenID Connect).

Rules (RFC 8725 says why):
1. A token is of this kind when it says that it comes from this issuer. Then it is decided here, for good;
   of another issuer, or of another form, it is nobody's business here.
2. The algorithms are the operator's to name, all of them with a public key; the token's own word
   only chooses among them, and a key that names an algorithm is used with no other.
3. Issuer, audience and expiry must be there and right. A header that must be understood (`crit`) is not.
4. What claims are mapped to is checked as it is for a client token; what is missing refuses.
5. A signature that was verified is remembered for a minute at most, and not beyond the token's end: so a key
   that the issuer takes away verifies nothing a minute after that was heard.
"""

import base64
import json
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from hashlib import sha256
from typing import Any, Final

from apitokenproxy._colour import Colour
from apitokenproxy.errors import ConfigurationError, Unauthenticated
from apitokenproxy.identity.attributes import checked, read_only
from apitokenproxy.identity.jwks import JwkSet, Key
from apitokenproxy.identity.terms import checked_scopes, checked_subject, checked_tenant
from apitokenproxy.identity.verified import Verified
from apitokenproxy.messages import Caller, Presented, Request

try:
    from joserfc import jwt
    from joserfc.errors import JoseError, UnsupportedAlgorithmError
    from joserfc.jws import JWSRegistry
    from joserfc.jwt import JWTClaimsRegistry
except ImportError:
    raise ConfigurationError("identity by JWT needs joserfc; install apitokenproxy[jwt]") from None

ALGORITHMS: Final = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
    "Ed25519",
)
"""Those that may be named: what signs is not what verifies."""

_LONGEST = 8192
_KEPT = 60.0
_LEEWAY = 30
"""Seconds by which clocks may differ."""
_NEVER = 2**53
_TYPES = {"", "jwt", "at+jwt", "application/at+jwt"}
"""What `typ` may say (RFC 7519, section 5.1; RFC 9068, section 2.1)."""


class _Allowed(JWSRegistry):
    """The algorithms that the operator named: no more, and without a word about those that are named."""

    def get_alg(self, name: str) -> Any:
        if name not in (self.allowed or ()):
            raise UnsupportedAlgorithmError(name)
        return self.algorithms[name]


class JwtIdentity:
    """An Authenticator for the JWTs of one issuer.

    `issuer` is what `iss` says, to the letter; `audience` what `aud` must hold (one of them, if several);
    `jwks` the URL of the issuer's keys, which its OpenID metadata names when it is left out. The caller's
    tenant is `tenant`, or stands in the claim `tenant_claim`; subject and scopes stand in `subject_claim`
    and `scopes_claim`, and each of `attributes` in the claim that it names. A dotted name leads into an
    object. `required` are claims that must have a value, or one of several: an issuer that serves everybody,
    as GitHub does, signs for strangers too. `outage` is how long the last known keys are used while nobody
    answers. `allow_private` permits plain http to the issuer.

    Raises ConfigurationError.
    """

    def __init__(
        self,
        issuer: str,
        *,
        audience: str | Sequence[str],
        tenant: str | None = None,
        tenant_claim: str | None = None,
        subject_claim: str = "sub",
        scopes_claim: str = "scope",
        attributes: Mapping[str, str] | None = None,
        required: Mapping[str, str | Sequence[str]] | None = None,
        algorithms: Sequence[str] = ("RS256", "ES256", "EdDSA"),
        jwks: str | None = None,
        outage: timedelta = timedelta(days=1),
        allow_private: bool = False,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        audiences = [audience] if isinstance(audience, str) else list(audience)
        if not issuer or not audiences or not all(audiences):
            raise ConfigurationError("identity: name the issuer of the JWTs, and the audience that they are meant for")
        if (tenant is None) == (tenant_claim is None):
            raise ConfigurationError(f"identity: for {issuer} name either tenant or tenant_claim")
        if isinstance(algorithms, str) or not algorithms or not set(ALGORITHMS).issuperset(algorithms):
            raise ConfigurationError(f"identity: algorithms is a list of some of {', '.join(ALGORITHMS)}")
        self._issuer = issuer
        self._allowed = _Allowed(algorithms=tuple(algorithms), strict_check_header=False)
        self._tenant = None if tenant is None else checked_tenant(tenant)
        self._tenant_claim, self._subject_claim, self._scopes_claim = tenant_claim, subject_claim, scopes_claim
        self._attributes = dict(attributes or {})
        self._required = {name: [one] if isinstance(one, str) else list(one) for name, one in (required or {}).items()}
        self._clock = clock
        self._registry = JWTClaimsRegistry(
            now=lambda: int(clock()),
            leeway=_LEEWAY,
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "values": audiences},
            exp={"essential": True},
        )
        self._verified = Verified(bound=1.0, timer=timer)
        self._verified.last(math.inf)
        self._keys = JwkSet(
            issuer,
            jwks,
            allow_private=allow_private,
            outage=outage.total_seconds(),
            timer=timer,
        )

    def bind(self, colour: Colour) -> "BoundJwtIdentity":
        """Return the authenticator in one colour."""
        return BoundJwtIdentity(self, self._verified, self._keys.bind(colour), self._clock)

    def header_of(self, token: bytes) -> dict[str, Any] | None:
        """Return the header of a token that says that it is of this kind; None for any other."""
        parts = token.split(b".")
        if len(parts) != 3 or len(token) > _LONGEST:  # noqa: PLR2004 - header, claims, signature
            return None
        header, claims = _object(parts[0]), _object(parts[1])
        return header if header is not None and claims is not None and claims.get("iss") == self._issuer else None

    def check_header(self, header: dict[str, Any]) -> None:
        """Raise Unauthenticated for a header that this proxy does not accept, whoever signed it."""
        if header.get("alg") not in (self._allowed.allowed or ()):
            raise Unauthenticated(f"a JWT of {self._issuer} is signed with an algorithm that is not allowed")
        if "crit" in header or str(header.get("typ", "")).lower() not in _TYPES:
            raise Unauthenticated(f"the header of a JWT of {self._issuer} says what is not understood")

    def caller(self, token: bytes, header: dict[str, Any], key: Key | None) -> tuple[Caller, float]:
        """Return whom a token names, and until when (seconds since the epoch). Raises Unauthenticated."""
        if key is None:
            raise Unauthenticated(f"a JWT of {self._issuer} is signed with a key that it does not publish")
        if key.alg is not None and key.alg != header["alg"]:
            raise Unauthenticated(f"a JWT of {self._issuer} is signed with a key for another algorithm")
        try:
            claims = jwt.decode(token, key, registry=self._allowed).claims
            self._registry.validate(claims)
        except (JoseError, ValueError, TypeError, OverflowError) as error:  # its text may hold claims
            raise Unauthenticated(f"a JWT of {self._issuer} is not good: {type(error).__name__}") from None
        for name, values in self._required.items():
            if _claim(claims, name, None) not in values:
                raise Unauthenticated(f"the claim {name} in a JWT of {self._issuer} is none of those that are required")
        try:
            caller = Caller(
                tenant=checked_tenant(self._tenant or _claim(claims, self._tenant_claim or "")),
                subject=checked_subject(_claim(claims, self._subject_claim)),
                scopes=checked_scopes(_scopes(_claim(claims, self._scopes_claim, []))),
                attributes=read_only(checked({name: _claim(claims, of) for name, of in self._attributes.items()})),
            )
        except ConfigurationError as error:
            raise Unauthenticated(f"a claim in a JWT of {self._issuer} cannot be used: {error}") from None
        return caller, float(min(claims["exp"], _NEVER)) + _LEEWAY


class BoundJwtIdentity:
    """JwtIdentity in one colour."""

    __slots__ = ("_clock", "_find", "_identity", "_verified")

    def __init__(
        self,
        identity: JwtIdentity,
        verified: Verified,
        find: Callable[[str | None], Awaitable[Key | None]],
        clock: Callable[[], float],
    ) -> None:
        self._identity = identity
        self._verified = verified
        self._find = find
        self._clock = clock

    async def authenticate(self, presented: Presented | None, _request: Request) -> Caller | None:
        """Return the caller, or None for what is no JWT of this issuer. Raises Unauthenticated, KeysUnavailable."""
        if presented is None:
            return None
        digest = sha256(presented.value).digest()
        entry = self._verified.entry(digest, self._clock())
        if entry is not None:
            return entry.caller
        token = bytes(presented.value)
        header = self._identity.header_of(token)
        if header is None:
            return None
        self._identity.check_header(header)
        identifier = header.get("kid")
        key = await self._find(identifier if isinstance(identifier, str) else None)
        era = self._verified.begin()
        caller, end = self._identity.caller(token, header, key)
        self._verified.fill(digest, caller, min(end, self._clock() + _KEPT), era)
        return caller


def _object(part: bytes) -> dict[str, Any] | None:
    """Return what a part of a token says, before anything is verified."""
    try:
        said = json.loads(base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4)))
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


_MISSING: Final = object()


def _claim(claims: Mapping[str, Any], name: str, default: Any = _MISSING) -> Any:
    """Return a claim; of a dotted name that is none itself, what it leads to. Raises ConfigurationError."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        found = found.get(part, _MISSING) if isinstance(found, dict) else _MISSING
    if found is _MISSING:
        found = default
    if found is _MISSING:
        raise ConfigurationError(f"there is no claim {name}")
    return found


def _scopes(value: Any) -> list[str]:
    """Return scopes: several in a list, or in one text with blanks between them (RFC 8693, section 4.2)."""
    if isinstance(value, str):
        return value.split()
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return value
    raise ConfigurationError("scopes must be a text or a list of texts")
