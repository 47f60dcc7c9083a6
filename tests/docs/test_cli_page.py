"""docs/cli.md and the command line say the same."""

from pathlib import Path

import click
import pytest
from apis import Apis
from blocks import ROOT, blocks, marked
from programs import talk, with_key

from apitokenproxy.cli.app import app

PAGE = ROOT / "docs" / "cli.md"


@pytest.mark.long
def test_sessions_print_what_they_say(apis: Apis, tmp_path: Path) -> None:
    """Each session of the page, in a folder with the README's configuration."""
    (tmp_path / "apitokenproxy.toml").write_text(marked(ROOT / "README.md", "file: apitokenproxy.toml").text)
    for block in blocks(PAGE, "console"):
        talk(block, tmp_path, with_key())


def test_every_command_and_option_is_on_the_page() -> None:
    """Nothing on the command line is missing from the page."""
    text = PAGE.read_text()
    missing = []
    waiting: list[tuple[str, click.Command]] = list(app.commands.items())
    while waiting:
        name, command = waiting.pop()
        if f"`{name}" not in text and f"apitokenproxy {name}`" not in text:
            missing.append(name)
        options = [option for option in command.params if isinstance(option, click.Option)]
        missing += [flag for option in options for flag in option.opts if f"`{flag}" not in text]
        if isinstance(command, click.Group):
            waiting += command.commands.items()
    assert missing == []
