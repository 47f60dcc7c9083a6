"""`file:PATH`: secrets in files, as Docker and Kubernetes mount them."""

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from secret_calls import COLOURS, MATERIAL, Hand, refusal, revealed

from apitokenproxy.errors import SecretUnavailable
from apitokenproxy.messages import Caller
from apitokenproxy.secrets.cache import Secrets
from apitokenproxy.secrets.file import FileProvider

KEY = MATERIAL.encode()
LARGEST = 64 * 1024


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def secrets(clock: Hand) -> Secrets:
    return Secrets({"file": FileProvider()}, clock=clock)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (KEY, KEY),
        (KEY + b"\n", KEY),
        (KEY + b"\r\n", KEY),
        (b" " + KEY + b" \n", b" " + KEY + b" "),
        (b"k", b"k"),
        (b"\xff\xfe\x80", b"\xff\xfe\x80"),
        ("schl\u00fcssel\n".encode(), "schl\u00fcssel".encode()),
        (b"k" * LARGEST, b"k" * LARGEST),
    ],
    ids=lambda value: f"{len(value)} bytes",
)
@pytest.mark.parametrize("colour", COLOURS)
def test_a_files_bytes_are_the_secret(
    secrets: Secrets, tmp_path: Path, colour: str, content: bytes, expected: bytes
) -> None:
    """All of them but one newline at the end, which every editor adds."""
    (tmp_path / "key").write_bytes(content)
    assert expected == revealed(secrets, colour, f"file:{tmp_path}/key")


@pytest.mark.parametrize("content", [b"", b"\n", b"\r\n"])
@pytest.mark.parametrize("colour", COLOURS)
def test_an_empty_file_is_refused(secrets: Secrets, tmp_path: Path, colour: str, content: bytes) -> None:
    """As one is that is written in two steps, between them."""
    (tmp_path / "key").write_bytes(content)
    expected = f"secret file {tmp_path}/key is empty; it must hold the secret alone"
    assert expected == refusal(secrets, colour, f"file:{tmp_path}/key")


@pytest.mark.parametrize(
    "content",
    [
        b"\n\n",
        KEY + b"\n\n",
        KEY + b"\r\r\n",
        KEY + b"\n\r\n",
        b"\n" + KEY,
        b"a\n" + KEY + b"\n",
        KEY + b"\0",
        KEY + b"\tx",
        KEY + b"\r\nX-Admin: 1\r\n",
        MATERIAL.encode("utf-16"),
    ],
)
@pytest.mark.parametrize("colour", COLOURS)
def test_a_file_that_does_not_hold_the_secret_alone_is_refused(
    secrets: Secrets, tmp_path: Path, colour: str, content: bytes
) -> None:
    """Nothing is guessed and nothing repaired: a second newline is as good as a second line."""
    (tmp_path / "key").write_bytes(content)
    expected = f"file:{tmp_path}/key holds a newline or control character; write it again without"
    assert expected == refusal(secrets, colour, f"file:{tmp_path}/key")


@pytest.mark.parametrize("more", [1, 10_000_000])
@pytest.mark.parametrize("colour", COLOURS)
def test_a_file_that_is_too_large_is_refused(secrets: Secrets, tmp_path: Path, colour: str, more: int) -> None:
    """64 KiB are the most, and no more than one byte beyond them is read."""
    with (tmp_path / "key").open("wb") as file:
        file.write(KEY)
        file.truncate(LARGEST + more)
    expected = f"secret file {tmp_path}/key is larger than 64 KiB; it must hold the secret alone"
    assert expected == refusal(secrets, colour, f"file:{tmp_path}/key")


def test_a_file_without_end_is_refused(secrets: Secrets) -> None:
    """A device that never ends is not read to its end."""
    assert refusal(secrets, "sync", "file:/dev/zero").startswith("secret file /dev/zero ")


UNREADABLE = {
    "missing": ("none", "No such file or directory"),
    "a directory": (".", "Is a directory"),
    "below a file": ("file/key", "Not a directory"),
    "a link to nothing": ("dangling", "No such file or directory"),
    "a link to itself": ("loop", "Too many levels of symbolic links"),
    "a name too long": ("k" * 300, "File name too long"),
}


@pytest.mark.parametrize("unreadable", UNREADABLE)
@pytest.mark.parametrize("colour", COLOURS)
def test_a_file_that_cannot_be_read_is_refused(secrets: Secrets, tmp_path: Path, colour: str, unreadable: str) -> None:
    """One sentence, with the path and what the system says about it."""
    name, reason = UNREADABLE[unreadable]
    (tmp_path / "file").write_bytes(KEY)
    (tmp_path / "dangling").symlink_to("none")
    (tmp_path / "loop").symlink_to("loop")
    expected = f"secret file {tmp_path / name} cannot be read: {reason}"
    assert expected == refusal(secrets, colour, f"file:{tmp_path / name}")


@pytest.mark.parametrize("colour", COLOURS)
def test_a_path_with_a_nul_is_refused(secrets: Secrets, tmp_path: Path, colour: str) -> None:
    """It is a path that cannot be read, and told as such; it names no file up to the NUL."""
    (tmp_path / "key").write_bytes(KEY)
    assert refusal(secrets, colour, f"file:{tmp_path}/key\0.txt").startswith(f"secret file {tmp_path}/key")


@contextmanager
def as_nobody() -> Iterator[None]:
    """Access files as a user who may read nothing in particular: root may read everything."""
    if os.geteuid() != 0:
        yield
        return
    if not sys.platform.startswith("linux"):
        pytest.skip("root reads every file here")
    libc = ctypes.CDLL(None)
    libc.setfsuid(65534)  # of this thread alone
    try:
        yield
    finally:
        libc.setfsuid(0)


@pytest.mark.parametrize("forbidden", ["file", "folder"])
def test_a_file_without_permission_is_refused(forbidden: str) -> None:
    """What the system forbids is told as it says it."""
    with TemporaryDirectory() as place:
        folder = Path(place)
        file = folder / "key"
        file.write_bytes(KEY)
        folder.chmod(0o755)
        with as_nobody():
            assert FileProvider().fetch(str(file)).reveal() == KEY
        (file if forbidden == "file" else folder).chmod(0)
        with as_nobody(), pytest.raises(SecretUnavailable) as told:
            FileProvider().fetch(str(file))
        folder.chmod(0o700)
    assert f"secret file {file} cannot be read: Permission denied" == told.value.detail


@pytest.mark.timeout(5)
def test_a_pipe_that_nobody_writes_to_is_refused(secrets: Secrets, tmp_path: Path) -> None:
    """Opening it must not wait: every request for the upstream would wait with it, for ever."""
    os.mkfifo(tmp_path / "key")
    assert refusal(secrets, "sync", f"file:{tmp_path}/key").startswith(f"secret file {tmp_path}/key ")


# --- changes --------------------------------------------------------------------------------


@pytest.mark.parametrize("colour", COLOURS)
def test_a_changed_file_is_seen_within_a_second(secrets: Secrets, clock: Hand, tmp_path: Path, colour: str) -> None:
    """Written over or moved into place, of the same size and of the same age."""
    file = tmp_path / "key"
    seen = []
    for moment, content in [(0.0, "key-1"), (0.7, "key-2"), (1.0, "key-2"), (1.7, "key-3")]:
        clock.now = moment
        file.write_text(content)
        os.utime(file, (0, 0))
        seen.append(revealed(secrets, colour, f"file:{file}"))
    assert seen == [b"key-1", b"key-1", b"key-2", b"key-2"]
    (tmp_path / "other").write_text("key-4")
    (tmp_path / "other").rename(file)
    clock.now = 2.0
    assert revealed(secrets, colour, f"file:{file}") == b"key-4"


@pytest.mark.parametrize("colour", COLOURS)
def test_a_file_that_is_gone_is_refused(secrets: Secrets, clock: Hand, tmp_path: Path, colour: str) -> None:
    """Taking the file away takes the secret away; the last one is not used on. Put back, it works again."""
    file = tmp_path / "key"
    file.write_bytes(KEY)
    assert revealed(secrets, colour, f"file:{file}") == KEY
    file.unlink()
    clock.now = 1.0
    expected = f"secret file {file} cannot be read: No such file or directory"
    assert expected == refusal(secrets, colour, f"file:{file}")
    file.write_bytes(KEY)
    assert revealed(secrets, colour, f"file:{file}") == KEY


def mounted(volume: Path, name: str, content: str) -> None:
    """Put a version into a folder as the kubelet does: a new folder, and one link swapped in one step."""
    (volume / name).mkdir()
    (volume / name / "key").write_text(content)
    (volume / "..data_tmp").symlink_to(name)
    (volume / "..data_tmp").rename(volume / "..data")
    if not (volume / "key").is_symlink():
        (volume / "key").symlink_to("..data/key")


@pytest.mark.parametrize("colour", COLOURS)
def test_a_kubernetes_volume_that_is_swapped_is_noticed(
    secrets: Secrets, clock: Hand, tmp_path: Path, colour: str
) -> None:
    """The file's own link never changes; the folder behind it does."""
    seen = []
    for number in range(3):
        clock.now = number
        mounted(tmp_path, f"..2026_11_24_0{number}", f"key-{number}\n")
        seen.append(revealed(secrets, colour, f"file:{tmp_path}/key"))
    assert seen == [b"key-0", b"key-1", b"key-2"]


def test_a_swap_under_load_shows_the_old_or_the_new(tmp_path: Path) -> None:
    """Never a mixture, and never nothing."""
    provider = FileProvider()
    provider.ttl = 0.0
    secrets = Secrets({"file": provider})
    mounted(tmp_path, "..0", "a" * 10_000)
    stop = threading.Event()
    seen: set[bytes] = set()

    def keep_reading() -> None:
        seen.add(revealed(secrets, "sync", f"file:{tmp_path}/key"))
        while not stop.is_set():
            seen.add(revealed(secrets, "sync", f"file:{tmp_path}/key"))

    reader = threading.Thread(target=keep_reading, daemon=True)
    reader.start()
    for number in range(1, 25):
        mounted(tmp_path, f"..{number}", ("a" if number % 2 == 0 else "b") * 10_000)
    stop.set()
    reader.join(10)
    assert seen <= {b"a" * 10_000, b"b" * 10_000}
    assert seen


# --- one file per tenant --------------------------------------------------------------------


@pytest.mark.parametrize("colour", COLOURS)
def test_a_tenant_reads_its_own_file_and_no_other(secrets: Secrets, tmp_path: Path, colour: str) -> None:
    """`file:/run/secrets/github-{tenant}` cannot be led out of its folder."""
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "github-acme").write_text("acme's")
    (tmp_path / "other").write_text("another's")
    reference = f"file:{folder}/github-{{tenant}}"
    assert revealed(secrets, colour, reference, Caller(tenant="acme")) == b"acme's"
    for tenant in ("x/../../other", "../other", f"{tmp_path}/other", "acme/../github-acme", "acme\0", "acme\n"):
        assert refusal(secrets, colour, reference, Caller(tenant=tenant)).startswith("the caller's tenant is not")
