"""Audit records to write, and programs that end in every way."""

import json
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import evolve

from apitokenproxy.messages import AuditRecord

RECORD = AuditRecord(
    time=1_790_000_000.1234,
    request_id="0" * 24,
    peer="192.0.2.1",
    method="GET",
    upstream="api",
    path="/a/b",
    tenant="acme",
    subject="ada",
    token_id="t1",
    generation=1,
    derived="",
    rule="read",
    credential="v1",
    status=200,
    code="",
    reason="",
    sent=True,
    bytes_in=1,
    bytes_out=2,
    seconds=0.01234567,
)


def record(**changes: Any) -> AuditRecord:
    return evolve(RECORD, **changes)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def until(happened: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


def program(text: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Run a program in which `sink` writes to `path`, and `write(n)` writes the record number n."""
    preamble = f"""
    import os, resource, signal, sys, threading, time
    sys.path.insert(0, {str(Path(__file__).parent)!r})
    from audit_calls import record
    from apitokenproxy.audit import JsonLines
    sink = JsonLines({str(path)!r})
    def write(number):
        sink.reserve()
        sink.write(record(request_id=str(number)))
    """
    source = textwrap.dedent(preamble) + textwrap.dedent(text)
    # Python 3.12 and later warn of every fork beside threads; forking beside them is what is tested.
    arguments = [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", source]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
