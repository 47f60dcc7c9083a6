"""Reading a file that may be anything: without waiting, and not without bound."""

import errno
import os
import stat
from pathlib import Path


def read_file(path: str | Path, most: int) -> bytes:
    """Return what a file holds, or `most` bytes and one of it if it is longer.

    Raises OSError, also for a pipe, which may have nobody who writes to it, and ValueError for a path with a NUL.
    """
    with open(path, "rb", opener=_without_waiting) as file:
        if stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.ESPIPE, "it is a pipe; it must be an ordinary file")
        return file.read(most + 1)


def why_not(error: OSError | ValueError) -> str:
    """Return what went wrong, in a few words without the path."""
    return getattr(error, "strerror", None) or "its path holds a NUL"


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
