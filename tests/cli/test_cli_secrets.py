"""`apitokenproxy secrets`: what people see and do of the versions of upstreams' secrets, beside a running proxy."""

import json
import os
import re
import time
from pathlib import Path

import pytest
from command_line import run, serving

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


def test_an_upstream_that_is_away_is_said(rotating: Path, upstream: UpstreamServer) -> None:
    """A probe needs it."""
    path = rotating / "apitokenproxy.toml"
    path.write_text(path.read_text().replace(upstream.url, "http://127.0.0.1:9"))
    done = run("secrets", "probe", "api", folder=rotating, **KEYS)
    assert (done.code, done.out) == (1, "")
    assert "127.0.0.1" in done.err
    assert os.linesep.join(done.lines).count("error:") == 1
