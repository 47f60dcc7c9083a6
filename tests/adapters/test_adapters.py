"""One table of cases, four ways in: ASGI, WSGI, and the httpx transports in both colours."""

import asyncio
import functools
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from attrs import frozen

from apitokenproxy import Bearer, Limit, Proxy, Rule, Upstream
from apitokenproxy.messages import AuditRecord
from apitokenproxy.testing import MemoryAudit
from loopback import (
    REAL_KEY,
    Answer,
    UpstreamServer,
    answer_of,
    call,
    running_asgi,
    running_upstream,
    running_wsgi,
    wait_until,
)

Send = Callable[..., Answer]


@frozen
class Way:
    """A running proxy and how to send it a request."""

    kind: str
    proxy: Proxy
    audit: MemoryAudit
    token: str
    upstream: UpstreamServer
    raw: Send

    @property
    def record(self) -> AuditRecord:
        """The one record of the one request so far: it is written when the server has sent the answer."""
        wait_until(lambda: len(self.audit.records) == 1)
        return self.audit.records[0]

    def __call__(self, target: str, method: str = "GET", headers: Any = (), body: Any = None) -> Answer:
        return self.raw(method, target, [("Authorization", f"Bearer {self.token}"), *headers], body)


def _transport(proxy: Proxy, token: str) -> Send:
    def send(method: str, target: str, headers: Any, body: Any) -> Answer:
        with httpx.Client(transport=proxy.transport(token)) as client:
            request = client.build_request(method, "http://proxy", headers=headers, content=body)
            request.extensions["target"] = target.encode()
            return answer_of(client.send(request))

    return send


def _async_transport(proxy: Proxy, token: str) -> Send:
    def send(method: str, target: str, headers: Any, body: Any) -> Answer:
        async def chunks() -> Any:
            for chunk in body:
                yield chunk

        async def exchange() -> Answer:
            async with httpx.AsyncClient(transport=proxy.async_transport(token)) as client:
                content = body if body is None or isinstance(body, bytes) else chunks()
                request = client.build_request(method, "http://proxy", headers=headers, content=content)
                request.extensions["target"] = target.encode()
                response = await client.send(request)
                return answer_of(response)

        return asyncio.run(exchange())

    return send


@pytest.fixture(scope="module")
def upstream() -> Iterator[UpstreamServer]:
    with pytest.MonkeyPatch.context() as patch, running_upstream() as server:
        patch.setenv("DEMO_KEY", REAL_KEY)
        yield server


@pytest.fixture(scope="module", params=["asgi-h11", "asgi-httptools", "wsgi", "transport", "async-transport"])
def running(request: pytest.FixtureRequest, upstream: UpstreamServer) -> Iterator[tuple[str, str, Proxy, MemoryAudit]]:
    audit = MemoryAudit()
    proxy = Proxy(
        upstreams=[
            Upstream("api", upstream.url, credential=Bearer("env:DEMO_KEY"), allow_private=True, max_body=1_000_000),
            Upstream("based", upstream.url + "/v1", credential=Bearer("env:DEMO_KEY"), allow_private=True),
        ],
        rules=[
            Rule("all", effect="allow"),
            Rule("no-admin", effect="deny", path="/admin/**"),
            Rule("no-delete", effect="deny", methods=["DELETE"]),
        ],
        limits=[Limit("per-token", per=["token"], rate="1000/minute")],
        audit=audit,
    )
    with ExitStack() as stack:
        stack.callback(proxy.close)
        url = ""
        if request.param == "wsgi":
            url = stack.enter_context(running_wsgi(proxy.wsgi))
        elif request.param.startswith("asgi"):
            url = stack.enter_context(running_asgi(proxy.asgi, http=request.param.removeprefix("asgi-")))
        yield request.param, url, proxy, audit


@pytest.fixture
def way(running: tuple[str, str, Proxy, MemoryAudit], upstream: UpstreamServer) -> Way:
    kind, url, proxy, audit = running
    token = proxy.tokens.issue(tenant="acme").token
    senders: dict[str, Send] = {
        "transport": _transport(proxy, token),
        "async-transport": _async_transport(proxy, token),
    }
    wait_until(lambda: len(audit.records) == audit.reserved)  # the test before has ended on both sides
    upstream.requests.clear()
    audit.records.clear()
    audit.reserved = 0
    return Way(kind, proxy, audit, token, upstream, senders.get(kind, functools.partial(call, url)))


@pytest.mark.parametrize(
    ("target", "seen"),
    [
        ("/api/things", "/things"),
        ("/api/things?a=1&a=2", "/things?a=1&a=2"),
        ("/api/", "/"),
        ("/api", "/"),
        ("/based/things/", "/v1/things/"),
        ("/based", "/v1"),
        ("/api/a%20b/%C3%A9", "/a%20b/%C3%A9"),
        ("/api/%7euser/a+b", "/%7euser/a+b"),
        ("/api/a:b@c,d=e!f$g&h'i(j)k*", "/a:b@c,d=e!f$g&h'i(j)k*"),
        ("/api/x?q=%2e%2e%2f&r=a/../b", "/x?q=%2e%2e%2f&r=a/../b"),
    ],
)
def test_the_target_arrives_byte_for_byte(way: Way, target: str, seen: str) -> None:
    """What the client sent below the upstream's name is what the upstream gets."""
    answer = way(target)
    assert (answer.status, way.upstream.last.target) == (200, seen)


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("/api/../x", 400, "path_dot_segment"),
        ("/api/a/%2e%2e/x", 400, "path_dot_segment"),
        ("/api/a%2Fb", 400, "encoded_slash"),
        ("/api/a%252fb", 400, "encoded_percent"),
        ("/api//a", 400, "empty_segment"),
        ("/api/a;b", 400, "path_parameter"),
        ("/api/a%00", 400, "invalid_target"),
        ("/api/%ff", 400, "bad_utf8"),
        ("/api/a%5cb", 400, "invalid_target"),
        ("/api/" + "a" * 9000, 414, "target_too_long"),
        ("/api/admin/x", 403, "denied"),
        ("/api/%61dmin/x", 403, "denied"),
        ("/nope/x", 403, "denied"),
    ],
)
def test_bad_targets_are_refused_and_nothing_is_sent(way: Way, target: str, status: int, code: str) -> None:
    """A target that servers disagree about never reaches the upstream."""
    answer = way(target)
    assert (answer.status, answer.json["code"], answer.header("x-proxy-error")) == (status, code, [code])
    assert way.upstream.requests == []


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "HEAD", "OPTIONS"])
def test_methods_arrive_as_sent(way: Way, method: str) -> None:
    """The method is passed on."""
    assert way("/api/x", method).status == 200
    assert way.upstream.last.method == method


def test_a_denied_method_is_not_sent(way: Way) -> None:
    """The rules decide before anything is forwarded."""
    assert way("/api/x", "DELETE").status == 403
    assert way.upstream.requests == []


def test_the_upstream_gets_the_key_and_never_the_token(way: Way) -> None:
    """The one credential is the real one."""
    way("/api/x", headers=[("X-Custom", "kept"), ("Cookie", "a=b"), ("Referer", "http://x/")])
    received = way.upstream.last
    assert received.header("authorization") == [f"Bearer {REAL_KEY}"]
    assert (received.header("x-custom"), received.header("cookie"), received.header("referer")) == (["kept"], [], [])
    assert way.token not in repr(received)


@pytest.mark.parametrize("size", [1, 65536, 300_000])
def test_a_body_of_known_length_arrives_whole(way: Way, size: int) -> None:
    """With Content-Length in, Content-Length goes out, once."""
    body = b"x" * size
    answer = way("/api/x", "POST", [("Content-Type", "application/octet-stream")], body)
    assert answer.json["sha256"] == hashlib.sha256(body).hexdigest()
    assert way.upstream.last.header("content-length") == [str(size)]
    assert way.upstream.last.header("transfer-encoding") == []
    assert way.record.bytes_in == size


def test_a_chunked_body_arrives_whole(way: Way) -> None:
    """A body of unknown length is framed once, by the proxy."""
    answer = way("/api/x", "POST", [], [b"abc", b"d" * 70_000, b"e"])
    assert answer.json["length"] == 70_004
    assert len(way.upstream.last.header("transfer-encoding") + way.upstream.last.header("content-length")) == 1


def test_a_body_over_the_limit_is_refused(way: Way) -> None:
    """max_body is held against the stated length."""
    answer = way("/api/x", "POST", [], b"x" * 1_000_001)
    assert (answer.status, answer.json["code"]) == (413, "body_too_large")


def test_a_chunked_body_over_the_limit_is_cut(way: Way) -> None:
    """max_body is held against what arrives when no length is stated."""
    answer = way("/api/x", "POST", [], [b"x" * 300_000] * 5)
    assert (answer.status, answer.json["code"]) == (413, "body_too_large")


def test_the_answer_is_cleaned(way: Way) -> None:
    """What would act on the host's origin, tell of the upstream or hold the key is not passed on."""
    answer = way("/api/headers/x")
    names = {name for name, _ in answer.headers}
    dropped = {
        "set-cookie",
        "strict-transport-security",
        "x-powered-by",
        "clear-site-data",
        "access-control-allow-origin",
    }
    assert names & (dropped | {"x-reflected"}) == set()
    assert "secret-server" not in repr(answer.headers)
    assert answer.header("repeated") in (["one", "two"], ["one, two"])
    assert answer.header("x-ratelimit-remaining") == ["59"]
    assert answer.header("x-upstream-request-id") == ["upstream-id"]
    assert answer.header("x-request-id") == [way.record.request_id]
    assert answer.header("x-content-type-options") == ["nosniff"]
    assert len(answer.header("ratelimit")) == len(answer.header("ratelimit-policy")) == 1


def test_links_to_the_upstream_lead_through_the_proxy(way: Way) -> None:
    """A client that follows pagination links stays behind the proxy."""
    [link] = way("/api/headers/x").header("link")
    assert "/api/items?page=2>" in link
    assert link.startswith("<http://")
    assert way.upstream.url not in link
    assert "https://docs.example.com/" in link


@pytest.mark.parametrize(
    ("kind", "ends"), [("absolute", "/api/elsewhere?x=1"), ("path", "/api/elsewhere"), ("relative", "sibling")]
)
def test_redirects_are_relayed_and_rewritten(way: Way, kind: str, ends: str) -> None:
    """The proxy never follows a redirect; the client finds the place behind the proxy."""
    answer = way(f"/api/redirect/{kind}")
    assert (answer.status, len(way.upstream.requests)) == (302, 1)
    assert answer.header("location")[0].endswith(ends)


def test_a_redirect_to_another_site_is_not_passed_on(way: Way) -> None:
    """A client that followed it would take its token there."""
    answer = way("/api/redirect/foreign")
    assert (answer.status, answer.json["code"], answer.header("location")) == (502, "foreign_redirect", [])


@pytest.mark.parametrize("status", [200, 201, 204, 304, 400, 403, 404, 409, 429, 500, 503, 599])
def test_the_upstreams_status_is_passed_on(way: Way, status: int) -> None:
    """Errors of the upstream are the client's to see, and are not taken for the proxy's."""
    answer = way(f"/api/status/{status}")
    assert (answer.status, answer.header("x-proxy-error")) == (status, [])


@pytest.mark.parametrize("status", [401, 407])
def test_the_upstreams_refusal_of_our_key_is_a_502(way: Way, status: int) -> None:
    """The client's token is not at fault."""
    answer = way(f"/api/status/{status}")
    assert (answer.status, answer.json["code"]) == (502, "upstream_auth_failed")


@pytest.mark.parametrize("size", [0, 1, 65536, 1_000_000])
def test_downloads_arrive_whole(way: Way, size: int) -> None:
    """A body streams through; the record counts it."""
    answer = way(f"/api/bytes/{size}")
    assert (len(answer.body), answer.header("content-length")) == (size, [str(size)])
    assert way.record.bytes_out == size


def test_a_head_answer_keeps_its_length(way: Way) -> None:
    """HEAD tells the length of a body that is not there."""
    answer = way("/api/bytes/12345", "HEAD")
    assert (answer.status, answer.body, answer.header("content-length")) == (200, b"", ["12345"])


def test_events_stream(way: Way) -> None:
    """A server-sent event stream arrives whole."""
    assert way("/api/events/5").body == b"".join(b"data: %d\n\n" % n for n in range(5))


@pytest.mark.parametrize("kind", ["length", "chunked"])
def test_a_truncated_answer_is_never_passed_on_as_whole(way: Way, kind: str) -> None:
    """The client sees the connection break, and the record says why."""
    with pytest.raises((httpx.HTTPError, OSError, Exception), match=r".+"):
        way(f"/api/truncated/{kind}")
    assert way.record.code == "upstream_protocol_error"


def test_two_credentials_are_refused(way: Way) -> None:
    """Choosing would be guessing; but a transport's token decides alone, so there it is no conflict."""
    answer = way("/api/x", headers=[("X-Api-Key", way.token)])
    if "transport" in way.kind:
        assert answer.status == 200
    else:
        assert (answer.status, answer.json["code"]) == (400, "multiple_credentials")


def test_a_revoked_token_is_refused_at_once(way: Way) -> None:
    """Revocation is in force in the process that made it before revoke returns."""
    assert way("/api/x").status == 200
    way.proxy.tokens.revoke(way.record.token_id)
    answer = way("/api/x")
    assert (answer.status, answer.json["code"]) == (401, "unauthenticated")


def test_one_record_per_exchange(way: Way) -> None:
    """Ten requests of every kind of outcome leave ten records."""
    for target in ("/api/x", "/api/../x", "/nope/x", "/api/status/500", "/api/status/401"):
        way(target)
        way(target)
    wait_until(lambda: len(way.audit.records) == 10)
    assert sorted(r.status for r in way.audit.records) == [200, 200, 400, 400, 403, 403, 500, 500, 502, 502]
    assert len({r.request_id for r in way.audit.records}) == 10
    assert way.token not in json.dumps([repr(r) for r in way.audit.records])
