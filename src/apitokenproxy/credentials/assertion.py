"""JWTs signed with a private key in PEM (RFC 7515): how clients say who they are without sending a secret.

Rules:
1. The key decides which algorithms there are, and says nothing of itself in a message.
2. One with which nobody should sign is refused: an RSA key of less than 2048 bits (RFC 7518, section 3.3), a
   curve that is not named here, a public key.
"""

from collections.abc import Mapping
from typing import Any

from apitokenproxy.errors import ConfigurationError, SecretUnavailable
from apitokenproxy.messages import Hidden, HiddenText, Secret

try:
    from joserfc import jwt
    from joserfc.errors import JoseError, SecurityWarning, UnsupportedAlgorithmError
    from joserfc.jwk import ECKey, OKPKey, RSAKey
    from joserfc.jws import JWSRegistry
except ImportError:
    raise ConfigurationError("a credential that signs JWTs needs joserfc; install apitokenproxy[jwt]") from None

Key = RSAKey | ECKey | OKPKey

_SHORTEST_RSA = 2048
_FITTING = {
    "RSA": ("RS256", "PS256"),
    "P-256": ("ES256",),
    "P-384": ("ES384",),
    "P-521": ("ES512",),
    "Ed25519": ("EdDSA",),
}


class _Named(JWSRegistry):
    """One algorithm, and without a word about it."""

    def get_alg(self, name: str) -> Any:
        if name not in (self.allowed or ()):
            raise UnsupportedAlgorithmError(name)
        return self.algorithms[name]


def private_key(secret: Secret) -> Key:
    """Return the private key that a secret is. Raises SecretUnavailable."""
    if b"-----BEGIN" not in secret.reveal():
        raise SecretUnavailable("the private key is not in PEM, which begins with -----BEGIN")
    if b"ENCRYPTED" in secret.reveal():
        raise SecretUnavailable("the private key is encrypted; it must stand there without a password")
    for kind in (RSAKey, ECKey, OKPKey):
        try:
            key: Key = kind.import_key(Hidden(secret.reveal()))
        except (JoseError, ValueError, TypeError, SecurityWarning):
            continue
        except Exception:  # noqa: BLE001 - cryptography has errors of its own for what it does not know
            break
        if not key.is_private:
            raise SecretUnavailable("the private key is a public one, or a certificate")
        if isinstance(key, RSAKey) and key.raw_value.key_size < _SHORTEST_RSA:
            break
        return key
    raise SecretUnavailable("the private key is broken, or of a kind that is not used to sign, as RSA below 2048 bits")


def signed(key: Key, claims: Mapping[str, Any], *, algorithm: str = "", key_id: str = "") -> HiddenText:
    """Return a JWT with these claims, by the key's first algorithm when none is named. Raises SecretUnavailable."""
    fitting = _FITTING.get("RSA" if isinstance(key, RSAKey) else key.curve_name, ())
    chosen = algorithm or (fitting[0] if fitting else "")
    if chosen not in fitting:
        raise SecretUnavailable(f"the private key is not one for {algorithm or 'any algorithm that is known here'}")
    header = {"alg": chosen} | ({"kid": key_id} if key_id else {})
    try:
        return HiddenText(jwt.encode(header, dict(claims), key, registry=_Named(algorithms=(chosen,))))
    except (JoseError, ValueError, TypeError) as error:  # its text may hold claims
        raise SecretUnavailable(f"nothing can be signed with the private key: {type(error).__name__}") from None
