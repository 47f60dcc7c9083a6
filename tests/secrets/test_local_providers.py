"""`env:`, `file:` and `exec:` do what every provider must."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from apitokenproxy.interfaces import SecretProvider
from apitokenproxy.secrets.env import EnvProvider
from apitokenproxy.secrets.exec import ExecProvider
from apitokenproxy.secrets.file import FileProvider
from apitokenproxy.testing import SecretProviderConformance


class TestEnv(SecretProviderConformance):
    """Environment variables."""

    @pytest.fixture(autouse=True)
    def _place(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch

    def make(self) -> SecretProvider:
        return EnvProvider()

    def put(self, name: str, material: str) -> str:
        self.monkeypatch.setenv(f"ATP_TEST_{name}", material)
        return f"ATP_TEST_{name}"

    def missing(self) -> Sequence[str]:
        return ["ATP_TEST_NOTHING", "", "A=B", "A\0B"]

    def absent(self) -> Sequence[str]:
        return ["ATP_TEST_NOTHING"]

    def garbage(self) -> Sequence[str]:
        return [self.put("empty", "")]


class TestFile(SecretProviderConformance):
    """Files."""

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def make(self) -> SecretProvider:
        return FileProvider()

    def put(self, name: str, material: str) -> str:
        (self.folder / name).write_text(f"{material}\n")
        return str(self.folder / name)

    def missing(self) -> Sequence[str]:
        below = [str(self.folder / "no-folder" / "x"), self.put("file", "x") + "/below"]
        return [*below, str(self.folder / "nothing"), str(self.folder), "", "a\0b"]

    def absent(self) -> Sequence[str]:
        return [str(self.folder / "nothing")]

    def garbage(self) -> Sequence[str]:
        os.mkfifo(self.folder / "pipe")
        return [self.put("empty", ""), str(self.folder / "pipe"), "/dev/zero"]


class TestExec(SecretProviderConformance):
    """Programs."""

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def make(self) -> SecretProvider:
        return ExecProvider()

    def put(self, name: str, material: str) -> str:
        (self.folder / name).write_text(f"{material}\n")
        return f"cat {self.folder / name}"

    def missing(self) -> Sequence[str]:
        return ["", "/no/such/program", "cat /no/such/file", "'", "false"]

    def garbage(self) -> Sequence[str]:
        return [self.put("empty", ""), "cat /dev/zero"]

    def away(self) -> Sequence[tuple[SecretProvider, str]]:
        return [(ExecProvider(0.2), "sleep 60")]


def test_a_mounted_secret_is_swapped_as_kubernetes_does_it(tmp_path: Path) -> None:
    """The file is a link into `..data`, itself a link that is moved to another folder in one step."""
    for version in ("one", "two"):
        (tmp_path / f"..{version}").mkdir()
        (tmp_path / f"..{version}" / "key").write_text(version)
    (tmp_path / "..data").symlink_to("..one")
    (tmp_path / "key").symlink_to("..data/key")
    provider = FileProvider()
    seen = [provider.fetch(str(tmp_path / "key")).reveal()]
    (tmp_path / "..data_tmp").symlink_to("..two")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")
    seen.append(provider.fetch(str(tmp_path / "key")).reveal())
    assert seen == [b"one", b"two"]
