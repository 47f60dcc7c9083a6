"""`env:NAME`: a secret in an environment variable."""

import os

from apitokenproxy._colour import nonblocking
from apitokenproxy.errors import SecretUnavailable
from apitokenproxy.messages import Secret


class EnvProvider:
    """Reads environment variables of this process."""

    ttl = 60.0

    @nonblocking
    def fetch(self, reference: str) -> Secret:
        """Return the variable's value. Raises SecretUnavailable when it is not set or empty."""
        value = os.environ.get(reference)
        if not value:
            raise SecretUnavailable(f"environment variable {reference} is not set; export it before starting")
        return Secret(os.fsencode(value))
