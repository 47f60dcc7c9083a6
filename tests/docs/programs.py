"""Running what a reader would run: servers, scripts and shell commands, in processes of their own."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from apis import ENVIRONMENT, KEY
from blocks import Block, against, conversations, matches

from loopback import wait_until

_BIN = Path(sys.executable).parent


def environment(**more: str) -> dict[str, str]:
    """Return an environment in which programs of this installation are found, without the real key."""
    clean = {name: value for name, value in os.environ.items() if not re.search("_proxy$", name, re.IGNORECASE)}
    for name in ENVIRONMENT:
        clean.pop(name, None)
    return clean | {"PATH": f"{_BIN}{os.pathsep}{os.environ['PATH']}", "NO_PROXY": "*"} | more


def with_key() -> dict[str, str]:
    """Return an environment that holds the real key."""
    return environment(**dict.fromkeys(ENVIRONMENT, KEY))


def run(command: str, folder: Path, variables: dict[str, str]) -> str:
    """Run a shell command, which must end well, and return what a terminal would show."""
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    return done.stdout


def talk(
    block: Block, folder: Path, variables: dict[str, str], port: int = 0, change: tuple[str, str] = ("", "")
) -> None:
    """Type the commands of a console block into one shell and compare what each prints with what it is said to."""
    expected = list(conversations(block))
    commands = [against(command, "", port).replace(*change).replace("curl ", "curl -sS ") for command, _ in expected]
    printed = run("".join(f"{command}; printf '\\0'; " for command in commands), folder, variables).split("\0")
    for (command, said), was in zip(expected, printed, strict=False):
        assert matches(said, was), f"{command}\nprinted:\n{was}"


@contextmanager
def serving(command: str, folder: Path, variables: dict[str, str], port: int) -> Iterator[None]:
    """Run a server until the block ends."""
    log = folder / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            ["bash", "-c", command], cwd=folder, env=variables, stdout=output, stderr=output, start_new_session=True
        )
    try:
        wait_until(lambda: _listening(port) or process.poll() is not None, 40)
        assert process.poll() is None, f"{command}\n{log.read_text()}"
        yield
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
