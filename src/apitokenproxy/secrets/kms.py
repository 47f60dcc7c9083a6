"""`kms:PATH` and `kms:PATH#KEY`: a small file that AWS KMS decrypts, as a master key that only one role opens.

Rules:
1. What was encrypted is the secret, to the byte: a key of KMS itself is of any bytes.
2. KMS finds the key by what it encrypted. With KEY it is refused if that is another one: whoever can write the
   file and has a key of their own could put a secret of theirs in its place.
"""

import base64
import re
from hashlib import sha256

from apitokenproxy.errors import SecretMissing, SecretUnavailable
from apitokenproxy.messages import Secret
from apitokenproxy.secrets.aws_calls import AwsCalls
from apitokenproxy.secrets.reading import read_file, why_not

MAX_BYTES = 16384
"""Of the file. KMS takes ciphertexts of 6144 bytes (Decrypt, CiphertextBlob)."""

_REFERENCE = re.compile(r"(?P<path>[^#\x00-\x1f]+)(?:#(?P<key>[\w/:-]{1,2048}))?")


class AwsKmsProvider:
    """Reads a ciphertext at PATH, in base64 or as it is; KEY is the id, ARN or alias of the key it must be under.

    `timeout` is in seconds; region and credentials are those of AWS's own tools.
    """

    ttl = 300.0

    def __init__(self, *, region: str | None = None, endpoint: str | None = None, timeout: float = 5.0) -> None:
        self._calls = AwsCalls("kms", region=region, endpoint=endpoint, timeout=timeout)

    def fetch(self, reference: str) -> Secret:
        """Return what was encrypted; its version tells ciphertexts apart. Raises SecretMissing where no file is.

        Raises SecretUnavailable for all else.
        """
        found = _REFERENCE.fullmatch(reference)
        if found is None:
            raise SecretUnavailable("kms: a reference is the path of a file, or PATH#KEY")
        place = f"kms: {found['path']}"
        ciphertext = _ciphertext(found["path"], place)
        key = {"KeyId": found["key"]} if found["key"] else {}
        plaintext = self._calls.call("decrypt", place, CiphertextBlob=ciphertext, **key).get("Plaintext")
        if not isinstance(plaintext, bytes) or not plaintext:
            raise SecretUnavailable(f"{place} holds no secret")
        return Secret(plaintext, version=f"kms/{sha256(ciphertext).hexdigest()[:8]}")


def _ciphertext(path: str, place: str) -> bytes:
    try:
        held = read_file(path, MAX_BYTES)
    except (OSError, ValueError) as error:
        kind = SecretMissing if isinstance(error, FileNotFoundError | NotADirectoryError) else SecretUnavailable
        raise kind(f"{place} cannot be read: {why_not(error)}") from None
    if not held or len(held) > MAX_BYTES:
        raise SecretUnavailable(f"{place} is empty or larger than 16 KiB; it must hold the ciphertext alone")
    try:
        return base64.b64decode(
            b"".join(held.split()), validate=True
        )  # of what KMS makes no byte is the first of base64
    except ValueError:
        return held  # KMS's own bytes, which begin with one that base64 does not have
