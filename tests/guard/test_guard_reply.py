"""What a client gets of an upstream's headers."""

import base64
from urllib.parse import quote

import pytest
from guard_calls import CREDENTIAL, SECRET, a_request, an_upstream, answered, values

from apitokenproxy.errors import ForeignRedirect, ProxyError, UpstreamAuthFailed, UpstreamFailure
from apitokenproxy.messages import Credential, Headers, Hidden

OURS = [
    (b"cache-control", b"private, no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"sandbox"),
]

PASS = [
    (b"Content-Type", b"application/json"),
    (b"etag", b'"x"'),
    (b"ETag", b'"y"'),
    (b"X-RateLimit-Remaining", b"4999"),
    (b"X-GitHub-Request-Id", b"A:B"),
    (b"x_odd_name", b"caf\xe9\tx"),
    (b"Retry-After", b"3"),
    (b"Vary", b"Accept"),
    (b"Vary", b"Origin"),
    (b"Content-Encoding", b"gzip"),
    (b"Content-Disposition", b'attachment; filename="a%20b"'),
    (b"X-Empty", b""),
]


def test_what_passes_keeps_order_case_repetition_and_bytes() -> None:
    """An API's own headers reach the client as they are, with ours after them."""
    assert answered(PASS) == [*PASS, *OURS]


DROPPED = (
    b"Connection Keep-Alive Proxy-Authenticate Proxy-Connection TE Trailer Transfer-Encoding Upgrade "
    b"Set-Cookie Set-Cookie2 Server X-Powered-By X-AspNet-Version X-Runtime Via X-Backend X-Backend-Server "
    b"X-Served-By Strict-Transport-Security Public-Key-Pins Clear-Site-Data Access-Control-Allow-Origin "
    b"Access-Control-Allow-Credentials Service-Worker-Allowed Alt-Svc NEL Report-To Reporting-Endpoints Refresh "
    b"SourceMap X-SourceMap X-Accel-Redirect X-Sendfile WWW-Authenticate Content-Security-Policy "
    b"Content-Security-Policy-Report-Only Date X-Proxy-Error RateLimit RateLimit-Policy Timing-Allow-Origin "
    b"Cross-Origin-Resource-Policy Sec-WebSocket-Accept CDN-Cache-Control Surrogate-Control X-Content-Type-Options"
)


@pytest.mark.parametrize("name", DROPPED.split())
def test_what_is_not_the_upstreams_to_set_is_dropped(name: bytes) -> None:
    """L2, L3: what acts on the host application's origin or tells about machinery, in every spelling."""
    for spelling in (name, name.lower(), name.upper()):
        assert answered([(spelling, b"x")]) == OURS


def test_fields_named_by_connection_are_dropped() -> None:
    """Also those that would be rewritten, and whatever the spelling."""
    headers = [
        (b"Connection", b"close, X-Hop"),
        (b"connection", b"LOCATION"),
        (b"x-hop", b"1"),
        (b"Location", b"/v1/base/x"),
    ]
    assert answered(headers) == OURS


@pytest.mark.parametrize("status", [0, -1, 99, 100, 101, 103, 199, 600, 999])
def test_a_status_is_200_to_599(status: int) -> None:
    """S9: servers fail on other numbers, and a 101 that nobody asked for would open a tunnel."""
    with pytest.raises(UpstreamFailure):
        answered([], status=status)


@pytest.mark.parametrize("status", [401, 407])
def test_an_upstream_that_refuses_the_credential_is_the_operators_trouble(status: int) -> None:
    """L3: the client must not take its own token for bad."""
    with pytest.raises(UpstreamAuthFailed):
        answered([], status=status)


@pytest.mark.parametrize(
    "header",
    [
        (b"X-A", b"a\r\nB: c"),
        (b"X-A", b"\x00"),
        (b"Server", b"\n"),
        (b"X A", b""),
        (b"", b"x"),
        (b"X-\xe9", b""),
        (b"A:", b""),
    ],
)
def test_a_malformed_header_fails_the_answer(header: tuple[bytes, bytes]) -> None:
    """S8: bare CR, LF and NUL, and names that are no tokens."""
    with pytest.raises(UpstreamFailure):
        answered([header])


@pytest.mark.parametrize(
    ("headers", "status", "lengths"),
    [
        ([(b"Content-Length", b"5")], 200, [b"5"]),
        ([(b"Content-Length", b"5"), (b"content-length", b"5")], 200, [b"5"]),
        ([(b"Content-Length", b"5")], 304, [b"5"]),
        ([(b"Content-Length", b"0")], 204, []),
        ([], 200, []),
    ],
)
def test_the_length_is_passed_on_once(headers: Headers, status: int, lengths: list[bytes]) -> None:
    """Also for HEAD and 304, where it tells the length of what was not sent; a 204 has none (RFC 9110, section 8.6)."""
    assert lengths == values(answered(headers, status=status), b"content-length")


@pytest.mark.parametrize(
    "headers",
    [
        [(b"Content-Length", b"5"), (b"Content-Length", b"6")],
        [(b"Content-Length", b"5, 5")],
        [(b"Content-Length", b"+5")],
        [(b"Content-Length", b"")],
        [(b"Content-Length", b"5"), (b"Transfer-Encoding", b"chunked")],
    ],
)
def test_an_ambiguous_length_fails_the_answer(headers: Headers) -> None:
    """S6: what two parsers could frame differently."""
    with pytest.raises(UpstreamFailure):
        answered(headers)


@pytest.mark.parametrize(
    ("sent", "got"),
    [
        ([b"no-store"], b"no-store"),
        ([b"private, max-age=60"], b"private, max-age=60"),
        ([b"Private"], b"Private"),
        ([b"max-age=60"], b"max-age=60, private"),
        ([b"public, max-age=60"], b"max-age=60, private"),
        ([b"PUBLIC"], b"private"),
        ([b"private, max-age=60, s-maxage=60"], b"private, max-age=60"),
        ([b"S-MaxAge = 9"], b"private"),
        ([b"max-age=1", b"public"], b"max-age=1, private"),
        ([b""], b"private"),
        ([b"no-cache, "], b"no-cache, private"),
        ([b'private="x-a, x-b", max-age=9'], b'private="x-a, x-b", max-age=9, private'),
        ([b'ext="public, private", public'], b'ext="public, private", private'),
        ([b'no-cache="a", no-store'], b'no-cache="a", no-store'),
    ],
)
def test_no_shared_cache_keeps_an_answer(sent: list[bytes], got: bytes) -> None:
    """L4: answers belong to one caller; the upstream's other directives stay."""
    assert [got] == values(answered([(b"Cache-Control", value) for value in sent]), b"cache-control")


def test_the_upstreams_request_id_is_kept_under_another_name() -> None:
    assert answered([(b"X-Request-ID", b"abc")]) == [(b"x-upstream-request-id", b"abc"), *OURS]


# --- the credential -------------------------------------------------------------------------

BASIC = base64.b64encode(b"user:" + SECRET)
FORMS = {
    "bearer": (CREDENTIAL, SECRET),
    "whole": (CREDENTIAL, b"Bearer " + SECRET),
    "percent": (CREDENTIAL, quote(SECRET).replace("g", "%67").encode()),
    "all-percent": (CREDENTIAL, b"".join(b"%%%02X" % byte for byte in SECRET)),
    "basic": (Credential(headers=((b"Authorization", Hidden(b"Basic " + BASIC)),)), BASIC),
    "password": (Credential(headers=((b"Authorization", Hidden(b"Basic " + BASIC)),)), SECRET),
    "header": (Credential(headers=((b"X-Key", Hidden(SECRET)),)), SECRET),
    "template": (Credential(headers=((b"X-Key", Hidden(b"key " + SECRET)),)), SECRET),
    "query": (Credential(query=((b"key", Hidden(b"a%2Fb%20cdef")),)), b"a%2Fb%20cdef"),
    "query-decoded": (Credential(query=((b"key", Hidden(b"a%2Fb%20cdef")),)), b"a/b cdef"),
    "query-otherwise": (Credential(query=((b"key", Hidden(b"a%2Fb%20cdef")),)), b"%61%2fb%20cdef"),
    "second": (Credential(headers=((b"X-Id", Hidden(b"id-1")), (b"X-Key", Hidden(SECRET)))), SECRET),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_header_that_shows_the_credential_is_dropped(form: str) -> None:
    """H6, L1: whichever header it is, wherever in it the credential stands, in each form."""
    credential, shown = FORMS[form]
    leaks = [
        (b"X-Echo", b"you sent " + shown + b"!"),
        (b"Content-Type", shown),
        (b"Link", b"</v1/base/x?key=" + shown + b">"),
    ]
    kept = answered([(b"A", b"1"), *leaks, (b"B", b"100%")], credential=credential)
    assert kept == [(b"A", b"1"), (b"B", b"100%"), *OURS]


def test_a_location_that_shows_the_credential_is_dropped() -> None:
    """H6: `Location: /x?key=SECRET` goes nowhere, neither as a redirect nor as an error with the text."""
    assert answered([(b"Location", b"/v1/base/x?key=" + SECRET)], status=302) == OURS
    assert answered([(b"Location", b"https://evil.example/?key=" + SECRET)], status=302) == OURS


def test_the_credential_as_a_headers_name_is_dropped() -> None:
    assert answered([(SECRET, b"1")]) == OURS


# --- links ----------------------------------------------------------------------------------

SITE = b"http://proxy.example.com/proxy/api"
BACK = [
    (b"https://api.example.com/v1/base/items?page=2", SITE + b"/items?page=2"),
    (b"HTTPS://API.example.COM:443/v1/base/items#x", SITE + b"/items#x"),
    (b"https://api.example.com/v1/base", SITE),
    (b"https://api.example.com/v1/base?x", SITE + b"?x"),
    (b"https://api.example.com/v1/base/a%2Fb;c//d", SITE + b"/a%2Fb;c//d"),
    (b"/v1/base/items/8", b"/proxy/api/items/8"),
    (b"/v1/base", b"/proxy/api"),
    (b"/v1/base/", b"/proxy/api/"),
    (b"/v1/base/x?next=https://evil.example/..", b"/proxy/api/x?next=https://evil.example/.."),
    (b"8", b"8"),
    (b"./8", b"./8"),
    (b"../other", b"../other"),
    (b"..", b".."),
    (b"a/../b", b"a/../b"),
    (b"?page=2", b"?page=2"),
    (b"?u=a:b", b"?u=a:b"),
    (b"#top", b"#top"),
    (b"", b""),
]
ELSEWHERE = [
    b"https://evil.example/v1/base/x",
    b"https://api.example.com.evil.example/v1/base/x",
    b"https://api.example.com@evil.example/v1/base/x",
    b"https://user@api.example.com/v1/base/x",
    b"https://api.example.com:8443/v1/base/x",
    b"https://api.example.com:/v1/base/../x",
    b"http://api.example.com/v1/base/x",
    b"https://api.example.com/",
    b"https://api.example.com",
    b"https://api.example.com/v1/basement",
    b"https://api.example.com/v1/base/../x",
    b"https://api.example.com/v1/base/%2e%2e/x",
    b"https://api.example.com/v1/base/..%2fx",
    b"https://api.example.com/v1/base/%252e%252e/x",
    b"https://api.example.com/v1/base/..;/x",
    b"https://api.example.com/v1/base/%ff",
    b"https://api.example.com\\@evil.example/",
    b"https:///evil.example/",
    b"https:/evil.example/",
    b"https:evil.example",
    b"https:/v1/base/x",
    b"//evil.example/x",
    b"//api.example.com/v1/base/x",
    b"///evil.example",
    b"/\\evil.example",
    b"\\\\evil.example",
    b"/\t/evil.example",
    b" //evil.example",
    b"/v1/base/x y",
    b"/",
    b"/x",
    b"/v1",
    b"/v1/basement",
    b"/v1/base/../x",
    b"/v1/base/.%2e/x",
    b"/V1/base/x",
    b"../../x",
    b"../..",
    b"../%2e%2e/x",
    b"..%2f..%2fx",
    b"a/../../../x",
    b"..;/../x",
    b"javascript:alert(1)",
    b"data:text/html,x",
    b"ftp://api.example.com/v1/base/x",
    b"caf\xc3\xa9",
]


@pytest.mark.parametrize(("location", "back"), BACK)
def test_links_to_the_upstream_lead_back_through_the_proxy(location: bytes, back: bytes) -> None:
    """H5: absolute stays absolute, a path stays a path, a relative reference stays; in all three headers."""
    assert [back] == values(answered([(b"Location", location)], status=302), b"location")
    assert [back] == values(answered([(b"location", location)], status=201), b"location")
    assert [back] == values(answered([(b"Content-Location", location)]), b"content-location")
    link = [(b"Link", b"<" + location + b'>; rel="next", <' + location + b'>; rel="last"')]
    assert values(answered(link), b"link") == [b"<" + back + b'>; rel="next", <' + back + b'>; rel="last"']


@pytest.mark.parametrize("location", ELSEWHERE)
def test_a_redirect_elsewhere_is_not_passed_on(location: bytes) -> None:
    """H5: a client that follows it takes its token there. Elsewhere is also what browsers read differently."""
    for status in (300, 301, 302, 303, 307, 308):
        with pytest.raises(ForeignRedirect) as refusal:
            answered([(b"Location", location)], status=status)
        assert "evil" not in refusal.value.detail
    lenient = an_upstream(allow_foreign_redirects=True)
    assert [location] == values(answered([(b"Location", location)], status=302, upstream=lenient), b"location")


@pytest.mark.parametrize("location", ELSEWHERE)
def test_other_links_elsewhere_stay_as_they_are(location: bytes) -> None:
    """Nobody follows them without looking; an upload's 201 may well point to a storage service."""
    assert [location] == values(answered([(b"Location", location)], status=201), b"location")
    assert [location] == values(answered([(b"Content-Location", location)]), b"content-location")
    assert [b"<" + location + b">; rel=next"] == values(
        answered([(b"Link", b"<" + location + b">; rel=next")]), b"link"
    )


@pytest.mark.parametrize("relative", [b"x", b".", b"./x", b"..", b"stripe/x"])
def test_nothing_is_relative_to_an_upstream_without_a_slash(relative: bytes) -> None:
    """Seen from `/proxy/api`, `x` is `/proxy/x`, another upstream."""
    with pytest.raises(ForeignRedirect):
        answered([(b"Location", relative)], status=302, request=a_request(b"/api"))
    assert values(answered([(b"Location", b"?x")], status=302, request=a_request(b"/api")), b"location") == [b"?x"]


@pytest.mark.parametrize(
    ("request_", "prefix", "path", "site"),
    [
        (a_request(b"/api/x?q=/api/x", scheme=b"https"), b"", b"/api/y", b"https://proxy.example.com/api/y"),
        (a_request(b"/m/p/api/x", mount=b"/m"), b"/p", b"/m/p/api/y", b"http://proxy.example.com/m/p/api/y"),
        (a_request(b"/p/api", mount=b""), b"/p", b"/p/api/y", b"http://proxy.example.com/p/api/y"),
        (a_request(b"/api/x", mount=b"/m"), b"", b"/m/api/y", b"http://proxy.example.com/m/api/y"),
        (
            a_request(b"/api/x", mount="/mé\r\n".encode()),
            b"",
            b"/m%C3%A9%0D%0A/api/y",
            b"http://proxy.example.com/m%C3%A9%0D%0A/api/y",
        ),
        (
            a_request(b"http://proxy.example.com/m/api/x", mount=b"/m"),
            b"",
            b"/m/api/y",
            b"http://proxy.example.com/m/api/y",
        ),
        (a_request(b"/api/x", [(b"Host", b"[::1]:8080")]), b"", b"/api/y", b"http://[::1]:8080/api/y"),
    ],
)
def test_links_lead_to_where_the_client_sees_the_upstream(
    request_: object, prefix: bytes, path: bytes, site: bytes
) -> None:
    """Mount, prefix and host as they stood in the request, whether or not the framework took the mount off."""
    headers = [(b"Location", b"/v1/base/y"), (b"Content-Location", b"https://api.example.com/v1/base/y")]
    got = answered(headers, status=302, request=request_, prefix=prefix)
    assert ([path], [site]) == (values(got, b"location"), values(got, b"content-location"))


@pytest.mark.parametrize(
    ("url", "location", "back"),
    [
        ("https://api.github.com", b"/repos", b"/proxy/api/repos"),
        ("https://api.github.com", b"/", b"/proxy/api/"),
        ("https://api.github.com", b"https://api.github.com", SITE),
        ("https://api.github.com", b"https://api.github.com?x", SITE + b"?x"),
        ("http://[::1]:8080/b", b"http://[::1]:8080/b/x", SITE + b"/x"),
        ("http://127.0.0.1:8080", b"http://127.0.0.1:08080/x", SITE + b"/x"),
    ],
)
def test_an_upstreams_address_may_have_any_form(url: str, location: bytes, back: bytes) -> None:
    upstream = an_upstream(url, allow_private=True)
    assert [back] == values(answered([(b"Location", location)], status=302, upstream=upstream), b"location")


def test_a_link_with_several_targets_is_rewritten_one_by_one() -> None:
    """Pagination keeps working, and links elsewhere stay beside it."""
    link = (
        b'<https://api.example.com/v1/base/i?page=2>; rel="next", <https://docs.example.com/i>; rel="help", '
        b'</v1/base/i?page=9>; rel="last"; title="a > b, <c>"'
    )
    assert values(answered([(b"Link", link)]), b"link") == [
        b"<" + SITE + b'/i?page=2>; rel="next", <https://docs.example.com/i>; rel="help", '
        b'</proxy/api/i?page=9>; rel="last"; title="a > b, <c>"'
    ]


def test_every_refusal_here_is_the_upstreams_fault() -> None:
    """A client sees 502 with a code, never a 4xx that would blame it."""
    for headers, status in (([(b"a b", b"")], 200), ([], 401), ([(b"Location", b"//x")], 302)):
        with pytest.raises(ProxyError) as refusal:
            answered(headers, status=status)
        assert refusal.value.status == 502
