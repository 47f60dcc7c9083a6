"""`file:PATH`: a secret in a file, as Docker and Kubernetes mount them."""

from pathlib import Path

from apitokenproxy.errors import SecretUnavailable
from apitokenproxy.messages import Secret

MAX_BYTES = 65536


class FileProvider:
    """Reads files. One trailing newline is not part of the secret. A change is seen within a second."""

    ttl = 1.0

    def fetch(self, reference: str) -> Secret:
        """Return the file's content. Raises SecretUnavailable when it cannot be read or is no secret."""
        try:
            with Path(reference).open("rb") as file:
                material = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise SecretUnavailable(f"secret file {reference} cannot be read: {error.strerror}") from None
        if len(material) > MAX_BYTES:
            raise SecretUnavailable(f"secret file {reference} is larger than 64 KiB; it must hold the secret alone")
        material = material.removesuffix(b"\n").removesuffix(b"\r")
        try:
            return Secret(material)
        except ValueError:
            raise SecretUnavailable(
                f"secret file {reference} is empty or has several lines; it must hold the secret alone"
            ) from None
