"""Sorting header fields: those that pass, those that are read here, and those that are dropped.

Rules:
1. No field with a control character (a tab is none) or with a name that is not a token passes
   (RFC 9110, section 5.5 and 5.6.2). Both are judged for dropped fields too.
2. What `Connection` nominates is dropped, whatever it is, before anything of ours is put on.
3. Names that pass keep their case and their order; values are never touched.
"""

from collections.abc import Iterable, Mapping
from itertools import chain

from attrs import frozen

from apitokenproxy.errors import ProxyError
from apitokenproxy.messages import Headers

CONTROLS = bytes([*range(9), *range(10, 32), 127])
"""Characters that must not stand in a field value."""

NAME = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
"""Characters that a field name, in lower case, is made of."""

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"te",
        b"trailer",
        b"trailers",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Fields that are about one connection (RFC 9110, section 7.6.1; RFC 7540, section 3.2.1)."""

Found = dict[bytes, list[bytes]]
"""The values of the fields that are read, under their lower-case names, in order."""


Fate = bool | bytes
"""What becomes of a field: True, it passes; False, it is dropped; a name, it is read under that name."""


def fates(passed: Iterable[bytes], read: Iterable[bytes], dropped: Iterable[bytes]) -> dict[bytes, Fate]:
    """Return what becomes of the named fields, in lower case and in Title-Case, as most software writes them.

    What stands in two groups is read rather than dropped, and dropped rather than passed.
    """
    table: dict[bytes, Fate] = {}
    for name in chain.from_iterable((name, name.title()) for name in passed):
        table[name] = True
    for name in chain.from_iterable((name, name.title()) for name in dropped):
        table[name] = False
    for name in read:
        table[name] = table[name.title()] = name
    return table


@frozen
class Sorter:
    """What becomes of each field.

    `fates` holds the known names; those that pass are in it only to save time. A name that is in it
    in lower case has that fate in every case. Of the others, what begins with one of `prefixes` is
    dropped. `aliases` says whether a name with `_` passes: in requests it does not, because many
    backends take it for the same name with `-`. `refusal` is raised for a malformed field.
    """

    fates: Mapping[bytes, Fate]
    prefixes: tuple[bytes, ...]
    aliases: bool
    refusal: type[ProxyError]

    def sort(self, headers: Headers, blob: bytes) -> tuple[Headers, Found]:
        """Return the fields that pass and the values of those that are read.

        `blob` is all names and values joined. Raises `refusal`.
        """
        if blob.translate(None, CONTROLS) != blob:
            raise self.refusal("a header holds a control character")
        kept: Headers = []
        found: Found = {}
        fate_of = self.fates.get
        for header in headers:
            name, value = header
            fate = fate_of(name)
            if fate is None:
                fate = fate_of(name.lower())
                if fate is None:
                    fate = self._judge(name.lower())
            if fate is True:
                kept.append(header)
            elif fate is not False:
                if fate in found:
                    found[fate].append(value)
                else:
                    found[fate] = [value]
        connection = found.get(b"connection")
        if connection is not None and (len(connection) > 1 or connection[0] not in _PLAIN_CONNECTION):
            gone = nominated(connection)
            kept = [header for header in kept if header[0].lower() not in gone]
        return kept, found

    def _judge(self, name: bytes) -> bool:
        """Say whether an unknown field passes."""
        if not name or name.translate(None, NAME):
            raise self.refusal("a header's name is not a token")
        return (self.aliases or b"_" not in name) and not name.startswith(self.prefixes)


_PLAIN_CONNECTION = frozenset({b"keep-alive", b"close", b"Keep-Alive", b"Close"})


def nominated(connection: list[bytes]) -> frozenset[bytes]:
    """Return the lower-case names that `Connection` fields declare to be about this connection."""
    return frozenset(option.strip(b" \t").lower() for option in b",".join(connection).split(b","))
