"""Audit records to the logger `apitokenproxy.audit` alone."""

import logging
from collections.abc import Iterable

from apitokenproxy.audit.record import to_json
from apitokenproxy.audit.writer import Writer
from apitokenproxy.messages import AuditRecord

_audit = logging.getLogger("apitokenproxy.audit")


def emit(lines: Iterable[str]) -> None:
    """Log each line at INFO."""
    if _audit.isEnabledFor(logging.INFO):
        for line in lines:
            _audit.info("%s", line)


class LogOnly(Writer):
    """An AuditSink for when no file is configured."""

    def __init__(self) -> None:
        super().__init__(self._log_all)

    @staticmethod
    def _log_all(batch: list[AuditRecord], _refused: int) -> None:
        emit(to_json(record) for record in batch)
