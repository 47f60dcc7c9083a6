"""`apitokenproxy tokens`: handing out, looking at, taking back."""

import json
from pathlib import Path

import pytest
from command_line import COMMAND, TOKEN, finished, run

from loopback import UpstreamServer

NOBODY = "Nobody123456"


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
        "which ends with the process that issued the token; use sqlite:///FILE\n"
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
