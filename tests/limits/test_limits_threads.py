"""Limits under threads: a cap is never passed, and no count is lost."""

import threading
from collections.abc import Callable

from limit_calls import Counted, grant

from apitokenproxy import Limit
from apitokenproxy.errors import Limited

THREADS = 32


def in_threads(function: Callable[[], None]) -> None:
    barrier = threading.Barrier(THREADS)

    def run() -> None:
        barrier.wait()
        function()

    threads = [threading.Thread(target=run) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_threads_together_get_no_more_than_the_cap() -> None:
    """Each of the three ways of counting, asked 6,400 times at once."""
    for limit in (
        Limit("l", per=["tenant"], rate="1000/hour"),
        Limit("l", per=["tenant"], quota="1000/month"),
        Limit("l", per=["tenant"], concurrency=1000),
    ):
        limiter = Counted([limit]).limiter
        admitted: list[int] = []

        def ask(limiter: object = limiter, admitted: list[int] = admitted) -> None:
            for _ in range(200):
                try:
                    limiter.admit(grant())  # type: ignore[attr-defined]
                except Limited:
                    continue
                admitted.append(1)

        in_threads(ask)
        assert len(admitted) == 1000


def test_in_flight_never_passes_the_cap_and_comes_back_to_zero() -> None:
    """32 threads in and out through a door for five."""
    limiter = Counted([Limit("c", per=["tenant"], concurrency=5)]).limiter
    lock = threading.Lock()
    inside, most, entered = 0, 0, 0

    def go_in_and_out() -> None:
        nonlocal inside, most, entered
        for _ in range(300):
            try:
                admission = limiter.admit(grant())
            except Limited:
                continue
            with lock:
                inside += 1
                entered += 1
                most = max(most, inside)
            with lock:
                inside -= 1
            admission.settle()

    in_threads(go_in_and_out)
    assert most <= 5
    assert entered >= 300
    assert [len(counter) for _, counter in limiter._limits] == [0]
