"""The configuration file: what it means, and how every problem in it is told."""

import copy
import json
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apitokenproxy import Basic, Bearer, ConfigurationError, Header, Limit, Proxy, Query, Rule, Timeouts, Upstream
from apitokenproxy.config import read_config
from apitokenproxy.config_tables import CREDENTIALS
from apitokenproxy.durations import parse_duration

MINIMAL = """
[upstreams.api]
url = "https://api.example.com"
credential = { type = "bearer", secret = "env:API_KEY" }
"""

EVERYTHING = """
[proxy]
store = "memory:"
audit = "audit.jsonl"
prefix = "/gate"
token_header = "X-Proxy-Token"
revocation_bound = "500ms"
trusted_proxies = ["10.0.0.0/8"]

[upstreams.gitlab]
url = "https://gitlab.example.com/api/v4"
credential = [
    { type = "basic", secret = "file:key", username = "me" },
    { type = "header", name = "X-Key", secret = "exec:pass show key", template = "Key {secret}" },
    { type = "query", name = "key", secret = "env:KEY_{tenant}" },
]
allow_private = true
ca = "ca.pem"
timeouts = { pool = 1, connect = 2.5, read = 300, write = 4, client = 7 }
max_connections = 7
max_body = 1_000_000
replay_body = 0
allow_encoded_slash = true
allow_empty_segments = true
allow_path_parameters = true
allow_encoded_percent = true
allow_foreign_redirects = true

[upstreams.plain]
url = "https://api.example.com"
credential = { type = "bearer", secret = "env:API_KEY" }

[[rules]]
id = "own"
effect = "allow"
upstream = "gitlab"
methods = ["GET", "HEAD"]
path = "/projects/{owner}/**"
tenants = ["acme"]
subjects = ["ci"]
scopes = ["read"]
where = { "path.owner" = "caller.attributes.org", "caller.attributes.plan" = ["team", "business"] }

[[rules]]
id = "nobody-deletes"
effect = "deny"
methods = ["DELETE"]

[[limits]]
name = "rate"
per = ["token", "upstream"]
rate = "100/minute"
burst = 20

[[limits]]
name = "quota"
per = ["tenant"]
quota = "10000/month"

[[limits]]
name = "parallel"
per = ["ip"]
concurrency = 20
"""


def read(folder: Path, text: str) -> dict[str, Any]:
    path = folder / "proxy.toml"
    path.write_text(text)
    return read_config(path)


def problems(folder: Path, text: str) -> list[str]:
    """Return what is told about a file, without the file's name."""
    with pytest.raises(ConfigurationError) as caught:
        read(folder, text)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{folder}/proxy.toml: ") for line in lines)
    return [line.removeprefix(f"{folder}/proxy.toml: ") for line in lines]


def test_a_file_says_what_python_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every key stands for the argument of the same name, and paths are relative to the current directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ca.pem").touch()
    assert read(tmp_path, EVERYTHING) == {
        "store": "memory:",
        "audit": "audit.jsonl",
        "prefix": "/gate",
        "token_header": "X-Proxy-Token",
        "revocation_bound": timedelta(milliseconds=500),
        "trusted_proxies": ["10.0.0.0/8"],
        "upstreams": [
            Upstream(
                "gitlab",
                "https://gitlab.example.com/api/v4",
                credential=[
                    Basic("file:key", username="me"),
                    Header("X-Key", "exec:pass show key", template="Key {secret}"),
                    Query("key", "env:KEY_{tenant}"),
                ],
                allow_private=True,
                ca="ca.pem",
                timeouts=Timeouts(pool=1, connect=2.5, read=300, write=4, client=7),
                max_connections=7,
                max_body=1_000_000,
                replay_body=0,
                allow_encoded_slash=True,
                allow_empty_segments=True,
                allow_path_parameters=True,
                allow_encoded_percent=True,
                allow_foreign_redirects=True,
            ),
            Upstream("plain", "https://api.example.com", credential=Bearer("env:API_KEY")),
        ],
        "rules": [
            Rule(
                "own",
                effect="allow",
                upstream="gitlab",
                methods=["GET", "HEAD"],
                path="/projects/{owner}/**",
                tenants=["acme"],
                subjects=["ci"],
                scopes=["read"],
                where={"path.owner": "caller.attributes.org", "caller.attributes.plan": ["team", "business"]},
            ),
            Rule("nobody-deletes", effect="deny", methods=["DELETE"]),
        ],
        "limits": [
            Limit("rate", per=["token", "upstream"], rate="100/minute", burst=20),
            Limit("quota", per=["tenant"], quota="10000/month"),
            Limit("parallel", per=["ip"], concurrency=20),
        ],
    }


def test_what_is_left_out(tmp_path: Path) -> None:
    """Tokens are kept in apitokenproxy.db, nothing is allowed, and everything else is Proxy's own default."""
    assert read(tmp_path, MINIMAL) == {
        "store": "sqlite:///apitokenproxy.db",
        "upstreams": [Upstream("api", "https://api.example.com", credential=Bearer("env:API_KEY"))],
        "rules": [],
        "limits": [],
    }


def test_it_is_what_a_proxy_is_built_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`Proxy.from_toml` takes all of it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ca.pem").touch()
    (tmp_path / "proxy.toml").write_text(EVERYTHING)
    proxy = Proxy.from_toml("proxy.toml")
    proxy.close()
    assert list(proxy.upstreams) == ["gitlab", "plain"]


def test_nothing_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dollar sign is a dollar sign: the environment cannot change what a file says."""
    monkeypatch.setenv("AUDIT", "elsewhere")
    text = '[proxy]\naudit = "$AUDIT/${AUDIT}~.jsonl"\n' + MINIMAL.replace("env:API_KEY", "file:$AUDIT")
    arguments = read(tmp_path, text)
    assert arguments["audit"] == "$AUDIT/${AUDIT}~.jsonl"
    assert arguments["upstreams"][0].credential == (Bearer("file:$AUDIT"),)


def with_upstream(line: str) -> str:
    return f"{MINIMAL}{line}\n"


def with_credential(table: str) -> str:
    return f'[upstreams.api]\nurl = "https://api.example.com"\ncredential = {table}\n'


A_CREDENTIAL = 'a table such as { type = "bearer", secret = "env:API_KEY" }'

PROBLEMS = {
    "nothing at all": ("", ["upstreams: is missing"]),
    "no upstreams": ("[upstreams]\n", ["upstreams: is empty; name at least one API to stand before"]),
    "upstreams of a wrong kind": ("upstreams = 3\n", ["upstreams: must be a table, not a whole number"]),
    "an upstream of a wrong kind": ('[upstreams]\napi = "x"\n', ["upstreams.api: must be a table"]),
    "an unknown table": (f"{MINIMAL}[[rule]]\nid = 'x'\n", ["rule: unknown key; did you mean 'rules'?"]),
    "a table that should be several": (f"{MINIMAL}[rules]\n", ["rules: must be [[tables]], not a table"]),
    "a key like nothing": (
        with_upstream("timeouts = { idle = 5 }"),
        [
            (
                "upstreams.api.timeouts.idle: unknown key; "
                "there are: pool, connect, tls, write, first_byte, read, client, total"
            )
        ],
    ),
    "a missing credential": (
        '[upstreams.api]\nurl = "https://api.example.com"\n',
        ["upstreams.api.credential: is missing"],
    ),
    "no credential in the list": (
        with_credential("[]"),
        [f"upstreams.api.credential: must be {A_CREDENTIAL}, or a list of them, not a list"],
    ),
    "a missing secret": (
        with_credential('{ type = "bearer" }'),
        ["upstreams.api.credential.secret: is missing"],
    ),
    "a missing type": (
        with_credential('{ secret = "env:X" }'),
        [f"upstreams.api.credential.type: is missing; there are: {', '.join(CREDENTIALS)}"],
    ),
    "a wrong type": (
        with_credential('[{ type = "bearer", secret = "env:X" }, { type = "hedaer", secret = "env:X" }]'),
        ["upstreams.api.credential[1].type: is not a kind of credential; did you mean 'header'?"],
    ),
    "another type's key": (
        with_credential('{ type = "bearer", secret = "env:X", name = "X-Key" }'),
        ["upstreams.api.credential.name: unknown key; there are: type, secret"],
    ),
    "a header that is not the operator's": (
        with_credential('{ type = "header", secret = "env:X", name = "Host" }'),
        ["upstreams.api.credential: header name 'Host' cannot carry a credential; use one such as X-Api-Key"],
    ),
    "an upstream's name": (
        MINIMAL.replace("upstreams.api", "upstreams.API"),
        ["upstreams.API: upstream name 'API': use lower-case letters, digits and hyphens, at most 63"],
    ),
    "a url without a scheme": (
        MINIMAL.replace("https://", ""),
        ["upstreams.api: url 'api.example.com' is not like https://api.example.com/base"],
    ),
    "a ca file that is not there": (
        with_upstream('ca = "/no/such.pem"'),
        ["upstreams.api: ca file /no/such.pem cannot be found"],
    ),
    "a boolean in quotes": (
        with_upstream('allow_private = "yes"'),
        ["upstreams.api.allow_private: must be true or false, not a string"],
    ),
    "counts": (
        with_upstream("max_connections = 0\nmax_body = true\nreplay_body = -1"),
        [
            "upstreams.api.max_connections: must be a whole number of at least 1, not 0",
            "upstreams.api.max_body: must be a whole number of at least 1, not true or false",
            "upstreams.api.replay_body: must be a whole number of at least 0, not -1",
        ],
    ),
    "deadlines": (
        with_upstream('timeouts = { pool = -1, connect = inf, read = nan, write = "1s" }'),
        [
            "upstreams.api.timeouts.pool: must be a positive number of seconds, not -1",
            "upstreams.api.timeouts.connect: must be a positive number of seconds, not inf",
            "upstreams.api.timeouts.read: must be a positive number of seconds, not nan",
            "upstreams.api.timeouts.write: must be a positive number of seconds, not a string",
        ],
    ),
    "a date": (f"[proxy]\nprefix = 2026-11-24\n{MINIMAL}", ["proxy.prefix: must be a string, not a date or time"]),
    "a mixed list": (
        f"[proxy]\ntrusted_proxies = ['10.0.0.1', 5]\n{MINIMAL}",
        ["proxy.trusted_proxies: must be a list of strings, not a list"],
    ),
    "an effect": (
        f"{MINIMAL}[[rules]]\nid = 'a'\neffect = 'permit'\n",
        ["rules[0]: rule a: effect is 'permit'; it must be 'allow' or 'deny'"],
    ),
    "a rule for nobody's upstream": (
        f"{MINIMAL}[[rules]]\nid = 'a'\neffect = 'allow'\nupstream = 'apy'\n",
        ["rules[0].upstream: there is no upstream 'apy'; did you mean 'api'?"],
    ),
    "a condition of a wrong kind": (
        f"{MINIMAL}[[rules]]\nid = 'a'\neffect = 'allow'\nwhere = {{ 'caller.tenant' = 5 }}\n",
        ["rules[0].where: must be a table of strings, not a table"],
    ),
    "a rule twice": (
        f"{MINIMAL}[[rules]]\nid = 'a'\neffect = 'allow'\n[[rules]]\nid = 'a'\neffect = 'deny'\n",
        ["rules[1].id: 'a' is used twice; give each its own"],
    ),
    "a limit twice": (
        MINIMAL + "[[limits]]\nname = 'a'\nper = ['ip']\nrate = '1/day'\n" * 2,
        ["limits[1].name: 'a' is used twice; give each its own"],
    ),
    "a limit on nothing": (
        f"{MINIMAL}[[limits]]\nname = 'a'\nper = ['ip']\n",
        ["limits[0]: limit a: give exactly one of rate, quota and concurrency"],
    ),
}


@pytest.mark.parametrize("what", PROBLEMS)
def test_a_problem_is_told_with_its_place(what: str, tmp_path: Path) -> None:
    """Each problem has a line of its own: file, path, what is wrong and what would be right."""
    text, told = PROBLEMS[what]
    assert problems(tmp_path, text) == told


def test_a_value_that_may_be_a_secret_is_not_repeated(tmp_path: Path) -> None:
    """Somebody who writes the key itself where its kind or its reference belongs does not find it in a log."""
    for table in ('{ type = "sk-live-123", secret = "env:X" }', '{ type = "bearer", secret = 918273645 }'):
        (line,) = problems(tmp_path, with_credential(table))
        assert "sk-live-123" not in line
        assert "918273645" not in line


def test_a_syntax_error_is_told_with_line_and_column(tmp_path: Path) -> None:
    """It is the one problem that hides the others."""
    assert problems(tmp_path, "[proxy]\nstore = memory:\n") == [
        "is not valid TOML: Invalid value (at line 2, column 9)"
    ]


def test_a_key_twice_is_a_syntax_error(tmp_path: Path) -> None:
    """TOML does not let the last one win."""
    (told,) = problems(tmp_path, "[proxy]\nstore = 'a:'\nstore = 'b:'\n")
    assert told.startswith("is not valid TOML: Cannot overwrite a value (at line 3, column ")


def test_files_that_are_none(tmp_path: Path) -> None:
    """A missing one, a directory and one that is not text are one sentence each."""
    latin = tmp_path / "latin.toml"
    latin.write_bytes("# Größe".encode("latin-1"))
    expected = {
        tmp_path / "missing.toml": "there is no such file; name another with -c FILE",
        tmp_path: "cannot be read: Is a directory",
        latin: "is not text in UTF-8",
    }
    for path, sentence in expected.items():
        with pytest.raises(ConfigurationError) as caught:
            read_config(path)
        assert str(caught.value) == f"{path}: {sentence}"


RIGHT = tomllib.loads(EVERYTHING.replace('ca = "ca.pem"\n', ""))

VALUES = st.recursive(
    st.booleans()
    | st.integers(-1, 2)
    | st.text(max_size=8)
    | st.sampled_from(["allow", "bearer", "get", "1/day", "1s", "path.owner", "caller.x", "/{x}/**", "a\nb", ""]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=8), inner, max_size=2),
    max_leaves=4,
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return every place in nested tables and lists: the container and the key or index."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    return [(value, key) for key in keys] + [place for key in keys for place in places(value[key])]


@st.composite
def spoilt(draw: st.DrawFn) -> dict[str, Any]:
    """Return a right file with up to three things replaced, left out, added or misspelt."""
    data = copy.deepcopy(RIGHT)
    for _ in range(draw(st.integers(0, 3))):
        found = places(data)
        if not found:
            break
        container, key = draw(st.sampled_from(found))
        how = draw(st.sampled_from(["replace", "leave out", "add", "misspell"]))
        if how == "replace":
            container[key] = draw(VALUES)
        elif how == "leave out":
            del container[key]
        elif isinstance(container, dict):
            container[draw(st.text(max_size=5)) if how == "add" else f"{key}x"] = container.pop(key)
        else:
            container.append(container[key])
    return data


def toml(value: Any) -> str:
    """Write a value as TOML, tables inline."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(letter):08X}" for letter in value) + '"'
    return json.dumps(value)


@settings(max_examples=300, deadline=None)
@given(spoilt())
def test_every_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: dict[str, Any]) -> None:
    """Whatever stands in a file, it is arguments or a ConfigurationError with a line for each problem."""
    text = "".join(f"{toml(key)} = {toml(value)}\n" for key, value in data.items())
    assert tomllib.loads(text) == data
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text(text)
    try:
        arguments = read_config(path)
    except ConfigurationError as error:
        assert all(line.startswith(f"{path}: ") for line in str(error).splitlines())  # noqa: PT017 - either may be
    else:
        assert all(isinstance(upstream, Upstream) for upstream in arguments["upstreams"])
        assert all(isinstance(rule, Rule) for rule in arguments["rules"])
        assert all(isinstance(limit, Limit) for limit in arguments["limits"])


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("500ms", timedelta(milliseconds=500)),
        ("90s", timedelta(seconds=90)),
        ("15m", timedelta(minutes=15)),
        ("12h", timedelta(hours=12)),
        ("30d", timedelta(days=30)),
        ("0s", timedelta()),
        ("999999999d", timedelta(days=999_999_999)),
    ],
)
def test_durations(text: str, duration: timedelta) -> None:
    """A number and a unit."""
    assert parse_duration(text) == duration


@pytest.mark.parametrize(
    "text", ["", "1", "s", "1.5h", "-1s", "1 s", "1S", "1w", "1h30m", "1s\n", "\u0661s", "1234567890d"]
)
def test_what_is_no_duration(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ConfigurationError) as caught:
        parse_duration(text)
    assert str(caught.value) == f"{text!r} is not a duration; write a number and one of ms, s, m, h, d, as in 30d"
