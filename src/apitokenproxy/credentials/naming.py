"""Names that credentials put on a request, and the endpoints they ask, checked when they are configured."""

import re
from urllib.parse import urlsplit

from apitokenproxy.errors import ConfigurationError
from apitokenproxy.wire import NEVER_INJECTED

_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^`|~-]+")  # RFC 9110 section 5.6.2, less "_"
_PARAMETER = re.compile(r"[A-Za-z0-9._~-]+")
_URL = re.compile(r"[!-~]+")


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


def endpoint(kind: str, key: str, url: str, *, allow_private: bool) -> None:
    """Raise ConfigurationError for what is no https URL; with `allow_private`, plain http is one too."""
    schemes = {"https", "http"} if allow_private else {"https"}
    try:
        parts = urlsplit(url)
        usable = bool(_URL.fullmatch(url) and parts.scheme in schemes and parts.hostname and parts.port != 0)
        usable = usable and "@" not in parts.netloc
    except ValueError:
        usable = False
    if not usable:
        plain = not allow_private and url.startswith("http://")
        hint = ", or set allow_private of the credential where plain http is meant" if plain else ""
        shown = "" if "@" in url else f" {url!r}"  # a password may stand before the @
        raise ConfigurationError(f"credential {kind}: {key}{shown} must be an https URL without a user{hint}")
