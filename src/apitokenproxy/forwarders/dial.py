"""Where a connection may go: every address that a name resolves to is judged before one is dialled.

Rules:
1. The name is resolved once for each connection, and the judged address itself is dialled, so that
   no second look-up can lead elsewhere. SNI and Host stay the name's.
2. One address that is not public refuses them all: an honest public name has no private addresses.
"""

import ssl
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path

import httpx

from apitokenproxy.errors import ForbiddenAddress, UpstreamUnreachable
from apitokenproxy.messages import Origin

# Not global in what they lead to, whatever this version's ipaddress says of them (RFC 3056, RFC 4380,
# RFC 6598, RFC 6890, RFC 7526, RFC 8215, RFC 9602, RFC 9637).
_NEVER_PUBLIC = tuple(
    ip_network(network)
    for network in (
        *("100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24"),
        *("::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16", "3fff::/20", "5f00::/16", "fec0::/10"),
    )
)
_NAT64 = ip_network("64:ff9b::/96")  # RFC 6052


def check_addresses(addresses: Sequence[str], *, allow_private: bool) -> None:
    """Raise ForbiddenAddress when one of the addresses is not public, unless private ones are meant."""
    if not allow_private:
        for address in addresses:
            if not is_public(address):
                raise ForbiddenAddress(
                    f"it resolves to {address}, which is not public; set allow_private if it is meant"
                )


def is_public(address: str) -> bool:
    """Tell whether an address is one of the public internet."""
    parsed: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        elif parsed in _NAT64:
            parsed = IPv4Address(int(parsed) & 0xFFFFFFFF)
    return (
        parsed.is_global
        and not parsed.is_multicast
        and not any(parsed.version == network.version and parsed in network for network in _NEVER_PUBLIC)
    )


def tls_context(origin: Origin) -> ssl.SSLContext | None:
    """Return the TLS settings for an origin, None for plain http: verification on, TLS 1.2 at least."""
    if origin.scheme != "https":
        return None
    context = httpx.create_ssl_context() if origin.ca is None else _trusting(origin.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _trusting(ca: str) -> ssl.SSLContext:
    if not Path(ca).is_file():
        raise UpstreamUnreachable(f"the ca file {ca} is gone")
    return ssl.create_default_context(cafile=ca)
