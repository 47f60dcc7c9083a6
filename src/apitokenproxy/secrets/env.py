"""`env:NAME`: a secret in an environment variable."""

import os

from apitokenproxy._colour import nonblocking
from apitokenproxy.errors import SecretMissing, SecretUnavailable
from apitokenproxy.messages import Secret


class EnvProvider:
    """Reads environment variables of this process."""

    ttl = 60.0

    @nonblocking
    def fetch(self, reference: str) -> Secret:
        """Return the variable's value. Raises SecretMissing when it is not set, SecretUnavailable when it is empty."""
        value = os.environ.get(reference)
        if value is None:
            raise SecretMissing(f"environment variable {reference} is not set; export it before starting")
        if not value:
            raise SecretUnavailable(f"environment variable {reference} is empty; it must hold the secret")
        return Secret(os.fsencode(value))
