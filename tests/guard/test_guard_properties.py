"""Ten thousand generated requests and answers against oracles that read them in every way a backend or a browser might.

The generators start from known attacks and change them, since random text is refused at once and shows
nothing. The oracles and generators are tried themselves: they must find the holes of naive guards.
"""

import re
import unicodedata
from collections.abc import Callable
from urllib.parse import unquote, unquote_to_bytes

import pytest
from guard_calls import (
    BEARER,
    CREDENTIAL,
    HOST,
    OPT_INS,
    SECRET,
    TOKEN,
    a_request,
    an_upstream,
    answered,
    backend_readings,
    granted,
    inspect,
    leaves,
    values,
)
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st

from apitokenproxy.errors import Refused, UpstreamFailure
from apitokenproxy.guard import inject
from apitokenproxy.messages import Credential, Hidden

BASE = "/v1/base"

ATTACKS = [
    "/allowed/../forbidden",
    "/..",
    "/../x",
    "/../../x",
    "/%2e%2e/x",
    "/.%2E/x",
    "/..%2fx",
    "/a/..%2F..%2Fx",
    "/..;/x",
    "/..;a=b/x",
    "/a;/../../x",
    "/..%3b/x",
    "/..\\x",
    "/%5c..%5cx",
    "/%252e%252e/x",
    "/%25252e%25252e/x",
    "/..%252fx",
    "/..%00/x",
    "/..%09/x",
    "/%20../x",
    "/..%20/x",
    "/.%E2%80%8B./x",
    "/%c0%ae%c0%ae/x",
    "/%e0%80%ae./x",
    "/%EF%BC%8E%EF%BC%8E/x",
    "/%E2%80%A5/x",
    "/..%EF%BC%8Fx",
    "/..%EF%BC%BCx",
    "/..%EF%BC%9B/x",
    "/..%23/x",
    "/..%3Fx",
    "/..%25u002fx",
    "/%25u002e%25u002e/x",
    "//../x",
    "/a//../../x",
    "/+../x",
    "/x/%2e/%2e%2e/%2e%2e/y",
]
BLANKS = ["/a/%20/b", "/%E2%80%8B/b", "/a/%C2%A0"]
HARMLESS = [
    "/a",
    "/repos/acme/x",
    "/a/",
    "/a%20b",
    "/caf%C3%A9",
    "/projects/a%2Fb",
    "/a//b",
    "/a;v=1/b",
    "/100%25",
    "/.well-known/x",
    "/a..b",
]
PIECES = [
    "/",
    ".",
    "..",
    "%2e",
    "%2E",
    "%2f",
    "%5c",
    ";",
    ";a=b",
    "%3b",
    "%25",
    "%252e",
    "%00",
    "%20",
    "+",
    "\\",
    "#",
    "?",
    "//",
]
PIECES += [
    "%c0%ae",
    "%EF%BC%8E",
    "%E2%80%A4",
    "%EF%BC%8F",
    "%E2%80%8B",
    "%CD%BE",
    "%EF%BC%85",
    "%ff",
    "%",
    "%u002e",
    "%25u002e",
    "a",
    "x",
    "é",
]
LOOKALIKES = {
    ".": ["%2e", "%2E", "%252e", "%EF%BC%8E", "%E2%80%A4", "%c0%ae", "%25u002e"],
    "/": ["%2f", "%252F", "%5c", "\\", "//", "%EF%BC%8F", ";/"],
}


@st.composite
def nasty_paths(draw: st.DrawFn) -> bytes:
    """Known attacks and harmless paths, put together and changed a few times."""
    text = "".join(draw(st.lists(st.sampled_from(ATTACKS + BLANKS + HARMLESS), min_size=1, max_size=2)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(text)))
        match draw(st.sampled_from(["insert", "replace", "encode", "cut", "double"])):
            case "insert":
                text = text[:at] + draw(st.sampled_from(PIECES)) + text[at:]
            case "replace" if text[at : at + 1] in LOOKALIKES:
                text = text[:at] + draw(st.sampled_from(LOOKALIKES[text[at]])) + text[at + 1 :]
            case "encode":
                text = text[:at] + "".join(f"%{byte:02x}" for byte in text[at : at + 1].encode()) + text[at + 1 :]
            case "cut":
                text = text[:at] + text[at + draw(st.integers(1, 3)) :]
            case _:
                text = text.replace("%", "%25", 1)
    return text.encode()


TERMS = st.sets(st.sampled_from(OPT_INS)).map(lambda names: dict.fromkeys(names, True))

generated = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much], database=None
)


@settings(generated, max_examples=4000)
@given(nasty_paths(), TERMS)
def test_no_backend_reads_a_forwarded_path_as_one_outside_the_base(path: bytes, terms: dict[str, bool]) -> None:
    """Whatever an upstream opted in to, what is forwarded stays below its base in every reading."""
    upstream = an_upstream(**terms)
    try:
        operation = inspect(a_request(b"/api" + path), upstream)
    except Refused:
        return
    target = bytes(inject(granted(operation), upstream, CREDENTIAL).target)
    assert target.endswith(operation.path + operation.query)
    assert not leaves(target.partition(b"?")[0], BASE)


@settings(generated, max_examples=2000)
@given(nasty_paths())
def test_without_opt_ins_every_backend_sees_the_segments_that_policy_saw(path: bytes) -> None:
    """A path that passes has the same segments for policy and in every reading."""
    try:
        operation = inspect(a_request(b"/api" + path))
    except Refused:
        return
    seen = [segment for segment in operation.readings[0] if segment]
    for text in backend_readings(operation.path, plus=False):
        assert len([segment for segment in text.split("/") if segment]) == len(seen)


@settings(generated, max_examples=500)
@given(st.binary(max_size=60), st.binary(max_size=12), st.binary(max_size=12))
def test_any_bytes_are_judged_and_nothing_else_happens(rest: bytes, mount: bytes, host: bytes) -> None:
    """Whatever stands on the request line, the guard returns an operation or refuses; it never fails."""
    for target in (rest, b"/api/" + rest, mount + b"/api/" + rest, b"http://" + host + b"/api/" + rest):
        try:
            operation = inspect(a_request(target, [(b"Host", host)], mount=mount))
        except Refused as refusal:
            assert refusal.status in range(400, 500)  # noqa: PT017 - either outcome is right
        else:
            assert target.endswith(operation.path + operation.query)


# --- headers --------------------------------------------------------------------------------

NAMES = "Authorization X-Api-Key Api-Key Private-Token Cookie Connection Content-Length Transfer-Encoding Host "
NAMES += "Expect X-Forwarded-For X_Forwarded_For Proxy Proxy-Connection X-Real-IP X-HTTP-Method-Override TE "
NAMES += "Upgrade Keep-Alive Origin Sec-Fetch-Mode Referer "
NAMES += (
    "Accept User-Agent Content-Type X-Custom X-Tenant X-Request-Id Authorization_ Content_Length X-Original-URL Range"
)
VALUES = [
    TOKEN,
    b"Bearer " + TOKEN,
    b"Bearer a, Bearer b",
    b"chunked",
    b"close, authorization",
    b"x-tenant,accept",
    b"keep-alive",
    b"0",
    b"5",
]
VALUES += [
    b"+3",
    b"3, 3",
    b"",
    b" ",
    b"100-continue",
    b"a\r\nX-B: c",
    b"\x00",
    b"10.0.0.1, evil",
    b"evil.example/x?",
    b"text/plain",
    b"\xff",
]
VALUES += [b"Basic dTpw", b"AWS4-HMAC-SHA256 Credential=" + TOKEN + b"/x, SignedHeaders=a, Signature=b", b"x\ty"]
names = st.sampled_from(NAMES.encode().split()).flatmap(
    lambda name: st.sampled_from([name, name.lower(), name.upper()])
)
any_name = st.one_of(names, names, names, st.binary(max_size=6))
any_value = st.one_of(st.sampled_from(VALUES), st.sampled_from(VALUES), st.binary(max_size=12))
NEVER_FORWARDED = re.compile(
    rb"(?i)(?:authorization|.*api-key|private-token|cookie|connection|proxy.*|te|trailer|upgrade|keep-alive|host|expect|origin|referer"
    rb"|transfer-encoding|content-length|sec-.*|x-forwarded.*|x-real-ip|x-http-method.*|x-request-id|x-original.*|.*_.*)"
)


@settings(generated, max_examples=2000)
@given(st.lists(st.tuples(any_name, any_value), max_size=6), st.sampled_from([None, b"x-custom"]), st.booleans())
def test_what_is_sent_has_one_host_one_credential_and_no_framing(
    headers: list[tuple[bytes, bytes]], token_header: bytes | None, has_body: bool
) -> None:
    """Whatever headers a client sends: refused, or forwarded without anything that is not the client's to say."""
    request = a_request(b"/api/x", headers, body=iter(()) if has_body else None)
    upstream = an_upstream()
    try:
        operation = inspect(request, upstream, token_header=token_header)
    except Refused:
        return
    outbound = inject(granted(operation), upstream, CREDENTIAL)
    assert outbound.headers[0] == (b"Host", b"api.example.com")
    assert outbound.headers[-1] == (b"Authorization", b"Bearer " + SECRET)
    for name, value in outbound.headers[1:-1]:
        assert (name, value) in headers
        assert NEVER_FORWARDED.fullmatch(name) is None
        assert TOKEN not in value
        assert re.search(rb"[\x00-\x08\n-\x1f\x7f]", name + value) is None
    framing = [value for name, value in headers if name.lower() in {b"content-length", b"transfer-encoding"}]
    assert len(framing) <= 1
    assert (operation.length == 0) is (framing == [b"0"] or not (framing or has_body))


# --- answers --------------------------------------------------------------------------------


def browser_target(page: str, location: str) -> str:
    """Return where a browser goes, roughly as the URL Standard says: it repairs what it gets."""
    location = re.sub(r"[\t\n\r]", "", location.strip("".join(map(chr, range(33)))))
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", location)
    site, path = re.match(r"(http://[^/]+)(/[^?#]*)", page).groups()
    if scheme and scheme[1].lower() not in {"http", "https"}:
        return location
    path_part, mark, _ = re.match(r"(?s)([^?#]*)([?#]?)(.*)", location).groups()
    path_part = path_part.replace("\\", "/")
    if scheme:
        authority, _, rest = path_part[scheme.end() :].lstrip("/").partition("/")
        site, whole = f"{scheme[1].lower()}://{authority}", "/" + rest
    elif path_part.startswith("//"):
        authority, _, rest = path_part.lstrip("/").partition("/")
        site, whole = f"http://{authority}", "/" + rest
    elif path_part.startswith("/"):
        whole = path_part
    else:
        whole = path.rpartition("/")[0] + "/" + path_part if path_part else path
    stack: list[str] = []
    for segment in whole.split("/")[1:]:
        plain = re.sub("(?i)%2e", ".", segment)
        if plain == "..":
            stack[-1:] = []
        elif plain != ".":
            stack.append(segment)
    return site + "/" + "/".join(stack) + mark


STARTS = [
    "https://api.example.com/v1/base",
    "/v1/base",
    "//api.example.com/v1/base",
    "https://evil.example",
    "//evil.example",
    "",
    "..",
    "x",
]
STARTS += [
    "https:",
    "http://api.example.com/v1/base",
    "\\\\evil.example",
    "/",
    "/\t/evil.example",
    " https://evil.example",
    "javascript:x",
    "/v1",
]
LINK_PIECES = [*PIECES, "@evil.example", ":443", "/v1/base", "\t", " ", ":", "evil.example", "../..", "/x"]


link_ends = st.lists(st.one_of(st.sampled_from(LINK_PIECES), st.sampled_from(ATTACKS)), max_size=4).map("".join)


@settings(generated, max_examples=1500)
@given(st.sampled_from(STARTS), link_ends, st.sampled_from([b"", b"/", b"/a/b"]))
def test_no_redirect_takes_a_browser_out_of_the_upstream(start: str, rest: str, path: bytes) -> None:
    """Whatever Location an upstream sends, whoever follows it stays below the proxy's own path."""
    location = (start + rest).encode()
    request = a_request(b"/proxy/api" + path, mount=b"/proxy")
    try:
        headers = answered([(b"Location", location)], status=302, request=request)
    except UpstreamFailure:
        return
    for back in values(headers, b"location"):
        there = browser_target("http://proxy.example.com/proxy/api" + path.decode(), back.decode("latin-1"))
        assert re.match(r"http://proxy\.example\.com/proxy/api(?:[/?#]|\Z)", there), there


reply_names = st.one_of(
    st.sampled_from(
        b"Location Link Content-Location Cache-Control Content-Length Connection X-Echo Set-Cookie Server ETag".split()
    ),
    st.binary(max_size=6),
)
reply_values = st.one_of(
    st.sampled_from(
        [
            SECRET,
            b"Bearer " + SECRET,
            b"/v1/base/?k=" + SECRET,
            b"</v1/base>; a, <//x>",
            b"public",
            b'private="',
            b"5",
            b"close",
        ]
    ),
    st.binary(max_size=12),
)


@settings(generated, max_examples=1000)
@given(st.lists(st.tuples(reply_names, reply_values), max_size=6), st.integers(-1, 1000))
def test_any_answer_is_cleaned_or_fails(headers: list[tuple[bytes, bytes]], status: int) -> None:
    """Whatever an upstream answers: 502, or headers without the secret, without cookies and fit to be sent."""
    try:
        cleaned = answered(headers, status=status)
    except UpstreamFailure:
        return
    assert status in range(200, 600)
    for name, value in cleaned:
        assert name.lower() not in {b"set-cookie", b"server", b"connection"}
        assert SECRET not in unquote_to_bytes(name + value)
        assert re.search(rb"[\x00-\x08\n-\x1f\x7f]", name + value) is None
    assert len(values(cleaned, b"content-length")) <= 1
    assert len(values(cleaned, b"cache-control")) == 1
    assert b"public" not in values(cleaned, b"cache-control")[0].split(b", ")


# --- the oracles and the generators themselves ----------------------------------------------


def _segments(text: str) -> list[str]:
    return text.split("/")


def _until_stable(path: str) -> str:
    for _ in range(4):
        path = unquote(path)
    return path


NAIVE: dict[str, Callable[[str], bool]] = {
    "literal dots": lambda path: ".." not in _segments(path),
    "decoded once": lambda path: ".." not in _segments(unquote(path)),
    "decoded throughout": lambda path: ".." not in _segments(_until_stable(path)),
    "backslashes too": lambda path: ".." not in _segments(_until_stable(path).replace("\\", "/")),
    "parameters too": lambda path: ".." not in re.split(r"[/\\;]", _until_stable(path)),
    "blanks too": lambda path: ".." not in [part.strip() for part in re.split(r"[/\\;]", _until_stable(path))],
    "NFKC too": lambda path: (
        ".." not in [part.strip() for part in re.split(r"[/\\;]", unicodedata.normalize("NFKC", _until_stable(path)))]
    ),
}
"""Guards that let a path pass when they see no `..` segment in it; each knows one trick more than the one before."""


@pytest.mark.parametrize("naive", NAIVE)
def test_the_generator_and_the_oracle_find_the_hole_of_a_naive_guard(naive: str) -> None:
    """A search with the same generator finds a path that the naive guard passes and some backend reads as outside."""
    passes = NAIVE[naive]
    hole = find(
        nasty_paths(),
        lambda path: passes(path.decode()) and leaves(BASE.encode() + path, BASE),
        settings=settings(generated, max_examples=4000, derandomize=True),
    )
    with pytest.raises(Refused):
        inspect(a_request(b"/api" + hole), an_upstream(**dict.fromkeys(OPT_INS, True)))


@pytest.mark.parametrize("attack", [attack for attack in ATTACKS if attack != "/allowed/../forbidden"])
def test_the_oracle_sees_every_known_attack(attack: str) -> None:
    """Each attack that the generator starts from leads out of the base in some reading, and the guard refuses it."""
    assert leaves(BASE.encode() + attack.encode(), BASE)
    for terms in ({}, dict.fromkeys(OPT_INS, True)):
        with pytest.raises(Refused):
            inspect(a_request(b"/api" + attack.encode()), an_upstream(**terms))


@pytest.mark.parametrize("path", HARMLESS)
def test_the_oracle_lets_harmless_paths_be(path: str) -> None:
    """An oracle that cries at everything would prove nothing: these pass with opt-ins and stay below the base."""
    upstream = an_upstream(**dict.fromkeys(OPT_INS, True))
    assert inspect(a_request(b"/api" + path.encode()), upstream).path == path.encode()
    assert not leaves(BASE.encode() + path.encode(), BASE)


@pytest.mark.parametrize("terms", [{}, dict.fromkeys(OPT_INS, True)], ids=["strict", "lenient"])
def test_the_generator_makes_paths_that_pass(terms: dict[str, bool]) -> None:
    """Otherwise the properties above would hold for a guard that refuses everything."""
    upstream = an_upstream(**terms)

    def passes(path: bytes) -> bool:
        try:
            return len(inspect(a_request(b"/api" + path), upstream).readings[0]) > 2 and b"%" in path
        except Refused:
            return False

    assert passes(find(nasty_paths(), passes, settings=settings(generated, max_examples=4000, derandomize=True)))


@pytest.mark.parametrize(
    "location",
    [
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        " \t//evil.example",
        "https:evil.example",
        "../../x",
        "/a/../x",
    ],
)
def test_the_browser_oracle_sees_where_a_browser_goes(location: str) -> None:
    there = browser_target("http://proxy.example.com/proxy/api/a", location)
    assert not there.startswith("http://proxy.example.com/proxy/api")


def test_a_guard_that_forgot_a_header_would_be_caught() -> None:
    """The header property rests on this expression: it knows the fields that no client may set."""
    for name, _ in (HOST, BEARER, (b"X_Api_Key", b""), (b"proxy", b""), (b"TE", b"")):
        assert NEVER_FORWARDED.fullmatch(name)
    assert NEVER_FORWARDED.fullmatch(b"X-Custom") is None
    assert inject(granted(inspect(a_request())), an_upstream(), Credential(query=((b"k", Hidden(b"v")),))).headers == [
        (b"Host", b"api.example.com")
    ]
