"""The values that travel through the pipeline: what they show, what they refuse, and that they stay as they are."""

import copy
import json
import logging
import marshal
import pickle
import pprint
import reprlib
import traceback
from base64 import b64encode
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest
from attrs.exceptions import FrozenInstanceError

from apitokenproxy import messages
from apitokenproxy.errors import BodyTooLarge, InternalFault
from apitokenproxy.guard import Guard
from apitokenproxy.messages import (
    Admission,
    AuditRecord,
    BodyMeter,
    Caller,
    Credential,
    Denial,
    Finish,
    Grant,
    Hidden,
    HiddenText,
    Operation,
    Origin,
    Outbound,
    Presented,
    Reply,
    Request,
    Response,
    Secret,
    Timeouts,
)
from apitokenproxy.upstream import Upstream
from leaks.forms import assert_clean

MATERIAL = "s3cret/m4terial+0f7a9c2e51d84b06"
TOKEN = "atp_k3yid0123456_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKL"
PICKLES = range(pickle.HIGHEST_PROTOCOL + 1)


def log(form: Any, *arguments: Any) -> None:
    """Write a record to stderr, as a program's handler does."""
    logger = logging.Logger("messages")  # noqa: LOG001 - one that pytest's own handlers do not see
    logger.addHandler(logging.StreamHandler())
    logger.error(form, *arguments, extra={"arguments": arguments})


# --- Secret ---------------------------------------------------------------------------------

REFUSED_WAYS: dict[str, Callable[[Any], Any]] = {
    "str": str,
    "print": print,
    "f-string": lambda secret: f"Bearer {secret}",
    "f-string with !s": lambda secret: f"{secret!s}",
    "f-string with a width": lambda secret: f"{secret:>40}",
    "format": format,
    "format with a spec": lambda secret: format(secret, "s"),
    "str.format": "{}".format,
    "str.format with a spec": "{:.8}".format,
    "str.format of what is inside": "{0._material.x}".format,
    "percent": lambda secret: "%s" % secret,  # noqa: UP031 - as logging does it
    "percent with a width": lambda secret: "%40s" % secret,  # noqa: UP031
    "percent of bytes": lambda secret: b"%b" % secret,
    "join": lambda secret: " ".join(iter([secret])),
    "text before it": lambda secret: "Bearer " + secret,
    "bytes before it": lambda secret: b"Bearer " + secret,
    "text after it": lambda secret: secret + "x",
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview": memoryview,
    "int": int,
    "list": list,
    "len": len,
    "an item": lambda secret: secret[0],
    "contains": lambda secret: "a" in secret,
    "vars": vars,
    "json": json.dumps,
    "json of a table": lambda secret: json.dumps({"secret": secret}),
    "json with str": lambda secret: json.dumps(secret, default=str),
    "json as a key": lambda secret: json.dumps({secret: 1}),
    "marshal": marshal.dumps,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "deepcopy in a list": lambda secret: copy.deepcopy([secret]),
    "less": lambda secret: secret < Secret(MATERIAL),
    "sorted": lambda secret: sorted([secret, Secret(MATERIAL)]),
    **{f"pickle {number}": lambda secret, number=number: pickle.dumps(secret, number) for number in PICKLES},
}

SHOWN_WAYS: dict[str, Callable[[Any], Any]] = {
    "repr": repr,
    "ascii": ascii,
    "f-string with !r": lambda secret: f"{secret!r}",
    "f-string with =": lambda secret: f"{secret=}".removeprefix("secret="),
    "percent r": lambda secret: "%r" % secret,  # noqa: UP031
    "pprint": pprint.pformat,
    "reprlib": reprlib.repr,
    "json with repr": lambda secret: json.loads(json.dumps(secret, default=repr)),
    "in a list": lambda secret: str([secret])[1:-1],
    "in a table": lambda secret: str({1: secret})[4:-1],
}


@pytest.mark.parametrize("way", REFUSED_WAYS)
def test_a_secret_is_not_turned_into_anything(way: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither text nor bytes nor a copy: whoever tries is told so, without the material."""
    with pytest.raises((TypeError, AttributeError, ValueError)) as refused:
        REFUSED_WAYS[way](Secret(MATERIAL))
    printed = capsys.readouterr()
    shown = "\n".join([*traceback.format_exception(refused.value), printed.out, printed.err])
    assert_clean({"secret": MATERIAL}, {way: shown.encode()})


@pytest.mark.parametrize("way", SHOWN_WAYS)
def test_a_secret_shows_the_same_whatever_it_is(way: str) -> None:
    """Not even its length or its version."""
    shown = {SHOWN_WAYS[way](secret) for secret in (Secret(MATERIAL), Secret("x"), Secret("y", version="vault/7"))}
    assert shown == {"Secret(***)"}


@pytest.mark.parametrize("form", ["%s", "%r", "%-40s", "%d", "{}"])
@pytest.mark.parametrize(
    "arguments", [(Secret(MATERIAL),), ({"secret": Secret(MATERIAL)},)], ids=["alone", "in a table"]
)
def test_a_logged_secret_is_not_written(form: str, arguments: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither by the handler nor by the complaint that logging prints when a record cannot be formatted."""
    log(form, *arguments)
    log(arguments[0])
    printed = capsys.readouterr()
    assert_clean({"secret": MATERIAL}, {"stdout": printed.out.encode(), "stderr": printed.err.encode()})


def test_secrets_are_compared_by_identity_alone() -> None:
    """No comparison looks at the material, so none can tell anything about it by its result or its duration."""
    secret, same = Secret(MATERIAL), Secret(MATERIAL)
    assert secret == secret  # noqa: PLR0124 - that is the point
    others = [same, MATERIAL, MATERIAL.encode(), Hidden(MATERIAL.encode()), repr(secret)]
    assert [secret == other for other in others] == [False] * 5
    assert [secret != other for other in others] == [True] * 5


def test_a_secrets_hash_tells_nothing() -> None:
    """It is the object's, not the material's: equal secrets hash differently, and a set holds both."""
    secrets = [Secret(MATERIAL) for _ in range(10)]
    assert len(set(secrets)) == 10
    assert [object.__hash__(secret) for secret in secrets] == [hash(secret) for secret in secrets]
    assert hash(secrets[0]) != hash(MATERIAL.encode())


@pytest.mark.parametrize(
    ("material", "expected"),
    [
        ("abc", b"abc"),
        (b"abc", b"abc"),
        (bytearray(b"abc"), b"abc"),
        ("\u00fc", b"\xc3\xbc"),
        (b"\xff\x80", b"\xff\x80"),
        (" ", b" "),
        ("{secret}%s", b"{secret}%s"),
        ("x" * 100_000, b"x" * 100_000),
    ],
    ids=lambda value: f"{type(value).__name__} of {len(value)}",
)
def test_a_secret_reveals_what_it_was_made_of(material: Any, expected: bytes) -> None:
    """Text as UTF-8, bytes as they are; nothing is stripped."""
    assert expected == Secret(material).reveal()
    assert type(Secret(material).reveal()) is bytes


@pytest.mark.parametrize("control", [*range(32), 127])
def test_material_with_a_control_character_is_not_of_one_line(control: int) -> None:
    """Wherever it stands; it could end a header and begin another."""
    for material in (f"{MATERIAL}{chr(control)}", f"{chr(control)}{MATERIAL}", f"a{chr(control)}{MATERIAL}"):
        for kind in (material, material.encode()):
            secret = Secret(kind)
            assert (secret.one_line, secret.reveal()) == (False, material.encode())


@pytest.mark.parametrize("material", ["a", MATERIAL, " ", "~", "\u00fc", b"\x80\xff", "\u2028"], ids=ascii)
def test_material_of_one_line_can_stand_in_a_header(material: Any) -> None:
    """Whatever holds no ASCII control character, as fields of a request are read (RFC 9110, section 5.5)."""
    assert Secret(material).one_line


@pytest.mark.parametrize(
    "material", ["", b"", "\ud800", None, 0, 5, True, 1.5, {}, {"secret": MATERIAL}, [MATERIAL]], ids=repr
)
def test_what_is_no_material_is_refused(material: Any) -> None:
    """Empty, or neither text nor bytes."""
    with pytest.raises((TypeError, ValueError)) as refused:
        Secret(material)
    assert MATERIAL not in str(refused.value)


# --- Hidden ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "way",
    ["repr", "str", "ascii", "format", "f-string", "percent s", "percent r", "str.format", "pprint", "print", "log"],
)
def test_hidden_bytes_are_not_shown(way: str, capsys: pytest.CaptureFixture[str]) -> None:
    """However they come to be text, nothing of them is in it, nor how long they are."""
    ways: dict[str, Callable[[Any], Any]] = {
        "repr": repr,
        "str": str,
        "ascii": ascii,
        "format": format,
        "f-string": lambda hidden: f"{hidden}",
        "percent s": lambda hidden: "%s" % hidden,  # noqa: UP031
        "percent r": lambda hidden: "%r" % hidden,  # noqa: UP031
        "str.format": "{}".format,
        "pprint": pprint.pformat,
        "print": print,
        "log": lambda hidden: log("sent %s", hidden),
    }
    seen = set()
    for material in (MATERIAL, "x", ""):
        try:
            shown = str.__str__(ways[way](Hidden(material.encode())) or "")
        except TypeError as refusal:
            shown = str(refusal)
        printed = capsys.readouterr()
        seen.add((shown, printed.out, printed.err))
    assert len(seen) == 1
    assert_clean({"hidden": MATERIAL}, {way: str(seen).encode()})


def test_hidden_bytes_are_the_bytes_that_are_sent() -> None:
    """Everything that writes bytes takes them as they are."""
    hidden = Hidden(b"abc")
    assert isinstance(hidden, bytes)
    assert (hidden, hash(hidden), len(hidden)) == (b"abc", hash(b"abc"), 3)
    assert (b"Bearer " + hidden, b"".join([hidden, b"x"]), bytes(hidden)) == (b"Bearer abc", b"abcx", b"abc")
    assert (b"%b" % hidden, b"X: %s" % hidden) == (b"abc", b"X: abc")


def a_request(**fields: Any) -> Request:
    return Request(b"GET", b"/api/x?q=1", [(b"Host", b"proxy.example.com")], token=Hidden(MATERIAL.encode()), **fields)


def an_operation() -> Operation:
    request = a_request()
    presented = Presented("bearer", Hidden(MATERIAL.encode()))
    return Operation("api", b"GET", b"/x", b"", (("x",),), [], presented, 0, b"h", "127.0.0.1", request)


def a_credential() -> Credential:
    value = MATERIAL.encode()
    headers = ((b"Authorization", Hidden(b"Bearer " + value)),)
    return Credential(headers, query=((b"key", Hidden(value)),), version="env#1")


def an_outbound() -> Outbound:
    fields = [(b"Host", b"h"), (b"Authorization", Hidden(MATERIAL.encode()))]
    return Outbound(Origin("https", "h", 443), b"GET", Hidden(f"/x?key={MATERIAL}".encode()), fields, None, 0)


HOLDING: dict[str, Callable[[], Any]] = {
    "Secret": lambda: Secret(MATERIAL),
    "Hidden": lambda: Hidden(MATERIAL.encode()),
    "HiddenText": lambda: HiddenText(MATERIAL),
    "Presented": lambda: Presented("bearer", Hidden(MATERIAL.encode())),
    "Credential": a_credential,
    "Request": a_request,
    "Operation": an_operation,
    "Grant": lambda: Grant(Caller(tenant="acme"), an_operation(), "all"),
    "Outbound": an_outbound,
}


@pytest.mark.parametrize("protocol", PICKLES)
@pytest.mark.parametrize("holding", HOLDING)
def test_what_holds_material_is_not_pickled(holding: str, protocol: int) -> None:
    """Pickles go to caches, queues and crash reports."""
    with pytest.raises(TypeError, match="cannot be pickled or copied") as refused:
        pickle.dumps(HOLDING[holding](), protocol)
    assert_clean({"material": MATERIAL}, {holding: str(refused.value).encode()})


@pytest.mark.parametrize("holding", HOLDING)
def test_what_holds_material_is_not_deeply_copied(holding: str) -> None:
    """A copy is kept somewhere else, and for longer."""
    with pytest.raises(TypeError, match="cannot be"):
        copy.deepcopy(HOLDING[holding]())


@pytest.mark.parametrize("holding", [name for name in HOLDING if name not in {"Secret", "Hidden", "HiddenText"}])
@pytest.mark.parametrize("taken_apart", [attrs.asdict, attrs.astuple], ids=["asdict", "astuple"])
def test_what_holds_material_may_be_taken_apart(taken_apart: Callable[..., Any], holding: str) -> None:
    """As debuggers and structured loggers do it: the parts that hold material are hidden themselves."""
    shown = repr(taken_apart(HOLDING[holding](), recurse=False))
    assert_clean({"material": MATERIAL}, {holding: shown.encode()})


# --- credentials ----------------------------------------------------------------------------

UNSENDABLE_HEADERS = [
    (b"Authorization", b"Bearer x\n"),
    (b"Authorization", b"Bearer x\r\nHost: evil"),
    (b"Authorization", b"evil\x00"),
    (b"Authorization", b""),
    (b"Author ization", b"evil"),
    (b"A\r\nB", b"evil"),
    (b"", b"evil"),
    (b"host", b"evil.example"),
    (b"Content-Length", b"0"),
    (b"transfer-encoding", b"chunked"),
    (b"Connection", b"close"),
    (b"Expect", b"100-continue"),
]
UNSENDABLE_PARAMETERS = [
    (b"key", b"a b"),
    (b"key", b"a&evil"),
    (b"key", b"a#b"),
    (b"key", b"\xe9"),
    (b"k=y", b"evil"),
    (b"k&y", b"evil"),
    (b"", b"evil"),
]


@pytest.mark.parametrize(
    ("headers", "query"),
    [([pair], []) for pair in UNSENDABLE_HEADERS] + [([], [pair]) for pair in UNSENDABLE_PARAMETERS],
)
def test_a_credential_that_cannot_be_sent_cannot_be_made(
    headers: list[tuple[bytes, bytes]], query: list[tuple[bytes, bytes]]
) -> None:
    """D1: what a token provider of somebody's own returns is checked when it is made, and is not shown."""
    with pytest.raises(InternalFault) as fault:
        Credential(
            headers=tuple((name, Hidden(value)) for name, value in headers),
            query=tuple((name, Hidden(value)) for name, value in query),
        )
    assert "evil" not in fault.value.detail


def test_a_credential_knows_its_names_in_lower_case() -> None:
    """The client's headers of these names give way to it."""
    headers = ((b"X-Key", Hidden(b"1")), (b"authorization", Hidden(b"Bearer\t2")))
    assert Credential(headers=headers).names == (b"x-key", b"authorization")


# --- frozen values --------------------------------------------------------------------------


def _nothing(*_: Any) -> None:
    """Stand where a value holds a function."""


def _record() -> AuditRecord:
    numbers = {"time", "generation", "status", "sent", "bytes_in", "bytes_out", "seconds"}
    return AuditRecord(**{each.name: 0 if each.name in numbers else "" for each in attrs.fields(AuditRecord)})


FROZEN: dict[type, Callable[[], Any]] = {
    Presented: lambda: Presented("bearer", Hidden(b"x")),
    Operation: an_operation,
    Caller: lambda: Caller(tenant="acme"),
    Grant: lambda: Grant(Caller(tenant="acme"), an_operation(), "all"),
    Denial: lambda: Denial("no rule"),
    Credential: a_credential,
    Finish: lambda: Finish(lambda _outbound, body: body),
    Timeouts: Timeouts,
    Origin: lambda: Origin("https", "h", 443),
}
HANDED_ON: dict[type, Callable[[], Any]] = {
    Request: a_request,
    Admission: Admission,
    Outbound: an_outbound,
    Reply: lambda: Reply(200, [], iter(()), _nothing),
    Response: lambda: Response(200, [], b"", _nothing),
    AuditRecord: _record,
}


def test_every_value_is_here() -> None:
    """A new one gets its row."""
    values = {value for value in vars(messages).values() if isinstance(value, type) and attrs.has(value)}
    assert values == {*FROZEN, *HANDED_ON}


@pytest.mark.parametrize("value", FROZEN, ids=lambda value: value.__name__)
def test_what_a_decision_rests_on_stays_as_it_was_made(value: type) -> None:
    """No field can be set or deleted: what policy saw is what is sent."""
    made = FROZEN[value]()
    for each in attrs.fields(value):
        before = getattr(made, each.name)
        with pytest.raises(FrozenInstanceError):
            setattr(made, each.name, None)
        with pytest.raises(FrozenInstanceError):
            delattr(made, each.name)
        assert getattr(made, each.name) is before


@pytest.mark.parametrize("value", {**FROZEN, **HANDED_ON}, ids=lambda value: value.__name__)
def test_nothing_can_be_hung_on_a_value(value: type) -> None:
    """A stage cannot pass anything on in secret: there are these fields and no others."""
    made = {**FROZEN, **HANDED_ON}[value]()
    with pytest.raises(AttributeError):
        made.something_else = 1
    assert not hasattr(made, "__dict__")


@pytest.mark.parametrize(
    "holder", [Secret(MATERIAL), Hidden(b"x"), BodyMeter()], ids=lambda holder: type(holder).__name__
)
def test_nothing_can_be_hung_on_the_others(holder: Any) -> None:
    """They are as closed as the values are."""
    with pytest.raises(AttributeError):
        holder.something_else = 1


# --- BodyMeter ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "chunks", "seen"),
    [
        (None, [], 0),
        (None, [b"a" * 1_000_000] * 3, 3_000_000),
        (0, [], 0),
        (0, [b"", b""], 0),
        (10, [b"a" * 10], 10),
        (10, [b"a"] * 10, 10),
        (10, [b"a" * 9, b"", b"a", b""], 10),
    ],
)
def test_a_meter_counts_what_passes(limit: int | None, chunks: list[bytes], seen: int) -> None:
    """Bytes, over all chunks; each is handed on as it is. The limit itself is allowed."""
    meter = BodyMeter()
    meter.limit = limit
    passed = [meter.count(chunk) for chunk in chunks]
    assert all(after is before for after, before in zip(passed, chunks, strict=True))
    assert seen == meter.seen


@pytest.mark.parametrize(
    ("limit", "chunks", "stopped"),
    [(0, [b"a"], 0), (10, [b"a" * 11], 0), (10, [b"a" * 10, b"a"], 1), (10, [b"a" * 6] * 5, 1), (1, [b"", b"ab"], 1)],
)
def test_a_meter_stops_a_body_at_its_limit(limit: int, chunks: list[bytes], stopped: int) -> None:
    """At the chunk that passes it, and at every later one; a body that is too long never gets short again."""
    meter = BodyMeter()
    meter.limit = limit
    for chunk in chunks[:stopped]:
        meter.count(chunk)
    for chunk in [*chunks[stopped:], b""]:
        with pytest.raises(BodyTooLarge) as refused:
            meter.count(chunk)
        assert (refused.value.status, refused.value.detail) == (413, f"the body passed {limit} bytes")
    assert meter.seen == sum(map(len, chunks))


def test_each_request_has_a_meter_of_its_own() -> None:
    """It starts at nothing and without a limit."""
    first, second = a_request(), a_request()
    first.meter.count(b"abc")
    assert (first.meter.seen, second.meter.seen, second.meter.limit) == (3, 0, None)


# --- what the others show -------------------------------------------------------------------

PLACES = {
    "bearer": [("Authorization", f"Bearer {TOKEN}")],
    "token": [("Authorization", f"token {TOKEN}")],
    "basic, the name": [("Authorization", f"Basic {b64encode(f'{TOKEN}:'.encode()).decode()}")],
    "basic, the password": [("Authorization", f"Basic {b64encode(f'me:{TOKEN}'.encode()).decode()}")],
    "x-api-key": [("X-Api-Key", TOKEN)],
    "api-key": [("Api-Key", TOKEN)],
    "x-goog-api-key": [("X-Goog-Api-Key", TOKEN)],
    "private-token": [("Private-Token", TOKEN)],
    "sigv4": [
        (
            "Authorization",
            f"AWS4-HMAC-SHA256 Credential={TOKEN}/20261124/eu-west-1/s3/aws4_request, SignedHeaders=host, Signature=0a",
        )
    ],
    "token-header": [("X-Proxy-Token", TOKEN), ("Authorization", f"Bearer {MATERIAL}")],
    "a script": [],
}
COOKIES = [("Cookie", f"session={MATERIAL}"), ("Proxy-Authorization", f"Basic {MATERIAL}")]


def inspected(place: str) -> Operation:
    """Take a request with its token in that place, and cookies of the host application, through the guard."""

    class NoCredential:
        def credential(self, caller: Any) -> Credential:
            raise NotImplementedError

    headers = [(name.encode(), value.encode()) for name, value in [("Host", "h"), *COOKIES, *PLACES[place]]]
    token = Hidden(TOKEN.encode()) if place == "a script" else None
    context = {"headers": headers, "HTTP_COOKIE": f"session={MATERIAL}"}
    request = Request(b"POST", b"/api/x?q=1", headers, iter([MATERIAL.encode()]), token=token, context=context)
    upstream = Upstream("api", "https://api.example.com", credential=NoCredential())
    return Guard({"api": upstream}, token_header=b"x-proxy-token").inspect(request)


def shown(value: Any) -> Iterator[tuple[str, bytes]]:
    """Yield the value in every way in which it may get into a log."""
    for name, show in {"repr": repr, "str": str, "format": format, "pprint": pprint.pformat, "ascii": ascii}.items():
        yield f"{name} of {type(value).__name__}", show(value).encode()


@pytest.mark.parametrize("place", PLACES)
def test_caller_operation_and_grant_show_nothing_secret(place: str) -> None:
    """Wherever the client token stood: not it, nor the host application's cookies, nor the body."""
    operation = inspected(place)
    caller = Caller(tenant="acme", subject="ci", token_id="k3yid0123456", generation=1)
    values = [
        operation,
        operation.request,
        operation.presented,
        caller,
        Grant(caller, operation, "all"),
        Denial("no rule allows it", "all"),
    ]
    for value in values:
        assert_clean({"client token": TOKEN, "cookie or body": MATERIAL}, shown(value))


def test_they_show_what_helps_to_find_the_cause() -> None:
    """Tenant, upstream, method, path and rule."""
    operation = inspected("bearer")
    grant = repr(Grant(Caller(tenant="acme", subject="ci"), operation, "read-own"))
    assert [part for part in ("'acme'", "'ci'", "'api'", "b'POST'", "b'/x'", "'read-own'") if part not in grant] == []


@pytest.mark.parametrize("value", [a_credential, an_outbound], ids=lambda value: value.__name__)
def test_credential_and_outbound_show_nothing_secret(value: Callable[[], Any]) -> None:
    """The names of what is put on are shown, the values are not."""
    made = value()
    assert b"Authorization" in repr(made).encode()
    assert_clean({"material": MATERIAL}, shown(made))
