"""A folder with a configuration before a running upstream."""

from pathlib import Path

import pytest
from command_line import CONFIGURATION

from loopback import UpstreamServer


@pytest.fixture
def folder(tmp_path: Path, upstream: UpstreamServer) -> Path:
    """Return a folder whose apitokenproxy.toml is right."""
    (tmp_path / "apitokenproxy.toml").write_text(CONFIGURATION.format(url=upstream.url))
    return tmp_path
