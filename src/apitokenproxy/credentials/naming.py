"""Names that credentials put on a request, checked when they are configured."""

import re

from apitokenproxy.errors import ConfigurationError
from apitokenproxy.wire import NEVER_INJECTED

_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^`|~-]+")  # RFC 9110 section 5.6.2, less "_"
_PARAMETER = re.compile(r"[A-Za-z0-9._~-]+")


def header_name(name: str) -> bytes:
    """Return a header name as bytes. Raises ConfigurationError."""
    if not _HEADER.fullmatch(name) or name.lower().encode() in NEVER_INJECTED:
        raise ConfigurationError(f"header name {name!r} cannot carry a credential; use one such as X-Api-Key")
    return name.encode()


def parameter_name(name: str) -> bytes:
    """Return a query parameter's name as bytes. Raises ConfigurationError."""
    if not _PARAMETER.fullmatch(name):
        raise ConfigurationError(f"query parameter {name!r}: use letters, digits and . _ ~ -")
    return name.encode()
