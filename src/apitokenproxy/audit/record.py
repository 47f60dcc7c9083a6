"""An audit record as one line of JSON."""

import json
import re
from datetime import UTC, datetime

from attrs import fields

from apitokenproxy.messages import TOKEN_PREFIX, AuditRecord

LONGEST_VALUE = 512

_NAMES = [attribute.name for attribute in fields(AuditRecord)]
_TOKEN = re.compile(TOKEN_PREFIX.decode() + r"\w*")


def to_json(record: AuditRecord) -> str:
    """Return the record as JSON in ASCII: control, bidirectional and line-separator characters are escaped."""
    values = {name: _value(getattr(record, name)) for name in _NAMES}
    values["time"] = datetime.fromtimestamp(record.time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps(values)


def _value(value: object) -> object:
    if isinstance(value, str):
        return _TOKEN.sub("atp_***", value[:LONGEST_VALUE]) if "atp_" in value else value[:LONGEST_VALUE]
    return round(value, 6) if isinstance(value, float) else value
