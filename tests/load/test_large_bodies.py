"""Bodies of any size pass in flat memory, in both directions and both adapters, and nobody's slowness piles up."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any, Self

import psutil
import pytest
from attrs import frozen
from blob_upstream import blocks, checksum

from loopback import REAL_KEY, call, wait_until

pytestmark = pytest.mark.long

HERE = Path(__file__).parent
MIB = 1 << 20
GROWTH = 32 * MIB
IN_FLIGHT = 32 * MIB
"""What may be on its way: the kernel's socket buffers on both sides of the proxy (6 + 4 MiB each) and our own."""

SERVERS = {
    "uvicorn-httptools": ["-m", "uvicorn", "served_proxy:asgi", "--port", "{port}", "--http", "httptools"],
    "uvicorn-h11": ["-m", "uvicorn", "served_proxy:asgi", "--port", "{port}", "--http", "h11"],
    # Not waitress: it keeps whole bodies in files of its own before an application sees them.
    "gunicorn": ["-m", "gunicorn", "served_proxy:wsgi", "--bind", "127.0.0.1:{port}", "--timeout", "600"],
    "hoarding": ["-m", "uvicorn", "served_proxy:hoarding", "--port", "{port}"],
    "gunicorn-threads": ["-m", "gunicorn", "served_proxy:wsgi", "--bind", "127.0.0.1:{port}", "--threads", "4"],
}


@frozen
class Served:
    """A proxy in a process of its own, before an upstream in another."""

    url: str
    upstream: str
    token: str
    pid: int
    audit: Path

    def connect(self) -> HTTPConnection:
        return HTTPConnection(self.url.removeprefix("http://"), timeout=60)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def moved(self) -> dict[str, int]:
        return call(self.upstream, "GET", "/moved").json

    def codes(self) -> list[str]:
        return [json.loads(line)["code"] for line in self.audit.read_text().splitlines()]


class Memory:
    """The resident memory of a process and its children in bytes, while the block runs.

    Sampled every 50 ms; on Linux the kernel's own high-water mark is taken too, which no peak escapes.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.baseline = self.peak = 0

    def _processes(self) -> list[psutil.Process]:
        process = psutil.Process(self._pid)
        return [process, *process.children(recursive=True)]

    def now(self) -> int:
        return sum(process.memory_info().rss for process in self._processes())

    def _high_water(self) -> int:
        marks = [Path(f"/proc/{process.pid}/status") for process in self._processes()]
        if not all(mark.exists() for mark in marks):
            return 0
        return sum(int(mark.read_text().partition("VmHWM:")[2].split()[0]) * 1024 for mark in marks)

    def __enter__(self) -> Self:
        for process in self._processes():
            reset = Path(f"/proc/{process.pid}/clear_refs")
            if reset.exists():
                reset.write_text("5")  # the high-water mark begins anew (proc(5))
        self.baseline = self.peak = self.now()
        self._thread.start()
        return self

    def _sample(self) -> None:
        while not self._stop.wait(0.05):
            self.peak = max(self.peak, self.now())

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.peak = max(self.peak, self.now(), self._high_water())

    @property
    def growth(self) -> int:
        return self.peak - self.baseline


@contextmanager
def _process(*command: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, *command], cwd=HERE, text=True, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    environment = os.environ | {"DEMO_KEY": REAL_KEY}
    with _process("blob_upstream.py", stdout=subprocess.PIPE, env=environment) as process:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.stdout.close()


@pytest.fixture(params=[name for name in SERVERS if name != "hoarding"])
def served(
    request: pytest.FixtureRequest, upstream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Served]:
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setenv("DEMO_KEY", REAL_KEY)
    monkeypatch.setenv("UPSTREAM_URL", upstream)
    monkeypatch.setenv("STORE", f"sqlite:///{tmp_path / 'tokens.db'}")
    monkeypatch.setenv("AUDIT", str(tmp_path / "audit.jsonl"))
    from served_proxy import make  # noqa: PLC0415 - reads the environment

    proxy = make()
    token = proxy.tokens.issue(tenant="acme").token
    proxy.close()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [word.format(port=port) for word in SERVERS[request.param]]
    with _process(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: _listening(port) or process.poll() is not None, 30)
        served = Served(f"http://127.0.0.1:{port}", upstream, token, process.pid, tmp_path / "audit.jsonl")
        warm_up(served)
        yield served


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def warm_up(served: Served) -> None:
    """Have everything imported, connected and opened that any request needs."""
    for _ in range(3):
        assert download(served, 100_000) == checksum(blocks(100_000))
        assert upload(served, 100_000) == checksum(blocks(100_000))


def download(served: Served, length: int) -> tuple[int, int]:
    """Return length and checksum of what came."""
    connection = served.connect()
    try:
        connection.request("GET", f"/api/download/{length}", headers=served.headers)
        response = connection.getresponse()
        assert response.status == 200
        return checksum(iter(lambda: response.read(MIB), b""))
    finally:
        connection.close()


def upload(served: Served, length: int, *, chunked: bool = False) -> tuple[int, int]:
    """Return length and checksum of what the upstream took."""
    connection = served.connect()
    framing = {} if chunked else {"Content-Length": str(length)}
    try:
        connection.request("POST", "/api/upload", blocks(length), served.headers | framing, encode_chunked=chunked)
        response = connection.getresponse()
        assert response.status == 200
        answer = json.loads(response.read())
        return answer["length"], answer["crc"]
    finally:
        connection.close()


def say(text: str) -> None:
    print("\n" + text)  # noqa: T201 - `pytest -s` shows it


def measured(served: Served, what: str, length: int, move: Any) -> None:
    """Move a body, check that it arrived whole, print the figures, and hold the memory to its bound."""
    with Memory(served.pid) as memory:
        started = time.monotonic()
        moved = move()
        seconds = time.monotonic() - started
    grown, speed = memory.growth / MIB, length / seconds / 1e6
    say(f"{what} of {length // MIB} MiB: {grown:.1f} MiB growth, {speed:.0f} MB/s")
    assert moved == checksum(blocks(length))
    assert memory.growth < GROWTH


def test_a_64_mib_download_passes_in_flat_memory(served: Served) -> None:
    """Whole, and with less than 32 MiB growth."""
    measured(served, "download", 64 * MIB, lambda: download(served, 64 * MIB))


def test_a_64_mib_upload_passes_in_flat_memory(served: Served) -> None:
    """Whether or not its length is known."""
    measured(served, "upload", 64 * MIB, lambda: upload(served, 64 * MIB))
    measured(served, "chunked upload", 64 * MIB, lambda: upload(served, 64 * MIB, chunked=True))


@pytest.mark.parametrize("served", ["hoarding"], indirect=True)
def test_the_measurement_sees_a_proxy_that_keeps_bodies(served: Served) -> None:
    """An application that takes a body whole before it sends it on grows by more than the body."""
    with Memory(served.pid) as memory:
        assert upload(served, 64 * MIB) == checksum(blocks(64 * MIB))
    assert memory.growth > 64 * MIB


@pytest.mark.timeout(600)
def test_1_gib_passes_in_flat_memory(served: Served) -> None:
    """Memory depends on configuration, never on the size of a body."""
    measured(served, "download", 1024 * MIB, lambda: download(served, 1024 * MIB))
    measured(served, "upload", 1024 * MIB, lambda: upload(served, 1024 * MIB))


@pytest.mark.parametrize("served", ["uvicorn-httptools", "gunicorn-threads"], indirect=True)
def test_a_slow_reader_slows_the_upstream(served: Served) -> None:
    """What the client has not read is not fetched, so it lies in nobody's memory."""
    before = served.moved()["endless"]
    connection = served.connect()
    with Memory(served.pid) as memory:
        connection.request("GET", "/api/endless", headers=served.headers)
        read = _slowly(connection.getresponse(), seconds=3)
    fetched = served.moved()["endless"] - before
    connection.close()
    say(f"slow reader: {memory.growth / MIB:.1f} MiB growth, {fetched / MIB:.0f} MiB fetched, {read / MIB:.0f} read")
    assert read > 0
    assert fetched - read < IN_FLIGHT
    assert memory.growth < GROWTH


def _slowly(response: HTTPResponse, *, seconds: float) -> int:
    read, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        read += len(response.read(100_000))
        time.sleep(0.1)
    return read


@pytest.mark.parametrize("served", ["uvicorn-httptools", "gunicorn-threads"], indirect=True)
def test_a_slow_upstream_slows_the_sender(served: Served) -> None:
    """What the upstream has not taken is not read from the client."""
    with sending(served, "/api/slow") as client:
        before = served.moved()["slow"]
        with Memory(served.pid) as memory:
            sent = _push(client, seconds=3)
        taken = served.moved()["slow"] - before
    say(f"slow upstream: {memory.growth / MIB:.1f} MiB growth, {sent / MIB:.0f} MiB sent, {taken / MIB:.0f} taken")
    assert taken > 0
    assert sent - taken < IN_FLIGHT
    assert memory.growth < GROWTH


@pytest.mark.parametrize("served", ["uvicorn-httptools", "gunicorn-threads"], indirect=True)
def test_an_upstream_that_does_not_read_is_given_up(served: Served) -> None:
    """After the write timeout, whether or not the sender is still there.

    Nothing sooner tells that the sender has left: the end of what it sent lies behind bytes that
    nobody reads, because the upstream takes none.
    """
    with sending(served, "/impatient/stuck") as client:
        _push(client, seconds=0.5)
        wait_until(lambda: served.codes()[-1:] == ["upstream_write_timeout"], 15)
    before = len(served.codes())
    with sending(served, "/impatient/stuck") as client:
        _push(client, seconds=0.5)
    # A server that cannot deliver the 504 any more says so, and that is then what ended the exchange.
    wait_until(lambda: len(served.codes()) > before, 15)
    assert served.codes()[-1] in {"upstream_write_timeout", "client_gone"}


@contextmanager
def sending(served: Served, path: str) -> Iterator[socket.socket]:
    """Begin an upload of 1 GiB."""
    with socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2]))) as client:
        fields = [
            f"POST {path} HTTP/1.1",
            "Host: x",
            f"Authorization: Bearer {served.token}",
            f"Content-Length: {1 << 30}",
        ]
        client.sendall("\r\n".join([*fields, "", ""]).encode())
        yield client


def _push(client: socket.socket, *, seconds: float) -> int:
    sent, end = 0, time.monotonic() + seconds
    client.settimeout(0.1)
    block = b"x" * 65536
    while time.monotonic() < end:
        with suppress(TimeoutError):
            sent += client.send(block)
    return sent
