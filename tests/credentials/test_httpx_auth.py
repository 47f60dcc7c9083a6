"""`HttpxAuth`: whatever an `httpx.Auth` puts on, and what it may not do."""

import asyncio
import base64
import gc
import gzip
import hashlib
import hmac
import logging
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx
import pytest
from auth_upstream import OK, PASSWORD, Answered, Calls, Digest, Tokens, calling, judging
from credential_calls import COLOURS
from token_endpoint import reported

from apitokenproxy import ConfigurationError, Credential, Header, HttpxAuth, Secret, Upstream, nonblocking
from apitokenproxy._colour import ASYNC, SYNC, run
from apitokenproxy.credentials.apart import Apart
from apitokenproxy.credentials.auth_flow import Conversation
from apitokenproxy.errors import ProxyError, SecretUnavailable
from apitokenproxy.messages import Hidden, Outbound
from loopback import Received, wait_until

KEY = "fixed:key"
Flow = Iterator[httpx.Request]


@pytest.fixture(params=COLOURS)
def colour(request: pytest.FixtureRequest) -> str:
    return request.param


# --- what an auth puts on ------------------------------------------------------------------------


def test_basic(colour: str) -> None:
    """What it makes of the secret is put on, in the place of what the client sent, and does not come back."""
    pair = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
    with judging(lambda _: (200, {"X-Echo": pair, "X-Plain": PASSWORD, "X-Other": "1"}, b"ok")) as upstream:
        call = calling(colour, upstream.url, HttpxAuth(lambda key: httpx.BasicAuth("me", key), KEY))
        answer = call("POST", content=b"x" * 100_000)
    assert upstream.headers("authorization") == [[f"Basic {pair}"]]
    assert upstream.requests[0].body == b"x" * 100_000
    assert ("x-echo" in answer.headers, "x-plain" in answer.headers, answer.headers["x-other"]) == (False, False, "1")
    assert call.audit.records[0].credential.startswith("fixed#")


def test_several_secrets_and_an_auth_that_holds_its_own(colour: str) -> None:
    """Both are given in order; what is made already is used as it is, and the record names its kind."""
    with judging(lambda _: OK) as upstream:
        assert calling(colour, upstream.url, HttpxAuth(httpx.BasicAuth, ["fixed:id", KEY]))().status_code == 200
        own = calling(colour, upstream.url, HttpxAuth(httpx.BasicAuth("an-id-5d20c7f4", PASSWORD)))
        assert own().status_code == 200
    first, second = upstream.headers("authorization")
    assert first == second == [f"Basic {base64.b64encode(f'an-id-5d20c7f4:{PASSWORD}'.encode()).decode()}"]
    assert own.audit.records[0].credential == "BasicAuth"


def test_nothing_of_it_is_shown() -> None:
    """Neither what makes it nor which secret."""
    assert repr(HttpxAuth(Signing, KEY)) == "HttpxAuth(max_body=1048576, timeout=10.0)"


@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256"])
def test_digest(colour: str, algorithm: str) -> None:
    """The first request is challenged and sent once more; those after it need no challenge, until the nonce ends."""
    with judging(Digest(algorithm, uses=3)) as upstream:
        call = calling(colour, upstream.url, HttpxAuth(lambda key: httpx.DigestAuth("me", key), KEY))
        answers = [call("POST", f"/x?n={number}", content=b"some").status_code for number in range(5)]
    assert answers == [200] * 5
    assert [bool(headers) for headers in upstream.headers("authorization")] == [
        *(False, True),
        *(True, True),
        *(True, True),  # the fourth use of the first nonce is refused
        True,
    ]
    assert {received.body for received in upstream.requests} == {b"some"}
    assert PASSWORD not in str(upstream.requests)
    assert [record.code for record in call.audit.records] == [""] * 5


def test_digest_with_another_password_is_the_upstreams_refusal(colour: str) -> None:
    """It is tried once, and told as any other credential that is refused."""
    with judging(Digest()) as upstream:
        call = calling(colour, upstream.url, HttpxAuth(httpx.DigestAuth("me", "another")))
        assert call().headers["x-proxy-error"] == "upstream_auth_failed"
    assert len(upstream.requests) == 2


def test_a_challenge_to_what_cannot_be_sent_again_helps_the_next_request(colour: str) -> None:
    """Its body is gone; the auth has heard of the challenge all the same."""
    body = b"x" * 100_000
    with judging(Digest()) as upstream:
        call = calling(colour, upstream.url, HttpxAuth(lambda key: httpx.DigestAuth("me", key), KEY))
        assert [call("PUT", content=body).status_code, call("PUT", content=body).status_code] == [502, 200]
    assert [len(received.body) for received in upstream.requests] == [100_000, 100_000]


class Fetching(httpx.Auth):
    """Fetches a token first, and another one when the API refuses it."""

    def __init__(self, url: str, key: str, **more: Any) -> None:
        self.url, self.key, self.more, self.token = url, key, more, ""

    def fetch(self) -> httpx.Request:
        return httpx.Request("POST", f"{self.url}/token", json={"key": self.key}, **self.more)

    def auth_flow(self, request: httpx.Request) -> Any:
        if not self.token:
            self.token = (yield self.fetch()).json()["token"]
        request.headers["Authorization"] = f"Bearer {self.token}"
        response = yield request
        if response.status_code == 401:
            self.token = (yield self.fetch()).json()["token"]
            request.headers["Authorization"] = f"Bearer {self.token}"
            yield request


def test_a_token_is_fetched_first_and_again_when_it_is_refused(colour: str) -> None:
    """By requests of the flow's own, which carry nothing of the client's; what they bring does not come back."""
    with judging(Tokens()) as upstream:
        call = calling(colour, upstream.url, HttpxAuth(lambda key: Fetching(upstream.url, key), KEY))
        answers = [call(headers={"X-Mine": "1"}), call(), call("POST", content=b"x")]
        upstream.judge.end()  # type: ignore[attr-defined]
        answers += [call("POST", content=b"some"), call()]
    assert [answer.status_code for answer in answers] == [200] * 5
    assert [received.target for received in upstream.requests] == ["/token", *["/x"] * 4, "/token", "/x", "/x"]
    assert [received.header("x-mine") for received in upstream.requests[:2]] == [[], ["1"]]
    assert [received.body for received in upstream.requests[-4:-1:2]] == [b"some", b"some"]
    assert {("x-echo" in answer.headers, answer.headers["x-other"]) for answer in answers} == {(False, "1")}
    assert PASSWORD not in str(call.audit.records)


class FromHeader(httpx.Auth):
    def auth_flow(self, request: httpx.Request) -> Any:
        request.headers["X-Ticket"] = (yield httpx.Request("GET", request.url)).headers["X-New"]
        yield request


def test_what_a_flow_is_answered_is_not_logged(colour: str, caplog: pytest.LogCaptureFixture) -> None:
    """Not at DEBUG either, where httpcore tells the fields of an answer: they may hold a token."""
    caplog.set_level(logging.DEBUG)
    with judging(lambda _: (200, {"X-New": PASSWORD}, b"")) as upstream:
        assert calling(colour, upstream.url, HttpxAuth(FromHeader()))().status_code == 200
    assert upstream.headers("x-ticket") == [[], [PASSWORD]]
    assert PASSWORD not in caplog.text


def test_other_credentials_are_put_on_beside_it_both_times(colour: str) -> None:
    """A header of their own stands on the answer to a challenge too, and the auth sees it."""
    with judging(Digest()) as upstream:
        kinds = [HttpxAuth(lambda key: httpx.DigestAuth("me", key), KEY), Header("X-Id", "fixed:id")]
        assert calling(colour, upstream.url, kinds)().status_code == 200
    assert upstream.headers("x-id") == [["an-id-5d20c7f4"]] * 2


class Signing(httpx.Auth):
    """Signs method, URL and body, in a header and in the query."""

    requires_request_body = True

    def __init__(self, key: str) -> None:
        self.key = key.encode()

    def auth_flow(self, request: httpx.Request) -> Any:
        said = request.method.encode() + request.url.raw_path + request.content
        request.headers["X-Signature"] = hmac.new(self.key, said, "sha256").hexdigest()
        request.headers["Content-Type"] = "text/signed"
        request.url = request.url.copy_add_param("sig", hashlib.sha256(said).hexdigest() + "&+ü")
        yield request


@pytest.mark.parametrize("content", [b"", b"some", b"x" * 100_000])
def test_a_signature_over_the_body(colour: str, content: bytes) -> None:
    """The body is shown whole; the client's query stays as it stands, and what is added comes after it."""
    with judging(lambda _: (200, {"Content-Type": "text/signed"}, b"")) as upstream:
        answer = calling(colour, upstream.url, HttpxAuth(Signing, KEY))("POST", "/a%2Db?q=%20+&&b", content=content)
    [seen] = upstream.requests
    said = b"POST/a%2Db?q=%20+&&b" + content
    assert answer.headers["content-type"] == "text/signed"  # a field that tells no secret
    assert seen.header("x-signature") == [hmac.new(PASSWORD.encode(), said, "sha256").hexdigest()]
    assert seen.target == f"/a%2Db?q=%20+&&b&sig={hashlib.sha256(said).hexdigest()}%26%2B%C3%BC"
    assert (seen.header("content-type"), seen.body) == (["text/signed"], content)


def test_one_auth_is_made_for_each_secret(colour: str) -> None:
    """Whose state is kept between requests, and shared by nobody with another secret."""
    made: list[str] = []

    def make(key: str) -> httpx.Auth:
        made.append(key)
        return httpx.DigestAuth("me", key)

    class PerTenant:
        ttl = 0.0

        @nonblocking
        def fetch(self, reference: str) -> Secret:
            return Secret(PASSWORD if reference == "acme" else "another-5d20c7f4")

    with judging(Digest()) as upstream:
        call = calling(colour, upstream.url, HttpxAuth(make, "fixed:{tenant}"), PerTenant())
        other = Calls(colour, call.proxy, call.audit, call.proxy.tokens.issue(tenant="other").token)
        assert [one().status_code for one in (call, other, call, other)] == [200, 502, 200, 502]
    assert made == [PASSWORD, "another-5d20c7f4"]


class TellingBody(httpx.Auth):
    """Repeats what the body of the challenge says."""

    requires_response_body = True

    def auth_flow(self, request: httpx.Request) -> Any:
        response = yield request
        request.headers["X-Answer"] = response.text + response.headers["X-Told"]
        yield request


def test_an_auth_that_needs_it_is_given_the_challenges_body(colour: str) -> None:
    """And its header fields."""

    def judge(received: Received) -> Answered:
        return OK if received.header("x-answer") == ["riddle-1"] else (401, {"X-Told": "-1"}, b"riddle")

    with judging(judge) as upstream:
        assert calling(colour, upstream.url, HttpxAuth(TellingBody()))("POST", content=b"x").status_code == 200


# --- what it may not do --------------------------------------------------------------------------


def flow(first: Callable[[httpx.Request], Any], **marks: Any) -> httpx.Auth:
    """Return an auth whose flow is this generator function."""
    return type("Bad", (httpx.Auth,), {"auth_flow": lambda _, request: first(request), **marks})()  # type: ignore[no-any-return]


def changing(change: Callable[[httpx.Request], Any]) -> httpx.Auth:
    """Return an auth that does this to the request."""

    def first(request: httpx.Request) -> Flow:
        change(request)
        yield request

    return flow(first)


def put(name: str, value: str) -> httpx.Auth:
    return changing(lambda request: request.headers.update({name: value}))


def url(**changes: Any) -> httpx.Auth:
    return changing(lambda request: setattr(request, "url", request.url.copy_with(**changes)))


def raises(_: httpx.Request) -> Flow:
    raise ValueError(PASSWORD)
    yield


def ends(_: httpx.Request) -> Flow:
    yield from ()


def asks_alone(request: httpx.Request) -> Flow:
    yield httpx.Request("GET", request.url.copy_with(path="/token"))


def asks_for_ever(request: httpx.Request) -> Flow:
    while True:
        yield httpx.Request("GET", request.url.copy_with(path="/token"))


def yields_text(_: httpx.Request) -> Any:
    yield PASSWORD


def asks_nobody(request: httpx.Request) -> Flow:
    yield httpx.Request("GET", "http://127.0.0.1:9/")
    yield request


def asks_in_vain(request: httpx.Request) -> Flow:
    yield httpx.Request("GET", request.url.copy_with(path="/long"))
    yield request


def raises_when_told(request: httpx.Request) -> Flow:
    yield request
    raise ValueError(PASSWORD)


def speaks_ntlm_when_told(request: httpx.Request) -> Flow:
    yield request
    request.headers["Authorization"] = "NTLM TlRMTVNTUAABAAAA"
    yield request


SECRET = "secret_unavailable"
REFUSED: dict[str, tuple[httpx.Auth, str, str, int]] = {
    "it raises": (flow(raises), SECRET, "raised ValueError", 0),
    "it ends at once": (flow(ends), SECRET, "raised RuntimeError", 0),
    "it ends without the request": (flow(asks_alone), SECRET, "ended without the request", 1),
    "it asks for ever": (flow(asks_for_ever), SECRET, "more than 10 other requests", 10),
    "it yields no request": (flow(yields_text), SECRET, "raised AttributeError", 0),
    "whom it asks is not there": (flow(asks_nobody), SECRET, "cannot ask: ConnectError", 0),
    "whom it asks says too much": (flow(asks_in_vain), SECRET, "more than 65536 bytes", 1),
    "it reads a body that it does not require": (changing(lambda it: it.read()), SECRET, "raised TypeError", 0),
    "the method": (changing(lambda it: setattr(it, "method", "PUT")), SECRET, "changed more", 0),
    "the body": (changing(lambda it: setattr(it, "stream", httpx.ByteStream(b"y"))), SECRET, "changed more", 0),
    "the path": (url(path="/y"), SECRET, "changed more", 0),
    "the host": (url(host="localhost"), SECRET, "changed more", 0),
    "the scheme": (url(scheme="https"), SECRET, "changed more", 0),
    "the query": (url(query=b""), SECRET, "took a query parameter away", 0),
    "a parameter of the client's": (url(query=b"a=2"), "invalid_target", "a parameter that the credential puts on", 0),
    "one like the client's": (url(query=b"a=1&A=2"), "invalid_target", "a parameter that the credential puts on", 0),
    "a parameter without a name": (url(query=b"a=1&=2"), SECRET, "a query parameter that cannot be sent", 0),
    "a header that is gone": (changing(lambda it: it.headers.pop("x-mine")), SECRET, "took a header field away", 0),
    "the host header": (put("Host", "example.com"), SECRET, "a header field that cannot be sent", 0),
    "the length": (put("Content-Length", "7"), SECRET, "a header field that cannot be sent", 0),
    "the coding": (put("Transfer-Encoding", "chunked"), SECRET, "a header field that cannot be sent", 0),
    "a header of two lines": (put("X-Key", "a\r\nX-Other: b"), SECRET, "a header field that cannot be sent", 0),
    "an empty header": (put("X-Key", ""), SECRET, "a header field that cannot be sent", 0),
    "NTLM": (put("Authorization", "NTLM TlRMTVNTUAABAAAA"), SECRET, "NTLM or Negotiate", 0),
    "Negotiate": (put("authorization", "negotiate YII"), SECRET, "NTLM or Negotiate", 0),
    "NTLM, written oddly": (put("Authorization", "NTLM\tTlRMTVNTUAABAAAA"), SECRET, "NTLM or Negotiate", 0),
    "CredSSP": (put("Authorization", "CredSSP TlRMTVNTUAABAAAA"), SECRET, "NTLM or Negotiate", 0),
    "NTLM when challenged": (flow(speaks_ntlm_when_told), SECRET, "NTLM or Negotiate", 1),
    "it raises when challenged": (flow(raises_when_told), SECRET, "raised ValueError", 1),
    "the challenge is long": (flow(speaks_ntlm_when_told, requires_response_body=True), SECRET, "65536 bytes", 1),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_an_auth_may_not_do_refuses_the_request(colour: str, case: str) -> None:
    """Nothing is forwarded without it, and the record says why, without what it knows."""
    auth, code, reason, sent = REFUSED[case]
    with judging(
        lambda received: OK if received.target.startswith("/token") else (401, {}, b"x" * 100_000)
    ) as upstream:
        call = calling(colour, upstream.url, HttpxAuth(auth))
        answer = call("POST", "/x?a=1", content=b"x", headers={"X-Mine": "1"})
    assert answer.headers["x-proxy-error"] == code
    assert reason in call.told()
    assert PASSWORD not in call.told()
    assert len(upstream.requests) == sent


def test_a_compressed_challenge_is_not_shown(colour: str) -> None:
    """What it would grow to nobody knows."""
    body = gzip.compress(b"x" * 1_000_000)
    with judging(lambda _: (401, {"Content-Encoding": "gzip"}, body)) as upstream:
        call = calling(colour, upstream.url, HttpxAuth(TellingBody()))
        assert call().headers["x-proxy-error"] == SECRET
    assert "compressed" in call.told()


def test_a_body_that_is_too_long_to_be_shown_is_refused(colour: str) -> None:
    """It is held to `max_body`, and a chunked one too."""
    with judging(lambda _: OK) as upstream:
        call = calling(colour, upstream.url, HttpxAuth(Signing, KEY, max_body=9), replay_body=0)
        assert call("POST", content=b"0123456789").headers["x-proxy-error"] == "body_too_large"
    assert upstream.requests == []


def test_a_query_that_an_auth_would_see_otherwise_is_refused(colour: str) -> None:
    """What it signs is what is sent: httpx writes three characters in another way."""
    with judging(lambda _: OK) as upstream:
        call = calling(colour, upstream.url, HttpxAuth(Signing, KEY))
        for query, code in ((b"q=%22'()|\\^`{}", None), (b'q="', "invalid_target"), (b"q=<", "invalid_target")):
            answer = call(extensions={"target": b"/api/x?" + query})
            assert answer.headers.get("x-proxy-error") == code
    assert [received.target.partition("&")[0] for received in upstream.requests] == ["/x?q=%22'()|\\^`{}"]


def test_an_auth_that_hangs_is_refused_in_time_and_holds_up_nobody(colour: str) -> None:
    """Of the flow, in a thread of its own; another request is served meanwhile."""
    go = threading.Event()

    def hangs(request: httpx.Request) -> Flow:
        if request.url.path == "/hang":
            go.wait(30)
        request.headers["X-Key"] = PASSWORD
        yield request

    with judging(lambda _: OK) as upstream:
        call = calling(colour, upstream.url, HttpxAuth(flow(hangs), timeout=0.3))
        with ThreadPoolExecutor(1) as pool:
            hung = pool.submit(call, "GET", "/hang")
            assert call().status_code == 200
            assert hung.result(20).headers["x-proxy-error"] == SECRET
    go.set()
    assert call.told() == "the auth flow of Bad took longer than 0.3 seconds"
    assert [received.target for received in upstream.requests] == ["/x"]


def logs_in(request: httpx.Request) -> Flow:
    answer = yield httpx.Request("POST", request.url.copy_with(path="/login"), content=PASSWORD)
    request.headers["X-Length"] = str(len(answer.content))
    yield request


def test_a_compressed_answer_elsewhere_is_not_given_to_a_flow(colour: str) -> None:
    """A few bytes of it may be any number of them; it is asked for as it is."""
    body = gzip.compress(b"x" * 1_000_000)
    with judging(lambda _: (200, {"Content-Encoding": "gzip"}, body)) as upstream:
        call = calling(colour, upstream.url, HttpxAuth(flow(logs_in)))
        assert call().headers["x-proxy-error"] == SECRET
    assert "compressed" in call.told()
    assert upstream.headers("accept-encoding") == [["identity"]]


def test_what_a_flow_is_answered_elsewhere_is_not_logged(colour: str, caplog: pytest.LogCaptureFixture) -> None:
    """A session may begin in a header."""
    caplog.set_level(logging.DEBUG)
    with judging(lambda _: (200, {"X-Session": PASSWORD}, b"ok")) as upstream:
        assert calling(colour, upstream.url, HttpxAuth(flow(logs_in)))().status_code == 200
    assert PASSWORD not in caplog.text


def test_a_cookie_that_a_flow_puts_on_does_not_come_back(colour: str) -> None:
    """Not under another name either."""
    echo = {"X-Echo": PASSWORD, "X-Whole": f"session={PASSWORD}", "X-Other": "1"}
    with judging(lambda _: (200, echo, b"ok")) as upstream:
        answer = calling(colour, upstream.url, HttpxAuth(put("Cookie", f"lang=en; session={PASSWORD}")))()
    assert ("x-echo" in answer.headers, "x-whole" in answer.headers, answer.headers["x-other"]) == (False, False, "1")
    assert upstream.headers("cookie") == [[f"lang=en; session={PASSWORD}"]]


def test_whoever_drips_an_answer_keeps_no_thread(colour: str) -> None:
    """Each byte of its head comes in time; the flow's time is that of all of them."""
    left = threading.Event()

    def drip(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection, suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
            for _ in range(1000):
                connection.sendall(b"x")
                time.sleep(0.02)
        left.set()

    def asks(request: httpx.Request) -> Flow:
        yield httpx.Request("GET", request.url.copy_with(port=server.getsockname()[1]))
        yield request

    with socket.create_server(("127.0.0.1", 0)) as server, judging(lambda _: OK) as upstream:
        threading.Thread(target=drip, args=(server,), daemon=True).start()
        call = calling(colour, upstream.url, HttpxAuth(flow(asks), timeout=0.3))
        assert call().headers["x-proxy-error"] == SECRET
        assert left.wait(10)
    assert call.told() == "the auth flow of Bad took longer than 0.3 seconds"


@pytest.mark.parametrize("fails", ["it raises", "nobody answers", "it asks for ever"])
def test_a_flow_that_fails_is_closed_by_its_own_thread(colour: str, fails: str) -> None:
    """A lock that it holds may be given back by that thread alone; everybody would wait for it otherwise."""
    closed_by: list[tuple[threading.Thread, threading.Thread]] = []

    def locked(request: httpx.Request) -> Flow:
        began = threading.current_thread()
        try:
            yield from {"it raises": raises, "nobody answers": asks_nobody, "it asks for ever": asks_for_ever}[fails](
                request
            )
        finally:
            closed_by.append((began, threading.current_thread()))

    with judging(lambda _: OK) as upstream:
        assert calling(colour, upstream.url, HttpxAuth(flow(locked)))().headers["x-proxy-error"] == SECRET
    [(began, closed)] = closed_by
    assert began is closed


def signs_with(name: str, value: str) -> httpx.Auth:
    return changing(lambda it: setattr(it, "url", it.url.copy_add_param(name, value)))


@pytest.mark.parametrize(
    "auth",
    [
        put("Authorization", f"NTLM {PASSWORD}"),
        put("X-Key", f"a\n{PASSWORD}"),
        signs_with("a", PASSWORD),
        signs_with("A", PASSWORD),
        signs_with("", PASSWORD),
        changing(lambda it: (it.headers.update({"X-Key": PASSWORD}), setattr(it, "method", "PUT"))),
        flow(lambda it: iter([httpx.Request("GET", f"ftp://example.com/?key={PASSWORD}"), it])),
        flow(asks_for_ever),
    ],
    ids=["NTLM", "header", "parameter", "one like it", "nameless", "method", "scheme", "for ever"],
)
def test_an_error_report_does_not_show_what_a_flow_knows(auth: httpx.Auth) -> None:
    """Not even one with local variables."""

    async def call(step: Callable[[], bool], _timeout: float) -> bool:
        return step()

    async def converse(outbound: Outbound) -> None:
        conversation = Conversation(auth, call, 5.0)
        await conversation.begin(outbound, None)
        conversation.put_on(outbound)

    with judging(lambda _: (200, {"X-Echo": PASSWORD}, PASSWORD.encode())) as upstream:
        origin = Upstream("api", upstream.url, credential=HttpxAuth(auth), allow_private=True).origin
        target = Hidden(f"/x?a=1&key={PASSWORD}".encode())
        with pytest.raises(ProxyError) as refused:
            run(converse(Outbound(origin, b"GET", target, [(b"Host", b"api")], None, 0, "acme")))
    assert PASSWORD not in reported(refused.value)


def test_a_flow_asks_over_plain_http_only_where_that_is_meant(colour: str) -> None:
    """It may send the secret there."""

    def transport(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200)

    async def atransport(request: httpx.Request) -> httpx.Response:
        return transport(request)

    mock: Any = httpx.MockTransport(transport if colour == "sync" else atransport)
    with judging(Tokens()) as tokens:
        kind = HttpxAuth(lambda key: Fetching(tokens.url, key), KEY)
        call = calling(colour, "https://api.example.com", kind, allow_private=False, transport=mock)
        assert call().headers["x-proxy-error"] == SECRET
    assert "plain http" in call.told()
    assert tokens.requests == []


class OnlyAsync(httpx.Auth):
    """Does its work where it is awaited alone."""

    async def async_auth_flow(self, request: httpx.Request) -> Any:
        yield request


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda _: 1 / 0, "raised ZeroDivisionError"),
        (lambda key: key, "returned HiddenText"),
        (lambda _: OnlyAsync(), "returned OnlyAsync"),
    ],
)
def test_what_cannot_be_made_refuses_the_request(colour: str, make: Any, reason: str) -> None:
    """The next request tries again."""
    with judging(lambda _: OK) as upstream:
        call = calling(colour, upstream.url, HttpxAuth(make, KEY))
        assert call().headers["x-proxy-error"] == SECRET
    assert reason in call.told()
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: HttpxAuth(httpx.BasicAuth("me", "x"), KEY), "takes no secret"),
        (lambda: HttpxAuth(lambda key: httpx.BasicAuth("me", key)), "and the secret for it"),
        (lambda: HttpxAuth("Basic", KEY), "takes an httpx.Auth"),  # type: ignore[arg-type]
        (lambda: HttpxAuth(OnlyAsync()), "no auth_flow or sync_auth_flow"),
        (lambda: HttpxAuth(httpx.Auth()), "no auth_flow or sync_auth_flow"),
        (lambda: HttpxAuth(Signing, KEY, max_body=0), "at least 1 byte"),
        (lambda: HttpxAuth(Signing, KEY, timeout=0), "more than 0 seconds"),
        (lambda: Upstream("a", "https://a.io", credential=[HttpxAuth(Signing, KEY)] * 2), "place of an httpx.Auth"),
        (lambda: Header("Authorization", KEY, template="NTLM {secret}"), "authenticate a connection"),
        (lambda: Header("authorization", KEY, template="negotiate {secret}"), "authenticate a connection"),
    ],
)
def test_what_is_wrong_is_said_when_it_is_built(make: Any, sentence: str) -> None:
    """In one sentence."""
    with pytest.raises(ConfigurationError, match=sentence):
        make()


def test_no_credential_authenticates_a_connection() -> None:
    """Tenants share connections; whoever came next would be let in."""
    for value in (
        b"NTLM TlRMTVNTUAABAAAA",
        b"Negotiate YII",
        b"negotiate",
        b" NTLM x",
        b"\tNTLM\tx",
        b"ntlm,x",
        b"Kerberos x",
    ):
        with pytest.raises(SecretUnavailable, match="tenants share connections"):
            Credential(headers=((b"Authorization", Hidden(value)),))


# --- threads -------------------------------------------------------------------------------------


def test_what_hangs_keeps_its_thread_and_nobody_who_waits(colour: str) -> None:
    """So many run at once; the others have their turn, or give up, and are not run then."""
    go, ran = threading.Event(), []
    apart = Apart(1)

    async def scenario() -> None:
        chosen = ASYNC if colour == "async" else SYNC
        for number in range(2):
            with pytest.raises(TimeoutError):
                await apart.call(chosen, lambda number=number: (ran.append(number), go.wait(30)), 0.05)
        go.set()
        assert await apart.call(chosen, lambda: "served", 20) == "served"

    asyncio.run(scenario()) if colour == "async" else run(scenario())
    assert ran == [0]


def test_what_nobody_waits_for_any_more_is_not_kept(colour: str) -> None:
    """However many ask while all threads hang: what they want may hold a body."""

    class Wanted:
        def __call__(self) -> None:
            """Never run."""

    go, kept = threading.Event(), []
    apart = Apart(1)

    async def scenario() -> None:
        chosen = ASYNC if colour == "async" else SYNC
        with pytest.raises(TimeoutError):
            await apart.call(chosen, lambda: go.wait(30), 0.01)
        for _ in range(5):
            wanted = Wanted()
            kept.append(weakref.ref(wanted))
            with pytest.raises(TimeoutError):
                await apart.call(chosen, wanted, 0.01)
            del wanted

    asyncio.run(scenario()) if colour == "async" else run(scenario())
    gc.collect()
    assert [one() for one in kept] == [None] * 5
    go.set()


def test_threads_that_have_nothing_to_do_end(colour: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One serves many in turn before that."""
    monkeypatch.setattr("apitokenproxy.credentials.apart.IDLE", 0.3)
    apart, served = Apart(4), set()

    async def scenario() -> None:
        for _ in range(50):
            await apart.call(ASYNC if colour == "async" else SYNC, lambda: served.add(threading.current_thread()), 20)

    asyncio.run(scenario()) if colour == "async" else run(scenario())
    assert len(served) < 50
    wait_until(lambda: not any(thread.is_alive() for thread in served))


FORKING = """
import os, threading
from apitokenproxy._colour import SYNC, run
from apitokenproxy.credentials.apart import Apart

apart, go = Apart(1), threading.Event()
try:
    run(apart.call(SYNC, go.wait, 0.05))
except TimeoutError:
    pass
child = os.fork()
if child == 0:
    os._exit(run(apart.call(SYNC, lambda: 7, 20)))
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
go.set()
assert run(apart.call(SYNC, lambda: 8, 20)) == 8
"""


def test_a_forked_child_has_threads_of_its_own() -> None:
    """Those that hang in its parent take no place in it."""
    subprocess.run([sys.executable, "-c", FORKING], check=True, timeout=50)


def test_more_than_may_run_at_once_are_served_in_turn() -> None:
    """Of many threads' calls none is lost, whoever of them is idle."""
    apart, going, most = Apart(3), [0], [0]
    lock = threading.Lock()

    def count() -> int:
        with lock:
            going[0] += 1
            most[0] = max(most[0], going[0])
        with lock:
            going[0] -= 1
        return 1

    with ThreadPoolExecutor(8) as pool:
        served = [pool.submit(lambda: run(apart.call(SYNC, count, 20))) for _ in range(2000)]
        assert sum(one.result(20) for one in served) == 2000
    assert most[0] <= 3
