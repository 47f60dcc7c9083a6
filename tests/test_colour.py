"""One coroutine, two colours."""

import asyncio
import concurrent.futures
import functools
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from apitokenproxy._colour import ASYNC, SYNC, nonblocking, run, within
from apitokenproxy.errors import ConfigurationError, InternalFault


def plain(value: int) -> int:
    return value + 1


@nonblocking
def quick(value: int) -> int:
    return value + 1


async def slow(value: int) -> int:
    await asyncio.sleep(0)
    return value + 1


class HiddenCoroutine:
    async def __call__(self, value: int) -> int:
        return value + 1


class Part:
    def method(self, value: int) -> int:
        return value + 1

    @nonblocking
    def quick(self, value: int) -> int:
        return value + 1


PARTS = [
    plain,
    quick,
    slow,
    HiddenCoroutine(),
    Part().method,
    Part().quick,
    functools.partial(slow),
    functools.partial(plain),
]


def _kind(part: Callable[..., Any]) -> str:
    return f"{type(part).__name__}-{getattr(getattr(part, 'func', part), '__name__', 'object')}"


@pytest.mark.parametrize("part", PARTS, ids=_kind)
def test_async_calls_every_kind_of_part(part: Callable[..., Any]) -> None:
    """Under ASGI a part may be written in any way."""
    assert asyncio.run(ASYNC.lift(part, int)(1)) == 2


@pytest.mark.parametrize("part", [plain, quick, Part().method, Part().quick, functools.partial(plain)], ids=_kind)
def test_sync_calls_plain_parts_in_place(part: Callable[..., Any]) -> None:
    """Under WSGI a plain part is called without a loop."""
    assert run(SYNC.lift(part, int)(1)) == 2


@pytest.mark.parametrize("part", [slow, HiddenCoroutine(), functools.partial(slow)], ids=_kind)
def test_sync_refuses_async_parts_when_built(part: Callable[..., Any]) -> None:
    """Under WSGI an async part is a clear error before the first request."""
    with pytest.raises(ConfigurationError, match="is async def and cannot run under WSGI"):
        SYNC.lift(part, int)


def test_a_plain_part_runs_in_a_worker_thread_under_asgi() -> None:
    """A part that may block does not block the event loop."""

    def thread() -> str:
        return threading.current_thread().name

    assert asyncio.run(ASYNC.lift(thread, str)()) != threading.current_thread().name


def test_a_nonblocking_part_runs_in_place_under_asgi() -> None:
    """The mark saves the way to a thread."""

    @nonblocking
    def thread() -> str:
        return threading.current_thread().name

    assert asyncio.run(ASYNC.lift(thread, str)()) == threading.current_thread().name


def test_nonblocking_refuses_async_def() -> None:
    """The mark on an async def is a mistake and says so."""
    with pytest.raises(ConfigurationError, match="is async def"):
        nonblocking(slow)


def call(colour: str, function: Any, value: int) -> int:
    lifted = (ASYNC if colour == "async" else SYNC).lift(function, int)
    return asyncio.run(lifted(value)) if colour == "async" else run(lifted(value))


def wait(colour: str, future: Any, seconds: float) -> Any:
    waiting = (ASYNC if colour == "async" else SYNC).wait(future, seconds)
    return asyncio.run(waiting) if colour == "async" else run(waiting)


@pytest.mark.parametrize("colour", ["async", "sync"])
def test_an_unawaited_coroutine_never_reads_as_a_result(colour: str) -> None:
    """A def that hands back a coroutine is a fault, though the coroutine is truthy."""

    def forgetful(value: int) -> Any:
        return slow(value)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InternalFault, match=r"forgetful returned coroutine"):
            call(colour, forgetful, 1)


@pytest.mark.parametrize("result", [None, True, "yes", object()])
def test_a_result_of_another_type_is_a_fault(result: object) -> None:
    """Approval is a value of the promised type; whatever else is truthy is not."""

    class Promised: ...

    with pytest.raises(InternalFault, match="which is not what a part of its kind returns"):
        run(SYNC.lift(lambda: result, Promised)())


def test_a_part_that_suspends_without_a_loop_is_named() -> None:
    """The fault says the file, the line and the function that suspended."""

    async def waits_here() -> None:
        future: asyncio.Future[None] = asyncio.Future(loop=loop)
        await future

    async def outer() -> None:
        await waits_here()

    loop = asyncio.new_event_loop()
    try:
        with pytest.raises(InternalFault, match=r"test_colour\.py:\d+ in .*waits_here"):
            run(outer())
    finally:
        loop.close()


@pytest.mark.parametrize("colour", ["async", "sync"])
def test_waiting_returns_what_another_thread_brings(colour: str) -> None:
    """wait() works with or without a loop."""
    future: concurrent.futures.Future[str] = concurrent.futures.Future()
    timer = threading.Timer(0.02, future.set_result, ["there"])
    timer.start()
    assert wait(colour, future, 10) == "there"
    timer.join()


@pytest.mark.parametrize("colour", ["async", "sync"])
def test_waiting_in_vain_leaves_the_future_alone(colour: str) -> None:
    """A waiter that gives up does not cancel what others wait for."""
    future: concurrent.futures.Future[str] = concurrent.futures.Future()
    with pytest.raises(TimeoutError):
        wait(colour, future, 0.01)
    assert (future.cancelled(), future.done()) == (False, False)


def test_what_does_not_wait_needs_no_timer() -> None:
    """Not even a time that is over keeps it from its result."""

    async def at_once() -> int:
        return 1

    async def main() -> int:
        return await within(at_once(), -1, ends=0)

    assert asyncio.run(main()) == run(within(at_once(), -1)) == 1


def test_what_waits_is_given_so_long_and_no_longer() -> None:
    """It has its result if it comes in time, else it is cancelled; cancellation from outside stays what it is."""
    ended: list[str] = []

    async def waits(event: asyncio.Event) -> str:
        try:
            await asyncio.sleep(0)
            await event.wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        return "came"

    async def main() -> None:
        loop, event = asyncio.get_running_loop(), asyncio.Event()
        for terms in ((0.01,), (None, time.monotonic() + 0.01), (60, time.monotonic() - 1)):
            with pytest.raises(TimeoutError):
                await within(waits(event), *terms)
        task = loop.create_task(within(waits(event), 60))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        loop.call_soon(event.set)
        assert await within(waits(event), 60) == "came"
        assert await within(waits(event), None) == "came"

    asyncio.run(main())
    assert ended == ["cancelled"] * 4


def test_what_may_hang_takes_no_thread_that_others_wait_for() -> None:
    """A hundred hanging calls, and another part still gets its worker thread."""
    release = threading.Event()

    def hang() -> int:
        release.wait(20)
        return 1

    async def main() -> tuple[int, list[int]]:
        hanging = [asyncio.ensure_future(ASYNC.lift_apart(hang, int)()) for _ in range(100)]
        await asyncio.sleep(0)
        found = await ASYNC.lift(lambda: 2, int)()
        release.set()
        return found, await asyncio.gather(*hanging)

    assert asyncio.run(main()) == (2, [1] * 100)


def test_what_it_raises_is_raised_where_it_is_awaited() -> None:
    """From a thread of its own, too."""

    def fail() -> int:
        raise LookupError("there")

    with pytest.raises(LookupError, match="there"):
        asyncio.run(ASYNC.lift_apart(fail, int)())  # type: ignore[arg-type]
