"""`apitokenproxy secrets`: what people see and do of the versions of upstreams' secrets, beside a running proxy."""

import json
import os
import re
import time
from pathlib import Path

import pytest
from command_line import Done, run, serving

from apitokenproxy.sealing import new_master_key
from apitokenproxy.secrets.sealed import SealedProvider
from loopback import REAL_KEY, UpstreamServer, call

KEYS = {"KEY": REAL_KEY, "NEXT": "next-key-9b1e5f", "BEFORE": "before-key-1d2c3b"}
VERSION = r"env#[0-9a-f]{12}"


@pytest.fixture
def rotating(folder: Path, upstream: UpstreamServer) -> Path:
    """A folder whose configuration has three versions; the upstream takes the current and the next one."""
    path = folder / "apitokenproxy.toml"
    stated = path.read_text().replace('secret = "env:DEMO_KEY" }', 'secret = "env:KEY" }\n' + TERMS)
    path.write_text(stated)
    upstream.authorised = lambda received: (
        received.header("authorization")
        in [
            [f"Bearer {KEYS['KEY']}"],
            [f"Bearer {KEYS['NEXT']}"],
        ]
    )
    assert run("tokens", "issue", "--tenant", "acme", folder=folder, **KEYS).code == 0
    return folder


TERMS = """candidate = { type = "bearer", secret = "env:NEXT" }
previous = { type = "bearer", secret = "env:BEFORE" }
rotation = { probe = "/me", successes = 3 }"""


def secrets(folder: Path, *arguments: str, **variables: str | None) -> str:
    done = run("secrets", *arguments, folder=folder, **(KEYS | variables))
    assert done.code == 0, done.err
    for material in KEYS.values():
        assert material not in done.out + done.err
    return done.out


def table(text: str) -> list[list[str]]:
    return [re.split(r"  +", line) for line in text.splitlines()]


def test_the_status_is_a_table(rotating: Path) -> None:
    """One line a version, and why one cannot be had."""
    head, candidate, current, previous = table(secrets(rotating, "status", BEFORE=None))
    assert head == ["UPSTREAM", "ROLE", "VERSION", "STATE", "SINCE", "BY"]
    assert (candidate[1], candidate[3]) == ("candidate", "proving, 0 of 3")
    assert re.fullmatch(VERSION, candidate[2])
    assert (current[1], current[3]) == ("current", "live")
    assert (previous[1:3], previous[3].partition(":")[0]) == (["previous", "-"], "cannot be had")


@pytest.mark.long
def test_probes_promote_and_the_way_back(rotating: Path, upstream: UpstreamServer) -> None:
    """A running proxy follows within a second; who did it stands in the table."""
    token = run("tokens", "issue", "--tenant", "acme", folder=rotating, **KEYS).out.strip()
    held = [("Authorization", f"Bearer {token}")]
    with serving(rotating, **KEYS) as served:
        for count in range(3):
            rows = table(secrets(rotating, "probe", "api"))
            assert [row[3] for row in rows] == ["ANSWER", "200", "200", "401"]
            assert rows[1][4] == ("live" if count == 2 else f"proving, {count + 1} of 3")
        assert upstream.last.target == "/me"
        time.sleep(1.2)
        assert call(served.url, "GET", "/proxy/api/x", held).status == 200
        assert upstream.last.header("authorization") == [f"Bearer {KEYS['NEXT']}"]
        said = secrets(rotating, "rollback", "api")
        assert re.fullmatch(f"api: version {VERSION} was rolled back; version {VERSION} is live\n", said)
        time.sleep(1.2)
        assert call(served.url, "GET", "/proxy/api/x", held).status == 200
        assert upstream.last.header("authorization") == [f"Bearer {KEYS['KEY']}"]
        said = secrets(rotating, "promote", "api")
        assert "is live; take it back with: apitokenproxy secrets rollback api" in said
        [_, candidate, *_] = table(secrets(rotating, "status", "api"))
        assert candidate[3] == "live"
        assert candidate[5].endswith("(command line)")


@pytest.mark.long
def test_json_is_one_version_a_line(rotating: Path) -> None:
    """For programs."""
    found = [json.loads(line) for line in secrets(rotating, "status", "--json").splitlines()]
    assert [(one["role"], one["standing"]) for one in found] == [
        ("candidate", "proving"),
        ("current", "live"),
        ("previous", "ready"),
    ]
    found = [json.loads(line) for line in secrets(rotating, "probe", "api", "--path", "/x", "--json").splitlines()]
    assert [one["status"] for one in found] == [200, 200, 401]


def test_a_probe_that_is_refused_is_exit_code_1(rotating: Path, upstream: UpstreamServer) -> None:
    """For scripts; the table is printed all the same."""
    upstream.authorised = lambda received: received.header("authorization") == [f"Bearer {KEYS['KEY']}"]
    done = run("secrets", "probe", "api", folder=rotating, **KEYS)
    assert (done.code, [row[3] for row in table(done.out)]) == (1, ["ANSWER", "401", "200", "401"])


@pytest.mark.long
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["promote", "apu"], "error: there is no upstream apu; there are: api\n"),
        (["probe", "api", "--path", "x"], "error: rotation: probe is 'x'; it must be a path such as /v1/me\n"),
        (["status", "-c", "none.toml"], "error: none.toml: there is no such file; name another with -c FILE\n"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(rotating: Path, arguments: list[str], sentence: str) -> None:
    """On stderr, with exit code 1."""
    done = run("secrets", *arguments, folder=rotating, **KEYS)
    assert (done.code, done.out, done.err) == (1, "", sentence)


@pytest.mark.long
def test_an_upstream_that_is_away_is_said(rotating: Path, upstream: UpstreamServer) -> None:
    """A probe needs it."""
    path = rotating / "apitokenproxy.toml"
    path.write_text(path.read_text().replace(upstream.url, "http://127.0.0.1:9"))
    done = run("secrets", "probe", "api", folder=rotating, **KEYS)
    assert (done.code, done.out) == (1, "")
    assert "127.0.0.1" in done.err
    assert os.linesep.join(done.lines).count("error:") == 1


# --- the encrypted file ------------------------------------------------------------------------

PEM = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA\n-----END PRIVATE KEY-----"


def sealed(folder: Path, *arguments: str, stdin: str | bytes = "", **variables: str | None) -> Done:
    names = {"APITOKENPROXY_SEALED_FILE": "secrets.sealed", "APITOKENPROXY_SEALED_KEY": "file:master-key"}
    return run("secrets", *arguments, folder=folder, stdin=stdin, **(names | variables))


@pytest.mark.long
def test_secrets_are_sealed_and_sealed_anew(tmp_path: Path) -> None:
    """Of one line or several, without the newline at the end; a proxy that has both keys reads them all the while."""
    for name in ("master-key", "new-key"):
        (tmp_path / name).write_text(sealed(tmp_path, "new-key").out)
    assert sealed(tmp_path, "seal", "acme/github", stdin="ghp_1\n").out == "sealed:acme/github is version 1 now\n"
    assert sealed(tmp_path, "seal", "acme/github", stdin=PEM + "\n").out == "sealed:acme/github is version 2 now\n"
    text = (tmp_path / "secrets.sealed").read_text()
    assert "ghp_1" not in text
    assert (tmp_path / "secrets.sealed").stat().st_mode & 0o777 == 0o600
    both = {"APITOKENPROXY_SEALED_KEY": "file:new-key", "APITOKENPROXY_SEALED_OLD_KEY": "file:master-key"}
    assert sealed(tmp_path, "reseal", **both).out == "2 versions are sealed under the new master key\n"
    assert sealed(tmp_path, "reseal", **both).out == "0 versions are sealed under the new master key\n"
    provider = SealedProvider(str(tmp_path / "secrets.sealed"), [f"file:{tmp_path}/new-key"])
    assert provider.fetch("acme/github").reveal() == PEM.encode()
    assert provider.fetch("acme/github#previous").reveal() == b"ghp_1"


@pytest.mark.long
@pytest.mark.parametrize(
    ("arguments", "stdin", "variables", "sentence"),
    [
        (["seal", "a/b/c"], "x", {}, "a secret is named NAME or TENANT/NAME, of letters, digits and . _ @ -"),
        (["seal", "a#previous"], "x", {}, "a secret is named NAME or TENANT/NAME"),
        (["seal", "a"], "", {}, "there is nothing to seal; write the secret to stdin"),
        (["seal", "a"], "x" * 70_000, {}, "a secret has at most 64 KiB"),
        (["seal", "a"], "x", {"APITOKENPROXY_SEALED_KEY": "file:none"}, "none"),
        (["seal", "a"], "x", {"APITOKENPROXY_SEALED_KEY": None}, "set APITOKENPROXY_SEALED_FILE to the file"),
        (["seal", "a"], "x", {"APITOKENPROXY_SEALED_FILE": "no/folder/x"}, "no/folder/x"),
        (["reseal"], "", {}, "set APITOKENPROXY_SEALED_OLD_KEY to the old master key's reference"),
    ],
)
def test_what_cannot_be_sealed_is_one_sentence(
    tmp_path: Path, arguments: list[str], stdin: str, variables: dict[str, str | None], sentence: str
) -> None:
    """On stderr, with exit code 1, and no file is made."""
    (tmp_path / "master-key").write_text(new_master_key())
    done = sealed(tmp_path, *arguments, stdin=stdin, **variables)
    assert (done.code, done.out, len(done.lines)) == (1, "", 1)
    assert sentence in done.err
    assert not (tmp_path / "secrets.sealed").exists()
