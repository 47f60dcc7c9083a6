"""What the tests of the documentation share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from apis import ENVIRONMENT, KEY, Apis, running_apis


@pytest.fixture
def apis(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Apis]:
    """Return the running APIs of the documentation, with their key in the environment, in an empty folder."""
    for name in ENVIRONMENT:
        monkeypatch.setenv(name, KEY)
    monkeypatch.chdir(tmp_path)
    with running_apis() as running:
        yield running
