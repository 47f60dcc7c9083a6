"""Places that differ from caller to caller: `{tenant}` and `{subject}` in the name of one.

Rule: they are filled in from the verified caller, and only with a plain name, so that nobody's name leads elsewhere.
"""

import re

from apitokenproxy.errors import NoSecretForCaller

_FIELD = re.compile(r"\{([^{}]*)\}")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}")


def fields_of(place: str) -> list[str]:
    """Return what is to be filled in, as often as it stands there."""
    return _FIELD.findall(place)


def fill_in(place: str, **names: str) -> str:
    """Return a place with the caller's names in it. Raises NoSecretForCaller for one that is not plain."""

    def fill(found: re.Match[str]) -> str:
        name = names[found[1]]
        if not name:
            raise NoSecretForCaller(f"no {found[1]} is named, and its secret is looked up by that")
        if not _PLAIN_NAME.fullmatch(name) or ".." in name:
            raise NoSecretForCaller(f"the caller's {found[1]} is not a plain name, so no secret is looked up for it")
        return name

    return _FIELD.sub(fill, place)
