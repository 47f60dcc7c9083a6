"""The first minutes with the README, as a reader has them: files, servers, commands and what they print."""

import re
from pathlib import Path

import pytest
from apis import KEY, Apis
from blocks import ROOT, against, blocks, free_port, marked
from programs import environment, run, serving, talk, with_key

README = ROOT / "README.md"


@pytest.mark.parametrize("name", ["app.py", "apitokenproxy.toml"])
def test_a_server_started_as_described_answers_as_described(name: str, apis: Apis, tmp_path: Path) -> None:
    """Save the file, start the server, issue a token, call: each command prints what the README says.

    The client's shell has no real key; only the server's has.
    """
    port = free_port()
    (tmp_path / name).write_text(against(marked(README, f"file: {name}").text, apis.url))
    command = marked(README, f"serve: {name}").text.strip().replace("github_pat_...", KEY)
    with serving(f"{command} --port {port}", tmp_path, environment(), port):
        talk(marked(README, f"client: {name}"), tmp_path, environment(), port)
    assert [seen.split()[0] for seen in apis.seen] == ["GET"]
    assert apis.refused == []


def test_the_flask_app_answers_the_same(apis: Apis, tmp_path: Path) -> None:
    """What the README says of the FastAPI app holds for the Flask app, started with its command."""
    port = free_port()
    (tmp_path / "web.py").write_text(against(marked(README, "file: web.py").text, apis.url))
    assert "`flask --app web run`" in README.read_text()
    with serving(f"flask --app web run --port {port}", tmp_path, with_key(), port):
        talk(marked(README, "client: app.py"), tmp_path, environment(), port, ("from app ", "from web "))
    assert (apis.seen, apis.refused) == (["GET /zen"], [])


def test_the_script_prints_what_it_says(apis: Apis, tmp_path: Path) -> None:
    """The script needs no server, and leaves its audit records."""
    (tmp_path / "script.py").write_text(against(marked(README, "run: script.py").text, apis.url))
    assert run("python -W error script.py", tmp_path, with_key()) == marked(README, "prints").text
    assert len((tmp_path / "audit.jsonl").read_text().splitlines()) == 1
    assert apis.seen == ["GET /zen"]


def test_the_first_files_are_short() -> None:
    """No program in the README has more than 15 lines of code."""
    lengths = [len([line for line in block.text.splitlines() if line.strip()]) for block in blocks(README, "python")]
    assert [length for length in lengths if length > 15] == []


def test_the_two_commands_stand_alone() -> None:
    """The demonstration and the tests are one command each, in a block of its own, with all set-up."""
    shell = [block.text.strip() for block in blocks(README, "sh")]
    assert "pip install uv && uv run apitokenproxy demo" in shell
    assert "pip install uv && uv run pytest" in shell


def test_the_demo_begins_as_shown(tmp_path: Path) -> None:
    """The demonstration's real output begins as in the README, but for ports, key and token."""
    shown = marked(README, "prints: demo").text
    printed = run("apitokenproxy demo", tmp_path, environment())
    varying = re.compile(r"127\.0\.0\.1:\d+|real-\w+|atp_\w+")
    assert varying.sub("*", printed).startswith(varying.sub("*", shown))
