"""`keyring:`, against backends of the package's own kind."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keyring.errors
import pytest
from keyring.backend import KeyringBackend
from keyring.backends.fail import Keyring as NoKeyring
from secret_calls import MATERIAL

from apitokenproxy import SecretUnavailable
from apitokenproxy.interfaces import SecretProvider
from apitokenproxy.secrets.keyring import KeyringProvider
from apitokenproxy.testing import SecretProviderConformance


class InMemory(KeyringBackend):
    """A keyring that ends with the test."""

    priority = 1  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[tuple[str, str], Any] = {}

    def get_password(self, service: str, username: str) -> Any:
        return self.held.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.held[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.held[service, username]


class Failing(InMemory):
    """One that raises, or waits for a person."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.error = error
        self.unlocked = threading.Event()
        self.asked = 0

    def get_password(self, service: str, username: str) -> Any:
        self.asked += 1
        if self.error is not None:
            raise self.error
        self.unlocked.wait(30)
        return MATERIAL


class TestKeyring(SecretProviderConformance):
    """The package's own interface."""

    @pytest.fixture(autouse=True)
    def _place(self) -> Any:
        self.backend, self.locked = InMemory(), Failing()
        yield
        self.locked.unlocked.set()

    def make(self) -> SecretProvider:
        return KeyringProvider(backend=self.backend)

    def put(self, name: str, material: str) -> str:
        self.backend.set_password("https://api.example.com", name, material)
        return f"https://api.example.com/{name}"

    def missing(self) -> Sequence[str]:
        return ["nothing/here", "", "/", "a", "a/", "/a", "a/b\n", "a\0/b"]

    def absent(self) -> Sequence[str]:
        return ["nothing/here"]

    def garbage(self) -> Sequence[str]:
        self.backend.held["a", "bytes"] = MATERIAL.encode()
        return [self.put("empty", ""), self.put("large", MATERIAL * 3000), "a/bytes"]

    def away(self) -> Sequence[tuple[SecretProvider, str]]:
        return [(KeyringProvider(backend=self.locked, timeout=0.1), "a/b")]


def test_a_keyring_that_waits_for_a_person_is_asked_once() -> None:
    """However many ask meanwhile; unlocked, it answers."""
    backend = Failing()
    provider = KeyringProvider(backend=backend, timeout=0.05)
    for _ in range(5):
        with pytest.raises(SecretUnavailable, match="keyring: a/b cannot be read: the keyring did not answer; unlock"):
            provider.fetch("a/b")
    assert backend.asked == 1
    backend.unlocked.set()
    hanging = provider._hanging
    assert hanging is not None
    hanging.join(10)
    assert provider.fetch("a/b").reveal() == MATERIAL.encode()


FAILURES = {
    "none": (NoKeyring(), "this machine has no keyring; install or unlock one"),
    "locked": (Failing(keyring.errors.KeyringLocked(MATERIAL)), "the keyring is locked; unlock it"),
    "not to be reached": (Failing(keyring.errors.InitError(MATERIAL)), "InitError"),
    "no bus": (Failing(OSError(MATERIAL)), "OSError"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_what_a_keyring_cannot_is_told(failure: str) -> None:
    """And is no outage: nothing stands in for a keyring that was locked on purpose."""
    backend, told = FAILURES[failure]
    with pytest.raises(SecretUnavailable) as refused:
        KeyringProvider(backend=backend).fetch("a/b")
    assert (refused.value.detail, refused.value.outage) == (f"keyring: a/b cannot be read: {told}", False)


def test_the_machines_own_keyring_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that the package chooses, at each fetch."""
    backend = InMemory()
    backend.set_password("a", "b", MATERIAL)
    monkeypatch.setattr("keyring.core._keyring_backend", backend)
    assert KeyringProvider().fetch("a/b").reveal() == MATERIAL.encode()


SECRET_SERVICE = """
import subprocess, sys
subprocess.run(
    ["gnome-keyring-daemon", "--unlock", "--components=secrets"], input=b"pw", check=True, stdout=subprocess.DEVNULL
)
import keyring
from concurrent.futures import ThreadPoolExecutor
from apitokenproxy.secrets.keyring import KeyringProvider

provider = KeyringProvider()
for material in ("one", "two"):
    keyring.set_password("https://api.example.com", "me", material)
    with ThreadPoolExecutor(4) as pool:
        print({secret.reveal() for secret in pool.map(provider.fetch, ["https://api.example.com/me"] * 20)})
"""


@pytest.mark.skipif(
    not (shutil.which("dbus-run-session") and shutil.which("gnome-keyring-daemon")), reason="there is no GNOME Keyring"
)
def test_a_secret_service_is_asked(tmp_path: Path) -> None:
    """GNOME Keyring, by the Secret Service API, on a bus of its own; also by many threads at once."""
    done = subprocess.run(
        ["dbus-run-session", "--", sys.executable, "-c", SECRET_SERVICE],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "XDG_RUNTIME_DIR": str(tmp_path),
            "PYTHON_KEYRING_BACKEND": "keyring.backends.SecretService.Keyring",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.stdout == "{b'one'}\n{b'two'}\n", done.stderr
