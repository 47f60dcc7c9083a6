"""Durations as people write them: `500ms`, `90s`, `15m`, `12h`, `30d`."""

import re
from datetime import timedelta

from apitokenproxy.errors import ConfigurationError

_UNITS = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DURATION = re.compile(r"([0-9]{1,9})(ms|s|m|h|d)")


def parse_duration(text: str) -> timedelta:
    """Return what the text says. Raises ConfigurationError."""
    found = _DURATION.fullmatch(text)
    if not found:
        raise ConfigurationError(f"{text!r} is not a duration; write a number and one of ms, s, m, h, d, as in 30d")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})
