"""Keeps other packages quiet while secrets are asked for with them: at DEBUG they log what they send and read.

Rules:
1. Only what is logged by a call of ours is dropped. What the host application does with the same package
   meanwhile, in another thread or task, is logged as ever.
2. Warnings and errors are logged, but for those with an exception: its text may quote what was read.
3. Nothing happens on import: a package's loggers get the filter when a call begins, each of them once.
"""

import contextlib
import logging
from collections.abc import Iterator
from contextvars import ContextVar

_calling: ContextVar[bool] = ContextVar("_calling", default=False)


class _DropsOurs(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        if not _calling.get():
            return True
        args = record.args if isinstance(record.args, tuple) else ()
        quotes = record.exc_info or any(isinstance(each, BaseException) for each in args)
        return record.levelno >= logging.WARNING and not quotes


_DROPS_OURS = _DropsOurs()


@contextlib.contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Drop what the loggers of these names, and those below them, are told in the body.

    A filter does not hold for loggers below, and one that the body itself makes has none yet: so a client is
    made in one body, and called in the next.
    """
    below = tuple(f"{name}." for name in names)
    for name, logger in logging.root.manager.loggerDict.copy().items():
        if isinstance(logger, logging.Logger) and f"{name}.".startswith(below):
            logger.addFilter(_DROPS_OURS)
    before = _calling.set(True)
    try:
        yield
    finally:
        _calling.reset(before)
