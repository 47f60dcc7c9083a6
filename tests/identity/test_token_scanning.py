"""Finding tokens in files of any size and shape."""

import io
import tracemalloc

import pytest

from apitokenproxy.identity import scanning
from apitokenproxy.identity.derived import LONGEST, Head, made
from apitokenproxy.identity.format import mint
from apitokenproxy.identity.scanning import BLOCK, found_in

IDENTIFIER, TOKEN = mint()
OWN = "0wn0wn0wn0wn"
DERIVED = made(b"k" * 32, IDENTIFIER, Head("26451c67", OWN), {"paths": ["/" + "x" * 2000], "expires": 2_000_000_000})


def test_a_token_is_found_once_wherever_a_block_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the number of its line, a client token and a derived one, at every place in a block."""
    monkeypatch.setattr(scanning, "BLOCK", 5000)
    for place in range(0, 11_000, 61):
        text = b"\n" * place + TOKEN.encode() + b"\nx=" + DERIVED.encode() + b";\n" + b"y\n" * 3000
        assert [*found_in(io.BytesIO(text))] == [(place + 1, IDENTIFIER, ""), (place + 2, IDENTIFIER, OWN)]


@pytest.mark.parametrize("size", [0, 1, LONGEST, LONGEST + 1, BLOCK - 1, BLOCK, BLOCK + LONGEST, 2 * BLOCK + 1])
def test_the_last_token_of_a_file_is_found(size: int) -> None:
    """Without a line break after it, or anything else; and many on one line."""
    text = b" " * size + TOKEN.encode() + b"\n" + TOKEN.encode() * 2
    assert [*found_in(io.BytesIO(text))] == [(1, IDENTIFIER, ""), (2, IDENTIFIER, ""), (2, IDENTIFIER, "")]


def test_a_line_of_any_length_takes_the_memory_of_a_few_blocks() -> None:
    """A dump may have no line breaks at all."""

    class Dump(io.RawIOBase):
        left = 60 * BLOCK

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            size = min(len(buffer), self.left)
            buffer[:size] = b"x" * size
            self.left -= size
            return size

    dump = io.BufferedReader(Dump())
    tracemalloc.start()
    try:
        assert [*found_in(dump)] == []
        assert tracemalloc.get_traced_memory()[1] < 8 * BLOCK
    finally:
        tracemalloc.stop()
