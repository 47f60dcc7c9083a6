"""`exec:COMMAND`: secrets that a program prints."""

import os
import shlex
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from secret_calls import COLOURS, MATERIAL, PATIENCE, Hand, read, refusal, revealed

from apitokenproxy.messages import Caller
from apitokenproxy.secrets.cache import Secrets
from apitokenproxy.secrets.exec import MAX_BYTES, ExecProvider

KEY = MATERIAL.encode()


def secrets(timeout: float = PATIENCE, clock: Callable[[], float] = time.monotonic) -> Secrets:
    return Secrets({"exec": ExecProvider(timeout)}, clock=clock)


def shell(script: str) -> str:
    """Return a reference that runs a script in a shell of its own, which the operator wrote out."""
    return f"exec:sh -c {shlex.quote(script)}"


def python(script: str) -> str:
    return f"exec:{shlex.quote(sys.executable)} -c {shlex.quote(script)}"


# --- arguments ------------------------------------------------------------------------------

LITERAL = {
    "two commands": ("a; id", ["a;", "id"]),
    "a substitution": ("$(id) `id`", ["$(id)", "`id`"]),
    "a variable": ("$HOME $$ $1", ["$HOME", "$$", "$1"]),
    "a pipe": ("a | id && id || id &", ["a", "|", "id", "&&", "id", "||", "id", "&"]),
    "a redirection": ("> /tmp/x < /etc/passwd 2>&1", [">", "/tmp/x", "<", "/etc/passwd", "2>&1"]),  # noqa: S108
    "a wildcard": ("* ? [a-z] ~ ~root", ["*", "?", "[a-z]", "~", "~root"]),
    "a comment": ("a #b", ["a", "#b"]),
    "single quotes": ("'a b' 'c;d'", ["a b", "c;d"]),
    "double quotes": ('"a b" "$HOME"', ["a b", "$HOME"]),
    "a backslash": (r"a\ b \$HOME", ["a b", "$HOME"]),
    "an empty argument": ("'' x", ["", "x"]),
    "an option": ("-n --version --", ["-n", "--version", "--"]),
    "a percent sign": ("%s %%", ["%s", "%%"]),
    "not ASCII": ("schl\u00fcssel", ["schl\u00fcssel"]),
}


@pytest.mark.parametrize("literal", LITERAL)
@pytest.mark.parametrize("colour", COLOURS)
def test_a_command_is_a_list_of_arguments(tmp_path: Path, colour: str, literal: str) -> None:
    """Words are split and unquoted as a shell does; nothing else that a shell does is done."""
    text, words = LITERAL[literal]
    program = tmp_path / "show"
    program.write_text(f"#!{sys.executable}\nimport sys\nprint('|'.join(ascii(word) for word in sys.argv[1:]))\n")
    program.chmod(0o700)
    shown = revealed(secrets(), colour, f"exec:{program} {text}")
    assert "|".join(ascii(word) for word in words).encode() == shown


@pytest.mark.parametrize("colour", COLOURS)
def test_nothing_is_run_but_the_command(tmp_path: Path, colour: str) -> None:
    """A shell would have made the file."""
    assert revealed(secrets(), colour, f"exec:echo a; touch {tmp_path}/made") == f"a; touch {tmp_path}/made".encode()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("tenant", ["acme", "a.b@c-d_e", "a" * 128])
@pytest.mark.parametrize("colour", COLOURS)
def test_the_tenant_is_one_argument(colour: str, tenant: str) -> None:
    """Or part of one."""
    reference = "exec:printf [%s] x {tenant} y/{tenant}"
    expected = f"[x][{tenant}][y/{tenant}]".encode()
    assert expected == revealed(secrets(), colour, reference, Caller(tenant=tenant))


@pytest.mark.parametrize("tenant", ["a b", "-a", "a;id", "$(id)", "'", '"', "a\nb", "\\", "*", "../x", "a/b", "\0"])
def test_a_tenant_that_would_be_more_than_a_word_is_refused(tmp_path: Path, tenant: str) -> None:
    """The program is not even started."""
    reference = f"exec:touch {tmp_path}/made-{{tenant}}"
    expected = "the caller's tenant is not a plain name, so no secret is looked up for it"
    assert expected == refusal(secrets(), "sync", reference, Caller(tenant=tenant))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("colour", COLOURS)
def test_the_program_reads_nothing(colour: str) -> None:
    """Its standard input is empty: a password manager that asks gets no answer from the proxy's terminal."""
    assert revealed(secrets(), colour, shell("cat; echo end")) == b"end"


# --- what it prints -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        (r"key", b"key"),
        (r"key\n", b"key"),
        (r"key\r\n", b"key"),
        (r" key \n", b" key "),
        (r"\377\376\200\n", b"\xff\xfe\x80"),
        (r"schl\303\274ssel", "schl\u00fcssel".encode()),
    ],
)
@pytest.mark.parametrize("colour", COLOURS)
def test_what_it_prints_is_the_secret(colour: str, printed: str, expected: bytes) -> None:
    """Byte for byte, UTF-8 or not, less one newline at the end."""
    assert expected == revealed(secrets(), colour, f"exec:printf {shlex.quote(printed)}")


@pytest.mark.parametrize("printed", ["", r"\n", r"\r\n"])
@pytest.mark.parametrize("colour", COLOURS)
def test_nothing_is_refused(colour: str, printed: str) -> None:
    """A program that found nothing may still say that all went well."""
    assert refusal(secrets(), colour, f"exec:printf {shlex.quote(printed)}") == "exec: printf printed nothing"


@pytest.mark.parametrize("printed", [r"\n\n", r"key\n\n", r"a\nkey\n", r"key\0", r"a\tkey", r"\033key"])
@pytest.mark.parametrize("colour", COLOURS)
def test_what_is_not_one_line_is_refused(colour: str, printed: str) -> None:
    """Nothing is guessed and nothing repaired; the command's arguments are not shown."""
    expected = "exec:printf holds a newline or control character; write it again without"
    assert expected == refusal(secrets(), colour, f"exec:printf {shlex.quote(printed)}")


def printing(count: int) -> str:
    return python(f"import sys; sys.stdout.write('k' * {count})")


@pytest.mark.parametrize("count", [MAX_BYTES - 1, MAX_BYTES])
@pytest.mark.parametrize("colour", COLOURS)
def test_up_to_64_kib_are_taken(colour: str, count: int) -> None:
    """More than a pipe holds at once."""
    assert b"k" * count == revealed(secrets(), colour, printing(count))


@pytest.mark.parametrize(
    "reference",
    [
        pytest.param(printing(MAX_BYTES + 1), id="one byte more"),
        pytest.param(printing(10_000_000), id="much more"),
        pytest.param(shell(f"while echo {MATERIAL}; do :; done"), id="without end"),
        pytest.param(shell(f"head -c {MAX_BYTES + 1} /dev/zero; exec sleep 1000"), id="and stays"),
    ],
)
@pytest.mark.parametrize("colour", COLOURS)
def test_more_than_64_kib_are_refused(colour: str, reference: str) -> None:
    """It is told as what it is, and the program is ended: nobody reads what else it has to say."""
    program = shlex.split(reference.removeprefix("exec:"))[0]
    assert f"exec: {program} printed more than 64 KiB" == refusal(secrets(), colour, reference)


@pytest.mark.parametrize("status", [1, 2, 127, 255])
@pytest.mark.parametrize("colour", COLOURS)
def test_a_failing_program_is_refused(colour: str, status: int) -> None:
    """What it printed before is not used, and its complaints are not told: they could hold the secret."""
    reference = shell(f"echo {MATERIAL}; echo no: {MATERIAL} >&2; exit {status}")
    assert f"exec: sh ended with status {status}" == refusal(secrets(), colour, reference)


@pytest.mark.parametrize("colour", COLOURS)
def test_a_program_that_is_killed_is_refused(colour: str) -> None:
    """Half a secret is none."""
    told = refusal(secrets(), colour, shell(f"echo {MATERIAL}; kill -TERM $$"))
    assert f"exec: sh ended with status -{int(signal.SIGTERM)}" == told


@pytest.mark.parametrize("colour", COLOURS)
def test_what_it_writes_to_stderr_goes_nowhere(colour: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Not into the secret, not into an error, not onto the proxy's own stderr."""
    assert revealed(secrets(), colour, shell(f"echo warning: {MATERIAL} >&2; echo {MATERIAL}")) == KEY
    refusal(secrets(), colour, shell(f"echo {MATERIAL} >&2; exit 1"))
    assert capfd.readouterr() == ("", "")


# --- commands that cannot be run ------------------------------------------------------------

UNUSABLE = {
    "only blanks": ("  ", "exec: there is no command after the colon"),
    "an open quote": (f"echo '{MATERIAL}", "exec: the command has an unclosed quote"),
    "an open double quote": (f'echo "{MATERIAL}', "exec: the command has an unclosed quote"),
    "a backslash at the end": (f"echo {MATERIAL}\\", "exec: the command has an unclosed quote"),
    "not there": (
        f"/nowhere/pass show {MATERIAL}",
        "exec: /nowhere/pass cannot be started: No such file or directory",
    ),
    "not on the path": (
        f"no-such-program {MATERIAL}",
        "exec: no-such-program cannot be started: No such file or directory",
    ),
    "a directory": (f"/ {MATERIAL}", "exec: / cannot be started: Permission denied"),
    "not executable": (f"/etc/passwd {MATERIAL}", "exec: /etc/passwd cannot be started: Permission denied"),
    "too long": (f"echo {MATERIAL * 5_000}", "exec: echo cannot be started: Argument list too long"),
}


@pytest.mark.parametrize("unusable", UNUSABLE)
@pytest.mark.parametrize("colour", COLOURS)
def test_a_command_that_cannot_be_run_is_refused(colour: str, unusable: str) -> None:
    """One sentence with the program's name; its arguments are not told, since they may be material."""
    command, expected = UNUSABLE[unusable]
    assert expected == refusal(secrets(), colour, f"exec:{command}")


@pytest.mark.parametrize("colour", COLOURS)
def test_a_command_with_a_nul_is_refused(colour: str) -> None:
    """Told as a command that cannot be started, like the others."""
    assert refusal(secrets(), colour, f"exec:echo a\0{MATERIAL}").startswith("exec: ")


# --- time -----------------------------------------------------------------------------------


def gone(pid: int) -> bool:
    """Say whether a process has ended, waiting a little for the system to notice."""
    for _ in range(200):
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    return False


WITH_CHILDREN = {
    "waits": "echo $$ >> {pids}; exec sleep 1000",
    "waits for a child": "echo $$ >> {pids}; sleep 1000 & echo $! >> {pids}; wait",
    "waits for children in a pipe": "echo $$ >> {pids}; sh -c 'echo $$ >> {pids}; exec sleep 1000' | cat",
    "ignores a signal": "trap '' TERM INT HUP; echo $$ >> {pids}; sleep 1000",
    "ends before its child": "echo {key}; sleep 1000 & echo $! >> {pids}",
    "closes its output and stays": "echo {key}; exec >&-; echo $$ >> {pids}; exec sleep 1000",
}


@pytest.mark.parametrize("script", WITH_CHILDREN)
def test_after_the_timeout_the_command_and_its_children_are_gone(tmp_path: Path, script: str) -> None:
    """Nothing is left that could pile up, request after request."""
    pids = tmp_path / "pids"
    reference = shell(WITH_CHILDREN[script].format(pids=pids, key=MATERIAL))
    assert refusal(secrets(0.5), "sync", reference) == "exec: sh took longer than 0.5 seconds"
    started = [int(line) for line in pids.read_text().split()]
    assert started != []
    assert [pid for pid in started if not gone(pid)] == []


@pytest.mark.parametrize("script", ["while :; do echo k; done", "(while :; do echo k; done) & echo $! >> {pids}; wait"])
def test_after_too_much_output_the_command_and_its_children_are_gone(tmp_path: Path, script: str) -> None:
    """As after the timeout."""
    pids = tmp_path / "pids"
    refusal(secrets(), "sync", shell(f"echo $$ >> {pids}; {script.format(pids=pids)}"))
    started = [int(line) for line in pids.read_text().split()]
    assert [pid for pid in started if not gone(pid)] == []


def test_a_timeout_is_told_under_asgi_too() -> None:
    """And not remembered: the next request starts the program again."""
    both = secrets(0.2)
    for _ in range(2):
        assert refusal(both, "async", "exec:sleep 1000") == "exec: sleep took longer than 0.2 seconds"


def test_no_process_and_no_file_is_left_behind() -> None:
    """Every child is waited for and every pipe closed, however it went."""
    process = psutil.Process()
    before = (process.num_fds(), {child.pid for child in process.children()})
    everything = secrets(0.2)
    revealed(everything, "sync", "exec:echo key")
    for reference in ("exec:false", "exec:true", "exec:/nowhere", "exec:sleep 1000", shell("yes")):
        refusal(everything, "sync", reference)
    assert before == (process.num_fds(), {child.pid for child in process.children()})


@pytest.mark.parametrize("colour", COLOURS)
def test_a_program_is_run_once_in_five_minutes(tmp_path: Path, colour: str) -> None:
    """Password managers are slow and may ask a person."""
    clock = Hand()
    both = secrets(clock=clock)
    reference = shell(f"echo run >> {tmp_path}/log; echo {MATERIAL}")
    runs = []
    for moment in (0, 239, 300, 539, 600):
        clock.now = moment
        read(both, colour, reference)
        runs.append((tmp_path / "log").read_text().count("run"))
    assert runs == [1, 1, 2, 2, 3]
