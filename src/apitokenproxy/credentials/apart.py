"""Functions of others that may hang: run in daemon threads, so many at once, the others in their turn."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from apitokenproxy._colour import Colour
from apitokenproxy.errors import SecretUnavailable

T = TypeVar("T")

IDLE = 10.0
"""Seconds after which a thread that has nothing to do ends: to begin one costs more than most functions."""


class Apart:
    """Runs functions in at most `most` threads. One that hangs keeps its thread, and nobody who waits for it.

    A forked child begins without any.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._lock = threading.Lock()
        self._tasks: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._running = 0
        self._pid = os.getpid()

    async def call(self, colour: Colour, function: Callable[[], T], timeout: float) -> T:
        """Return what a function returns, or raise what it raises.

        Raises TimeoutError after `timeout` seconds, and SecretUnavailable when no thread can be started.
        """
        future: Future[T] = Future()
        self._begin(future, function)
        try:
            return await colour.wait(future, timeout)
        finally:
            future.cancel()  # whoever waits no more need not be served

    def _begin(self, future: "Future[Any]", function: Callable[[], Any]) -> None:
        if self._pid != os.getpid():
            self._begin_anew()
        self._tasks.put((future, function))
        if self._idle.acquire(blocking=False):
            return
        with self._lock:
            if self._running == self._most:
                return
            self._running += 1
        try:
            threading.Thread(target=self._work, name="apitokenproxy-auth", daemon=True).start()
        except RuntimeError:
            with self._lock:
                self._running -= 1
            future.cancel()
            raise SecretUnavailable("no thread can be started") from None

    def _work(self) -> None:
        while True:
            while self._work_once():
                pass
            with self._lock:
                if self._tasks.empty():  # what was put there just now may have found all threads running
                    self._running -= 1
                    return

    def _work_once(self) -> bool:
        """Run one function; False when there is none, and nobody counts on this thread."""
        try:
            task = self._tasks.get_nowait()
        except Empty:
            self._idle.release()
            try:
                task = self._tasks.get(timeout=IDLE)
            except Empty:
                if self._idle.acquire(blocking=False):
                    return False
                task = self._tasks.get()
        _run(*task)
        return True


def _run(future: "Future[Any]", function: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = function()
    except BaseException as error:  # noqa: BLE001 - it is raised where somebody waits for it
        future.set_exception(error)
    else:
        future.set_result(result)
