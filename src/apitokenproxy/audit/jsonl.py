"""Audit records as JSON lines in a file, and to the logger `apitokenproxy.audit`."""

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path

from apitokenproxy.audit.log import emit
from apitokenproxy.audit.record import to_json
from apitokenproxy.audit.writer import MAX_PENDING, Writer
from apitokenproxy.errors import ConfigurationError
from apitokenproxy.messages import AuditRecord

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC


class JsonLines(Writer):
    """An AuditSink that appends to a file of mode 0600, and opens it anew when it was moved away."""

    def __init__(self, path: str | Path, *, max_pending: int = MAX_PENDING) -> None:
        self._path = Path(path)
        try:
            os.close(os.open(self._path, _FLAGS, 0o600))
        except OSError as error:
            raise ConfigurationError(
                f"audit file {self._path} cannot be written: {error.strerror}; "
                "name a file in a directory that exists and is writable"
            ) from None
        self._rest = b""
        self._written: list[str] = []
        super().__init__(self._append, max_pending)

    def _append(self, batch: list[AuditRecord], refused: int) -> None:
        if not self._rest:
            self._written = [to_json(record) for record in batch]
            gap = [_gap(refused)] if refused else []
            self._rest = "".join(line + "\n" for line in [*gap, *self._written]).encode("ascii")
        # A short write (a disk that fills up) is continued where it stopped, so no line is torn.
        descriptor = os.open(self._path, _FLAGS, 0o600)
        try:
            while self._rest:
                self._rest = self._rest[os.write(descriptor, self._rest) :]
        finally:
            os.close(descriptor)
        emit(self._written)


def _gap(refused: int) -> str:
    now = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"time": now, "event": "audit_gap", "refused": refused})
