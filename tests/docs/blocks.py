"""Reading the code blocks out of the documentation, and pointing them at a loopback upstream.

The text of a block is run as it stands, but for three replacements (`against`):
1. `https://HOST` of an `Upstream(...)` or a TOML `url` becomes the loopback upstream's address, and
   `allow_private` is set, since a loopback address is meant then;
2. the ports 8000 and 8080 of 127.0.0.1 become one that is free;
3. nothing else.

What stands in an HTML comment right above a block is its marker: how, or why not, it is run.
"""

import re
import socket
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

_BLOCK = re.compile(
    r"^(?:<!-- (?P<marker>[^\n]*?) -->\n)?(?P<fence>```)(?P<language>[a-z]*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_PYTHON_URL = re.compile(r'(Upstream\(\s*"[a-z0-9-]+",\s*)"https://[a-z0-9.-]+([^"]*)",')
_TOML_URL = re.compile(r'^url = "https://[a-z0-9.-]+([^"]*)"', re.MULTILINE)


@frozen
class Block:
    """One fenced block. `marker` is the comment above it, `line` where its text begins."""

    page: Path
    line: int
    language: str
    marker: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path, *languages: str) -> list[Block]:
    """Return the blocks of a page in order; all of them, or those in some languages."""
    text = page.read_text()
    found = [
        Block(
            page, text.count("\n", 0, match.start("text")) + 1, match["language"], match["marker"] or "", match["text"]
        )
        for match in _BLOCK.finditer(text)
    ]
    return [block for block in found if not languages or block.language in languages]


def marked(page: Path, marker: str) -> Block:
    """Return the one block of a page with that marker."""
    [block] = [block for block in blocks(page) if block.marker == marker]
    return block


def against(text: str, url: str, port: int = 8000) -> str:
    """Return a block's text with the upstreams on loopback at `url` and the proxy at `port`."""
    text = _PYTHON_URL.sub(rf'\1"{url}\2", allow_private=True,', text)
    text = _TOML_URL.sub(rf'url = "{url}\1"\nallow_private = true', text)
    return re.sub(r"127\.0\.0\.1:80[08]0", f"127.0.0.1:{port}", text)


def matches(expected: str, actual: str) -> bool:
    """Compare printed text; `...` in what is expected stands for anything on its line."""
    pattern = "[^\n]*".join(re.escape(part) for part in expected.strip().split("..."))
    return re.fullmatch(pattern, actual.strip()) is not None


def conversations(block: Block) -> Iterator[tuple[str, str]]:
    """Yield each command of a console block (lines that begin with `$ `) with what it is said to print."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, printed = part.partition("\n")
        while command.endswith("\\"):
            more, _, printed = printed.partition("\n")
            command = command[:-1] + more.removeprefix("> ")
        yield command, printed


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
