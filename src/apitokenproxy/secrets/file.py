"""`file:PATH`: a secret in a file, as Docker and Kubernetes mount them."""

from pathlib import Path

from apitokenproxy.errors import SecretMissing, SecretUnavailable
from apitokenproxy.messages import Secret
from apitokenproxy.secrets.reading import read_file, why_not

MAX_BYTES = 65536


class FileProvider:
    """Reads files. One trailing newline is not part of the secret. A change is seen within a second."""

    ttl = 1.0

    def fetch(self, reference: str) -> Secret:
        """Return the file's content. Raises SecretMissing where none is, SecretUnavailable when it is not readable."""
        try:
            material = read_file(reference, MAX_BYTES)
        except (OSError, ValueError) as error:
            missing = isinstance(error, FileNotFoundError) and Path(reference).parent.is_dir()
            kind = SecretMissing if missing else SecretUnavailable  # without its folder nothing is mounted there
            raise kind(f"secret file {reference} cannot be read: {why_not(error)}") from None
        if len(material) > MAX_BYTES:
            raise SecretUnavailable(f"secret file {reference} is larger than 64 KiB; it must hold the secret alone")
        material = material.removesuffix(b"\n").removesuffix(b"\r")
        if not material:
            raise SecretUnavailable(f"secret file {reference} is empty; it must hold the secret alone")
        return Secret(material)
