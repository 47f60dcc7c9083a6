"""The only module that knows that functions have colours.

The pipeline is one coroutine. Under ASGI it is awaited; under WSGI and in scripts `run` drives it,
which works because a coroutine in which nothing suspends ends at its first `.send(None)`. Parts are
written as their author likes and lifted once, when the pipeline is built:

    written as        | in ASYNC        | in SYNC
    ------------------|-----------------|-------------------------------------
    async def         | awaited         | refused when built
    def               | worker thread   | called in place
    @nonblocking def  | called in place | called in place

Rules:
1. A lifted part must return the type it promises. An awaitable that was never awaited is truthy, so
   a wrong type is a fault and refuses the request; it never reads as "yes".
2. A part made of other parts is not lifted itself: it has `bind(...)`, is handed what is lifted
   already, and must not suspend by any other means.
"""

import asyncio
import concurrent.futures
import contextlib
import inspect
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Protocol, TypeVar

from apitokenproxy.errors import ConfigurationError, InternalFault

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_MARK = "__apitokenproxy_nonblocking__"


def nonblocking(function: F) -> F:
    """Mark a plain `def` that never waits for anything, so that ASGI calls it in place.

    Raises ConfigurationError for an `async def`, which needs no mark.
    """
    if _is_async(function):
        message = f"{_name(function)} is async def; @nonblocking marks a plain def that never waits"
        raise ConfigurationError(message)
    setattr(function, _MARK, True)
    return function


class Colour(Protocol):
    """How parts are called and how to wait for another thread or task. `blocks`: waiting holds up the thread."""

    blocks: bool

    def lift(self, function: Callable[..., Any], returns: type[T] | tuple[type, ...]) -> Callable[..., Awaitable[T]]:
        """Return an async callable for `function` whose results are checked to be `returns`."""

    async def wait(self, future: "concurrent.futures.Future[T]", timeout: float | None = None) -> T:
        """Wait until `future` is done, at most `timeout` seconds, and return its result.

        Raises TimeoutError. The future is left as it is: waiting does not cancel it.
        """

    def lift_apart(
        self, function: Callable[..., Any], returns: type[T] | tuple[type, ...]
    ) -> Callable[..., Awaitable[T]]:
        """Do what `lift` does for what may hang: a plain `def` takes no thread that others wait for."""

    def detach(
        self, work: Callable[[], Coroutine[Any, Any, None]], done: Callable[[BaseException | None], None]
    ) -> Callable[[], bool]:
        """Begin `work`, which nobody waits for: as a task of this event loop, or in a daemon thread.

        `done` is called at its end, however it ends, with what it raised (None too when it was cancelled).
        Returns what tells whether it has ended or cannot go on; whoever keeps that keeps the work alive.
        Raises RuntimeError when no thread can be started.
        """


class _Async:
    blocks = False

    def lift(self, function: Callable[..., Any], returns: type[T] | tuple[type, ...]) -> Callable[..., Awaitable[T]]:
        if _is_async(function):

            async def awaited(*args: Any) -> T:
                return _checked(function, await function(*args), returns)

            return awaited
        if _is_nonblocking(function):
            return _in_place(function, returns)

        async def in_thread(*args: Any) -> T:
            return _checked(function, await asyncio.to_thread(function, *args), returns)

        return in_thread

    def lift_apart(
        self, function: Callable[..., Any], returns: type[T] | tuple[type, ...]
    ) -> Callable[..., Awaitable[T]]:
        if _is_async(function) or _is_nonblocking(function):
            return self.lift(function, returns)

        async def in_thread_of_its_own(*args: Any) -> T:
            future: concurrent.futures.Future[Any] = concurrent.futures.Future()
            threading.Thread(target=_settle, args=(future, function, args), daemon=True).start()
            return _checked(function, await asyncio.wrap_future(future), returns)

        return in_thread_of_its_own

    async def wait(self, future: "concurrent.futures.Future[T]", timeout: float | None = None) -> T:
        if not future.done():
            loop = asyncio.get_running_loop()
            waiter: asyncio.Future[None] = loop.create_future()

            def wake() -> None:
                if not waiter.done():
                    waiter.set_result(None)

            def tell(_: object) -> None:
                with contextlib.suppress(RuntimeError):  # that loop is closed: nobody waits there any more
                    loop.call_soon_threadsafe(wake)

            future.add_done_callback(tell)
            await asyncio.wait([waiter], timeout=timeout)
            if not future.done():
                raise TimeoutError
        return future.result()

    def detach(
        self, work: Callable[[], Coroutine[Any, Any, None]], done: Callable[[BaseException | None], None]
    ) -> Callable[[], bool]:
        loop = asyncio.get_running_loop()
        task = loop.create_task(work())
        task.add_done_callback(lambda ended: done(None if ended.cancelled() else ended.exception()))
        return lambda: task.done() or loop.is_closed()


class _Sync:
    blocks = True

    def lift(self, function: Callable[..., Any], returns: type[T] | tuple[type, ...]) -> Callable[..., Awaitable[T]]:
        if _is_async(function):
            raise ConfigurationError(
                f"{_name(function)} is async def and cannot run under WSGI; "
                "write it as a plain def, or mount proxy.asgi"
            )
        return _in_place(function, returns)

    lift_apart = lift

    async def wait(self, future: "concurrent.futures.Future[T]", timeout: float | None = None) -> T:
        return future.result(timeout)

    def detach(
        self, work: Callable[[], Coroutine[Any, Any, None]], done: Callable[[BaseException | None], None]
    ) -> Callable[[], bool]:
        def through() -> None:
            raised: BaseException | None = None
            try:
                run(work())
            except BaseException as error:  # noqa: BLE001 - whatever ends this thread is told to `done`
                raised = error
            done(raised)

        thread = threading.Thread(target=through, name="apitokenproxy-load", daemon=True)
        thread.start()
        return lambda: not thread.is_alive()


ASYNC: Colour = _Async()
SYNC: Colour = _Sync()


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in which nothing suspends, without an event loop, and return its result.

    Raises InternalFault, naming the file, line and function, when something does suspend.
    """
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    place = _innermost(coroutine)
    coroutine.close()
    message = f"a part suspended where nothing may wait (WSGI or a sync transport): {place}"
    raise InternalFault(message)


async def within(awaitable: Awaitable[T], seconds: float | None, ends: float | None = None) -> T:
    """Await at most `seconds`, and not past `ends` (of the monotonic clock). Raises TimeoutError.

    For asyncio alone. A timer is made when it turns out that there is something to wait for, and only then.
    """
    steps: Any = awaitable.__await__()
    try:
        step = next(steps)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    if ends is not None:
        left = ends - time.monotonic()
        seconds = left if seconds is None else min(seconds, left)
    async with asyncio.timeout(seconds):
        return await _Begun(steps, step)  # type: ignore[no-any-return]


class _Begun:
    """An awaitable whose first step was taken already: it begins by handing that on."""

    def __init__(self, steps: Any, step: Any) -> None:
        self._steps = steps
        self._taken = [step]

    def __await__(self) -> Generator[Any, None, Any]:
        return self  # type: ignore[return-value] # it has what `await` uses of a generator

    def __next__(self) -> Any:
        return self._taken.pop() if self._taken else next(self._steps)

    def throw(self, *error: Any) -> Any:
        return self._steps.throw(*error)

    def close(self) -> None:
        self._steps.close()


def _settle(future: "concurrent.futures.Future[Any]", function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    try:
        result = function(*args)
    except BaseException as error:  # noqa: BLE001 - it is raised where somebody waits for it
        if future.set_running_or_notify_cancel():
            future.set_exception(error)
    else:
        if future.set_running_or_notify_cancel():
            future.set_result(result)


def _in_place(function: Callable[..., Any], returns: type[T] | tuple[type, ...]) -> Callable[..., Awaitable[T]]:
    async def in_place(*args: Any) -> T:
        result = function(*args)
        if isinstance(result, returns):
            return result  # type: ignore[return-value]
        return _checked(function, result, returns)

    return in_place


def _checked(function: Callable[..., Any], result: Any, returns: type[T] | tuple[type, ...]) -> T:
    if isinstance(result, returns):
        return result  # type: ignore[return-value]
    if inspect.iscoroutine(result):
        result.close()  # nobody will await it; this also silences the warning about that
    raise InternalFault(
        f"{_name(function)} returned {type(result).__name__}, which is not what a part of its kind returns"
    )


def _is_async(function: Callable[..., Any]) -> bool:
    while hasattr(function, "func"):  # functools.partial
        function = function.func
    if inspect.iscoroutinefunction(function):
        return True
    call = getattr(type(function), "__call__", None)  # noqa: B004 - an object may hide a coroutine there
    return inspect.iscoroutinefunction(call)


def _is_nonblocking(function: Callable[..., Any]) -> bool:
    return getattr(function, _MARK, False) or getattr(getattr(type(function), "__call__", None), _MARK, False)  # noqa: B004


def _name(function: Callable[..., Any]) -> str:
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    module = getattr(function, "__module__", None) or type(function).__module__
    return f"{module}.{name}"


def _innermost(coroutine: Any) -> str:
    frame = None
    while coroutine is not None:
        frame = (
            getattr(coroutine, "cr_frame", None)
            or getattr(coroutine, "gi_frame", None)
            or getattr(coroutine, "ag_frame", None)
            or frame
        )
        coroutine = (
            getattr(coroutine, "cr_await", None)
            or getattr(coroutine, "gi_yieldfrom", None)
            or getattr(coroutine, "ag_await", None)
        )
    if frame is None:
        return "in an unknown place"
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"
