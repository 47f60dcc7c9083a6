"""Which addresses a connection may go to.

Rules:
1. One address that is not public refuses them all: an honest public name has no private addresses.
2. An IPv6 address is one of the internet only where IANA has given addresses out (2000::/3), or where it
   stands for an IPv4 address that is. What is neither may be routed anywhere, by whoever translates it.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from apitokenproxy.errors import ForbiddenAddress

# Not global in what they lead to, whatever this version's ipaddress says of them (RFC 3056, RFC 4380,
# RFC 6598, RFC 6890, RFC 7526, RFC 9637). 168.63.129.16 is the platform itself, seen from a machine of Azure.
_NEVER_PUBLIC = tuple(
    ip_network(network)
    for network in (
        *("100.64.0.0/10", "168.63.129.16/32", "192.0.0.0/24", "192.88.99.0/24"),
        *("2001::/32", "2002::/16", "3fff::/20"),
    )
)
_GIVEN_OUT = ip_network("2000::/3")
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
        elif parsed not in _GIVEN_OUT:
            return False
    return (
        parsed.is_global
        and not parsed.is_multicast
        and not any(parsed.version == network.version and parsed in network for network in _NEVER_PUBLIC)
    )
