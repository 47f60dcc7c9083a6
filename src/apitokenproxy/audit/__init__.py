"""One record per exchange, always: written off the hot path, lost at no orderly end."""

from pathlib import Path

from apitokenproxy.audit.jsonl import JsonLines
from apitokenproxy.audit.log import LogOnly
from apitokenproxy.interfaces import AuditSink

__all__ = ["JsonLines", "LogOnly", "open_audit"]


def open_audit(path: str | Path | None) -> AuditSink:
    """Return the sink for a path, or the one that only logs. Raises ConfigurationError."""
    return LogOnly() if path is None else JsonLines(path)
