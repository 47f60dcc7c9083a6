"""Running the real command in processes of its own. Whatever it prints is searched for the real key and tracebacks."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import define, frozen

from loopback import REAL_KEY

COMMAND = [sys.executable, "-W", "error", "-m", "apitokenproxy"]
TOKEN = re.compile(r"atp_[A-Za-z0-9]{12}_?[A-Za-z0-9_]{20,}")

CONFIGURATION = """
[proxy]
store = "sqlite:///tokens.db"
audit = "audit.jsonl"

[upstreams.api]
url = "{url}"
credential = {{ type = "bearer", secret = "env:DEMO_KEY" }}
allow_private = true

[[rules]]
id = "read"
effect = "allow"
upstream = "api"
methods = ["GET"]
"""


@frozen
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.err.splitlines()


def searched(text: str) -> str:
    """Return what was printed, after making sure that it holds neither the real key nor a traceback."""
    assert REAL_KEY not in text
    assert "Traceback" not in text
    return text


def run(*arguments: str, folder: Path, stdin: str | bytes = "", **variables: str | None) -> Done:
    """Run `apitokenproxy` to its end; a variable that is None is taken out of the environment."""
    return finished([*COMMAND, *arguments], folder, stdin=stdin, **variables)


def finished(command: Sequence[str], folder: Path, *, stdin: str | bytes = "", **variables: str | None) -> Done:
    """Run a command to its end."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(**variables),
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        timeout=50,
        check=False,
    )
    return Done(done.returncode, searched(done.stdout.decode()), searched(done.stderr.decode()))


def environment(**variables: str | None) -> dict[str, str]:
    """Return this process's environment with changes; `apitokenproxy` is found in it."""
    found = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", **variables}
    return {name: value for name, value in (os.environ | found).items() if value is not None}


@define
class Serving:
    """A running `apitokenproxy serve`."""

    process: "subprocess.Popen[str]"
    url: str
    said: str

    def end(self, signal: int) -> Done:
        """Send a signal and wait; `err` is what was said after the start."""
        self.process.send_signal(signal)
        out, err = self.process.communicate(timeout=20)
        return Done(self.process.returncode, searched(out), searched(err))


@contextmanager
def serving(folder: Path, *arguments: str, lines: int = 2, **variables: str | None) -> Iterator[Serving]:
    """Run `serve` on a free port until the block ends, when it has not been ended before.

    `lines` is how many it says when it starts.
    """
    process = subprocess.Popen(
        [*COMMAND, "serve", "--port", "0", *arguments],
        cwd=folder,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        said = searched("".join(_lines(process.stderr, lines)))
        found = re.search(r"http://[^/]+:\d+", said)
        assert found, said
        yield Serving(process, found[0], said)
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=20)


def _lines(stream: Any, count: int) -> Iterator[str]:
    for _ in range(count):
        yield stream.readline()
