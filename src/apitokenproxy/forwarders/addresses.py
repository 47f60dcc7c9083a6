"""Which addresses a connection may go to.

One address that is not public refuses them all: an honest public name has no private addresses.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from apitokenproxy.errors import ForbiddenAddress

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
