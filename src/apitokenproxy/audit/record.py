"""An audit record as one line of JSON."""

import json
import re
from datetime import UTC, datetime
from functools import lru_cache

from attrs import fields

from apitokenproxy.messages import TOKEN_PREFIX, AuditRecord

LONGEST_VALUE = 512

_NAMES = [attribute.name for attribute in fields(AuditRecord)]
_TOKEN = re.compile(TOKEN_PREFIX.decode() + r"\w*")
_encode = json.JSONEncoder(check_circular=False).encode


def to_json(record: AuditRecord) -> str:
    """Return the record as JSON in ASCII: control, bidirectional and line-separator characters are escaped."""
    values = {name: getattr(record, name) for name in _NAMES}
    for name, value in values.items():
        if type(value) is str and (len(value) > LONGEST_VALUE or "atp_" in value):
            values[name] = _TOKEN.sub("atp_***", value[:LONGEST_VALUE])
    second, fraction = divmod(record.time, 1)
    values["time"] = f"{_second(int(second))}.{int(fraction * 1000):03}Z"
    values["seconds"] = round(record.seconds, 6)
    return _encode(values)


@lru_cache(maxsize=4)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
