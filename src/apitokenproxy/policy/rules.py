"""The rules as a policy engine: a deny always wins, and nothing matching is a denial."""

from collections.abc import Collection, Sequence

from apitokenproxy._colour import nonblocking
from apitokenproxy.errors import ConfigurationError
from apitokenproxy.messages import Caller, Denial, Grant, Operation
from apitokenproxy.policy.rule import Rule

_LONGEST_REASON = 300


class Rules:
    """Decides by rules. A deny is tried on every reading of the path, an allow on the plain one."""

    def __init__(self, rules: Sequence[Rule], *, upstreams: Collection[str] | None = None) -> None:
        ids: set[str] = set()
        for rule in rules:
            if rule.id in ids:
                raise ConfigurationError(f"rule {rule.id}: another rule has this id; give each its own")
            ids.add(rule.id)
            if upstreams is not None and rule.upstream is not None and rule.upstream not in upstreams:
                known = ", ".join(sorted(upstreams))
                raise ConfigurationError(f"rule {rule.id}: there is no upstream {rule.upstream!r}; there are: {known}")
        names = {rule.upstream for rule in rules if rule.upstream is not None}
        self._anywhere = _sorted_out([rule for rule in rules if rule.upstream is None])
        self._by_upstream = {
            name: _sorted_out([rule for rule in rules if rule.upstream in {None, name}]) for name in names
        }

    @nonblocking
    def decide(self, caller: Caller, operation: Operation) -> Grant | Denial:
        """Return a Grant naming the rule that allows, or a Denial saying why not."""
        denies, allows = self._by_upstream.get(operation.upstream, self._anywhere)
        method = operation.method
        for rule in denies:
            if rule.methods is not None and method not in rule.methods:
                continue
            for reading in operation.readings:
                if not rule.mismatch(caller, operation, reading):
                    return Denial(f"rule {rule.id} denies it", rule.id)
        plain = operation.readings[0]
        excluded = None
        for rule in allows:
            if not rule.mismatch(caller, operation, plain):
                grant = Grant(caller, operation, rule.id)
                if not caller.caveats or not caller.excludes(grant):
                    return grant
                excluded = excluded or grant  # another rule may be one by which a narrowed token may be used
        return excluded or Denial(_why_not(allows, caller, operation))


def _sorted_out(rules: Sequence[Rule]) -> tuple[tuple[Rule, ...], tuple[Rule, ...]]:
    denies = tuple(rule for rule in rules if rule.effect == "deny")
    return denies, tuple(rule for rule in rules if rule.effect == "allow")


def _why_not(allows: Sequence[Rule], caller: Caller, operation: Operation) -> str:
    if not allows:
        return f"no rule allows anything on {operation.upstream}"
    misses = [f"{rule.id}: {rule.mismatch(caller, operation, operation.readings[0])}" for rule in allows]
    reason = "no rule allows it; what did not match: " + ", ".join(misses)
    return reason if len(reason) <= _LONGEST_REASON else reason[: _LONGEST_REASON - 1] + "…"
