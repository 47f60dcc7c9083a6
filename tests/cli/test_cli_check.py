"""`apitokenproxy check`: what is wrong with a configuration, all of it, in sentences."""

import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import CONFIGURATION, run, serving
from sqlalchemy import make_url

from apitokenproxy import Bearer, ConfigurationError, Proxy, Upstream
from apitokenproxy.secrets.builtin import built_in_providers
from loopback import REAL_KEY, UpstreamServer


def test_a_right_configuration_is_told_in_one_line(folder: Path) -> None:
    """What is configured stands on stdout, and the exit code is 0."""
    done = run("check", folder=folder)
    assert (done.code, done.err) == (0, "")
    assert done.out == (
        "apitokenproxy.toml: ok: upstreams api (wire forwarder); 1 rule, 0 limits; "
        "store sqlite:///tokens.db; audit audit.jsonl\n"
    )


@pytest.mark.long
def test_the_password_of_a_database_is_not_told(folder: Path, new_postgres: Callable[[], str]) -> None:
    """The store is called what messages call it: its host and its database."""
    url = make_url(new_postgres())
    own = url.set(password=url.password or "hunter2")
    text = (folder / "apitokenproxy.toml").read_text()
    (folder / "apitokenproxy.toml").write_text(
        text.replace("sqlite:///tokens.db", own.render_as_string(hide_password=False))
    )
    done = run("check", folder=folder)
    assert (done.code, done.err) == (0, "")
    assert f"; store postgresql://{own.host or ''}/{own.database}; audit" in done.out
    assert str(own.password) not in done.out


SIX_MISTAKES = """
[proxy]
revocation_bound = "1 fortnight"

[upstreams.github]
url = "http://api.github.com"
credential = { type = "bearer", secret = "env:DEMO_KEY" }

[upstreams.gitlab]
url = "https://gitlab.com"
credential = { type = "beerer", secret = "env:DEMO_KEY" }

[[rules]]
id = "read"
effect = "allow"
methds = ["GET"]

[[rules]]
id = "write"
effect = "allow"
upstream = "guthub"

[[limits]]
name = "per-token"
per = ["token"]
rate = 100
"""


def test_all_mistakes_are_told_at_once_with_their_paths(tmp_path: Path) -> None:
    """Six mistakes are six lines, each with its place in the file and what to do; nothing is made meanwhile."""
    (tmp_path / "wrong.toml").write_text(SIX_MISTAKES)
    done = run("check", "-c", "wrong.toml", folder=tmp_path, DEMO_KEY=REAL_KEY)
    assert (done.code, done.out) == (1, "")
    assert sorted(done.lines) == [
        "error: wrong.toml: limits[0].rate: must be a string, not a whole number",
        (
            "error: wrong.toml: proxy.revocation_bound: '1 fortnight' is not a duration; write a number and one of "
            "ms, s, m, h, d, as in 30d"
        ),
        "error: wrong.toml: rules[0].methds: unknown key; did you mean 'methods'?",
        "error: wrong.toml: rules[1].upstream: there is no upstream 'guthub'; did you mean 'github'?",
        (
            "error: wrong.toml: upstreams.github: url is plain http, which shows the secret to the network; "
            "use https, or set allow_private = true for a host of your own"
        ),
        "error: wrong.toml: upstreams.gitlab.credential.type: is not a kind of credential; did you mean 'bearer'?",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["wrong.toml"]


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    """The default file's name is told, and how to name another."""
    done = run("check", folder=tmp_path)
    assert (done.code, done.out) == (1, "")
    assert done.err == "error: apitokenproxy.toml: there is no such file; name another with -c FILE\n"


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    """A socket in the place of the file cannot be opened by anybody, the superuser included."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "apitokenproxy.toml"))
        done = run("check", folder=tmp_path)
    assert (done.code, done.out) == (1, "")
    assert done.err == "error: apitokenproxy.toml: cannot be read: No such device or address\n"


def test_a_missing_secret_is_told_with_its_place(folder: Path) -> None:
    """The variable's name is told, and what to do."""
    done = run("check", folder=folder, DEMO_KEY=None)
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        "error: apitokenproxy.toml: upstreams.api.credential: "
        "environment variable DEMO_KEY is not set; export it before starting\n"
    )


@pytest.mark.long
@pytest.mark.parametrize("command", [("check",), ("serve", "--port", "0"), ("tokens", "list")])
def test_a_database_that_cannot_be_opened_is_one_sentence(command: tuple[str, ...], folder: Path) -> None:
    """A file that is no database is named, and left as it is."""
    (folder / "tokens.db").write_text("This is a letter, not a database. " * 100)
    before = (folder / "tokens.db").read_bytes()
    done = run(*command, folder=folder)
    assert (done.code, done.out, len(done.lines)) == (1, "", 1)
    assert "tokens.db" in done.err
    assert before == (folder / "tokens.db").read_bytes()


def test_an_audit_file_that_cannot_be_written_is_one_sentence(tmp_path: Path, upstream: UpstreamServer) -> None:
    """The path is told, and what to do."""
    text = CONFIGURATION.format(url=upstream.url).replace("audit.jsonl", "nowhere/audit.jsonl")
    (tmp_path / "apitokenproxy.toml").write_text(text)
    done = run("check", folder=tmp_path)
    assert (done.code, done.out, len(done.lines)) == (1, "", 1)
    assert "nowhere/audit.jsonl cannot be written: No such file or directory" in done.err


SETTINGS = {
    "prefix = 'proxy'": "prefix 'proxy' must begin with a slash, as /proxy does",
    "token_header = 'a b'": "token_header 'a b' is not a header name; use letters, digits and hyphens",
    "trusted_proxies = ['x']": "trusted_proxies: 'x' is not an address or network, as 10.0.0.0/8 is, nor unix:",
}


@pytest.mark.parametrize("line", SETTINGS)
def test_what_the_proxy_itself_refuses_is_told_with_the_file(line: str, folder: Path) -> None:
    """The file is named as for any other problem."""
    configuration = folder / "apitokenproxy.toml"
    configuration.write_text(configuration.read_text().replace("[proxy]", f"[proxy]\n{line}"))
    done = run("check", folder=folder)
    assert (done.code, done.out, done.err) == (1, "", f"error: apitokenproxy.toml: {SETTINGS[line]}\n")


SCHEMES = ", ".join(sorted(built_in_providers()))


def test_every_secret_that_cannot_be_had_is_told(folder: Path) -> None:
    """Also a reference that is none, which may be the key itself, and a place that no caller fills."""
    configuration = folder / "apitokenproxy.toml"
    references = ["sk-live-123", "enf:KEY", "env:{tenat}", "env:KEY_{tenant}", "env:NOT_THERE"]
    tables = ", ".join(
        f'{{ type = "header", name = "X-{place}", secret = "{reference}" }}'
        for place, reference in enumerate(references)
    )
    configuration.write_text(
        configuration.read_text().replace('{ type = "bearer", secret = "env:DEMO_KEY" }', f"[{tables}]")
    )
    done = run("check", folder=folder)
    assert (done.code, done.out) == (1, "")
    assert [line.removeprefix("error: apitokenproxy.toml: upstreams.api.credential: ") for line in done.lines] == [
        "a secret is named as scheme:place, for example env:API_KEY; schemes: " + SCHEMES,
        "secret reference enf:… has an unknown scheme; did you mean env:? known: " + SCHEMES,
        "secret reference env:…: {tenat} is not known; use {tenant} or {subject}",
        "environment variable NOT_THERE is not set; export it before starting",
    ]


def test_what_people_write_for_a_secret_is_understood(tmp_path: Path) -> None:
    """`client_secret` is like `client_id`, and is not meant."""
    (tmp_path / "wrong.toml").write_text("""
[upstreams.api]
url = "https://127.0.0.1:9100"
[upstreams.api.credential]
type = "oauth2-client-credentials"
token_url = "https://login.example.com/token"
client_id = "me"
client_secret = "env:SECRET"
""")
    done = run("check", "-c", "wrong.toml", folder=tmp_path)
    place = "error: wrong.toml: upstreams.api.credential"
    assert (
        f"{place}.client_secret: unknown key; did you mean 'secret'? It names a reference, as env:API_KEY" in done.lines
    )


@pytest.mark.parametrize(
    ("terms", "sentence"),
    [
        ('url = "https://127.0.0.1:9100"', "127.0.0.1 is no address of the public internet; set allow_private = true"),
        ('url = "https://localhost"', "localhost is no address of the public internet"),
        ('url = "https://[fd00::1]"', "fd00::1 is no address of the public internet"),
    ],
)
def test_an_address_that_would_be_refused_is_told_now(tmp_path: Path, terms: str, sentence: str) -> None:
    """And not by the first request."""
    (tmp_path / "wrong.toml").write_text(
        f'[upstreams.api]\n{terms}\ncredential = {{ type = "bearer", secret = "env:HOME" }}\n'
    )
    done = run("check", "-c", "wrong.toml", folder=tmp_path)
    assert (done.code, sentence in done.err) == (1, True)


def test_serve_starts_without_a_candidate_and_check_tells(folder: Path) -> None:
    """Requests are served without spare versions; who restarts after a rotation need not keep the old key."""
    path = folder / "apitokenproxy.toml"
    path.write_text(
        path.read_text().replace(
            '"env:DEMO_KEY" }', '"env:DEMO_KEY" }\nprevious = { type = "bearer", secret = "env:OLD" }'
        )
    )
    done = run("check", folder=folder, DEMO_KEY=REAL_KEY, OLD=None)
    assert (done.code, "upstreams.api.previous: environment variable OLD is not set" in done.err) == (1, True)
    with serving(folder, DEMO_KEY=REAL_KEY, OLD=None) as served:
        assert served.url


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (
            lambda: Upstream("a", "https://a.example", Bearer("env:K"), timeouts={"read": 5}),
            "timeouts must be a Timeouts",
        ),
        (lambda: Upstream("a", "https://a.example", Bearer("env:K"), rotation={"share": 1}), "must be a Rotation"),
        (lambda: proxy(revocation_bound="1s"), "revocation_bound is '1s'; it must be a timedelta"),
        (lambda: proxy(store_outage=5), "store_outage is 5; it must be a timedelta"),
        (lambda: proxy(exchange_lifetime="1h"), "exchange_lifetime is '1h'; it must be a timedelta"),
    ],
)
def test_values_of_a_file_are_not_those_of_python(build: Callable[[], Any], sentence: str) -> None:
    """What would fail with the first request is said when it is built."""
    with pytest.raises(ConfigurationError, match=re.escape(sentence)):
        build()


def upstream_with(**terms: Any) -> Upstream:
    return Upstream("a", "https://a.example", Bearer("env:K"), **terms)


def proxy(**terms: Any) -> Proxy:
    return Proxy(upstreams=[upstream_with()], rules=[], **terms)
