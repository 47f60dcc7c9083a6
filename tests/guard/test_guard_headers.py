"""What stands in the headers of a request: what passes, what is dropped, what is refused."""

from collections.abc import Callable
from ipaddress import ip_network

import pytest
from guard_calls import BEARER, HOST, TOKEN, a_request, an_upstream, inspect, values

from apitokenproxy.errors import BodyTooLarge, ConfigurationError, ProxyError
from apitokenproxy.guard import Guard
from apitokenproxy.messages import Headers, Operation


def code_of(call: Callable[[], Operation]) -> str:
    with pytest.raises(ProxyError) as refusal:
        call()
    assert TOKEN.decode() not in refusal.value.detail
    return refusal.value.code


def kept(headers: Headers, **terms: object) -> Headers:
    return inspect(a_request(b"/api/x", headers), **terms).headers


PASS = [
    (b"Accept", b"application/json"),
    (b"accept", b"text/plain"),
    (b"User-Agent", b"curl/8.5.0"),
    (b"Content-Type", b"application/json; charset=utf-8"),
    (b"X-CUSTOM-thing", b"a\tb"),
    (b"X-Latin", b"caf\xe9"),
    (b"X-Empty", b""),
    (b"If-None-Match", b'W/"x"'),
    (b"Accept", b"repeated"),
    (b"Idempotency-Key", b"1"),
    (b"traceparent", b"00-0-0-00"),
    (b"Anthropic-Version", b"2023-06-01"),
]


def test_what_passes_keeps_order_case_repetition_and_bytes() -> None:
    """Header fields that may go upstream are forwarded exactly as they came."""
    assert kept(PASS) == PASS


DROPPED = {
    "D3 hop by hop": b"Connection Keep-Alive TE Trailer Upgrade HTTP2-Settings Proxy-Connection",
    "D4 aliases": b"X_Real_IP Authorization_ Content_Length Host_ x_api_key _",
    "D5 H3 addresses": (
        b"X-Forwarded-For X-Forwarded-Host X-Forwarded-Proto X-Forwarded-Uri X-Forwarded X-Forwarded-User Forwarded "
        b"X-Real-IP True-Client-IP CF-Connecting-IP X-Client-IP X-Cluster-Client-IP Client-IP Fastly-Client-IP "
        b"X-Azure-ClientIP Via X-Original-URL X-Original-Host X-Rewrite-URL X-Envoy-Original-Path X-Host"
    ),
    "D6 the host application's": b"Cookie Cookie2 Referer Origin Sec-Fetch-Site Sec-WebSocket-Protocol sec-ch-ua",
    "D8 methods": b"X-HTTP-Method X-HTTP-Method-Override X-Method-Override",
    "H8 proxies": b"Proxy Proxy-Authorization Proxy-Authenticate",
    "made by us": b"Date X-Request-Id X-Amz-Security-Token",
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, id=f"{row}-{name.decode()}") for row, names in DROPPED.items() for name in names.split()],
)
def test_what_is_not_the_clients_to_say_is_dropped(name: bytes) -> None:
    """Rows D3 to D8, H3 and H8 of the threats: dropped in every spelling, without a word."""
    for spelling in (name, name.lower(), name.upper()):
        value = b"keep-alive" if name == b"Connection" else b"x"
        assert kept([(b"A", b"1"), (spelling, value), (b"B", b"2")]) == [(b"A", b"1"), (b"B", b"2")]


def test_fields_named_by_connection_are_dropped() -> None:
    """D3: `Connection` can take away forwarded fields; it cannot take away Host or the credential."""
    sent = [(b"Connection", b"close, X-Tenant"), (b"Connection", b"authorization,\tHost"), BEARER]
    operation = inspect(a_request(b"/api/x", [HOST, *sent, (b"X-TENANT", b"a"), (b"X-Other", b"b")]))
    assert operation.headers == [(b"X-Other", b"b")]
    assert (HOST[1], TOKEN) == (operation.host, bytes(operation.presented.value))


@pytest.mark.parametrize("byte", [*range(9), *range(10, 32), 127])
def test_control_characters_in_values_are_refused(byte: int) -> None:
    """D1: CR, LF, NUL and the other controls could end a header; also in a field that is dropped."""
    for name in (b"X-A", b"Cookie", b"User-Agent", b"Authorization"):
        value = b"a" + bytes([byte]) + b"b"
        assert code_of(lambda name=name, value=value: inspect(a_request(b"/api/x", [(name, value)]))) == "bad_header"


@pytest.mark.parametrize(
    "name", [b"", b"X A", b"X:", b"X-\xe9", b"Authorization ", b"X\tA", b"X\r\nY", b"(x)", b":path"]
)
def test_a_header_name_is_a_token(name: bytes) -> None:
    """D1: RFC 9110, section 5.1."""
    assert code_of(lambda: inspect(a_request(b"/api/x", [(name, b"1")]))) == "bad_header"


@pytest.mark.parametrize(
    ("headers", "fits"),
    [
        ([(b"X-A", b"1")] * 99, True),
        ([(b"X-A", b"1")] * 100, False),
        ([(b"X-A", b"1")] * 20_000, False),
        ([(b"X-A", b"a" * 65_000)], True),
        ([(b"X-A", b"a" * 65_536)], False),
        ([(b"X-" + b"a" * 65_536, b"1")], False),
        ([(b"Cookie", b"a" * 1_048_576)], False),
    ],
)
def test_headers_are_bounded(headers: Headers, fits: bool) -> None:
    """D10: at most 100 fields and 64 KiB of them, whatever the server lets through."""
    if fits:
        assert headers == kept(headers)
    else:
        assert code_of(lambda: inspect(a_request(b"/api/x", headers))) == "headers_too_large"


@pytest.mark.parametrize(
    "host",
    [b"a", b"proxy.example.com", b"A.B:8080", b"10.0.0.1", b"[::1]", b"[2001:db8::1]:443", b"my_app:80", b"localhost:"],
)
def test_a_host_is_a_name_or_an_address_with_a_port(host: bytes) -> None:
    """The Host is kept as it came, for links that lead back."""
    assert host == inspect(a_request(b"/api/x", [(b"host", host)])).host


@pytest.mark.parametrize(
    "hosts",
    [
        pytest.param([], id="H7-none"),
        pytest.param([b"a", b"a"], id="H7-twice"),
        pytest.param([b"h,evil"], id="H7-joined"),
        pytest.param([b"x/allowed?"], id="P13"),
        [b""],
        [b":80"],
        [b"a?b"],
        [b"a#b"],
        [b"user@a"],
        [b"a\\b"],
        [b"a b"],
        [b"a:b"],
        [b"a:80:80"],
        [b"a:123456"],
        [b"[::1"],
        [b"[]"],
        [b"[::1]x"],
        [b"[::1]:x"],
        [b"[a%25eth0]"],
        [b"caf\xc3\xa9"],
        [b"a%2fb"],
        [b"a" * 256],
    ],
)
def test_any_other_host_is_refused(hosts: list[bytes]) -> None:
    """P13, H7: exactly one Host, and nothing in it that could be read as a path or as another host."""
    headers = [(b"Host", host) for host in hosts]
    request = a_request(b"/api/x", headers or [(b"host", b"")])
    if not headers:
        request.headers.clear()
    assert code_of(lambda: inspect(request)) == "bad_host"


@pytest.mark.parametrize(
    "method", [b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"PROPFIND", b"M-SEARCH"]
)
def test_upper_case_methods_pass(method: bytes) -> None:
    """A method is upper-case letters and hyphens, forwarded as it is."""
    assert method == inspect(a_request(b"/api/x", method=method)).method


@pytest.mark.parametrize(
    "method", [b"", b"TRACE", b"CONNECT", b"TRACK", b"get", b"Get", b"GE T", b"GET\n", b"A" * 21, b"G3T"]
)
def test_other_methods_are_refused(method: bytes) -> None:
    """TRACE echoes credentials, CONNECT opens a tunnel, and methods are case-sensitive."""
    assert code_of(lambda: inspect(a_request(b"/api/x", method=method))) == "method_not_allowed"


@pytest.mark.parametrize(
    ("value", "code"), [(b"100-Continue", ""), (b"200-ok", "expectation_failed"), (b"", "expectation_failed")]
)
def test_expect_is_100_continue_or_refused(value: bytes, code: str) -> None:
    """D9: the one expectation there is, is the server's to fulfil; it is not passed on."""
    request = a_request(b"/api/x", [(b"Expect", value)])
    if code:
        assert code == code_of(lambda: inspect(request))
    else:
        assert inspect(request).headers == []


@pytest.mark.parametrize("name", [b"User-Agent", b"X-Custom", b"Content-Type", b"X-Debug-Token"])
@pytest.mark.parametrize("value", [TOKEN, b"Bearer " + TOKEN, b"x " + TOKEN + b" y"])
def test_a_token_in_a_forwarded_header_is_refused(name: bytes, value: bytes) -> None:
    """D6: a client token in the wrong place would reach the upstream; with a credential beside it or not."""
    for beside in ([], [BEARER], [(b"X-Api-Key", TOKEN)]):
        assert code_of(lambda beside=beside: inspect(a_request(b"/api/x", [*beside, (name, value)]))) == "bad_header"
    assert (
        code_of(lambda: inspect(a_request(b"/api/x", [(b"X-T", b"t"), (name, value)]), token_header=b"x-t"))
        == "bad_header"
    )


def test_a_token_in_a_dropped_header_goes_nowhere() -> None:
    """D6: what is dropped anyway may hold what it likes; no cookie is ever a credential."""
    operation = inspect(a_request(b"/api/x", [(b"Cookie", b"t=" + TOKEN), (b"Referer", b"http://a/?" + TOKEN)]))
    assert (operation.headers, operation.presented) == ([], None)


# --- framing --------------------------------------------------------------------------------

FRAMING = [
    ([], False, 0),
    ([], True, None),
    ([(b"Content-Length", b"0")], False, 0),
    ([(b"Content-Length", b"0")], True, 0),
    ([(b"content-length", b"5")], True, 5),
    ([(b"Content-Length", b"005")], True, 5),
    ([(b"Transfer-Encoding", b"chunked")], True, None),
]


@pytest.mark.parametrize(("headers", "body", "length"), FRAMING)
def test_the_length_of_a_body_is_stated_once(headers: Headers, body: bool, length: int | None) -> None:
    """The client's framing is read and never forwarded; also a GET may have a body (S5)."""
    operation = inspect(a_request(b"/api/x", headers, body=iter(()) if body else None))
    assert (length, []) == (operation.length, operation.headers)


@pytest.mark.parametrize(
    "headers",
    [
        [(b"Content-Length", b"3"), (b"Transfer-Encoding", b"chunked")],
        [(b"Transfer-Encoding", b"chunked"), (b"Content-Length", b"0")],
        [(b"Content-Length", b"3"), (b"Content-Length", b"3")],
        [(b"Content-Length", b"3"), (b"content-length", b"4")],
        [(b"Content-Length", b"3, 3")],
        [(b"Content-Length", b"+3")],
        [(b"Content-Length", b"-3")],
        [(b"Content-Length", b"0x3")],
        [(b"Content-Length", b"3 ")],
        [(b"Content-Length", b"")],
        [(b"Content-Length", b"3\xa0")],
        [(b"Content-Length", "٣".encode())],
        [(b"Content-Length", b"1_0")],
        [(b"Content-Length", b"9" * 19)],
        [(b"Content-Length", b"9" * 5000)],
        [(b"Transfer-Encoding", b"xchunked")],
        [(b"Transfer-Encoding", b"chunked, chunked")],
        [(b"Transfer-Encoding", b"gzip, chunked")],
        [(b"Transfer-Encoding", b"identity")],
        [(b"Transfer-Encoding", b"\xa0chunked")],
        [(b"Transfer-Encoding", b" chunked")],
        [(b"Transfer-Encoding", b"Chunked")],
        [(b"Transfer-Encoding", b"")],
        [(b"Transfer-Encoding", b"chunked"), (b"transfer-encoding", b"chunked")],
    ],
)
def test_a_length_that_could_be_read_in_two_ways_is_refused(headers: Headers) -> None:
    """S1: what two parsers may frame differently lets one request hide in another's body."""
    assert code_of(lambda: inspect(a_request(b"/api/x", headers, body=iter(())))) == "bad_framing"


def test_a_vertical_tab_in_transfer_encoding_is_refused() -> None:
    r"""S1: `\\x0bchunked` is a control character before it is an encoding."""
    request = a_request(b"/api/x", [(b"Transfer-Encoding", b"\x0bchunked")], body=iter(()))
    assert code_of(lambda: inspect(request)) == "bad_header"


@pytest.mark.parametrize("header", [(b"Content-Length", b"5"), (b"Transfer-Encoding", b"chunked")])
def test_a_body_that_is_announced_is_there(header: tuple[bytes, bytes]) -> None:
    """Framing for a body that the server does not have would make the next request part of it."""
    assert code_of(lambda: inspect(a_request(b"/api/x", [header]))) == "bad_framing"


def test_a_body_is_bounded_by_its_upstream() -> None:
    """A stated length is refused at once; an unstated one is stopped while it streams."""
    upstream = an_upstream(max_body=10)
    at_most = a_request(b"/api/x", [(b"Content-Length", b"10")], body=iter(()))
    assert inspect(at_most, upstream).length == 10
    more = a_request(b"/api/x", [(b"Content-Length", b"11")], body=iter(()))
    assert code_of(lambda: inspect(more, upstream)) == "body_too_large"
    unstated = a_request(b"/api/x", [(b"Transfer-Encoding", b"chunked")], body=iter(()))
    inspect(unstated, upstream)
    unstated.meter.count(b"1234567890")
    with pytest.raises(BodyTooLarge):
        unstated.meter.count(b"1")


# --- the client's address -------------------------------------------------------------------

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("trusted", "peer", "chain", "address"),
    [
        ((), "10.0.0.1", [b"1.2.3.4"], "10.0.0.1"),
        (TRUSTED, "9.9.9.9", [b"1.2.3.4"], "9.9.9.9"),
        (TRUSTED, "10.0.0.1", [], "10.0.0.1"),
        (TRUSTED, "10.0.0.1", [b"1.2.3.4"], "1.2.3.4"),
        (TRUSTED, "10.0.0.1", [b"6.6.6.6, 1.2.3.4"], "1.2.3.4"),
        (TRUSTED, "10.0.0.1", [b"6.6.6.6, 1.2.3.4,10.0.0.9"], "1.2.3.4"),
        (TRUSTED, "10.0.0.1", [b"6.6.6.6", b"1.2.3.4", b"10.0.0.9"], "1.2.3.4"),
        (TRUSTED, "10.0.0.1", [b"evil, 1.2.3.4"], "1.2.3.4"),
        (TRUSTED, "10.0.0.1", [b"1.2.3.4, evil"], "10.0.0.1"),
        (TRUSTED, "10.0.0.1", [b"1.2.3.4, "], "10.0.0.1"),
        (TRUSTED, "10.0.0.1", [b"1.2.3.4:80"], "1.2.3.4"),
        (TRUSTED, "10.0.0.1", [b"[2001:DB8::1]:443"], "2001:db8::1"),
        (TRUSTED, "10.0.0.1", [b"6.6.6.6, 1.2.3.4:5678, [fd00::2]:1, 10.0.0.9:2"], "1.2.3.4"),
        (TRUSTED, "10.0.0.1", [b"[2001:db8::1]"], "2001:db8::1"),
        (TRUSTED, "10.0.0.1", [b"1.2.3.4:"], "10.0.0.1"),
        (TRUSTED, "10.0.0.1", [b"1.2.3.4:5678x"], "10.0.0.1"),
        (TRUSTED, "10.0.0.1", [b"1.2.3.4:123456"], "10.0.0.1"),
        (TRUSTED, "10.0.0.1", [b"[2001:db8::1"], "10.0.0.1"),
        (TRUSTED, "10.0.0.1", [b"[2001:db8::1]443"], "10.0.0.1"),
        (TRUSTED, "10.0.0.1", [b"[1.2.3.4%x]:1"], "10.0.0.1"),
        ((*TRUSTED, "unix:"), "", [b"6.6.6.6, 1.2.3.4, 10.0.0.9"], "1.2.3.4"),
        (("unix:",), "unix:/run/x.sock", [b"1.2.3.4"], "1.2.3.4"),
        (("unix:",), "", [], ""),
        (("unix:",), "", [b"unix:"], ""),
        (("unix:",), "10.0.0.1", [b"1.2.3.4"], "10.0.0.1"),
        (TRUSTED, "10.0.0.1", [b"fe80::1%<script>"], "10.0.0.1"),
        (TRUSTED, "10.0.0.1", [b"10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        (TRUSTED, "::ffff:10.0.0.1", [b"::FFFF:1.2.3.4"], "1.2.3.4"),
        (TRUSTED, "fd00::1", [b"2001:DB8:0::1"], "2001:db8::1"),
        (TRUSTED, "", [b"1.2.3.4"], ""),
        (TRUSTED, "unix:", [b"1.2.3.4"], "unix:"),
    ],
)
def test_the_address_is_the_right_most_that_no_trusted_proxy_has(
    trusted: tuple[object, ...], peer: str, chain: list[bytes], address: str
) -> None:
    """D5: only a trusted peer is believed, and only as far to the left as trusted proxies reach."""
    headers = [(b"X-Forwarded-For", hops) for hops in chain]
    assert address == inspect(a_request(b"/api/x", headers, peer=peer), trusted_proxies=trusted).address


# --- configuration --------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", [b"proxy", b"/proxy/", b"/"])
def test_a_prefix_begins_with_a_slash_and_ends_without(prefix: bytes) -> None:
    with pytest.raises(ConfigurationError, match="prefix"):
        Guard({}, prefix=prefix)


@pytest.mark.parametrize(
    "name",
    [
        b"",
        b"X-Proxy-Token",
        b"x_token",
        b"x token",
        b"host",
        b"connection",
        b"content-length",
        b"cookie",
        b"authorization",
    ],
)
def test_a_token_header_is_a_lower_case_name_of_its_own(name: bytes) -> None:
    with pytest.raises(ConfigurationError, match="token_header"):
        Guard({}, token_header=name)


def test_a_guard_is_shown_without_its_tables() -> None:
    """A guard's repr holds what was configured and nothing else."""
    assert repr(Guard({})) == "Guard(upstreams={}, prefix=b'', token_header=None, trusted_proxies=())"


def test_the_credential_is_never_among_the_forwarded_headers() -> None:
    """Whatever place it stood in, it stays behind."""
    for name in (b"Authorization", b"X-Api-Key", b"Api-Key", b"X-Goog-Api-Key", b"PRIVATE-TOKEN"):
        operation = inspect(a_request(b"/api/x", [(name, b"abc"), (b"A", b"1")]))
        assert operation.headers == [(b"A", b"1")]
        assert values(operation.headers, name) == []
