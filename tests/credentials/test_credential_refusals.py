"""What cannot be a credential is told when it is written, in one sentence."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from credential_calls import COLOURS, call

from apitokenproxy import (
    Basic,
    Bearer,
    Caller,
    ConfigurationError,
    Credential,
    Header,
    Proxy,
    Query,
    Rule,
    Upstream,
    nonblocking,
)
from apitokenproxy.messages import Hidden
from apitokenproxy.testing import FixedCredential, MemoryAudit
from apitokenproxy.wire import HOP_BY_HOP

KEY = "fixed:key"

NOT_HEADERS = [
    *["", " ", "X Key", "X-Key ", "X-Key:", "X-Key\n", "X-Key\r\nX-Admin: 1", "X-Key\0", "X/Key", "(key)", "k\u00e9y"],
    *["X_Key", "_"],  # many backends take `_` and `-` for the same
    *["Host", "HOST", "Content-Length", "Expect", "Transfer-Encoding", "Connection", "TE"],
    *sorted(name.decode() for name in HOP_BY_HOP),
]


@pytest.mark.parametrize("name", NOT_HEADERS, ids=ascii)
def test_a_name_that_cannot_be_sent_is_no_header(name: str) -> None:
    """Malformed names, and those that frame a request or belong to one connection."""
    with pytest.raises(ConfigurationError) as refused:
        Header(name, KEY)
    assert f"header name {name!r} cannot carry a credential; use one such as X-Api-Key" == str(refused.value)


TEMPLATES = {
    "no place": "Key",
    "empty": "",
    "two places": "{secret}:{secret}",
    "another name": "Key {token}",
    "a blank in the braces": "Key { secret }",
    "a newline": "Key {secret}\n",
    "a second header": "Key {secret}\r\nX-Admin: 1",
    "NUL": "\0{secret}",
    "a tab": "Key\t{secret}",
    "not ASCII": "Schl\u00fcssel {secret}",
    "an unseen space": "Key\u00a0{secret}",
    "a blank first": " {secret}",
    "a blank last": "Key {secret} ",
}


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_that_cannot_be_sent_is_refused(template: str) -> None:
    """It holds the place once, and is what a field's value may be (RFC 9110, section 5.5)."""
    with pytest.raises(ConfigurationError) as refused:
        Header("X-Key", KEY, template=TEMPLATES[template])
    told = str(refused.value)
    assert told.startswith("template of header X-Key must ")
    assert "{secret}" in told
    assert told.isprintable()


NOT_PARAMETERS = [
    "",
    " ",
    "a b",
    "a=b",
    "a&b",
    "a;b",
    "a#b",
    "a?b",
    "a/b",
    "a+b",
    "a%20",
    "key[]",
    "k\u00e9y",
    "a\n",
    "a\0",
]


@pytest.mark.parametrize("name", NOT_PARAMETERS, ids=ascii)
def test_a_name_that_would_be_encoded_is_no_parameter(name: str) -> None:
    """Upstreams do not agree on how such a name is read."""
    with pytest.raises(ConfigurationError) as refused:
        Query(name, KEY)
    assert f"query parameter {name!r}: use letters, digits and . _ ~ -" == str(refused.value)


@pytest.mark.parametrize("username", ["a:b", ":", "a\n", "a\0", "a\tb", "\x7f", "a\u202eb", "\ud800"], ids=ascii)
def test_a_name_that_basic_cannot_carry_is_refused(username: str) -> None:
    """The first colon ends the name (RFC 7617, section 2)."""
    with pytest.raises(ConfigurationError) as refused:
        Basic(KEY, username=username)
    assert str(refused.value) == "username must not hold a colon or control characters (RFC 7617)"


# --- kinds that are none --------------------------------------------------------------------


def built(credential: Any) -> None:
    """Do what a program does before its first request."""
    proxy = Proxy(
        upstreams=[Upstream("api", "https://api.example.com", credential=credential)],
        rules=[Rule("all", effect="allow")],
        audit=MemoryAudit(),
    )
    try:
        _ = proxy.wsgi
    finally:
        proxy.close()


NO_KINDS: dict[str, Callable[[], Any]] = {
    "a reference": lambda: "env:GITHUB_TOKEN",
    "a secret": lambda: "ghp_S3cretS3cretS3cret",
    "a secret's bytes": lambda: b"ghp_S3cretS3cretS3cret",
    "a variable that is not set": lambda: os.environ.get("NO_SUCH_VARIABLE"),
    "the class itself": lambda: Bearer,
    "a token provider's class": lambda: FixedCredential,
    "a function": lambda: lambda _caller: "ghp_S3cretS3cretS3cret",
    "a table": lambda: {"type": "bearer", "secret": "env:GITHUB_TOKEN"},
    "one of several": lambda: [Bearer("env:A"), "env:GITHUB_TOKEN"],
    "a list in a list": lambda: [[Bearer("env:A")]],
}


@pytest.mark.parametrize("kind", NO_KINDS)
def test_what_is_no_kind_of_credential_is_refused(kind: str) -> None:
    """Told before the first request, with the upstream's name, and without what may be the secret itself."""
    with pytest.raises(ConfigurationError, match=r"upstream api: .*credential") as refused:
        built(NO_KINDS[kind]())
    assert "S3cret" not in str(refused.value)
    assert str(refused.value).isprintable()


def test_no_credential_is_refused() -> None:
    """A proxy without one would be an open relay; whoever wants that writes a token provider that says so."""
    with pytest.raises(ConfigurationError) as refused:
        built([])
    assert str(refused.value) == "upstream api: credential is empty; name at least one"


IN_A_FILE = {
    "an unknown kind": ('{ type = "token", secret = "env:A" }', "is not a kind of credential"),
    "no kind": ('{ secret = "env:A" }', "is missing"),
    "a bad header": (
        '{ type = "header", name = "Host", secret = "env:A" }',
        "header name 'Host' cannot carry a credential",
    ),
    "a bad template": (
        '{ type = "header", name = "X-Key", secret = "env:A", template = "Key" }',
        "template of header X-Key must hold {secret} exactly once",
    ),
    "a bad parameter": ('{ type = "query", name = "a b", secret = "env:A" }', "query parameter 'a b': use letters"),
    "a bad name": ('{ type = "basic", username = "a:b", secret = "env:A" }', "username must not hold a colon"),
}


@pytest.mark.parametrize("mistake", IN_A_FILE)
def test_a_file_is_told_where(tmp_path: Path, mistake: str) -> None:
    """The same sentences, with the path to the mistake before them, on one line."""
    table, expected = IN_A_FILE[mistake]
    file = tmp_path / "proxy.toml"
    file.write_text(f'[upstreams.api]\nurl = "https://api.example.com"\ncredential = {table}\n')
    with pytest.raises(ConfigurationError) as refused:
        Proxy.from_toml(file)
    [line] = str(refused.value).splitlines()
    assert line.startswith(f"{file}: upstreams.api.credential")
    assert expected in line


# --- two for one place ----------------------------------------------------------------------

SAME_PLACE = {
    "bearer twice": [Bearer("env:A"), Bearer("env:B")],
    "bearer and basic": [Bearer("env:A"), Basic("env:B")],
    "bearer and a header": [Bearer("env:A"), Header("Authorization", "env:B")],
    "a header in another case": [Basic("env:A"), Header("aUTHORIZATION", "env:B")],
    "two headers": [Header("X-Key", "env:A"), Query("k", "env:B"), Header("x-key", "env:C")],
    "the same twice": [Header("X-Key", "env:A")] * 2,
    "two parameters": [Query("key", "env:A"), Query("key", "env:B")],
}


@pytest.mark.parametrize("same", SAME_PLACE)
def test_two_credentials_cannot_claim_the_same_place(same: str) -> None:
    """Which of two would count, upstreams do not agree on; told before the first request."""
    with pytest.raises(ConfigurationError, match=r"upstream api: .*(Authorization|X-Key|key)"):
        built(SAME_PLACE[same])


@pytest.mark.parametrize(
    "kinds",
    [
        [Bearer("env:A"), Header("X-Key", "env:A"), Query("Authorization", "env:A")],
        [Query("key", "env:A"), Query("sig", "env:B"), Header("key", "env:C")],
        [Header("X-Key", "env:A"), Header("X-Key-Id", "env:B")],
    ],
)
def test_different_places_stand_beside_each_other(kinds: list[Any]) -> None:
    """A header and a parameter of one name are two places."""
    built(kinds)


class Adding:
    """A token provider whose credential is only known when it is made."""

    def __init__(self, *headers: bytes, parameter: bytes = b"") -> None:
        self._headers = headers
        self._parameters = (parameter,) if parameter else ()

    @nonblocking
    def credential(self, caller: Caller) -> Credential:
        value = Hidden(b"made")
        return Credential(
            headers=tuple((name, value) for name in self._headers),
            query=tuple((name, value) for name in self._parameters),
        )


MADE_FOR_THE_SAME = {
    "a header": [Header("X-Key", KEY), Adding(b"x-key")],
    "a header of two providers": [Adding(b"X-Key"), Adding(b"X-KEY")],
    "two headers of one provider": [Adding(b"X-Key", b"x-key")],
    "authorization": [Adding(b"authorization"), Bearer(KEY)],
    "a parameter": [Query("key", KEY), Adding(parameter=b"key")],
}


@pytest.mark.parametrize("same", MADE_FOR_THE_SAME)
@pytest.mark.parametrize("colour", COLOURS)
def test_two_credentials_made_for_the_same_place_are_not_sent(colour: str, same: str) -> None:
    """Where it shows only when they are made, the request is refused and nothing leaves."""
    exchange = call(colour, MADE_FOR_THE_SAME[same], key="k")
    assert (exchange.answer.status_code, exchange.record.code, exchange.sent) == (503, "internal_fault", [])


UNSENDABLE = {
    "a newline": Adding(b"X-Key\r\nX-Admin"),
    "framing": Adding(b"Content-Length"),
    "the host": Adding(b"Host"),
    "hop by hop": Adding(b"Connection"),
    "no token": Adding(b"X Key"),
    "a separator": Adding(parameter=b"a&b"),
    "an equals sign": Adding(parameter=b"a=b"),
    "a fragment": Adding(parameter=b"a#b"),
}


@pytest.mark.parametrize("unsendable", UNSENDABLE)
@pytest.mark.parametrize("colour", COLOURS)
def test_what_a_token_provider_makes_is_checked_as_well(colour: str, unsendable: str) -> None:
    """A provider of one's own cannot break out of its place."""
    exchange = call(colour, UNSENDABLE[unsendable])
    assert (exchange.answer.status_code, exchange.record.code, exchange.sent) == (503, "internal_fault", [])
