"""The conversation of an `httpx.Auth` about one request: what it asks elsewhere, and what it puts on.

Rules:
1. Its steps run where they hold up nobody, and within a deadline. Where it raises, hangs, asks without end or ends
   without our request, that is refused: nothing is forwarded without what it would have put on.
2. It may add and change header fields and add query parameters. Whatever else it changes was decided before,
   and refuses the request.
3. What it raises is told by its type, for the text may hold what it knows. Nor does an error report with local
   variables show it: requests, whose repr is their URL, are attributes, and all else is Hidden.
4. What it is answered elsewhere is bounded in bytes and in time, is not compressed and not logged, as in `asking.py`.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from urllib.parse import quote

import httpx

from apitokenproxy.asking import Deadline
from apitokenproxy.authorities import system_authorities
from apitokenproxy.errors import BadTarget, ProxyError, SecretUnavailable
from apitokenproxy.messages import Headers, Hidden, HiddenText, Outbound
from apitokenproxy.quiet import quiet
from apitokenproxy.wire import authenticates_a_connection, can_be_injected, with_parameters

MOST_REQUESTS = 10
"""Requests that a flow may send elsewhere, before ours and again after a challenge."""
LARGEST = 64 * 1024
"""Bytes of an answer that a flow is given."""

_PLAIN = frozenset(
    {b"accept", b"accept-encoding", b"accept-language", b"content-type", b"date", b"user-agent", b"x-request-id"}
)
"""Fields that tell no secret: their values stand in honest answers."""

Call = Callable[[Callable[[], bool], float], Awaitable[bool]]
"""Runs a step where it holds up nobody, for at most so many seconds. Raises TimeoutError."""


class Conversation:
    """One flow, about one request: `begin`, then `put_on`; after a challenge `go_on`, then `put_on` again."""

    def __init__(self, auth: httpx.Auth, call: Call, timeout: float) -> None:
        self._auth = auth
        self._call = call
        self._timeout = timeout

    async def begin(self, outbound: Outbound, body: bytes | None) -> None:
        """Take the flow to where it yields our request. Raises SecretUnavailable, BadTarget."""
        self._request = _request(outbound, body)
        self._seen = _seen(self._request)
        self._headers: Headers = self._request.headers.raw
        self._url = self._request.url
        self._plain_http = outbound.origin.allow_private
        if not await self._take_on(self._first):
            raise self._refused("ended without the request")

    def _first(self) -> httpx.Request:
        self._flow = self._auth.sync_auth_flow(self._request)
        return next(self._flow)

    async def go_on(self, status: int, headers: Headers, body: bytes) -> bool:
        """Give the flow the upstream's answer; True when it yields our request again. Raises SecretUnavailable."""

        def told() -> httpx.Request:
            return self._flow.send(httpx.Response(status, headers=headers, content=body, request=self._request))

        return await self._take_on(told)

    def put_on(self, outbound: Outbound) -> None:
        """Put on a request what the flow has put on ours. Raises SecretUnavailable, BadTarget."""
        if _seen(self._request) != self._seen:
            raise self._refused("changed more of the request than header fields and query parameters")
        added = self._added_headers()
        mine = {name.lower() for name, _ in added}
        outbound.headers = [header for header in outbound.headers if header[0].lower() not in mine] + added
        shown = [Hidden(value) for name, value in added if name.lower() not in _PLAIN]
        shown += [each for name, value in added if name.lower() == b"cookie" for each in _cookies(value)]
        if self._request.url.query != self._url.query:
            path, mark, query = map(Hidden, outbound.target.partition(b"?"))
            parameters = self._added_parameters()
            found = with_parameters(mark + query, ((_quoted(name), _quoted(value)) for name, value in parameters))
            if found is None:
                raise BadTarget("the query holds a parameter that the credential puts on")
            outbound.target = Hidden(path + found)
            shown += [Hidden(value.encode()) for _, value in parameters]
        outbound.shown += tuple(shown)

    def _added_headers(self) -> Headers:
        headers: Headers = [(name, Hidden(value)) for name, value in self._request.headers.raw]
        before, after = _by_name(self._headers), _by_name(headers)
        if before.keys() - after.keys():
            raise self._refused("took a header field away")
        changed = {name for name, values in after.items() if values != before.get(name)}
        added: Headers = [(name, value) for name, value in headers if name.lower() in changed]
        if not can_be_injected(added, ()) or any(value != value.strip(b" \t") for _, value in added):
            raise self._refused("puts on a header field that cannot be sent")
        if authenticates_a_connection(added):
            raise self._refused("speaks NTLM or Negotiate, which authenticate a connection, and tenants share those")
        return added

    def _added_parameters(self) -> list[tuple[str, HiddenText]]:
        own, now = _parameters(self._url), _parameters(self._request.url)
        added = now - own
        if not {name for name, _ in own}.isdisjoint(name for name, _ in added):
            raise BadTarget("the query holds a parameter that the credential puts on")
        if own - now:
            raise self._refused("took a query parameter away")
        if not can_be_injected((), ((_quoted(name), _quoted(value)) for name, value in added)):
            raise self._refused("puts on a query parameter that cannot be sent")
        return list(added.elements())

    async def _take_on(self, step: Callable[[], httpx.Request]) -> bool:
        try:
            return await self._call(lambda: self._until_ours(step), self._timeout)
        except TimeoutError:
            raise self._refused(self._late()) from None

    def _until_ours(self, step: Callable[[], httpx.Request]) -> bool:
        """Take the flow on until it yields our request; False when it ended before. May wait.

        One that fails is closed here: what it holds, a lock perhaps, may be given back by this thread alone.
        """
        ends = time.monotonic() + self._timeout
        try:
            return self._is_ours(step, ends)
        except ProxyError:
            with contextlib.suppress(Exception):  # it is somebody else's code, or there is none yet
                self._flow.close()
            raise

    def _is_ours(self, step: Callable[[], httpx.Request], ends: float) -> bool:
        try:
            self._asked = step()
            for _ in range(MOST_REQUESTS):
                if self._asked is self._request:
                    return True
                self._asked = self._flow.send(self._answer(ends))
        except StopIteration:
            return False
        except ProxyError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever somebody else's code raises refuses the request
            raise self._refused(f"raised {type(error).__name__}") from None
        if self._asked is self._request:
            return True
        raise self._refused(f"asks for more than {MOST_REQUESTS} other requests")

    def _answer(self, ends: float) -> httpx.Response:
        """Send a request of the flow's own, by a transport alone: no cookies, no redirects, no environment, no log."""
        if self._asked.url.scheme != "https" and not self._plain_http:
            raise self._refused("asks over plain http; that needs allow_private on the upstream")
        left = max(0.001, ends - time.monotonic())
        timeouts = dict.fromkeys(("connect", "read", "write", "pool"), left)
        deadline, body = Deadline(left), Hidden()
        self._asked.extensions = {**self._asked.extensions, "timeout": timeouts, "trace": deadline.trace}
        self._asked.headers["accept-encoding"] = "identity"
        try:
            with (
                deadline,
                httpx.HTTPTransport(trust_env=False, verify=system_authorities()) as transport,
                quiet("httpcore"),
            ):
                answer = transport.handle_request(self._asked)
                if "content-encoding" in answer.headers:
                    raise self._refused("was answered in a compressed form, which may be of any size")
                for chunk in map(Hidden, answer.iter_raw()):
                    body = Hidden(body + chunk)
                    if len(body) > LARGEST:
                        raise self._refused(f"was answered with more than {LARGEST} bytes")
        except httpx.TransportError as error:
            late = deadline.passed
            raise self._refused(self._late() if late else f"cannot ask: {type(error).__name__}") from None
        if deadline.passed:
            raise self._refused(self._late())
        return httpx.Response(answer.status_code, headers=answer.headers, content=body, request=self._asked)

    def _late(self) -> str:
        return f"took longer than {self._timeout:g} seconds"

    def _refused(self, what: str) -> SecretUnavailable:
        return SecretUnavailable(f"the auth flow of {type(self._auth).__name__} {what}")


class _Unseen(httpx.SyncByteStream):
    """The body of a request that a flow does not ask to see."""

    def __iter__(self) -> Iterator[bytes]:
        raise TypeError("an auth that reads the body says so by requires_request_body")


def _request(outbound: Outbound, body: bytes | None) -> httpx.Request:
    origin = outbound.origin
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    url = httpx.URL(f"{origin.scheme}://{host}:{origin.port}", raw_path=bytes(outbound.target))
    if url.raw_path != outbound.target:
        del url  # it is shown by an error report
        raise BadTarget(
            'the query has a " or < or > as it stands, which httpx writes otherwise: what is signed is sent'
        )
    method, headers = outbound.method.decode("ascii"), list(outbound.headers)
    if body is None and outbound.body is not None:
        return httpx.Request(method, url, headers=headers, stream=_Unseen())
    return httpx.Request(method, url, headers=headers, content=body or b"")


def _seen(request: httpx.Request) -> tuple[object, ...]:
    """Return what of a request must stay as it is."""
    url = request.url
    path = url.raw_path.partition(b"?")[0]
    return request.method, url.scheme, url.userinfo, url.host, url.port, path, url.fragment, request.stream


def _parameters(url: httpx.URL) -> Counter[tuple[str, HiddenText]]:
    return Counter((name, HiddenText(value)) for name, value in url.params.multi_items())


def _by_name(headers: Headers) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        found.setdefault(name.lower(), []).append(value)
    return found


def _cookies(value: bytes) -> list[Hidden]:
    """Return the values of cookies without their names: a session comes back under any other."""
    return [Hidden(pair.partition(b"=")[2].strip(b' "')) for pair in value.split(b";")]


def _quoted(text: str) -> bytes:
    return quote(text, safe="").encode()
