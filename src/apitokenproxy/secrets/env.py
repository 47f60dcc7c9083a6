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
        """Return the variable's value. Raises SecretUnavailable when it is not set, empty or malformed."""
        value = os.environ.get(reference)
        if not value:
            raise SecretUnavailable(f"environment variable {reference} is not set; export it before starting")
        try:
            return Secret(os.fsencode(value))
        except ValueError:
            raise SecretUnavailable(
                f"environment variable {reference} holds a control character or newline; set it again without"
            ) from None
