"""Functions of others that may hang: run in daemon threads, so many at once, the others in their turn."""

import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from apitokenproxy._colour import Colour
from apitokenproxy.errors import SecretUnavailable

T = TypeVar("T")
_Task = tuple["Future[Any]", Callable[[], Any]]

IDLE = 10.0
"""Seconds after which a thread that has nothing to do ends: to begin one costs more than most functions."""


class Apart:
    """Runs functions in at most `most` threads. One that hangs keeps its thread, and nobody who waits for it."""

    def __init__(self, most: int) -> None:
        self._threads = _Threads(most)

    async def call(self, colour: Colour, function: Callable[[], T], timeout: float) -> T:
        """Return what a function returns, or raise what it raises.

        Raises TimeoutError after `timeout` seconds, and SecretUnavailable when no thread can be started.
        """
        threads = self._threads
        if threads.pid != os.getpid():  # a forked child: its parent's threads are not here
            threads = self._threads = _Threads(threads.most)
        future: Future[T] = Future()
        try:
            threads.begin(future, function)
            return await colour.wait(future, timeout)
        finally:
            if future.cancel():  # whoever waits no more need not be served, nor what it wants be kept
                threads.forget(future)


class _Threads:
    """The threads of one process, and what waits for one."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.pid = os.getpid()
        self._changed = threading.Condition()
        self._tasks: deque[_Task] = deque()
        self._running = 0
        self._idle = 0

    def begin(self, future: "Future[Any]", function: Callable[[], Any]) -> None:
        with self._changed:
            self._tasks.append((future, function))
            if len(self._tasks) <= self._idle:
                self._changed.notify()
                return
            if self._running == self.most:
                return
            self._running += 1
        try:
            threading.Thread(target=self._work, name="apitokenproxy-auth", daemon=True).start()
        except RuntimeError:
            with self._changed:
                self._running -= 1
            raise SecretUnavailable("no thread can be started") from None

    def forget(self, future: "Future[Any]") -> None:
        """Take away what nobody waits for any more, if no thread has taken it yet."""
        with self._changed:
            self._tasks = deque(task for task in self._tasks if task[0] is not future)

    def _work(self) -> None:
        while self._work_once():  # what was done is not held while there is nothing to do
            pass

    def _work_once(self) -> bool:
        task = self._next()
        if task is not None:
            _run(*task)
        return task is not None

    def _next(self) -> _Task | None:
        """Return what is to be done next; None when there has been nothing for a while."""
        with self._changed:
            if not self._tasks:
                self._idle += 1
                self._changed.wait_for(lambda: self._tasks, IDLE)
                self._idle -= 1
            if self._tasks:
                return self._tasks.popleft()
            self._running -= 1
            return None


def _run(future: "Future[Any]", function: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = function()
    except BaseException as error:  # noqa: BLE001 - it is raised where somebody waits for it
        future.set_exception(error)
    else:
        future.set_result(result)
