"""The twin of a method that waits, for those who must not block an event loop."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar

S = TypeVar("S")
P = ParamSpec("P")
R = TypeVar("R")


def awaitable(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
    """Return a method that runs `method` in a thread. Its name has an `a` before it."""

    async def twin(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await asyncio.to_thread(method, self, *args, **kwargs)

    twin.__name__ = f"a{method.__name__}"
    twin.__qualname__ = twin.__name__.join(method.__qualname__.rsplit(method.__name__, 1))
    twin.__doc__ = f"Do what `{method.__name__}` does without blocking the event loop."
    return twin
