"""Sealing: AES-256-GCM (NIST SP 800-38D) under a master key that is kept elsewhere. Needs the extra `sealed`.

Rules:
1. What is sealed for one place is authenticated with the name of the place, and does not open in another.
2. Each sealing has a nonce of 96 random bits. That is safe for 2**32 of them under one key.
"""

import base64
import hashlib
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from apitokenproxy.errors import ConfigurationError
from apitokenproxy.messages import Hidden, Secret

_KEY_BYTES = 32
_NONCE_BYTES = 12


class MasterKey:
    """A key for sealing: 32 random bytes, in base64 or as they are. `id` tells keys apart and nothing about them.

    Raises ConfigurationError.
    """

    __slots__ = ("_cipher", "id")

    def __init__(self, written: Secret) -> None:
        raw = Hidden(written.reveal())
        if len(raw) != _KEY_BYTES or raw.isascii():  # random bytes are not, but a password of 32 characters is
            try:
                raw = Hidden(base64.b64decode(raw, validate=True))
            except ValueError:
                raw = Hidden()
        if len(raw) != _KEY_BYTES:
            raise ConfigurationError("sealed: the master key is not 32 bytes in base64; make one with new_master_key()")
        self._cipher = AESGCM(raw)
        self.id = hashlib.sha256(b"apitokenproxy-sealed-key" + raw).hexdigest()[:16]

    def seal(self, place: bytes, material: bytes) -> str:
        """Return the material as it is written, for one place."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return base64.b64encode(nonce + self._cipher.encrypt(nonce, material, place)).decode()

    def open(self, place: bytes, written: str) -> bytes:
        """Return the material. Raises ValueError when the key is not this one, or anything was changed."""
        raw = base64.b64decode(written, validate=True)
        try:
            return self._cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], place)
        except InvalidTag:
            raise ValueError("it was changed, or sealed elsewhere") from None


def new_master_key() -> str:
    """Return a new master key as it is written. Keep it apart from what it seals."""
    return base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode()
