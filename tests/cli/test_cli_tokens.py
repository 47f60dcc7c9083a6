"""`apitokenproxy tokens`: handing out, looking at, taking back."""

import json
import os
import pwd
import re
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import pytest
from command_line import COMMAND, TOKEN, finished, run

from apitokenproxy.cli.token_options import person
from apitokenproxy.identity.format import mint
from loopback import UpstreamServer

NOBODY = "Nobody123456"

pytestmark = pytest.mark.long  # a hundred programs are started; docs/cli.md runs most commands in the plain run


def issue(folder: Path, *arguments: str) -> dict[str, object]:
    done = run("tokens", "issue", "--json", *arguments, folder=folder)
    assert (done.code, done.err) == (0, "")
    issued: dict[str, object] = json.loads(done.out)
    return issued


def test_issue_prints_the_token_alone(folder: Path) -> None:
    """`TOKEN=$(apitokenproxy tokens issue ...)` is the token and nothing else; the details go to stderr."""
    command = 'TOKEN=$(apitokenproxy tokens issue --tenant acme --expires-in 30d); printf "%s" "$TOKEN"'
    done = finished(["bash", "-c", command], folder)
    assert done.code == 0
    assert TOKEN.fullmatch(done.out)
    assert f"id {done.out[4:16]}, tenant acme, expires 20" in done.lines[0]
    assert "curl -H" in done.lines[1]
    assert done.out not in done.err


def test_issue_needs_neither_the_secrets_nor_the_audit_file(folder: Path) -> None:
    """Tokens can be issued where the real keys are not; no audit file is made with a wrong owner."""
    done = run("tokens", "issue", "--tenant", "acme", folder=folder, DEMO_KEY=None)
    assert done.code == 0
    assert TOKEN.fullmatch(done.out.strip())
    assert not (folder / "audit.jsonl").exists()


def test_everything_about_a_token_can_be_seen_but_the_token(folder: Path) -> None:
    """What was given when it was issued is listed and shown, as a table and as JSON."""
    acme = issue(
        folder, "--tenant", "acme", "--subject", "ci", "--scope", "a:read", "--scope", "b", "--attr", "org=octo=cat"
    )
    other = issue(folder, "--tenant", "other", "--expires-in", "12h")
    token = str(acme.pop("token"))
    del other["token"]
    assert (acme["subject"], acme["scopes"], acme["attributes"]) == ("ci", ["a:read", "b"], {"org": "octo=cat"})

    table = run("tokens", "list", folder=folder)
    assert (table.code, table.err) == (0, "")
    header, first, second = table.out.splitlines()
    assert header.split() == [
        "ID",
        "STATE",
        "TENANT",
        "SUBJECT",
        "SCOPES",
        "CREATED",
        "EXPIRES",
        "LAST",
        "USED",
        "OLD",
        "GENERATION",
    ]
    assert first.split()[:4] == [acme["id"], "active", "acme", "ci"]
    assert [line.index(word) for line, word in ((header, "TENANT"), (first, "acme"), (second, "other"))] == [
        header.index("TENANT")
    ] * 3

    listed = run("tokens", "list", "--tenant", "other", "--json", folder=folder)
    assert [json.loads(line) for line in listed.out.splitlines()] == [other]

    as_json = run("tokens", "show", str(acme["id"]), "--json", folder=folder)
    told = json.loads(as_json.out)
    assert [event["action"] for event in told.pop("events")] == ["issue"]
    assert told == acme

    shown = run("tokens", "show", str(acme["id"]), folder=folder)
    assert [line.split(maxsplit=1) for line in shown.out.splitlines()][3:6] == [
        ["subject", "ci"],
        ["scopes", "a:read b"],
        ["attributes", "org=octo=cat"],
    ]
    assert all(token not in done.out + done.err for done in (table, listed, as_json, shown))


def test_nothing_that_is_printed_acts_on_the_terminal(folder: Path) -> None:
    """Control characters of attributes, of the store's rows and of files' names are shown escaped."""
    identifier = str(issue(folder, "--tenant", "acme", "--attr", "org=\x1b]0;mine\x07\x9b31m\u202e")["id"])
    with sqlite3.connect(folder / "tokens.db") as database:
        database.execute("UPDATE atp_tokens SET subject = 'a\x1b[2J'")
        database.execute("UPDATE atp_events SET actor = 'b\x1b[2J'")
    database.close()
    (folder / "c\x1b[2J.env").write_text(mint()[1])
    shown = run("tokens", "show", identifier, folder=folder).out
    listed = run("tokens", "list", folder=folder).out
    found = run("tokens", "scan", "c\x1b[2J.env", folder=folder).out
    assert "org=\\x1b]0;mine\\x07\\x9b31m\\u202e" in shown
    assert [text.count("\\x1b[2J") for text in (shown, listed, found)] == [2, 1, 1]
    assert all(char.isprintable() or char == "\n" for char in shown + listed + found)


def test_who_did_it_is_the_account_and_not_a_variable(folder: Path) -> None:
    """Anybody can set LOGNAME; and no name that it has can make a command fail."""
    for name in ("mallory", "\x1b[2J", "x" * 300):
        done = run("tokens", "issue", "--tenant", "acme", "--json", folder=folder, LOGNAME=name, USER=name)
        identifier = json.loads(done.out)["id"]
    events = json.loads(run("tokens", "show", identifier, "--json", folder=folder).out)["events"]
    assert [event["by"] for event in events] == [f"{pwd.getpwuid(os.getuid()).pw_name} (command line)"]


@pytest.mark.parametrize(
    ("name", "by"), [(None, "user {} (command line)"), (" ", "user {} (command line)"), ("a\n", "a\\n (command line)")]
)
def test_an_account_without_a_good_name_is_told_by_its_number(
    name: str | None, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container that runs as any number."""

    def getpwuid(_: int) -> SimpleNamespace:
        if name is None:
            raise KeyError
        return SimpleNamespace(pw_name=name)

    monkeypatch.setattr(pwd, "getpwuid", getpwuid)
    assert person() == by.format(os.getuid())


def test_revoke_asks_nothing_and_says_what_it_did(folder: Path) -> None:
    """A revoked token stays in the list as revoked."""
    issued = issue(folder, "--tenant", "acme")
    done = run("tokens", "revoke", str(issued["id"]), folder=folder)
    assert (done.code, done.out, done.err) == (0, f"{issued['id']} of acme is revoked\n", "")
    listed = run("tokens", "list", "--json", folder=folder)
    assert [json.loads(line)["state"] for line in listed.out.splitlines()] == ["revoked"]


@pytest.mark.parametrize("command", ["show", "revoke"])
def test_an_id_that_nobody_has_is_one_sentence(command: str, folder: Path) -> None:
    """The sentence says how to find the right one."""
    issue(folder, "--tenant", "acme")
    done = run("tokens", command, NOBODY, folder=folder)
    assert (done.code, done.out) == (1, "")
    assert done.err == f"error: there is no token with the id {NOBODY}; see: apitokenproxy tokens list\n"


def test_a_token_in_the_place_of_its_id_is_not_repeated(folder: Path) -> None:
    """It is told apart from an id, and the terminal does not show it again."""
    token = str(issue(folder, "--tenant", "acme")["token"])
    done = run("tokens", "revoke", token, folder=folder)
    assert (done.code, done.out) == (1, "")
    assert "that is a token, not its id" in done.err
    assert token not in done.err


def test_a_store_in_memory_is_refused(folder: Path) -> None:
    """A token issued into the memory of this process would end with it."""
    configuration = folder / "apitokenproxy.toml"
    configuration.write_text(configuration.read_text().replace("sqlite:///tokens.db", "memory:"))
    done = run("tokens", "issue", "--tenant", "acme", folder=folder)
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        "error: apitokenproxy.toml: proxy.store: is memory:, "
        "which ends with its process and is nobody else's; use sqlite:///FILE\n"
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--expires-in", "30x"], "'30x' is not a duration; write a number and one of ms, s, m, h, d, as in 30d"),
        (["--expires-in", "0s"], "'0s' is no time at all"),
        (["--attr", "octocat"], "'octocat' is not like org=octocat"),
        (["--overlap", "7d"], "No such option"),
    ],
)
def test_wrong_options_are_usage_errors(arguments: list[str], sentence: str, folder: Path) -> None:
    """Exit code 2, the sentence on stderr, and no token."""
    done = run("tokens", "issue", "--tenant", "acme", *arguments, folder=folder)
    assert (done.code, done.out) == (2, "")
    assert sentence in done.err
    assert not (folder / "tokens.db").exists()


def test_a_name_that_the_store_refuses_is_one_sentence(folder: Path) -> None:
    """What makes a tenant is told."""
    done = run("tokens", "issue", "--tenant", "a\nb", folder=folder)
    assert (done.code, done.out) == (1, "")
    assert done.err == "error: tenant must be 1 to 128 printable characters, without spaces at its ends\n"


def test_no_token_is_issued_when_nobody_could_read_it(folder: Path, upstream: UpstreamServer) -> None:
    """With stdout closed the token would be lost, so there is none."""
    done = finished(["bash", "-c", '"$@" >&-', "-", *COMMAND, "tokens", "issue", "--tenant", "acme"], folder)
    assert done.code == 1
    assert done.err == "error: stdout is closed, so nobody could read the token; no token was issued\n"
    assert not (folder / "tokens.db").exists()


def test_rotate_prints_the_new_token_alone(folder: Path) -> None:
    """The details go to stderr; repeated with its key it prints no token, and says what to do if it was lost."""
    identifier = str(issue(folder, "--tenant", "acme")["id"])
    first = run("tokens", "rotate", identifier, "--overlap", "12h", "--key", "k", folder=folder)
    assert (first.code, bool(TOKEN.fullmatch(first.out.strip())), first.out[4:16]) == (0, True, identifier)
    assert first.err.startswith(f"generation 2 of {identifier}; the old secret ends 20")
    again = run("tokens", "rotate", identifier, "--overlap", "12h", "--key", "k", folder=folder)
    assert (again.code, again.out) == (0, "")
    assert f"apitokenproxy tokens undo {identifier}" in again.err
    other = run("tokens", "rotate", identifier, "--overlap", "0s", "--key", "k", folder=folder)
    assert (other.code, other.out) == (1, "")
    assert "with this key before, on other terms" in other.err
    refused = run("tokens", "rotate", identifier, folder=folder)
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.startswith(f"error: client token {identifier} has generation 1 retiring until")


def test_a_life_on_the_command_line(folder: Path) -> None:
    """Each command says what it did, and the events say who did it."""
    issued = issue(folder, "--tenant", "acme", "--scope", "a")
    identifier = str(issued["id"])
    said = [
        run("tokens", *words, folder=folder).out
        for words in (
            ("rotate", identifier, "--json"),
            ("undo", identifier),
            ("suspend", identifier),
            ("resume", identifier),
            ("edit", identifier, "--no-scopes", "--subject", "ci"),
        )
    ]
    assert json.loads(said[0])["generation"] == 2
    assert said[1:] == [
        f"the last rotation of {identifier} is undone\n",
        f"{identifier} of acme is suspended\n",
        f"{identifier} of acme is active\n",
        f"{identifier} of acme is changed\n",
    ]
    told = json.loads(run("tokens", "show", identifier, "--json", folder=folder).out)
    assert (told["subject"], told["scopes"]) == ("ci", [])
    assert [event["action"] for event in told["events"]] == ["issue", "rotate", "undo", "suspend", "resume", "edit"]
    assert {event["by"].endswith(" (command line)") for event in told["events"]} == {True}
    assert run("tokens", "delete", identifier, folder=folder).out == f"{identifier} is deleted\n"
    assert run("tokens", "show", identifier, folder=folder).code == 1


def test_an_old_secret_that_is_still_there_is_listed(folder: Path) -> None:
    """Until when it lives, and whether anybody uses it."""
    identifier = str(issue(folder, "--tenant", "acme")["id"])
    run("tokens", "rotate", identifier, folder=folder)
    row = run("tokens", "list", folder=folder).out.splitlines()[1]
    assert row.rstrip().endswith(", not used")
    assert "  1 until 20" in row


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["revoke"], "name one of: an ID, --tenant"),
        (["revoke", NOBODY, "--tenant", "acme"], "name one of: an ID, --tenant"),
        (["revoke", "--subject", "ci"], "name one of: an ID, --tenant"),
        (["edit", NOBODY], "name what is to be changed"),
        (["edit", NOBODY, "--scope", "a", "--no-scopes"], "name either new ones or none"),
        (["rotate", NOBODY, "--overlap", "soon"], "'soon' is not a duration"),
    ],
)
def test_words_that_do_not_go_together_are_usage_errors(folder: Path, words: list[str], sentence: str) -> None:
    """Exit code 2, and the sentence says what to name."""
    done = run("tokens", *words, folder=folder)
    assert (done.code, done.out) == (2, "")
    assert sentence in done.err


def test_a_leaked_token_is_revoked_from_stdin(folder: Path) -> None:
    """So that it stands in no history of commands; what is no token of ours is one sentence, and not repeated."""
    token = str(issue(folder, "--tenant", "acme")["token"])
    assert run("tokens", "revoke", "--token-stdin", folder=folder, stdin=f"{token}\n").out == (
        f"{token[4:16]} of acme is revoked\n"
    )
    wrong = run("tokens", "revoke", "--token-stdin", folder=folder, stdin="atp_nothing_of_ours")
    assert (wrong.code, "nothing_of_ours" in wrong.err) == (1, False)
    assert "no client token of this store" in wrong.err


@pytest.mark.parametrize("words", [("revoke", "--token-stdin"), ("narrow", "--method", "GET")])
def test_what_is_no_text_on_stdin_is_no_token(folder: Path, words: tuple[str, ...]) -> None:
    """One sentence, as for any other wrong token."""
    issue(folder, "--tenant", "acme")
    done = run("tokens", *words, folder=folder, stdin=b"\xff\xfeatp_\x80")
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert re.search("no client token of this store|only a derived token can be narrowed", done.err)


def test_a_tenant_is_revoked_at_once(folder: Path) -> None:
    """Or one subject of it."""
    for subject in ("a", "a", "b"):
        issue(folder, "--tenant", "acme", "--subject", subject)
    assert run("tokens", "revoke", "--tenant", "acme", "--subject", "a", folder=folder).out == (
        "2 tokens of acme are revoked\n"
    )
    assert run("tokens", "revoke", "--tenant", "acme", folder=folder).out == "1 token of acme is revoked\n"
    nothing = run("tokens", "revoke", "--tenant", "acme", "--subject", "a", folder=folder)
    assert (nothing.code, nothing.out) == (1, "")
    assert nothing.err.startswith("error: there is no token of a of acme to revoke; see: ")


@pytest.mark.parametrize(
    "words", [("list",), ("show", NOBODY), ("rotate", NOBODY), ("revoke", "--tenant", "acme"), ("derive", NOBODY)]
)
def test_a_store_that_is_not_there_is_said_and_not_made(folder: Path, words: tuple[str, ...]) -> None:
    """Of an empty one it would be said that nothing of this tenant had to be revoked, by a wrong path in the file."""
    done = run("tokens", *words, folder=folder)
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        "error: apitokenproxy.toml: proxy.store: there is no store sqlite:///tokens.db yet; "
        "name the one that the proxy uses, or issue a token first\n"
    )
    assert not (folder / "tokens.db").exists()


def test_tokens_are_found_in_files(folder: Path) -> None:
    """By form and checksum: with file and line, exit code 1; what only looks like one is not told."""
    issued = issue(folder, "--tenant", "acme")
    token, identifier = str(issued["token"]), issued["id"]
    almost = token[:-1] + ("0" if token[-1] != "0" else "1")
    (folder / "app.env").write_bytes(b"\xff\xfe\n\nKEY=" + token.encode() + b";x\n" + almost.encode() + b"\n")
    (folder / "clean.txt").write_text("nothing here\n")
    (folder / "apitokenproxy.toml").unlink()
    found = run("tokens", "scan", "app.env", "clean.txt", folder=folder)
    assert (found.code, found.out) == (1, f"app.env:3: a client token with the id {identifier}\n")
    assert token not in found.out + found.err
    clean = run("tokens", "scan", "clean.txt", folder=folder)
    assert (clean.code, clean.out, clean.err) == (0, "", "")


def with_signing_key(folder: Path) -> None:
    file = folder / "apitokenproxy.toml"
    file.write_text(file.read_text().replace("[proxy]\n", '[proxy]\nsigning_keys = ["env:TOKEN_KEY"]\n'))


def test_lesser_tokens_are_derived_and_narrowed(folder: Path) -> None:
    """The token alone on stdout; narrowing needs no file; both are found by a scan, with the parent's id."""
    with_signing_key(folder)
    identifier = str(issue(folder, "--tenant", "acme")["id"])
    less = ("--path", "/a", "--rate", "10/minute", "--expires-in", "15m")
    derived = run("tokens", "derive", identifier, *less, folder=folder, TOKEN_KEY="k" * 32)
    assert (derived.code, derived.out.startswith(f"atp_{identifier}."), derived.out.count("\n")) == (0, True, 1)
    assert f"derived from {identifier}, ends " in derived.err
    as_json = run("tokens", "derive", identifier, "--json", folder=folder, TOKEN_KEY="k" * 32)
    assert json.loads(as_json.out)["parent"] == identifier
    (folder / "apitokenproxy.toml").unlink()
    narrowed = run("tokens", "narrow", "--method", "GET", folder=folder, stdin=derived.out)
    assert (narrowed.code, narrowed.out.count("."), narrowed.err) == (0, derived.out.count(".") + 1, "")
    (folder / "app.env").write_text(f"KEY={narrowed.out}")
    own = derived.err.partition("id ")[2][:12]
    found = run("tokens", "scan", "app.env", folder=folder)
    assert (found.code, found.out) == (1, f"app.env:1: token {own}, derived from {identifier}\n")


@pytest.mark.parametrize(
    ("arguments", "key", "sentence"),
    [
        ((), None, "cannot be had|not set"),
        ((), "short", "must have 32 or more"),
        (("--path", "a"), "k" * 32, "must begin with a slash"),
        (("--scope", "z"), "k" * 32, "has no scope z"),
        (("--rate", "often"), "k" * 32, "is not like '100/minute'"),
    ],
)
def test_what_cannot_be_derived_is_one_sentence(
    folder: Path, arguments: tuple[str, ...], key: str | None, sentence: str
) -> None:
    """And nothing on stdout."""
    with_signing_key(folder)
    identifier = str(issue(folder, "--tenant", "acme")["id"])
    done = run("tokens", "derive", identifier, *arguments, folder=folder, TOKEN_KEY=key)
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert re.search(sentence, done.err)


def test_only_a_derived_token_is_narrowed(folder: Path) -> None:
    """What is on stdin is not repeated."""
    token = str(issue(folder, "--tenant", "acme")["token"])
    done = run("tokens", "narrow", "--method", "GET", folder=folder, stdin=token)
    assert (done.code, done.out) == (1, "")
    assert "only a derived token can be narrowed" in done.err
    assert token not in done.err
