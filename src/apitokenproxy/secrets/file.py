"""`file:PATH`: a secret in a file, as Docker and Kubernetes mount them."""

import os
import stat

from apitokenproxy.errors import SecretUnavailable
from apitokenproxy.messages import Secret

MAX_BYTES = 65536


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # opening a pipe that nobody writes to would wait for ever


class FileProvider:
    """Reads files. One trailing newline is not part of the secret. A change is seen within a second."""

    ttl = 1.0

    def fetch(self, reference: str) -> Secret:
        """Return the file's content. Raises SecretUnavailable when it cannot be read or is no secret."""
        try:
            with open(reference, "rb", opener=_without_waiting) as file:
                if stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
                    raise SecretUnavailable(f"secret file {reference} is a pipe; it must be an ordinary file")
                material = file.read(MAX_BYTES + 1)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "its path holds a NUL"
            raise SecretUnavailable(f"secret file {reference} cannot be read: {reason}") from None
        if len(material) > MAX_BYTES:
            raise SecretUnavailable(f"secret file {reference} is larger than 64 KiB; it must hold the secret alone")
        material = material.removesuffix(b"\n").removesuffix(b"\r")
        if not material:
            raise SecretUnavailable(f"secret file {reference} is empty; it must hold the secret alone")
        return Secret(material)
