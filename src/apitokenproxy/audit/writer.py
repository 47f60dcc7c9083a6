"""Takes records over on the hot path and writes them down in a thread of its own.

Rules:
1. `reserve` and `write` never wait. A reserved place is held until its record is written down, so
   the number of records in memory is bounded.
2. When writing fails, records stay in order and are tried again every second; until it works,
   `reserve` refuses. How many were refused is written down afterwards.
3. Everything belongs to one process: after a fork the child begins with nothing.
4. The thread is a daemon; `close`, also called at exit, writes down what is left.
"""

import atexit
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from itertools import islice

from apitokenproxy.audit.complaints import Complaints
from apitokenproxy.errors import AuditUnavailable
from apitokenproxy.messages import AuditRecord

MAX_PENDING = 10_000
MAX_BATCH = 1_000
GATHER = 0.02
"""Seconds that records are gathered before a batch is written."""
RETRY = 1.0
CLOSE_WITHIN = 5.0

_log = logging.getLogger("apitokenproxy")


class Writer:
    """The queue and its thread. `put` writes a batch down, or raises OSError and is called again with it."""

    def __init__(self, put: Callable[[list[AuditRecord], int], None], max_pending: int = MAX_PENDING) -> None:
        self._put = put
        self._max_pending = max_pending
        self._complaints = Complaints()
        self._lock = threading.Lock()
        self._begin()
        atexit.register(_close, weakref.ref(self))

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._pending: deque[AuditRecord] = deque()
        self._in_flight = 0
        self._refused = 0
        self._failing = False
        self._closing = False
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def reserve(self) -> None:
        """Hold a place for one record. Raises AuditUnavailable."""
        if self._pid != os.getpid():
            self._lock = threading.Lock()  # the parent may have held it while forking
            self._begin()
        with self._lock:
            if self._failing or self._in_flight >= self._max_pending:
                self._refused += 1
                raise AuditUnavailable("records cannot be written" if self._failing else "too many records are waiting")
            self._in_flight += 1

    def write(self, record: AuditRecord) -> None:
        """Take over a record."""
        self._pending.append(record)
        if not self._wake.is_set():
            self._wake.set()
            if self._thread is None or not self._thread.is_alive():
                self._start()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._closing = False
                self._thread = threading.Thread(target=self._run, name="apitokenproxy-audit", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while not self._closing or self._pending:
            self._wake.wait()
            if not self._closing:
                time.sleep(GATHER)
            self._wake.clear()
            self._drain()

    def _drain(self) -> None:
        while self._pending:
            batch, refused = list(islice(self._pending, MAX_BATCH)), self._refused
            while not self._put_down(batch, refused):
                if self._closing:
                    return
                time.sleep(RETRY)
            with self._lock:
                self._failing = False
                self._refused -= refused
                self._in_flight -= len(batch)
            self._complaints.tell(batch)
            for _ in batch:
                self._pending.popleft()

    def _put_down(self, batch: list[AuditRecord], refused: int) -> bool:
        try:
            self._put(batch, refused)
        except OSError as error:
            if not self._failing:
                _log.error("audit records cannot be written: %s; requests are refused until they can", error.strerror)
            self._failing = True
            return False
        return True

    def close(self) -> None:
        """Write down what was taken over; wait at most a few seconds for it."""
        if self._pid != os.getpid():
            return
        thread = self._thread
        self._closing = True
        self._wake.set()
        if thread is not None and thread.is_alive():
            thread.join(CLOSE_WITHIN)
            self._wake.clear()
        elif self._pending:
            self._drain()
        if self._pending:
            _log.error("%d audit records were lost: they could not be written before the end", len(self._pending))


def _close(reference: "weakref.ref[Writer]") -> None:
    writer = reference()
    if writer is not None:
        writer.close()
