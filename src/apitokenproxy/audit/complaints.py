"""Complaints: what is the operator's to mend is told to the log, and not only to the audit record.

Rules:
1. One line a minute for each upstream and code, with how many requests it stands for.
2. Only answers of 500 and above, and a caller for whom there is no secret: what a client did wrong is nobody's
   to mend here.
"""

import logging
import time
from collections.abc import Callable, Iterable

from apitokenproxy.errors import NoSecretForCaller
from apitokenproxy.messages import AuditRecord

INTERVAL = 60.0
"""Seconds."""
_SERVER_ERROR = 500
_MOST = 1000

_log = logging.getLogger("apitokenproxy")


class Complaints:
    """What was told lately. `timer` returns seconds."""

    def __init__(self, timer: Callable[[], float] = time.monotonic) -> None:
        self._timer = timer
        self._told: dict[tuple[str, str], float] = {}
        self._since: dict[tuple[str, str], int] = {}

    def tell(self, records: Iterable[AuditRecord]) -> None:
        """Tell the log what is wrong, unless it was told a moment ago."""
        for record in records:
            if not record.code or (record.status < _SERVER_ERROR and record.code != NoSecretForCaller.code):
                continue
            key = record.upstream, record.code
            now = self._timer()
            count = self._since.pop(key, 0) + 1
            if now - self._told.get(key, -INTERVAL) < INTERVAL:
                self._since[key] = count
                continue
            if len(self._told) >= _MOST:
                self._told.clear()
                self._since.clear()
            self._told[key] = now
            more = f" ({count} requests)" if count > 1 else ""
            _log.warning("upstream %s: %s: %s%s", record.upstream or "-", record.code, record.reason, more)
