"""Path templates: literal segments, `{name}` for one segment, `**` at the end for the rest."""

import re

from attrs import frozen

from apitokenproxy.errors import ConfigurationError

_NAME = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SPECIAL = frozenset("{}*")


@frozen
class Template:
    """A compiled template. Matching takes as many steps as the template has segments."""

    segments: tuple[tuple[str, bool], ...]
    """Each segment with whether it is a name (True) or a literal (False)."""
    rest: bool
    names: frozenset[str]

    def match(self, reading: tuple[str, ...]) -> dict[str, str] | None:
        """Return what the names stand for in a reading of a path; None when it does not match."""
        expected = self.segments
        if len(reading) < len(expected) or (len(reading) > len(expected) and not self.rest):
            return None
        found = {}
        for (text, is_name), segment in zip(expected, reading, strict=False):
            if not is_name:
                if text != segment:
                    return None
            elif not segment:
                return None
            else:
                found[text] = segment
        return found


def compile_template(path: str) -> Template:
    """Compile a template. Raises ConfigurationError with a sentence that begins with the template."""
    if not path.startswith("/"):
        raise ConfigurationError(f"path {path!r} must begin with a slash")
    parts = path[1:].split("/") if path != "/" else []
    rest = bool(parts) and parts[-1] == "**"
    segments: list[tuple[str, bool]] = []
    for part in parts[:-1] if rest else parts:
        name = _NAME.fullmatch(part)
        if name is None and _SPECIAL & set(part):
            raise ConfigurationError(
                f"path {path!r}: the segment {part!r} is not understood; "
                "{name} stands for one segment and ** for the rest, each alone in its segment, ** only at the end"
            )
        segments.append((name[1], True) if name else (part, False))
    names = [text for text, is_name in segments if is_name]
    if len(names) != len(set(names)):
        raise ConfigurationError(f"path {path!r} uses a name twice")
    return Template(tuple(segments), rest, frozenset(names))
