"""What users write of a proxy, as its parts take it. Each function raises ConfigurationError, one sentence."""

from collections.abc import Iterable
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Literal

from apitokenproxy.errors import ConfigurationError
from apitokenproxy.upstream import Upstream


def by_name(upstreams: Iterable[Upstream]) -> dict[str, Upstream]:
    """Return upstreams by their names. Raises ConfigurationError."""
    found: dict[str, Upstream] = {}
    for upstream in upstreams:
        if upstream.name in found:
            raise ConfigurationError(f"upstream {upstream.name} is named twice; give each its own name")
        found[upstream.name] = upstream
    if not found:
        raise ConfigurationError("upstreams is empty; name at least one API to stand before")
    return found


def prefix_of(prefix: str) -> bytes:
    """Return the raw path below which the proxy is mounted, without a slash at its end. Raises ConfigurationError."""
    stripped = prefix.rstrip("/")
    if stripped and not (stripped.startswith("/") and stripped.isascii() and "//" not in stripped):
        raise ConfigurationError(f"prefix {prefix!r} must begin with a slash, as /proxy does")
    return stripped.encode()


def header_name(name: str | None) -> bytes | None:
    """Return a header's name in lower case. Raises ConfigurationError."""
    if name is None:
        return None
    if not name or not all(letter.isascii() and (letter.isalnum() or letter == "-") for letter in name):
        raise ConfigurationError(f"token_header {name!r} is not a header name; use letters, digits and hyphens")
    return name.lower().encode()


def seconds_of(name: str, length: timedelta) -> float:
    """Return how many seconds a length of time has. Raises ConfigurationError for what is none."""
    if not isinstance(length, timedelta):
        raise ConfigurationError(f"{name} is {length!r}; it must be a timedelta, as timedelta(seconds=5)")
    return length.total_seconds()


def network(address: str) -> IPv4Network | IPv6Network | Literal["unix:"]:
    """Return an address as a network of one, or a network, or `unix:` as it is. Raises ConfigurationError."""
    if address == "unix:":
        return "unix:"
    try:
        return ip_network(address)
    except ValueError:
        raise ConfigurationError(
            f"trusted_proxies: {address!r} is not an address or network, as 10.0.0.0/8 is, nor unix:"
        ) from None
