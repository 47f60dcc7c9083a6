"""Rule: one declared permission or prohibition. A value that checks itself and can be asked."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from attrs import Factory, field, frozen

from apitokenproxy.errors import ConfigurationError
from apitokenproxy.messages import Caller, Operation
from apitokenproxy.policy.template import Template, compile_template

Values = tuple[str, ...]
Condition = tuple[str, str | Values]
Known = str | frozenset[str]
"""What a reference stands for: one text, or several of which one must match."""
Side = Callable[[Caller, Mapping[str, str]], Known | None]
"""One side of a comparison: for a caller and what the path's names stand for; None when it cannot be known."""

_REFERENCE = re.compile(
    r"path\.[A-Za-z_][A-Za-z0-9_]*|caller\.(?:tenant|subject)|caller\.attributes\.[A-Za-z_][A-Za-z0-9_-]*"
)


def _names(value: Iterable[str] | None) -> Values | None:
    if value is None:
        return None
    if isinstance(value, str):
        raise ConfigurationError(f"a rule's methods, tenants, subjects and scopes are lists, as [{value!r}]")
    return tuple(value)


def _methods(value: Iterable[str] | None) -> frozenset[bytes] | None:
    names = _names(value)
    return None if names is None else frozenset(name.encode() for name in names)


def _conditions(value: Mapping[str, Any] | None) -> tuple[Condition, ...]:
    if value is None:
        return ()
    return tuple((key, text if isinstance(text, str) else tuple(text)) for key, text in value.items())


@frozen
class Rule:
    """Who (`tenants`, `subjects`, `scopes`) may or may not do what (`upstream`, `methods`, `path`).

    What is left out matches anything. `tenants` and `subjects` list alternatives; of `scopes` the
    caller must hold all. `path` is a template such as `/repos/{owner}/**` below the upstream's name,
    compared case-sensitively with decoded segments. `where` compares what `path.NAME`,
    `caller.tenant`, `caller.subject` or `caller.attributes.NAME` stands for with another of these,
    with a text, or with a list of texts of which one must match.

    What cannot be known (an attribute that the caller does not have, or that is not text) never
    matches an allow and always matches a deny. Raises ConfigurationError.
    """

    id: str
    effect: str = field(kw_only=True)
    upstream: str | None = field(default=None, kw_only=True)
    methods: frozenset[bytes] | None = field(default=None, kw_only=True, converter=_methods)
    path: str | None = field(default=None, kw_only=True)
    tenants: Values | None = field(default=None, kw_only=True, converter=_names)
    subjects: Values | None = field(default=None, kw_only=True, converter=_names)
    scopes: Values | None = field(default=None, kw_only=True, converter=_names)
    where: tuple[Condition, ...] = field(default=None, kw_only=True, converter=_conditions)

    template: Template | None = field(
        init=False,
        repr=False,
        eq=False,
        default=Factory(lambda self: None if self.path is None else self._compiled(), takes_self=True),
    )
    conditions: tuple[tuple[str, Side, Side], ...] = field(
        init=False, repr=False, eq=False, default=Factory(lambda self: _compared(self.where), takes_self=True)
    )

    def __attrs_post_init__(self) -> None:
        if not self.id:
            raise ConfigurationError("a rule needs an id, so that the audit record can name it")
        if self.effect not in {"allow", "deny"}:
            raise ConfigurationError(f"rule {self.id}: effect is {self.effect!r}; it must be 'allow' or 'deny'")
        for name in ("methods", "tenants", "subjects", "scopes"):
            if getattr(self, name) is not None and not getattr(self, name):
                raise ConfigurationError(f"rule {self.id}: {name} is empty; leave it out to match any")
        for method in self.methods or ():
            if not method.isalpha() or not method.isupper():
                raise ConfigurationError(f"rule {self.id}: method {method.decode()!r} must be in capitals, as GET is")
        for key, value in self.where:
            self._check_reference(key)
            if isinstance(value, str) and value.startswith(("path.", "caller.")):
                self._check_reference(value)
            if not value:
                raise ConfigurationError(f"rule {self.id}: where {key!r} compares with nothing")

    def _compiled(self) -> Template:
        try:
            return compile_template(self.path or "")
        except ConfigurationError as error:
            raise ConfigurationError(f"rule {self.id}: {error}") from None

    def _check_reference(self, text: str) -> None:
        if not _REFERENCE.fullmatch(text):
            raise ConfigurationError(
                f"rule {self.id}: where {text!r} is not known; "
                "use path.NAME, caller.tenant, caller.subject or caller.attributes.NAME"
            )
        kind, _, name = text.partition(".")
        if kind == "path" and (self.template is None or name not in {known for _, known in self.template.names}):
            raise ConfigurationError(f"rule {self.id}: where {text!r} needs {{{name}}} in the path")

    def mismatch(self, caller: Caller, operation: Operation, reading: tuple[str, ...]) -> str:
        """Return the first thing that does not match, in a word; empty when the rule applies."""
        if self.methods is not None and operation.method not in self.methods:
            return "method"
        if self.tenants is not None and caller.tenant not in self.tenants:
            return "tenant"
        if self.subjects is not None and caller.subject not in self.subjects:
            return "subject"
        if self.scopes is not None and not self._scopes_of(caller).issuperset(self.scopes):
            return "scopes"
        found: Mapping[str, str] = {}
        if self.template is not None:
            matched = self.template.match(reading)
            if matched is None:
                return "path"
            found = matched
        for key, left_of, right_of in self.conditions:
            if not self._holds(left_of(caller, found), right_of(caller, found)):
                return key
        return ""

    def _scopes_of(self, caller: Caller) -> frozenset[str]:
        """Return what counts as held: a denial is not lifted by narrowing a token."""
        return caller.scopes | caller.given_up if self.effect == "deny" and caller.given_up else caller.scopes

    def _holds(self, left: Known | None, right: Known | None) -> bool:
        if left is None or right is None:
            return self.effect == "deny"
        return left == right or _meet(left, right)


def _meet(left: Known, right: Known) -> bool:
    """Say whether two sides have a text in common, of which at least one is several."""
    if isinstance(left, str):
        return not isinstance(right, str) and left in right
    return right in left if isinstance(right, str) else not left.isdisjoint(right)


def _compared(where: tuple[Condition, ...]) -> tuple[tuple[str, Side, Side], ...]:
    return tuple((key, _reader(key), _reader(expected)) for key, expected in where)


def _reader(side: str | Values) -> Side:
    """Return the function that says what one side of a comparison stands for."""
    if isinstance(side, tuple):
        several = frozenset(side)
        return lambda _caller, _found: several
    if side == "caller.tenant":
        return lambda caller, _found: caller.tenant or None
    if side == "caller.subject":
        return lambda caller, _found: caller.subject or None
    if side.startswith("path."):
        name = side.removeprefix("path.")
        return lambda _caller, found: found.get(name)
    if side.startswith("caller.attributes."):
        name = side.removeprefix("caller.attributes.")
        return lambda caller, _found: _texts(caller.attributes.get(name))
    return lambda _caller, _found: side


def _texts(value: Any) -> Known | None:
    """Return an attribute's value; None when it is not text, or not several texts."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, list | tuple | set | frozenset) and value and all(isinstance(v, str) and v for v in value):
        return frozenset(value)
    return None
