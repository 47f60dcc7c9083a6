"""A client of others that is made when it is first needed, and anew after a fork."""

import os
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerProcess(Generic[T]):
    """What `make` returns, made once in each process. What it raises is raised, and it is tried again."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._here: tuple[int, threading.Lock, list[T]] = (0, threading.Lock(), [])

    def get(self) -> T:
        """Return it."""
        if self._here[0] != os.getpid():
            self._here = (os.getpid(), threading.Lock(), [])
        _, lock, made = self._here
        with lock:
            if not made:
                made.append(self._make())
            return made[0]
