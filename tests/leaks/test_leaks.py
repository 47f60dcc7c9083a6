"""Whatever happens, neither an API's real key nor a client token is written down or answered, in any form.

A proxy runs in a process of its own with every logger at its lowest level, goes through everything
that can go wrong, and then all that it left behind is searched.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPException
from pathlib import Path

import pytest
from attrs import Factory, define
from noisy_proxy import make
from reflecting_upstream import PATHS, running_reflection

from leaks.forms import assert_clean, find
from loopback import Answer, call, wait_until

HERE = Path(__file__).parent
REAL = {
    "bearer key": "real/Bearer+key~7f3a9c2e51d84b06==",
    "basic key": "real:Basic/key+0b91c4d7e2f85a36?",
    "query key": "real&query=key/+~4d2e8f70a1b3c596",
    "header key": "real-header.key_c8a1e5d3f7029b64",
    "key of two lines": "real-two-lines-key-5e0d9a7c3b16f284",
    "key in stderr of a command": "real-exec-key-91f6b3d80ac24e75",
    "key quoted by a faulty provider": "real-talk-key-3c7e1a95d0b8f264",
}
SERVERS = ["uvicorn-h11", "uvicorn-httptools", "waitress"]
FAULTY = ["bad-file", "no-file", "bad-exec", "odd-exec", "bug-raises", "bug-chained", "bug-newline", "bug-type"]


@define
class Run:
    """One proxy's life: what went in, and all that came out or was left behind."""

    server: str
    url: str
    folder: Path
    tokens: dict[str, str] = Factory(dict)
    answers: list[tuple[str, Answer]] = Factory(list)
    output: bytes = b""

    def call(
        self, method: str, target: str, headers: list[tuple[str, str]], body: bytes | None = None
    ) -> Answer | None:
        """Send and keep the answer; None where the connection was cut, which is right for a broken answer."""
        try:
            answer = call(self.url, method, target, headers, body)
        except (HTTPException, OSError):
            return None
        self.answers.append((target, answer))
        return answer

    def left_behind(self) -> dict[str, bytes]:
        """Return every file in the folder but the keys' own."""
        return {path.name: path.read_bytes() for path in self.folder.iterdir() if path.is_file()}


def keep_keys(folder: Path) -> None:
    kept = folder / "kept"
    kept.mkdir()
    (kept / "header.key").write_text(REAL["header key"] + "\n")
    (kept / "two-lines.key").write_text(f"{REAL['key of two lines']}\n{REAL['key of two lines']}\n")
    (kept / "talk.key").write_text(REAL["key quoted by a faulty provider"])
    scripts = {
        "fails.sh": f"#!/bin/sh\necho {REAL['key in stderr of a command']}\n"
        f"echo wrong key {REAL['key in stderr of a command']} >&2\nexit 3\n",
        "two-lines.sh": f"#!/bin/sh\necho {REAL['key of two lines']}\necho {REAL['key of two lines']}\n",
    }
    for name, text in scripts.items():
        (kept / name).write_text(text)
        (kept / name).chmod(0o700)


ENVIRONMENT = {
    "REAL_BEARER": REAL["bearer key"],
    "REAL_BASIC": REAL["basic key"],
    "REAL_QUERY": REAL["query key"],
}


def _dead_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@contextmanager
def running(server: str, folder: Path, upstream: str) -> Iterator[Run]:
    """Run a noisy proxy; after the block, `output` holds all that it said until its end."""
    keep_keys(folder)
    port, dead = _dead_port(), f"http://127.0.0.1:{_dead_port()}"
    run = Run(server, f"http://127.0.0.1:{port}", folder)
    with pytest.MonkeyPatch.context() as environment:
        for name, value in ENVIRONMENT.items():
            environment.setenv(name, value)
        proxy = make(folder, upstream, dead, str(folder / "other-audit.jsonl"))
        for name in ("good", "revoked", "hammering", "in the URL"):
            issued = proxy.tokens.issue(tenant=name, subject="someone", attributes={"org": "acme"})
            run.tokens[name] = issued.token
            if name == "revoked":
                proxy.tokens.revoke(issued.id)
        proxy.close()
    with (folder.parent / "output").open("w+b") as output:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "noisy_proxy.py"), server, str(port), str(folder), upstream, dead],
            env=os.environ | ENVIRONMENT | {"PYTHONASYNCIODEBUG": "1", "PYTHONDEVMODE": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_until(lambda: _listening(port) or process.poll() is not None, 30)
            yield run
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(20)
            output.seek(0)
            run.output = output.read()


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def drive(run: Run) -> None:
    """Go through all that can happen to a request."""
    good = [("Authorization", f"Bearer {run.tokens['good']}")]
    for upstream in ("bearer", "basic", "query", "header"):
        for path in PATHS:
            run.call("GET", f"/{upstream}{path}?q=1", good)
        run.call("POST", f"/{upstream}/created", good, b"a body")
    for upstream in ("down", "down-query", *FAULTY):
        run.call("GET", f"/{upstream}/ok", good)
    for method, target in (
        ("GET", "/bearer/admin/x"),
        ("GET", "/nowhere/x"),
        ("GET", "/bearer/bug"),
        ("TRACE", "/bearer/ok"),
        ("GET", "/bearer/a/../b"),
    ):
        run.call(method, target, good)
    wrong_tokens(run)
    tokens_in_odd_places(run)
    for _ in range(230):
        run.call("GET", "/bearer/ok", [("Authorization", f"Bearer {run.tokens['hammering']}")])


def wrong_tokens(run: Run) -> None:
    """Tokens that are refused, and the right one where API clients put their keys."""
    token = run.tokens["good"]
    for value in (run.tokens["revoked"], token[:-1], token + "x", token.swapcase(), token[5:], ""):
        run.call("GET", "/bearer/ok", [("Authorization", f"Bearer {value}")])
    for headers in (
        [("X-Api-Key", token)],
        [("Authorization", f"token {token}")],
        [("Authorization", f"Unknown {token}")],
        [("Authorization", f"Bearer {token}"), ("X-Api-Key", token)],
        [("Authorization", f"Bearer {token}"), ("Authorization", f"Bearer {token}")],
        [("Authorization", f"Basic {token}")],
    ):
        run.call("GET", "/bearer/ok", headers)


def tokens_in_odd_places(run: Run) -> None:
    """The token in other headers, a cookie, a body, and (another token, for servers log URLs) in the URL."""
    token, shown = run.tokens["good"], run.tokens["in the URL"]
    good = [("Authorization", f"Bearer {token}")]
    for name in ("Referer", "User-Agent", "Cookie", "X-Token", "Proxy-Authorization", "Expect", "Te"):
        run.call("GET", "/bearer/ok", [*good, (name, token)])
    run.call("POST", "/bearer/created", good, token.encode())
    run.call("GET", "/bearer/ok", [*good, ("Host", token)])
    # uvicorn takes this for the client's address, logs it, and hands it to the application as the peer.
    run.call("GET", "/bearer/ok", [*good, ("X-Forwarded-For", shown)])
    for target in (
        f"/bearer/{shown}",
        f"/bearer/ok?token={shown}",
        f"/bearer/{shown}/../x",
        f"/{shown}/x",
        f"/bearer/%2e%2e/{shown}",
    ):
        run.call("GET", target, good)
        run.call("GET", target, [])


@pytest.fixture(scope="module", params=SERVERS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Return a run that is over, with the files of its database as they stood while it ran."""
    folder = tmp_path_factory.mktemp("leaks") / "folder"
    folder.mkdir()
    with ExitStack() as stack:
        upstream = stack.enter_context(running_reflection())
        with running(request.param, folder, upstream) as run:
            drive(run)
            for name, data in run.left_behind().items():
                (folder / f"{name}.while-running").write_bytes(data)
        yield run


def without_urls(tokens: dict[str, str]) -> dict[str, str]:
    return {name: token for name, token in tokens.items() if name != "in the URL"}


def test_the_run_went_through_everything(run: Run) -> None:
    """A search of a run in which nothing happened would say nothing."""
    codes = {answer.header("x-proxy-error")[0] for _, answer in run.answers if answer.header("x-proxy-error")}
    expected = {
        "denied",
        "internal_fault",
        "multiple_credentials",
        "path_dot_segment",
        "rate_limited",
        "secret_unavailable",
        "token_in_target",
        "unauthenticated",
        "upstream_auth_failed",
        "upstream_protocol_error",
        "upstream_unreachable",
    }
    assert expected <= codes
    assert len([answer for _, answer in run.answers if answer.status == 200]) > 100
    names = {record["name"].partition(".")[0] for record in records(run)}
    assert {"apitokenproxy", "sqlalchemy"} <= names
    assert {path.name for path in run.folder.iterdir()} >= {"tokens.db", "tokens.db.while-running", "kept"}


def records(run: Run) -> list[dict[str, str]]:
    return [json.loads(line) for line in run.output.splitlines() if line.startswith(b"{")]


def test_neither_keys_nor_tokens_are_in_what_the_process_said(run: Run) -> None:
    """Standard output, standard error and all loggers, uvicorn's, sqlalchemy's and httpcore's among them."""
    assert_clean(REAL | without_urls(run.tokens), {run.server: run.output})


def test_a_token_in_a_url_is_logged_by_nobody_but_the_server(run: Run) -> None:
    """Servers log the URLs that they are asked for before we are called; we do not repeat them."""
    ours = [json.dumps(each) for each in records(run) if not each["name"].startswith(("uvicorn", "waitress"))]
    assert ours != []
    assert_clean({"token in the URL": run.tokens["in the URL"]}, {run.server: "\n".join(ours).encode()})


def test_neither_keys_nor_tokens_are_in_any_file(run: Run) -> None:
    """The audit file and the database with its side files, while the proxy runs and after it."""
    assert_clean(REAL | run.tokens, run.left_behind())


def test_neither_keys_nor_tokens_are_answered(run: Run) -> None:
    """Status line, headers and body of every answer, where the upstream put the key wherever it could."""
    answers = [
        (target, repr((answer.status, answer.headers)).encode() + answer.body)
        for target, answer in run.answers
        if "/headers/" not in target  # test_reflection.py goes through them one by one
    ]
    assert len(answers) > 200
    assert_clean(REAL | run.tokens, answers)


def test_a_leak_would_be_found_in_these_places(run: Run) -> None:
    """Ids and tenants, which are meant to be written down, are found by the same search."""
    token_id = run.tokens["good"].split("_")[1]
    assert find({"id": token_id}, run.output) != []
    assert find({"id": token_id}, b"".join(run.left_behind().values())) != []
