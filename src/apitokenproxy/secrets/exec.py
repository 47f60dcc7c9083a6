"""`exec:COMMAND`: a secret that a program prints, as password managers do."""

import os
import selectors
import shlex
import signal
import subprocess
import time

from apitokenproxy.errors import SecretUnavailable
from apitokenproxy.messages import Secret

MAX_BYTES = 65536


class ExecProvider:
    """Runs a program without a shell and takes what it prints on stdout, less one trailing newline."""

    ttl = 300.0

    def __init__(self, timeout: float = 10.0) -> None:  # seconds
        self._timeout = timeout

    def fetch(self, reference: str) -> Secret:
        """Return the program's output. Raises SecretUnavailable when it fails or takes too long."""
        try:
            words = shlex.split(reference)
        except ValueError:
            raise SecretUnavailable("exec: the command has an unclosed quote") from None
        if not words:
            raise SecretUnavailable("exec: there is no command after the colon")
        program = words[0]
        try:
            process = subprocess.Popen(  # noqa: S603 - the operator's own command, from configuration
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "an argument holds a NUL"
            raise SecretUnavailable(f"exec: {program} cannot be started: {reason}") from None
        with process:
            try:
                output = _read(process, self._timeout)
            except subprocess.TimeoutExpired:
                told = f"exec: {program} took longer than {self._timeout:g} seconds"
                raise SecretUnavailable(told, outage=True) from None
            finally:
                _end(process)
        if len(output) > MAX_BYTES:
            raise SecretUnavailable(f"exec: {program} printed more than 64 KiB")
        if process.returncode:
            raise SecretUnavailable(f"exec: {program} ended with status {process.returncode}")
        material = output.removesuffix(b"\n").removesuffix(b"\r")
        if not material:
            raise SecretUnavailable(f"exec: {program} printed nothing")
        return Secret(material)


def _read(process: "subprocess.Popen[bytes]", timeout: float) -> bytes:
    """Read stdout to its end or to one byte over the limit; communicate() would read without bound."""
    end = time.monotonic() + timeout
    stdout = process.stdout
    assert stdout is not None  # noqa: S101 - asked for when it was started
    os.set_blocking(stdout.fileno(), False)
    output = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stdout, selectors.EVENT_READ)
        while len(output) <= MAX_BYTES:
            left = end - time.monotonic()
            if left <= 0 or not selector.select(left):
                raise subprocess.TimeoutExpired(process.args, timeout)
            chunk = stdout.read(MAX_BYTES)
            if not chunk:
                process.wait(max(0.0, end - time.monotonic()))
                return output
            output += chunk
    return output


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.returncode is None:  # not waited for, so the group is still its own, if only of its children
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
