"""The client's address: the peer's, unless the peer is a proxy that the operator trusts.

`X-Forwarded-For` grows to the right: each proxy appends whom it saw. So its right-most address that
is not a trusted proxy's is the last one that somebody trusted has seen; what stands left of it was
written by a stranger and is never looked at. An entry may have a port (Azure's gateways write one), an
IPv6 address then stands in brackets.

Whoever calls over a Unix socket has no address: servers say so with an empty one, or with `unix:`.
"""

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, Literal

from apitokenproxy.guard.fields import Found

UNIX: Final = "unix:"
"""How callers over Unix sockets are named among the trusted."""
Network = IPv4Network | IPv6Network | Literal["unix:"]

_MOST_HOPS = 32
_WITH_PORT = re.compile(r"([0-9.]+)(?::[0-9]{1,5})|\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?")


def client_address(peer: str, found: Found, trusted: tuple[Network, ...]) -> str:
    """Return the client's address as text; the peer's when the chain of proxies is malformed."""
    by_unix = not peer or peer.startswith(UNIX)
    if not (UNIX in trusted if by_unix else _is_trusted(_parse(peer), trusted)):
        return peer
    hops = b",".join(found.get(b"x-forwarded-for", ())).decode("latin-1").split(",")
    client = None
    for hop in reversed(hops[-_MOST_HOPS:]):
        client = _parse(_without_port(hop.strip(" \t")))
        if client is None:
            return peer
        if not _is_trusted(client, trusted):
            break
    return str(client)


def _without_port(hop: str) -> str:
    found = _WITH_PORT.fullmatch(hop)
    return hop if found is None else found[1] or found[2]


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    if "%" in text:  # a zone is free text, and means nothing to anybody else
        return None
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_trusted(address: IPv4Address | IPv6Address | None, trusted: tuple[Network, ...]) -> bool:
    return address is not None and any(network != UNIX and address in network for network in trusted)
