"""Operations as the rules see them."""

from collections.abc import Mapping
from typing import Any

from apitokenproxy import Caller, Denial, Grant, Operation, Rule
from apitokenproxy.messages import Request
from apitokenproxy.policy.rules import Rules

ACME = Caller(
    tenant="acme",
    subject="ada",
    scopes=frozenset({"read", "write"}),
    attributes={"org": "octo", "orgs": ("octo", "hub"), "number": 7, "blank": "", "mixed": ("octo", 7), "none": None},
    token_id="t1",
)


def operation(path: str = "/a", method: str = "GET", upstream: str = "api", others: tuple[str, ...] = ()) -> Operation:
    """Return an operation on a path; `others` are further ways in which a backend might read it."""
    readings = tuple(tuple(reading[1:].split("/")) for reading in (path, *others))
    raw = path.encode()
    request = Request(method.encode(), b"/" + upstream.encode() + raw, [])
    return Operation(upstream, method.encode(), raw, b"", readings, [], None, 0, b"proxy", "192.0.2.1", request)


def allow(name: str = "allow", **terms: Any) -> Rule:
    return Rule(name, effect="allow", **terms)


def deny(name: str = "deny", **terms: Any) -> Rule:
    return Rule(name, effect="deny", **terms)


def verdict(rules: list[Rule], caller: Caller = ACME, **what: Any) -> Grant | Denial:
    return Rules(rules).decide(caller, operation(**what))


def allows(rules: list[Rule], caller: Caller = ACME, **what: Any) -> bool:
    return isinstance(verdict(rules, caller, **what), Grant)


def where(**conditions: Any) -> Mapping[str, Any]:
    """Return conditions; `__` stands for a dot."""
    return {key.replace("__", "."): value for key, value in conditions.items()}
