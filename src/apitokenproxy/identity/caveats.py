"""Caveats: what a narrowed token is still good for.

Rules:
1. Every caveat takes something away: a token is good for what its parent and each of its caveats allow.
2. One that is not understood in every part refuses the token: nothing of it may be overlooked.
3. Where a backend could read a path in several ways, each of them must be below the prefix.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from attrs import frozen

from apitokenproxy.errors import ConfigurationError
from apitokenproxy.messages import Grant

_LAST_MOMENT = 2**40  # seconds since the epoch: the year 36812
MOST_VALUES = 100
"""How many values the caveats of one token may list in all: each costs something to judge."""


@frozen
class Caveat:
    """What one caveat leaves of a token; None where it says nothing.

    `upstreams` and `rules` hold names, `methods` methods, `paths` the segments of path prefixes below the
    upstream's name, `addresses` networks, `scopes` the scopes that are kept; `expires` is in seconds since
    the epoch.
    """

    methods: frozenset[str] | None = None
    upstreams: frozenset[str] | None = None
    paths: tuple[tuple[str, ...], ...] | None = None
    addresses: tuple[IPv4Network | IPv6Network, ...] | None = None
    rules: frozenset[str] | None = None
    scopes: frozenset[str] | None = None
    expires: int | None = None

    def excludes(self, grant: Grant) -> str:
        """Return what of a grant is not covered, in a word; empty when all is."""
        operation = grant.operation
        if self.methods is not None and operation.method.decode() not in self.methods:
            return "method"
        if self.upstreams is not None and operation.upstream not in self.upstreams:
            return "upstream"
        if self.paths is not None and not all(map(self._covers, operation.readings)):
            return "path"
        if self.addresses is not None and not self._is_near(operation.address):
            return "address"
        if self.rules is not None and grant.rule not in self.rules:
            return "rule"
        return ""

    def _covers(self, reading: tuple[str, ...]) -> bool:
        return any(reading[: len(prefix)] == prefix for prefix in self.paths or ())

    def _is_near(self, address: str) -> bool:
        try:
            found = ip_address(address)
        except ValueError:
            return False
        found = getattr(found, "ipv4_mapped", None) or found
        return any(found in network for network in self.addresses or ())


def read_caveats(texts: Iterable[bytes]) -> tuple[Caveat, ...]:
    """Return the caveats that JSON objects state. Raises ValueError for whatever is not understood, or is too much."""
    stated = [strict_json(text) for text in texts]
    if not all(isinstance(terms, dict) and terms for terms in stated):
        raise ValueError("a caveat is an object that states something")
    if sum(len(value) for terms in stated for value in terms.values() if isinstance(value, list)) > MOST_VALUES:
        raise ValueError("too many values")
    return tuple(map(made_caveat, stated))


def made_caveat(terms: Mapping[str, Any]) -> Caveat:
    """Return the caveat of these terms. Raises ConfigurationError, which is a ValueError too."""
    values = {}
    for name, value in terms.items():
        read = _READERS.get(name)
        if read is None:
            raise ConfigurationError(f"a token cannot be narrowed by {name!r}; use {', '.join(_READERS)}")
        values[name] = read(name, value)
    return Caveat(**values)


def strict_json(text: bytes) -> Any:
    """Return what JSON says, with no key twice and no number that is none. Raises ValueError."""
    try:
        return json.loads(text.decode("ascii"), object_pairs_hook=_once, parse_constant=_refused)
    except RecursionError:
        raise ValueError("too deep") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands there twice")
    return found


def _refused(_name: str) -> Any:
    raise ValueError("not a number")


def _texts(name: str, value: Any) -> frozenset[str]:
    if not isinstance(value, list) or len(value) > MOST_VALUES or not all(isinstance(v, str) and v for v in value):
        raise ConfigurationError(f"{name} must be a list of texts, at most {MOST_VALUES}")
    return frozenset(value)


def _some_texts(name: str, value: Any) -> frozenset[str]:
    found = _texts(name, value)
    if not found:
        raise ConfigurationError(f"{name} is empty, so the token would be good for nothing; leave it out")
    return found


def _methods(name: str, value: Any) -> frozenset[str]:
    found = _some_texts(name, value)
    for method in found:
        if not (method.isascii() and method.replace("-", "").isalpha() and method.isupper()):
            raise ConfigurationError(f"method {method!r} must be in capitals, as GET is")
    return found


def _paths(name: str, value: Any) -> tuple[tuple[str, ...], ...]:
    found = []
    for path in sorted(_some_texts(name, value)):
        if not path.startswith("/"):
            raise ConfigurationError(f"path {path!r} must begin with a slash")
        segments = path.removesuffix("/").split("/")[1:]
        if {".", ".."} & set(segments):
            raise ConfigurationError(f"path {path!r} has a dot segment, below which nothing is ever forwarded")
        found.append(tuple(segments))
    return tuple(found)


def _addresses(name: str, value: Any) -> tuple[IPv4Network | IPv6Network, ...]:
    found = []
    for network in sorted(_some_texts(name, value)):
        try:
            found.append(_network(network))
        except ValueError:
            raise ConfigurationError(f"{network!r} is not an address or network, as 10.0.0.0/8 is") from None
    return tuple(found)


_network = lru_cache(maxsize=1024)(ip_network)  # 50 µs to read one


def _moment(name: str, value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _LAST_MOMENT:
        raise ConfigurationError(f"{name} must be whole seconds since 1970")
    return value


_READERS: Mapping[str, Callable[[str, Any], Any]] = {
    "methods": _methods,
    "upstreams": _some_texts,
    "paths": _paths,
    "addresses": _addresses,
    "rules": _some_texts,
    "scopes": _texts,
    "expires": _moment,
}
