"""`keyring:SERVICE/USER`: a password in the operating system's keyring, by the package of that name.

Rules:
1. A keyring may wait for a person to unlock it. Nobody here waits longer than the timeout, and while one
   question hangs no other is asked.
"""

import threading
from typing import Any

import keyring
from attrs import define
from keyring.backend import KeyringBackend
from keyring.errors import KeyringError, KeyringLocked, NoKeyringError

from apitokenproxy.errors import SecretMissing, SecretUnavailable
from apitokenproxy.messages import Secret
from apitokenproxy.secrets.value import secret_in


@define
class _Answer:
    password: Any = None
    error: Exception | None = None


class KeyringProvider:
    """Reads from `backend`, or from the keyring that the package chooses on this machine. `timeout` in seconds."""

    ttl = 60.0

    def __init__(self, *, backend: KeyringBackend | None = None, timeout: float = 5.0) -> None:
        self._backend = backend
        self._timeout = timeout
        self._hanging: threading.Thread | None = None

    def fetch(self, reference: str) -> Secret:
        """Return the password of a user for a service. Raises SecretUnavailable."""
        service, _, user = reference.rpartition("/")
        if not service or not user or not reference.isprintable():
            raise SecretUnavailable("keyring: a reference is SERVICE/USER")
        place = f"keyring: {service}/{user}"
        answer = self._asked(service, user, place)
        if isinstance(answer.error, NoKeyringError):
            raise SecretUnavailable(f"{place} cannot be read: this machine has no keyring; install or unlock one")
        if isinstance(answer.error, KeyringLocked):
            raise SecretUnavailable(f"{place} cannot be read: the keyring is locked; unlock it")
        if answer.error is not None:
            raise SecretUnavailable(f"{place} cannot be read: {type(answer.error).__name__}")
        if answer.password is None:
            raise SecretMissing(f"{place} is not there; write it with: keyring set {service} {user}")
        if not isinstance(answer.password, str):
            raise SecretUnavailable(f"{place} is not text; write it again with: keyring set {service} {user}")
        return secret_in(answer.password, "", place=place, version="")

    def _asked(self, service: str, user: str, place: str) -> _Answer:
        answer = _Answer()

        def ask() -> None:
            try:
                answer.password = (self._backend or keyring.get_keyring()).get_password(service, user)
            except (KeyringError, OSError, RuntimeError, ValueError) as error:
                answer.error = error.with_traceback(None)

        hanging = self._hanging
        if hanging is None or not hanging.is_alive():
            thread = threading.Thread(target=ask, name="apitokenproxy-keyring", daemon=True)
            thread.start()
            thread.join(self._timeout)
            if not thread.is_alive():
                return answer
            self._hanging = thread
        raise SecretUnavailable(f"{place} cannot be read: the keyring did not answer; unlock it", outage=True)
