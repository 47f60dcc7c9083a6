"""What all tests share."""

import gc
from collections.abc import Iterator

import pytest

from loopback import REAL_KEY, UpstreamServer, running_upstream

pytest_plugins = ["services"]


@pytest.fixture(autouse=True, scope="module")
def nothing_left_open() -> Iterator[None]:
    """Let what a module's tests left open fail there, not wherever the collector happens to run."""
    yield
    gc.collect()


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Iterator[UpstreamServer]:
    """Return a running upstream whose key is in the environment variable DEMO_KEY."""
    monkeypatch.setenv("DEMO_KEY", REAL_KEY)
    with running_upstream() as server:
        yield server
