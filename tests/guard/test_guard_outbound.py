"""What is sent upstream: the operation with the credential on, and nothing of the client's beside it."""

import pytest
from guard_calls import BEARER, CREDENTIAL, SECRET, a_request, an_upstream, granted, inspect, values

from apitokenproxy.errors import BadTarget
from apitokenproxy.guard import inject
from apitokenproxy.messages import Credential, Headers, Hidden, Outbound

KEY = Credential(query=((b"key", Hidden(b"s%2Fcret")),))


def sent(
    target: bytes = b"/api/x",
    headers: Headers | None = None,
    url: str = "https://a.example/base",
    credential: Credential = CREDENTIAL,
) -> Outbound:
    upstream = an_upstream(url, allow_private=True)
    return inject(granted(inspect(a_request(target, headers or []), upstream)), upstream, credential)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://api.github.com", b"api.github.com"),
        ("https://api.github.com:443", b"api.github.com"),
        ("https://api.github.com:8443", b"api.github.com:8443"),
        ("http://localhost", b"localhost"),
        ("http://localhost:80/x", b"localhost"),
        ("http://127.0.0.1:443", b"127.0.0.1:443"),
        ("https://[2001:db8::1]", b"[2001:db8::1]"),
        ("https://[::1]:8443/x", b"[::1]:8443"),
    ],
)
def test_host_comes_first_and_is_the_upstreams(url: str, host: bytes) -> None:
    """The client's Host stays behind; the port is named only where it is not the default."""
    headers = sent(headers=[(b"Host", b"proxy.example.com"), (b"A", b"1")], url=url).headers
    assert (b"Host", host) == headers[0]
    assert [host] == values(headers, b"host")


@pytest.mark.parametrize(
    ("url", "rest", "target"),
    [
        ("https://a", b"", b"/"),
        ("https://a", b"/", b"/"),
        ("https://a", b"?q", b"/?q"),
        ("https://a/", b"/x", b"/x"),
        ("https://a/v1", b"", b"/v1"),
        ("https://a/v1/", b"?q", b"/v1?q"),
        ("https://a/v1", b"/", b"/v1/"),
        ("https://a/v1", b"/x?", b"/v1/x?"),
    ],
)
def test_the_target_is_base_path_and_query(url: str, rest: bytes, target: bytes) -> None:
    """The three are put together as they are; nothing is joined, resolved or encoded."""
    assert target == bytes(sent(b"/api" + rest, url=url).target)


def test_the_credential_is_put_on_after_the_clients_headers() -> None:
    """The client's token is gone, its other headers stand in their order, and ours come last."""
    outbound = sent(headers=[(b"A", b"1"), BEARER, (b"b", b"2")])
    ours = (b"Authorization", b"Bearer " + SECRET)
    assert outbound.headers == [(b"Host", b"a.example"), (b"A", b"1"), (b"b", b"2"), ours]
    assert SECRET.decode() not in repr(outbound)


def test_an_injected_header_replaces_the_clients() -> None:
    """In every spelling and however often the client sent it; similar names stay."""
    credential = Credential(headers=((b"X-Version", Hidden(b"ours")), (b"x-key", Hidden(b"k"))))
    mine = [(b"x-version", b"1"), (b"X-VERSION", b"2"), (b"X-Version-Not", b"3"), (b"X", b"4")]
    headers = sent(headers=mine, credential=credential).headers
    assert headers[1:] == [(b"X-Version-Not", b"3"), (b"X", b"4"), (b"X-Version", b"ours"), (b"x-key", b"k")]


@pytest.mark.parametrize(
    ("query", "target"),
    [
        (b"", b"/base/x?key=s%2Fcret"),
        (b"?", b"/base/x?key=s%2Fcret"),
        (b"?a=1", b"/base/x?a=1&key=s%2Fcret"),
        (b"?a=key", b"/base/x?a=key&key=s%2Fcret"),
        (b"?keys=1&monkey=2", b"/base/x?keys=1&monkey=2&key=s%2Fcret"),
        (b"?a?b", b"/base/x?a?b&key=s%2Fcret"),
    ],
)
def test_a_query_credential_is_appended(query: bytes, target: bytes) -> None:
    """The client's query stays as it is; the target is never shown."""
    outbound = sent(b"/api/x" + query, credential=KEY)
    assert target == bytes(outbound.target)
    assert b"cret" not in repr(outbound).encode()


@pytest.mark.parametrize(
    "query",
    [
        b"?key=x",
        b"?a=1&key=x",
        b"?key",
        b"?KEY=x",
        b"?%6bey=x",
        b"?%256bey=x",
        b"?a;key=x",
        b"?key[]=x",
        b"?key%5B0%5D=x",
        b"?+key=x",
        b"?%00key=x",
        b"?key%00=x",
        b"?key+=1",
    ],
)
def test_a_clients_own_parameter_of_that_name_is_refused(query: bytes) -> None:
    """Which of two `key` parameters counts, backends do not agree on; so there are never two."""
    with pytest.raises(BadTarget):
        sent(b"/api/x" + query, credential=KEY)


def test_several_parameters_are_appended_in_order() -> None:
    credential = Credential(query=((b"id", Hidden(b"1")), (b"api_key", Hidden(b"2"))))
    assert bytes(sent(b"/api/x?a", credential=credential).target) == b"/base/x?a&id=1&api_key=2"
    with pytest.raises(BadTarget):
        sent(b"/api/x?api.key=3", credential=credential)


@pytest.mark.parametrize(
    ("headers", "length", "has_body"),
    [([], None, True), ([(b"Content-Length", b"3")], 3, True), ([(b"Content-Length", b"0")], 0, False)],
)
def test_the_body_goes_with_its_length(headers: Headers, length: int | None, has_body: bool) -> None:
    """The forwarder frames the body by its length; there is no framing among the headers."""
    body = iter((b"abc",))
    upstream = an_upstream()
    outbound = inject(
        granted(inspect(a_request(b"/api/x", headers, method=b"POST", body=body), upstream)), upstream, CREDENTIAL
    )
    assert (b"POST", length, body if has_body else None) == (outbound.method, outbound.length, outbound.body)
    assert len(outbound.headers) == 2
