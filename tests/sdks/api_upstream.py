"""One loopback server that answers as six public APIs do, and only to whoever holds each API's real key."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

from attrs import Factory, define, frozen

from loopback import Received

KEYS = {
    "openai": "sk-real-openai-b2d94c1e7f60",
    "anthropic": "sk-ant-real-6e1f0a83c5d7",
    "stripe": "sk_live_real9d3b57e2a184",
    "github": "ghp_real41c8e5a90b7d36f2",
    "slack": "xoxb-real-73f5d09e2b8a",
    "s3": "s3-real-gateway-key-8a46",
    "plain": "plain-real-key-5c1b7d20",
}
PAGES = 3
PER_PAGE = 2


@frozen
class Answered:
    """What an API answers: a JSON value or bytes, or lines of a stream."""

    body: Any = None
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    events: tuple[bytes, ...] = ()
    content_type: str = "application/json"


@define
class ApiUpstream:
    """What came in, in order, refused requests too."""

    url: str = ""
    requests: list[Received] = Factory(list)


def places_of_the_key(received: Received, key: str) -> int:
    """Count how often the real key stands in a request, in the clear or as a Basic credential."""
    text = "\r\n".join([received.target, *(f"{name}: {value}" for name, value in received.headers)])
    forms = (key, base64.b64encode(f"{key}:".encode()).decode())
    return sum(text.count(form) + received.body.count(form.encode()) for form in forms)


# --- who may: the key in the API's own place ------------------------------------------------


def _bearer(api: str, *schemes: str) -> Callable[[Received], bool]:
    accepted = [[f"{scheme} {KEYS[api]}"] for scheme in schemes or ("Bearer",)]
    return lambda received: received.header("authorization") in accepted


def _stripe(received: Received) -> bool:
    basic = "Basic " + base64.b64encode(f"{KEYS['stripe']}:".encode()).decode()
    return received.header("authorization") in ([basic], [f"Bearer {KEYS['stripe']}"])


def _anthropic(received: Received) -> bool:
    # The API's own place is x-api-key; its newer SDKs send a bearer token instead. Never both.
    places = received.header("x-api-key") + received.header("authorization")
    return places in ([KEYS["anthropic"]], [f"Bearer {KEYS['anthropic']}"])


# --- what they say --------------------------------------------------------------------------


def _openai(_upstream: ApiUpstream, path: str, received: Received) -> Answered:
    if path != "/v1/chat/completions":
        return Answered({"error": {"message": "no such path", "type": "invalid_request_error"}}, 404)
    asked = json.loads(received.body)
    if asked["model"] == "missing":
        error = {"message": "The model does not exist", "type": "invalid_request_error", "code": "model_not_found"}
        return Answered({"error": error}, 404)
    if asked["model"] == "busy":
        error = {"message": "Rate limit reached", "type": "requests", "code": "rate_limit_exceeded"}
        return Answered({"error": error}, 429, (("Retry-After", "1"),))
    words = [word + " " for word in asked["messages"][-1]["content"].split()]
    common = {"id": "chatcmpl-1", "created": 1_790_000_000, "model": asked["model"]}
    if not asked.get("stream"):
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": "".join(words)},
            "finish_reason": "stop",
        }
        usage = {"prompt_tokens": 3, "completion_tokens": len(words), "total_tokens": 3 + len(words)}
        return Answered({**common, "object": "chat.completion", "choices": [choice], "usage": usage})
    chunks = [
        {**common, "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": word}}]}
        for word in words
    ]
    events = [b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks]
    return Answered(events=(*events, b"data: [DONE]\n\n"), content_type="text/event-stream")


def _anthropic_says(_upstream: ApiUpstream, path: str, received: Received) -> Answered:
    if path != "/v1/messages" or not received.header("anthropic-version"):
        return Answered({"type": "error", "error": {"type": "invalid_request_error", "message": "bad request"}}, 400)
    asked = json.loads(received.body)
    if asked["model"] == "missing":
        return Answered({"type": "error", "error": {"type": "not_found_error", "message": "model: missing"}}, 404)
    if asked["model"] == "busy":
        error = {"type": "rate_limit_error", "message": "slow down"}
        return Answered({"type": "error", "error": error}, 429, (("Retry-After", "1"),))
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": asked["model"],
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 3, "output_tokens": 1},
    }
    words = asked["messages"][-1]["content"].split()
    events = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word + " "}}
            for word in words
        ),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": len(words)},
        },
        {"type": "message_stop"},
    ]
    lines = tuple(b"event: %s\ndata: %s\n\n" % (event["type"].encode(), json.dumps(event).encode()) for event in events)
    return Answered(events=lines, content_type="text/event-stream")


def _stripe_says(_upstream: ApiUpstream, path: str, received: Received) -> Answered:
    if path != "/v1/customers":
        error = {"type": "invalid_request_error", "message": "No such customer", "param": "id"}
        return Answered({"error": {**error, "code": "resource_missing"}}, 404)
    if received.method == "POST":
        fields = dict(parse_qsl(received.body.decode()))
        if fields["email"] == "busy@example.com":
            return Answered({"error": {"type": "invalid_request_error", "code": "rate_limit", "message": "slow"}}, 429)
        return Answered({"id": "cus_new", "object": "customer", **fields})
    query = parse_qs(urlsplit(received.target).query)
    after = query.get("starting_after", ["cus_0"])[0]
    first = int(after.removeprefix("cus_")) + 1
    data = [{"id": f"cus_{number}", "object": "customer"} for number in range(first, first + PER_PAGE)]
    more = first + PER_PAGE <= PAGES * PER_PAGE
    return Answered({"object": "list", "url": "/v1/customers", "has_more": more, "data": data})


def _github_says(upstream: ApiUpstream, path: str, received: Received) -> Answered:
    if path == "/repos/acme/busy/issues":
        headers = (("Retry-After", "1"), ("X-RateLimit-Remaining", "0"))
        return Answered({"message": "You have exceeded a secondary rate limit."}, 429, headers)
    if path == "/user":
        return Answered({"login": "octo", "id": 1, "url": f"{upstream.url}/github/users/octo"})
    if path not in {"/repos/acme/app/issues", "/repositories/7/issues"}:
        return Answered({"message": "Not Found", "documentation_url": "https://docs.github.com/rest"}, 404)
    if received.method == "POST":
        title = json.loads(received.body)["title"]
        return Answered({"number": 99, "title": title, "url": f"{upstream.url}/github{path}/99"}, 201)
    page = int(parse_qs(urlsplit(received.target).query).get("page", ["1"])[0])
    issues = [
        {"number": number, "title": f"issue {number}", "url": f"{upstream.url}/github/repos/acme/app/issues/{number}"}
        for number in range((page - 1) * PER_PAGE + 1, page * PER_PAGE + 1)
    ]
    # GitHub's own links name the repository by its number, not by the path that was asked for.
    here = f"{upstream.url}/github/repositories/7/issues?state=open"
    links = [f'<{here}&page={PAGES}>; rel="last"', f'<{here}&page=1>; rel="first"']
    if page < PAGES:
        links.insert(0, f'<{here}&page={page + 1}>; rel="next"')
    return Answered(issues, headers=(("Link", ", ".join(links)), ("X-RateLimit-Remaining", "4999")))


def _slack_says(_upstream: ApiUpstream, path: str, received: Received) -> Answered:
    sent = received.body.decode()
    is_json = "application/json" in "".join(received.header("content-type"))
    fields = json.loads(sent) if is_json else dict(parse_qsl(sent or urlsplit(received.target).query))
    if path == "/api/chat.postMessage":
        if fields["channel"] == "nowhere":
            return Answered({"ok": False, "error": "channel_not_found"})
        if fields["channel"] == "busy":
            return Answered({"ok": False, "error": "ratelimited"}, 429, (("Retry-After", "1"),))
        message = {"type": "message", "text": fields["text"]}
        return Answered({"ok": True, "channel": fields["channel"], "ts": "1790000000.000100", "message": message})
    if path == "/api/conversations.list":
        page = int(fields.get("cursor", "1"))
        channels = [{"id": f"C{page}{number}", "name": f"channel-{page}-{number}"} for number in range(PER_PAGE)]
        cursor = str(page + 1) if page < PAGES else ""
        return Answered({"ok": True, "channels": channels, "response_metadata": {"next_cursor": cursor}})
    return Answered({"ok": False, "error": "unknown_method"}, 404)


_OBJECT = b"bytes of an object" * 1000


def _s3_says(_upstream: ApiUpstream, path: str, received: Received) -> Answered:
    xml = "application/xml"
    if path == "/bucket/busy":
        body = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
        return Answered(body, 503, content_type=xml)
    if received.method == "PUT":
        return Answered(b"", headers=(("ETag", f'"{len(received.body)}"'),), content_type=xml)
    if path == "/bucket/dir/object%20one":
        return Answered(_OBJECT, headers=(("ETag", '"e1"'),), content_type="application/octet-stream")
    if path == "/bucket":
        query = parse_qs(urlsplit(received.target).query)
        page = int(query.get("continuation-token", ["1"])[0])
        more = page < PAGES
        body = (
            f"<ListBucketResult><Name>bucket</Name><IsTruncated>{str(more).lower()}</IsTruncated>"
            f"<NextContinuationToken>{page + 1}</NextContinuationToken>"
            f"<Contents><Key>key-{page}</Key><Size>1</Size></Contents></ListBucketResult>"
        )
        return Answered(body.encode(), content_type=xml)
    body = b"<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message></Error>"
    return Answered(body, 404, content_type=xml)


def _plain_says(_upstream: ApiUpstream, path: str, received: Received) -> Answered:
    if path == "/stream":
        return Answered(events=tuple(b"data: %d\n\n" % number for number in range(5)), content_type="text/event-stream")
    if path.startswith("/status/"):
        return Answered({"said": "no"}, int(path.rpartition("/")[2]))
    return Answered({"method": received.method, "target": received.target, "length": len(received.body)})


_APIS: dict[str, tuple[Callable[[Received], bool], Callable[[ApiUpstream, str, Received], Answered]]] = {
    "openai": (_bearer("openai"), _openai),
    "anthropic": (_anthropic, _anthropic_says),
    "stripe": (_stripe, _stripe_says),
    "github": (_bearer("github", "Bearer", "token"), _github_says),
    "slack": (_bearer("slack"), _slack_says),
    # What stands before a bucket with keys of its own: signing is another credential's business.
    "s3": (_bearer("s3"), _s3_says),
    "plain": (_bearer("plain"), _plain_says),
}


# --- the server -----------------------------------------------------------------------------


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args: Any) -> None:
        pass

    def answer(self) -> None:
        target = self.requestline.split(" ")[1]
        received = Received(self.command, target, list(self.headers.items()), self._body())
        upstream: ApiUpstream = self.server.upstream
        upstream.requests.append(received)
        api, _, rest = target.partition("?")[0].removeprefix("/").partition("/")
        accepts, says = _APIS[api]
        self._reply(
            says(upstream, f"/{rest}", received) if accepts(received) else Answered({"error": "who are you?"}, 401)
        )

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = answer  # noqa: N815 - the base class's names

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _reply(self, answered: Answered) -> None:
        self.send_response(answered.status)
        self.send_header("Content-Type", answered.content_type)
        for name, value in answered.headers:
            self.send_header(name, value)
        if answered.events:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for event in (*answered.events, b""):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
            return
        body = answered.body if isinstance(answered.body, bytes) else json.dumps(answered.body).encode()
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, upstream: ApiUpstream) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = upstream

    def handle_error(self, *args: Any) -> None:
        pass


@contextmanager
def running_apis() -> Iterator[ApiUpstream]:
    """Run the server until the block ends."""
    upstream = ApiUpstream()
    server = _Server(upstream)
    upstream.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield upstream
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
