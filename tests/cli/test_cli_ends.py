"""How commands end: help, usage, colours, closed pipes, missing packages, faults. Never with a traceback."""

import os
import pty
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen

import click
import pytest
from command_line import COMMAND, Done, environment, finished, run, searched

from apitokenproxy.cli.app import app


def commands(command: click.Command = app, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of every command there is."""
    yield path
    for name, below in command.commands.items() if isinstance(command, click.Group) else ():
        yield from commands(below, (*path, name))


def test_the_commands_are_those_of_the_contract() -> None:
    """A command that is not on this list is not promised."""
    assert sorted(" ".join(words) for words in commands()) == [
        "",
        "check",
        "demo",
        "secrets",
        "secrets new-key",
        "secrets probe",
        "secrets promote",
        "secrets reseal",
        "secrets rollback",
        "secrets seal",
        "secrets status",
        "serve",
        "tokens",
        "tokens delete",
        "tokens derive",
        "tokens edit",
        "tokens issue",
        "tokens list",
        "tokens narrow",
        "tokens resume",
        "tokens revoke",
        "tokens rotate",
        "tokens scan",
        "tokens show",
        "tokens suspend",
        "tokens undo",
    ]


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_every_help_shows_an_example_on_a_line_of_its_own(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """It can be copied as it stands."""
    app.main([*words, "--help"], prog_name="apitokenproxy", standalone_mode=False)
    said = capsys.readouterr().out
    _, heading, examples = said.partition("\n  Example")
    assert heading, said
    lines = examples.splitlines()[1:]
    assert lines
    assert all(line.startswith(("    apitokenproxy ", "    TOKEN=$(apitokenproxy ")) for line in lines)
    assert "\\b" not in said
    assert "\b" not in said


@pytest.mark.parametrize("arguments", [["chek"], ["serve", "--port", "99999"], ["tokens", "show"], []])
def test_wrong_usage_is_exit_code_2(arguments: list[str], tmp_path: Path) -> None:
    """The sentence goes to stderr."""
    done = run(*arguments, folder=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert "Usage: apitokenproxy" in done.err


def on_a_terminal(folder: Path, *arguments: str, **variables: str) -> bytes:
    """Return what a command shows on a terminal."""
    ours, its = pty.openpty()
    with Popen([*COMMAND, *arguments], cwd=folder, env=environment(**variables), stdin=its, stdout=its, stderr=its):
        os.close(its)
        shown = b""
        try:
            while piece := os.read(ours, 65536):
                shown += piece
        except OSError:  # how a terminal ends on Linux
            pass
        finally:
            os.close(ours)
    return shown


def test_colours_are_for_terminals_only(tmp_path: Path) -> None:
    """Neither a file nor somebody who asked for none gets them."""
    assert on_a_terminal(tmp_path, "check", NO_COLOR="").startswith(b"\x1b[31merror: ")
    assert on_a_terminal(tmp_path, "check", NO_COLOR="1").startswith(b"error: ")
    assert "\x1b" not in run("check", folder=tmp_path).err


@pytest.mark.long
@pytest.mark.parametrize("command", [["demo"], ["tokens", "list"], ["--help"]])
def test_a_reader_that_has_gone_is_met_with_silence(command: list[str], folder: Path) -> None:
    """Nothing on stderr when stdout is a pipe that nobody reads."""
    assert run("tokens", "issue", "--tenant", "acme", folder=folder).code == 0
    reading, writing = os.pipe()
    os.close(reading)
    process = Popen([*COMMAND, *command], cwd=folder, env=environment(), stdout=writing, stderr=-1, text=True)
    os.close(writing)
    _, err = process.communicate(timeout=30)
    assert Done(process.returncode, "", searched(err)) == Done(1, "", "")


def on_a_full_disk(folder: Path, *words: str) -> list[str]:
    """Run a command about tokens whose output cannot be written; return what it says."""
    with Path("/dev/full").open("w") as full:
        command = [*COMMAND, "tokens", *words]
        process = Popen(command, cwd=folder, env=environment(TOKEN_KEY="k" * 32), stdout=full, stderr=-1, text=True)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    return searched(err).splitlines()


@pytest.mark.long
@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_token_that_cannot_be_printed_is_told_with_what_to_do(folder: Path, more: tuple[str, ...]) -> None:
    """Its secret is lost, so it is named by its id: to be revoked, undone, or left alone."""
    file = folder / "apitokenproxy.toml"
    file.write_text(file.read_text().replace("[proxy]\n", '[proxy]\nsigning_keys = ["env:TOKEN_KEY"]\n'))
    cannot = "error: the token cannot be printed (No space left on device); "
    said = on_a_full_disk(folder, "issue", "--tenant", "acme", *more)[-1]
    identifier = said.removeprefix(f"{cannot}run: apitokenproxy tokens revoke ")[:12]
    assert said == f"{cannot}run: apitokenproxy tokens revoke {identifier}, and issue another"
    undo = f"run: apitokenproxy tokens undo {identifier}, and rotate again"
    for words, otherwise in (
        (("--key", "k"), f"generation 2 of {identifier} is made; {undo}, with another key"),
        (("--overlap", "0s"), f"generation 3 of {identifier} is made; rotate again"),
    ):
        assert on_a_full_disk(folder, "rotate", identifier, *words, *more)[-1] == cannot + otherwise
    derived = on_a_full_disk(folder, "derive", identifier, *more)[-1]
    assert derived.endswith(f", derived from {identifier}, is kept nowhere and ends by itself; derive another")


@pytest.mark.long
def test_a_full_disk_is_one_sentence(folder: Path) -> None:
    """Also for what is no token."""
    run("tokens", "issue", "--tenant", "acme", folder=folder)
    assert on_a_full_disk(folder, "list") == [
        "error: what was printed cannot be written or read: No space left on device"
    ]


@pytest.mark.parametrize("missing", ["click", "uvicorn"])
def test_a_missing_package_says_which_extra_to_install(missing: str, tmp_path: Path) -> None:
    """The core can be installed without the command line."""
    program = f"import sys; sys.modules[{missing!r}] = None; from apitokenproxy.cli import main; main()"
    done = finished([sys.executable, "-c", program], tmp_path)
    assert (done.code, done.out) == (1, "")
    assert done.err == (f"apitokenproxy: {missing} is not installed; run: pip install 'apitokenproxy[server]'\n")


def test_a_fault_of_our_own_is_one_sentence_without_its_text(folder: Path) -> None:
    """Where it happened is told; what it says is not, for it could hold anything."""
    program = """
import sys
from apitokenproxy.cli import main
from apitokenproxy.proxy import Proxy
def broken(path):
    raise RuntimeError("holds material")
Proxy.problems_in = broken
sys.argv = ["apitokenproxy", "check"]
main()
"""
    done = finished([sys.executable, "-c", program], folder)
    assert (done.code, done.out) == (1, "")
    assert done.err == "error: this is a fault of apitokenproxy: RuntimeError at <string>:6 in broken\n"
