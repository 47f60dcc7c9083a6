"""Every code block of the documentation runs, and what it is said to print is what it prints."""

import linecache
import re
import shutil
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from apis import Apis
from blocks import PAGES, ROOT, Block, against, blocks, matches

from apitokenproxy import Proxy

WITH_PYTHON = [page for page in PAGES if blocks(page, "python") and page.name != "README.md"]
REST = "rest of a file"


def run_python(page: Path, url: str) -> Iterator[tuple[Block, str]]:
    """Run the Python blocks of a page in one namespace, and yield each with its source as it was run."""
    namespace: dict[str, Any] = {"__name__": "a_page"}
    try:
        for block in blocks(page, "python"):
            source = against(block.text, url)
            name = f"<{block}>"
            linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
            exec(compile(source, name, "exec"), namespace)  # noqa: S102 - running them is the point
            yield block, source
    finally:
        for value in namespace.values():
            if isinstance(value, Proxy):
                value.close()


def printed_by(page: Path) -> dict[str, str]:
    """Return what each Python block of a page is said to print."""
    found, last = {}, None
    for block in blocks(page):
        if block.marker == "prints":
            found[str(last)] = block.text
        last = block
    return found


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.name)
def test_python_blocks_run_and_print_what_they_say(page: Path, apis: Apis, capsys: pytest.CaptureFixture[str]) -> None:
    """The blocks of a page build on each other, as a reader types them in."""
    expected = printed_by(page)
    for block, _ in run_python(page, apis.url):
        printed = capsys.readouterr().out
        assert matches(expected.get(str(block), ""), printed), f"{block} printed:\n{printed}"
    assert apis.refused == []


CONFIGURED = [block for page in [*PAGES, ROOT / "examples" / "apitokenproxy.toml"] for block in blocks(page, "toml")]


@contextmanager
def quiet_secrets(monkeypatch: pytest.MonkeyPatch, text: str) -> Iterator[None]:
    """Set every environment variable that a file's secret references name."""
    with monkeypatch.context() as patch:
        for name in re.findall(r'"env:([A-Z_]+)"', text):
            patch.setenv(name, "a-key-for-the-test")
        yield


@pytest.mark.parametrize("block", CONFIGURED, ids=str)
def test_configurations_are_accepted(block: Block, apis: Apis, tmp_path: Path) -> None:
    """Each TOML block is a file that the proxy takes, alone or as the rest of a small one."""
    text = block.text
    if block.marker == REST:
        text = _completed(text)
    elif "[upstreams" not in text:
        text += "\n" + _UPSTREAM
    text = re.sub(r'"(sqlite:///|)/var/[a-z]+/apitokenproxy/', r'"\1', text)
    (tmp_path / "file.toml").write_text(text)
    Proxy.from_toml("file.toml").close()


_UPSTREAM = """
[upstreams.github]
url = "https://api.github.com"
credential = { type = "bearer", secret = "env:GITHUB_TOKEN" }

[[rules]]
id = "made-up-by-the-test"
effect = "allow"
"""


def _completed(text: str) -> str:
    there = tomllib.loads(text)
    upstream, rules = _UPSTREAM.split("\n\n")
    text += "" if "github" in there.get("upstreams", {}) else upstream + "\n"
    return text + ("" if "rules" in there else "\n" + rules)


def test_the_commented_example_file_is_accepted(apis: Apis, tmp_path: Path) -> None:
    """examples/apitokenproxy.toml builds a proxy, as it stands and with every commented key switched on."""
    text = (ROOT / "examples" / "apitokenproxy.toml").read_text()
    (tmp_path / "file.toml").write_text(text)
    Proxy.from_toml("file.toml").close()
    certificates = shutil.copy(_certifi(), tmp_path / "partner.pem")
    everything = re.sub(r"^# ([a-z_]+ = )", r"\1", text, flags=re.MULTILINE)
    everything = everything.replace("/etc/ssl/partner.pem", str(certificates))
    (tmp_path / "file.toml").write_text(everything)
    Proxy.from_toml("file.toml").close()


def _certifi() -> str:
    import certifi  # noqa: PLC0415 - only for a file of certificates

    return certifi.where()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_block_is_left_untried(page: Path) -> None:
    """Every block is run by some test, is compared with what is printed, is a picture, or says why not."""
    untried = [
        str(block)
        for block in blocks(page)
        if block.language not in {"python", "toml", "text"}
        and not block.marker.startswith(("not run: ", "serve: ", "client: ", "session"))
    ]
    assert untried == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    """Each relative link names a file that is there, and so does each path of a test or module."""
    text = page.read_text()
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []
    named = re.findall(r"`((?:tests|src|examples|benchmarks|docs)/[\w./-]+)`", text)
    assert [name for name in named if "NAME" not in name and not (ROOT / name).exists()] == []


def test_parts_of_examples_are_quoted_as_they_stand() -> None:
    """A block that is marked as part of an example file is found in it, word for word."""
    for page in PAGES:
        for block in blocks(page, "python"):
            if block.marker.startswith("part of: "):
                assert block.text in (ROOT / block.marker.removeprefix("part of: ")).read_text()
