"""Path templates: literal segments, `{name}` for one segment, `**` at the end for the rest."""

import re

from attrs import frozen

from apitokenproxy.errors import ConfigurationError

_NAME = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SPECIAL = frozenset("{}*")


@frozen
class Template:
    """A compiled template. Matching takes as many steps as the template has segments."""

    length: int
    """How many segments there are, without the rest."""
    rest: bool
    literals: tuple[tuple[int, str], ...]
    """Where what must stand."""
    names: tuple[tuple[int, str], ...]
    """Where which name stands for whatever is there."""

    def match(self, reading: tuple[str, ...]) -> dict[str, str] | None:
        """Return what the names stand for in a reading of a path; None when it does not match."""
        if len(reading) != self.length and (len(reading) < self.length or not self.rest):
            return None
        for place, text in self.literals:
            if reading[place] != text:
                return None
        found = {}
        for place, name in self.names:
            segment = reading[place]
            if not segment:
                return None
            found[name] = segment
        return found


def compile_template(path: str) -> Template:
    """Compile a template. Raises ConfigurationError with a sentence that begins with the template."""
    if not path.startswith("/"):
        raise ConfigurationError(f"path {path!r} must begin with a slash")
    parts = path[1:].split("/") if path != "/" else []
    rest = bool(parts) and parts[-1] == "**"
    literals: list[tuple[int, str]] = []
    names: list[tuple[int, str]] = []
    for place, part in enumerate(parts[:-1] if rest else parts):
        name = _NAME.fullmatch(part)
        if name is None and _SPECIAL & set(part):
            raise ConfigurationError(
                f"path {path!r}: the segment {part!r} is not understood; "
                "{name} stands for one segment and ** for the rest, each alone in its segment, ** only at the end"
            )
        if name:
            names.append((place, name[1]))
        else:
            literals.append((place, part))
    if len({name for _, name in names}) < len(names):
        raise ConfigurationError(f"path {path!r} uses a name twice")
    return Template(len(literals) + len(names), rest, tuple(literals), tuple(names))
