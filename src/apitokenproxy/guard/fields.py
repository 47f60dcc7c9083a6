"""Sorting header fields: those that pass, those that are read here, and those that are dropped.

Rules:
1. No field with a control character (a tab is none) or with a name that is not a token passes
   (RFC 9110, section 5.5 and 5.6.2). Both are judged for dropped fields too.
2. What `Connection` nominates is dropped, whatever it is, before anything of ours is put on.
3. Names that pass keep their case and their order; values are never touched.
4. What becomes of a field depends on its name alone, and programs send the same names again and
   again: it is worked out once for a list of names and kept.
"""

from collections.abc import Callable
from functools import lru_cache
from itertools import compress

from attrs import Factory, define, field, frozen

from apitokenproxy.errors import ProxyError
from apitokenproxy.messages import Headers
from apitokenproxy.wire import CONTROLS, NAME

PERCENT = ord("%")

Found = dict[bytes, list[bytes]]
"""The values of the fields that are read, under their lower-case names, in order."""

_KEPT_PLANS = 128


@frozen
class _Plan:
    """What becomes of the fields of a message with certain names."""

    passes: tuple[bool, ...]
    passing: bytes
    """The names that pass, joined."""
    size: int
    """How many bytes all names have."""
    once: tuple[tuple[bytes, int], ...]
    """The fields that are read and stand there once, with their places."""
    repeated: tuple[tuple[bytes, tuple[int, ...]], ...]


@define
class Sorted:
    """The fields of a message: those that pass, and the values of those that are read.

    `text` is all values and the names that pass, joined, to search in. `size` counts all bytes.
    """

    kept: Headers
    found: Found
    text: bytes
    size: int


@frozen
class Sorter:
    """What becomes of each field, by its lower-case name.

    Those of `read` are read, rather than dropped; those of `dropped`, and what begins with one of
    `prefixes`, are dropped; all others pass. `aliases` says whether a name with `_` passes: in
    requests it does not, because many backends take it for the same name with `-`. `refusal` is
    raised for a malformed field.
    """

    read: frozenset[bytes]
    dropped: frozenset[bytes]
    prefixes: tuple[bytes, ...]
    aliases: bool
    refusal: type[ProxyError]
    _plan: Callable[[tuple[bytes, ...]], _Plan] = field(
        init=False,
        repr=False,
        eq=False,
        default=Factory(lambda self: lru_cache(_KEPT_PLANS)(self._make), takes_self=True),
    )

    def sort(self, headers: Headers) -> Sorted:
        """Sort the fields of a message. Raises `refusal`."""
        names, values = zip(*headers) if headers else ((), ())  # noqa: B905 - pairs; a keyword costs 0.1 µs
        plan = self._plan(names)
        text = b" ".join((*values, plan.passing))
        if text.translate(None, CONTROLS) != text:
            raise self.refusal("a header holds a control character")
        found = {name: [values[place]] for name, place in plan.once}
        for name, places in plan.repeated:
            found[name] = [values[place] for place in places]
        kept = list(compress(headers, plan.passes))
        if gone := nominated(found):
            kept = [header for header in kept if header[0].lower() not in gone]
        return Sorted(kept, found, text, len(text) + plan.size)

    def _make(self, names: tuple[bytes, ...]) -> _Plan:
        lower = [name.lower() for name in names]
        for name in lower:
            if not name or name.translate(None, NAME):
                raise self.refusal("a header's name is not a token")
        passes = tuple(map(self._passes, lower))
        places: dict[bytes, list[int]] = {}
        for place, name in enumerate(lower):
            if name in self.read:
                places.setdefault(name, []).append(place)
        return _Plan(
            passes,
            b" ".join(compress(names, passes)),
            sum(map(len, names)),
            tuple((name, at[0]) for name, at in places.items() if len(at) == 1),
            tuple((name, tuple(at)) for name, at in places.items() if len(at) > 1),
        )

    def _passes(self, name: bytes) -> bool:
        if name in self.read or name in self.dropped or name.startswith(self.prefixes):
            return False
        return self.aliases or b"_" not in name


_NOMINATE_NOTHING = ([b"keep-alive"], [b"close"], [b"Keep-Alive"], [b"Close"])
_NOTHING: frozenset[bytes] = frozenset()


def nominated(found: Found) -> frozenset[bytes]:
    """Return the lower-case names that `Connection` fields declare to be about this connection."""
    connection = found.get(b"connection")
    if connection is None or connection in _NOMINATE_NOTHING:
        return _NOTHING
    return frozenset(option.strip(b" \t").lower() for option in b",".join(connection).split(b","))
