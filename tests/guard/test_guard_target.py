"""What stands in a request line: which targets pass, as what, and which are refused with which code."""

from urllib.parse import quote

import pytest
from guard_calls import OPT_INS, TOKEN, a_request, an_upstream, forwarded, inspect

from apitokenproxy.errors import ProxyError
from apitokenproxy.guard import Guard

REFUSED_PATHS = {
    "P1": [
        (b"/a/../b", "path_dot_segment"),
        (b"/..", "path_dot_segment"),
        (b"/./a", "path_dot_segment"),
        (b"/a/.", "path_dot_segment"),
        (b"/%2e%2e/a", "path_dot_segment"),
        (b"/.%2e/a", "path_dot_segment"),
        (b"/%2E./a", "path_dot_segment"),
        (b"/%2e/a", "path_dot_segment"),
        (b"/a/%20../b", "path_dot_segment"),
        (b"/a/..%20/b", "path_dot_segment"),
        (b"/a/.+./b", "path_dot_segment"),
        (b"/a/+../b", "path_dot_segment"),
        (b"/a/.%E2%80%8B./b", "path_dot_segment"),
        (b"/a/%EF%BC%8E%EF%BC%8E/b", "path_dot_segment"),
        (b"/a/%E2%80%A5/b", "path_dot_segment"),
        (b"/a/%E2%80%A4./b", "path_dot_segment"),
    ],
    "P2": [
        (b"/a%2Fb", "encoded_slash"),
        (b"/a%2fb", "encoded_slash"),
        (b"/..%2fb", "encoded_slash"),
        (b"/a/..%2f..%2fb", "encoded_slash"),
        (b"/a%EF%BC%8Fb", "encoded_slash"),
        (b"/%E2%84%80", "encoded_slash"),
    ],
    "P3": [
        (b"/a/..;/b", "path_parameter"),
        (b"/..;a=b/x", "path_parameter"),
        (b"/;/../x", "path_parameter"),
        (b"/a%3Bb", "path_parameter"),
        (b"/a%CD%BEb", "path_parameter"),
    ],
    "P4": [
        (b"/..\\a", "invalid_target"),
        (b"/%5c..%5ca", "invalid_target"),
        (b"/a%5Cb", "invalid_target"),
        (b"/a%EF%BC%BCb", "invalid_target"),
    ],
    "P5": [
        (b"/a%00", "invalid_target"),
        (b"/a%0d%0ab", "invalid_target"),
        (b"/a%0a", "invalid_target"),
        (b"/a%09", "invalid_target"),
        (b"/a%7F", "invalid_target"),
        (b"/a%C2%85", "invalid_target"),
        (b"/a\nb", "invalid_target"),
        (b"/a\x00", "invalid_target"),
        (b"/a b", "invalid_target"),
    ],
    "P6": [
        (b"/%c0%ae%c0%ae/a", "bad_utf8"),
        (b"/%ff", "bad_utf8"),
        (b"/%ed%a0%80", "bad_utf8"),
        (b"/%e0%80%af", "bad_utf8"),
        (b"/\xc3\xa9", "invalid_target"),
    ],
    "P7": [
        (b"/%252e%252e/a", "encoded_percent"),
        (b"/a%252fb", "encoded_percent"),
        (b"/a%25", "encoded_percent"),
        (b"/a%EF%BC%852e", "encoded_percent"),
    ],
    "P9": [
        (b"//x", "empty_segment"),
        (b"///evil.com", "empty_segment"),
        (b"/a//", "empty_segment"),
        (b"/a/%20/b", "empty_segment"),
        (b"/%E2%80%8B/b", "empty_segment"),
    ],
    "P10": [
        (b"/forbidden#/allowed", "invalid_target"),
        (b"/x?a#b", "invalid_target"),
        (b"/a%23", "invalid_target"),
        (b"/allowed/..%23", "invalid_target"),
        (b"/a%3Fb", "invalid_target"),
    ],
    "P14": [(b"/" + b"a" * 8190, "target_too_long"), (b"/a" * 20_000, "target_too_long")],
    "malformed": [
        (b"/%", "invalid_target"),
        (b"/%2", "invalid_target"),
        (b"/%zz", "invalid_target"),
        (b'/a"b', "invalid_target"),
        (b"/a|b", "invalid_target"),
        (b"/a[b]", "invalid_target"),
        (b"/{a}", "invalid_target"),
    ],
}


def code_of(target: bytes, **terms: object) -> str:
    opt_ins = {name: terms.pop(name) for name in OPT_INS if name in terms}
    with pytest.raises(ProxyError) as refusal:
        inspect(a_request(target, mount=terms.pop("mount", b"")), an_upstream(**opt_ins), **terms)
    return refusal.value.code


@pytest.mark.parametrize(
    ("path", "code"),
    [
        pytest.param(path, code, id=f"{row}-{path[:30]!r}")
        for row, paths in REFUSED_PATHS.items()
        for path, code in paths
    ],
)
def test_what_backends_disagree_about_is_refused(path: bytes, code: str) -> None:
    """Every attack on the path of threats P1 to P14 is refused, with the code that names it."""
    assert code == code_of(b"/api" + path)


@pytest.mark.parametrize(
    "rest",
    [
        b"",
        b"/",
        b"/a",
        b"/a/",
        b"/a/b?c=d",
        b"/a?",
        b"/a?x=1&&y=/../&z=%2F%2e%23",
        b"/a?b?c",
        b"?q",
        b"/.well-known/x",
        b"/a...b/..c/d../...",
        b"/v1/models/gpt-4o:predict",
        b"/%61dmin",
        b"/a%20b",
        b"/a+b/-/+/c",
        b"/caf%C3%A9/%E6%97%A5%E6%9C%AC",
        b"/~user/!$&'()*,=:@",
        b"/ALLOWED",
    ],
)
def test_what_passes_is_sent_byte_for_byte(rest: bytes) -> None:
    """P7, P11: path and query reach the upstream below its base exactly as they came."""
    assert b"/v1/base" + rest == bytes(forwarded(b"/api" + rest).target)


@pytest.mark.parametrize(
    ("path", "readings"),
    [
        (b"", [()]),
        (b"/", [()]),
        (b"/a", [("a",)]),
        (b"/repos/acme/x", [("repos", "acme", "x")]),
        (b"/a/", [("a", ""), ("a",)]),
        (b"/%61dmin/x", [("admin", "x")]),
        (b"/a%20b", [("a b",)]),
        (b"/%20admin", [(" admin",), ("admin",)]),
        (b"/%EF%BD%81dmin", [("\uff41dmin",), ("admin",)]),
    ],
)
def test_a_path_is_read_as_decoded_segments_first(path: bytes, readings: list[tuple[str, ...]]) -> None:
    """Policy sees decoded segments (P11); a plain path has one reading, a trailing slash gives two."""
    assert tuple(readings) == inspect(a_request(b"/api" + path)).readings


@pytest.mark.parametrize(
    ("opt_in", "path", "readings"),
    [
        ("allow_encoded_slash", b"/projects/a%2Fb/x", [("projects", "a/b", "x"), ("projects", "a", "b", "x")]),
        ("allow_empty_segments", b"/k//x", [("k", "", "x"), ("k", "x")]),
        ("allow_empty_segments", b"//", [("", ""), ("",), ()]),
        ("allow_path_parameters", b"/a;v=1/b", [("a;v=1", "b"), ("a", "b")]),
        ("allow_path_parameters", b"/a%3Bv/b", [("a;v", "b"), ("a", "b")]),
        ("allow_encoded_percent", b"/a%2561", [("a%61",), ("aa",)]),
        ("allow_encoded_percent", b"/100%25", [("100%",)]),
    ],
)
def test_an_opt_in_passes_its_characters_opaque(opt_in: str, path: bytes, readings: list[tuple[str, ...]]) -> None:
    """What one upstream opted in to is sent as it came, and is read in the other ways for denials too."""
    upstream = an_upstream(**{opt_in: True})
    assert tuple(readings) == inspect(a_request(b"/api" + path), upstream).readings
    assert b"/v1/base" + path == bytes(forwarded(b"/api" + path, **{opt_in: True}).target)


def test_the_readings_are_bounded() -> None:
    """However a path is written, there are at most six readings of it, no two the same."""
    upstream = an_upstream(**dict.fromkeys(OPT_INS, True))
    readings = inspect(a_request(b"/api//a%2F%EF%BD%81%20;p//%2561;x%2f/"), upstream).readings
    assert len(readings) == len(set(readings)) <= 6


@pytest.mark.parametrize(
    ("path", "code"),
    [
        (b"/..", "path_dot_segment"),
        (b"/%2e%2e", "path_dot_segment"),
        (b"/%252e%252e/x", "path_dot_segment"),
        (b"/%25252e%25252e/x", "path_dot_segment"),
        (b"/%2525252e/x", "encoded_percent"),
        (b"/%" + b"25" * 1000 + b"2e", "encoded_percent"),
        (b"/..%2fx", "path_dot_segment"),
        (b"/a%2F..%2Fb", "path_dot_segment"),
        (b"/a%252F..%252Fb", "path_dot_segment"),
        (b"/..;/x", "path_dot_segment"),
        (b"/..;a=b/x", "path_dot_segment"),
        (b"/%2e%2e%3b/x", "path_dot_segment"),
        (b"/a;/../x", "path_dot_segment"),
        (b"/..%20;x/y", "path_dot_segment"),
        (b"/%255c..%255cx", "invalid_target"),
        (b"/%25c0%25ae%25c0%25ae/x", "bad_utf8"),
        (b"/x%2500", "invalid_target"),
        (b"/x%253F", "invalid_target"),
        (b"/%25u002e%25u002e/x", "invalid_target"),
        (b"/%25EF%25BC%258E./x", "path_dot_segment"),
        (b"/%EF%BC%8Fx", "encoded_slash"),
    ],
)
def test_opting_in_to_everything_still_refuses_dot_segments(path: bytes, code: str) -> None:
    """Dot segments are refused in every reading, whatever an upstream opted in to."""
    assert code == code_of(b"/api" + path, **dict.fromkeys(OPT_INS, True))


@pytest.mark.parametrize(
    ("opt_in", "path", "code"),
    [
        ("allow_encoded_percent", b"/a%252Fb", "encoded_slash"),
        ("allow_encoded_percent", b"/a%253Bb", "path_parameter"),
        ("allow_encoded_slash", b"/a%2F%2Fb", "empty_segment"),
        ("allow_encoded_slash", b"/%2Fevil.com", "empty_segment"),
        ("allow_encoded_slash", b"/a//b", "empty_segment"),
    ],
)
def test_one_opt_in_does_not_open_another(opt_in: str, path: bytes, code: str) -> None:
    """What is hidden below one opted-in character needs an opt-in of its own."""
    assert code == code_of(b"/api" + path, **{opt_in: True})


# --- mount, prefix and name -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("mount", "prefix", "target", "path"),
    [
        (b"", b"", b"/api/x", b"/x"),
        (b"/m", b"", b"/m/api/x", b"/x"),
        (b"/m/", b"", b"/m/api/x", b"/x"),
        (b"/m", b"", b"/api/x", b"/x"),
        (b"/a/m", b"", b"/a/m/api/x", b"/x"),
        (b"", b"/p", b"/p/api/x", b"/x"),
        (b"/m", b"/p", b"/m/p/api/x", b"/x"),
        (b"/m", b"/p", b"/p/api/x", b"/x"),
        (b"/p", b"/p", b"/p/api/x", b"/x"),
        (b"/p", b"/p", b"/api/x", b"/x"),
        (b"/m/p", b"/p", b"/m/p/api/x", b"/x"),
        (b"/m", b"", b"/m/api", b""),
        (b"/m", b"", b"/m/api/m/api/x", b"/m/api/x"),
        (b"", b"", b"http://proxy.example.com/api/x", b"/x"),
        (b"/m", b"", b"HTTPS://PROXY.example.com/m/api/x", b"/x"),
    ],
)
def test_mount_and_prefix_are_taken_off(mount: bytes, prefix: bytes, target: bytes, path: bytes) -> None:
    """Frameworks that leave the mount in the target and those that take it off lead to the same path."""
    operation = inspect(a_request(target, mount=mount), prefix=prefix)
    assert ("api", path) == (operation.upstream, operation.path)


@pytest.mark.parametrize(
    ("mount", "prefix", "target"),
    [
        pytest.param(b"/m", b"", b"/m/../other", id="P15-dots"),
        pytest.param(b"/m", b"", b"//m/api/x", id="P15-double-slash"),
        pytest.param(b"/m", b"", b"/m//api/x", id="P9"),
        pytest.param(b"/m", b"", b"/m@evil/x", id="H2"),
        pytest.param(b"/m", b"", b"/m/http://evil/x", id="H2-url"),
        (b"/m", b"", b"/m"),
        (b"/m", b"", b"/m/"),
        (b"", b"", b"/"),
        (b"", b"", b"/?x"),
        (b"", b"/p", b"/api/x"),
        pytest.param(b"", b"/p", b"/papi/x", id="P8-boundary"),
        (b"", b"/p", b"/%70/api/x"),
        (b"/mp", b"/p", b"/mp/api/x"),
        (b"", b"", b"/API/x"),
        (b"", b"", b"/%61pi/x"),
        (b"", b"", b"/a.b/x"),
        (b"", b"", b"/" + b"a" * 64 + b"/x"),
        (b"", b"", b"http://proxy.example.com"),
    ],
)
def test_what_names_no_upstream_is_not_found(mount: bytes, prefix: bytes, target: bytes) -> None:
    """Mount, prefix and the upstream's name stand at segment boundaries and are not normalised."""
    assert code_of(target, mount=mount, prefix=prefix) == "not_found"


def test_the_mount_ends_at_a_segment_boundary() -> None:
    """P8: `/mapi` is not `/m` followed by `api`; it names another upstream, and an unknown one."""
    assert inspect(a_request(b"/mapi/x", mount=b"/m")).upstream == "mapi"


def test_an_unknown_upstream_passes_on_the_strictest_terms() -> None:
    """Whether a name is known is told after authentication; until then it is judged without opt-ins."""
    lenient = an_upstream(**dict.fromkeys(OPT_INS, True))
    operation = Guard({"api": lenient}).inspect(a_request(b"/other/x"))
    assert (operation.upstream, operation.path, operation.readings) == ("other", b"/x", (("x",),))
    with pytest.raises(ProxyError) as refusal:
        Guard({"api": lenient}).inspect(a_request(b"/other/a%2Fb"))
    assert refusal.value.code == "encoded_slash"


@pytest.mark.parametrize(
    "target",
    [
        pytest.param(b"http://evil.example/api/x", id="H1"),
        b"http://proxy.example.com:80/api/x",
        b"http://user@proxy.example.com/api/x",
        b"http:///api/x",
        b"http:/api/x",
        b"ftp://proxy.example.com/api/x",
        b"proxy.example.com:443",
        b"*",
        b"",
        b"api/x",
        b"\\api\\x",
    ],
)
def test_a_target_for_another_site_is_refused(target: bytes) -> None:
    """H1: an absolute-form target must be http and agree with Host; other forms are not for a proxy like this."""
    assert code_of(target) == "invalid_target"


def test_an_absolute_target_cannot_move_the_upstream() -> None:
    """H1, H2: the address comes from configuration whatever the request line says."""
    outbound = forwarded(b"http://proxy.example.com/api/@evil.example/x")
    assert (outbound.origin.host, bytes(outbound.target)) == ("api.example.com", b"/v1/base/@evil.example/x")


# --- the query ------------------------------------------------------------------------------


@pytest.mark.parametrize("query", [b"?", b"?a=1", b"?a=%00%2e%2e/..;//", b"?a=%ff&b=[]{}|\\^`<>\"'", b"??"])
def test_the_query_is_opaque(query: bytes) -> None:
    """P12: the query is passed on as it came and no reading holds any of it."""
    operation = inspect(a_request(b"/api/a" + query))
    assert (b"/a", query, (("a",),)) == (operation.path, operation.query, operation.readings)


@pytest.mark.parametrize("query", [b"?a b", b"?a\x00", b"?a\tb", b"?a\r\nb", b"?\xc3\xa9", b"?a#b", b"?\x7f"])
def test_a_query_is_visible_ascii(query: bytes) -> None:
    """P5, P10: what is not visible ASCII, and `#`, cannot stand in a request line."""
    assert code_of(b"/api/a" + query) == "invalid_target"


@pytest.mark.parametrize(
    "target",
    [
        b"/api/x?key=" + TOKEN,
        b"/api/" + TOKEN + b"/x",
        b"/api/x?key=%61tp_abc",
        b"/api/x?key=" + quote("%61tp_abc", safe="").encode(),
        b"/api/x?" + b"".join(b"%%%02x" % byte for byte in TOKEN),
        b"/" + TOKEN,
        b"/api/x?X-Amz-Credential=" + TOKEN + b"%2F20261124",
    ],
)
def test_a_token_in_the_target_is_refused(target: bytes) -> None:
    """D6: URLs end up in logs, so a client token in one is refused, however it is encoded."""
    assert code_of(target) == "token_in_target"


def test_a_long_path_of_many_segments_is_read_in_one_go() -> None:
    """P14: a target of the greatest length is judged, percent signs and all, without growing in effort."""
    path = b"/%61" * 2000
    assert len(inspect(a_request(b"/api" + path)).readings[0]) == 2000
    assert code_of(b"/api/%" + b"25" * 4000 + b"41", allow_encoded_percent=True) == "encoded_percent"
