"""`apitokenproxy serve`: the proxy by itself."""

import json
import signal
import socket
import time
from pathlib import Path

import pytest
from command_line import run, serving

from loopback import REAL_KEY, UpstreamServer, call, wait_until


def issue(folder: Path) -> tuple[str, str]:
    issued = json.loads(run("tokens", "issue", "--tenant", "acme", "--json", folder=folder).out)
    return issued["token"], issued["id"]


def configure(folder: Path, old: str, new: str) -> None:
    path = folder / "apitokenproxy.toml"
    path.write_text(path.read_text().replace(old, new))


def test_from_a_file_to_an_answer(folder: Path, upstream: UpstreamServer) -> None:
    """A token issued by one process is good in another, and worth nothing within the bound after a third revokes it."""
    token, token_id = issue(folder)
    with serving(folder) as served:
        held = [("Authorization", f"Bearer {token}")]
        answer = call(served.url, "GET", "/proxy/api/hello", held)
        assert answer.status == 200
        assert upstream.last.target == "/hello"
        assert upstream.last.header("authorization") == [f"Bearer {REAL_KEY}"]
        assert answer.header("server") == []

        assert call(served.url, "DELETE", "/proxy/api/hello", held).header("x-proxy-error") == ["denied"]

        assert run("tokens", "revoke", token_id, folder=folder).code == 0
        time.sleep(1)  # the bound: revocation_bound is 1s when left out
        assert call(served.url, "GET", "/proxy/api/hello", held).header("x-proxy-error") == ["unauthenticated"]
        served.end(signal.SIGTERM)
    records = [json.loads(line) for line in (folder / "audit.jsonl").read_text().splitlines()]
    assert [record["status"] for record in records] == [200, 403, 401]
    assert len(upstream.requests) == 1


def test_what_it_says_when_it_starts(folder: Path) -> None:
    """The address, the mount, the upstreams and a command to try."""
    with serving(folder) as served:
        assert served.said == (
            f"apitokenproxy serves api (wire forwarder) at {served.url}/proxy/<upstream>/\n"
            f'try: curl -H "Authorization: Bearer $TOKEN" {served.url}/proxy/api/\n'
        )


def test_what_is_outside_the_prefix(folder: Path) -> None:
    """/healthz says ok to anybody; everything else is the proxy's own 404."""
    with serving(folder) as served:
        health = call(served.url, "GET", "/healthz")
        assert (health.status, health.body) == (200, b"ok\n")
        assert call(served.url, "HEAD", "/healthz").status == 200
        for method, target in [("GET", "/"), ("GET", "/proxyapi"), ("GET", "/healthz/x"), ("POST", "/healthz")]:
            answer = call(served.url, method, target)
            assert (answer.status, answer.header("x-proxy-error")) == (404, ["not_found"]), target


@pytest.mark.long
@pytest.mark.parametrize(("prefix", "mount"), [("/gate/way", "/gate/way"), ("", ""), ("/", "")])
def test_a_prefix_from_the_file(prefix: str, mount: str, folder: Path) -> None:
    """It is where the proxy answers, and what the start-up lines say."""
    configure(folder, "[proxy]", f'[proxy]\nprefix = "{prefix}"')
    with serving(folder) as served:
        assert f"{served.url}{mount}/<upstream>/\n" in served.said
        assert call(served.url, "GET", f"{mount}/api/x").header("x-proxy-error") == ["unauthenticated"]


def test_sigterm_ends_it_well_and_quietly(folder: Path) -> None:
    """Exit code 0, also while an answer is streaming, and its record is written."""
    token, _ = issue(folder)
    with (
        serving(folder) as served,
        socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2]))) as client,
    ):
        head = f"GET /proxy/api/events/20 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
        client.sendall(head.encode())
        assert client.recv(12) == b"HTTP/1.1 200"
        done = served.end(signal.SIGTERM)
        rest = b""
        while piece := client.recv(65536):
            rest += piece
    assert (done.code, done.out, done.err) == (0, "", "")
    assert rest.endswith(b"data: 19\n\n\r\n0\r\n\r\n")
    assert json.loads((folder / "audit.jsonl").read_text())["status"] == 200


def test_control_c_ends_it_quietly(folder: Path) -> None:
    """Exit code 130, as for every interrupted command."""
    with serving(folder) as served:
        assert call(served.url, "GET", "/healthz").status == 200
        done = served.end(signal.SIGINT)
    assert (done.code, done.out, done.err) == (130, "", "")


@pytest.mark.long
def test_workers_share_the_port_and_count_apart(folder: Path, upstream: UpstreamServer) -> None:
    """They say that limits are counted in each, and end together."""
    with (folder / "apitokenproxy.toml").open("a") as file:
        file.write('\n[[limits]]\nname = "l"\nper = ["token"]\nrate = "1000/minute"\n')
    token, _ = issue(folder)
    with serving(folder, "--workers", "2", lines=3) as served:
        assert "note: limits are counted in each of the 2 workers by itself" in served.said
        for _ in range(4):
            answer = call(served.url, "GET", "/proxy/api/x", [("Authorization", f"Bearer {token}")])
            assert answer.status == 200
        done = served.end(signal.SIGTERM)
    assert (done.code, done.out, done.err) == (0, "", "")
    wait_until(lambda: len((folder / "audit.jsonl").read_text().splitlines()) == 4)


def test_a_busy_port_is_one_sentence(folder: Path) -> None:
    """It says what to do, and exit code 1."""
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        done = run("serve", "--port", str(port), folder=folder)
    assert (done.code, done.out) == (1, "")
    said = f"cannot listen on 127.0.0.1 port {port}: Address already in use; choose another with --host and --port"
    assert done.err == f"error: {said}\n"


@pytest.mark.long
@pytest.mark.parametrize("host", ["203.0.113.1", "ä..b", "no-such-host.invalid"])
def test_a_host_that_is_not_here_is_one_sentence(host: str, folder: Path) -> None:
    """A foreign address, no name at all, an unknown name."""
    done = run("serve", "--host", host, "--port", "0", folder=folder)
    assert (done.code, done.out, len(done.lines)) == (1, "", 1)
    assert done.err.startswith(f"error: cannot listen on {host} port 0: ")
    assert done.err.endswith("; choose another with --host and --port\n")


def test_it_does_not_start_with_a_wrong_file(folder: Path) -> None:
    """All problems are told, as by `check`."""
    configure(folder, "effect", "efect")
    done = run("serve", "--port", "0", folder=folder)
    assert (done.code, done.out) == (1, "")
    assert done.lines == [
        "error: apitokenproxy.toml: rules[0].efect: unknown key; did you mean 'effect'?",
        "error: apitokenproxy.toml: rules[0].effect: is missing",
    ]


def test_it_does_not_start_without_its_secrets(folder: Path) -> None:
    """The missing one is named."""
    done = run("serve", "--port", "0", folder=folder, DEMO_KEY=None)
    assert (done.code, done.out) == (1, "")
    assert "environment variable DEMO_KEY is not set" in done.err


def test_forwarded_addresses_are_believed_from_nobody_by_default(folder: Path) -> None:
    """The server under it does not rewrite the peer's address: whom to believe is trusted_proxies' to say."""
    with serving(folder, FORWARDED_ALLOW_IPS="*") as served:
        call(served.url, "GET", "/proxy/api/x", [("X-Forwarded-For", "198.51.100.7")])
        served.end(signal.SIGTERM)
    assert json.loads((folder / "audit.jsonl").read_text())["peer"] == "127.0.0.1"
