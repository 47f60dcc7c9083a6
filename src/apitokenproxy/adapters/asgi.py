"""The proxy as an ASGI 3 application.

Rules:
1. `scope["raw_path"]` is the target; `path` was decoded by the server and cannot be trusted to be
   what the client sent. Only where a server leaves it out is `path` taken, and then whatever
   decoding could have changed is refused by the guard.
2. When the client leaves, the task is cancelled, which closes the upstream's side at once. Somebody
   must be waiting in `receive` to notice: the body's reader first, a watcher after it. A watcher is a
   task, which costs as much as half the pipeline; an exchange that is over within a blink has none.
3. The client is waited for as long as the meter's patience lasts, and `ends` allows: for each part of
   its body, and until it takes each part of the answer. What does not wait needs no timer.
4. An answer that breaks off is left incomplete, so that the server cuts the connection. It is never
   ended as if it were whole.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from apitokenproxy._colour import within
from apitokenproxy.errors import ClientGone, ClientTooSlow, ProxyError, TotalTimeout
from apitokenproxy.interfaces import Handler
from apitokenproxy.messages import BodyMeter, Headers, Request, Response

Message = MutableMapping[str, Any]
# Every framework has types of its own for these two, none of which are each other's.
Receive = Callable[..., Awaitable[Any]]
Send = Callable[..., Awaitable[None]]

_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
_POLICY_VIOLATION = 1008  # RFC 6455 section 7.4.1


class AsgiApp:
    """Answers `http` scopes through the pipeline; `lifespan` calls `start` and, at shutdown, `aclose`."""

    def __init__(
        self, handler: Handler, start: Callable[[], Awaitable[None]], aclose: Callable[[], Awaitable[None]]
    ) -> None:
        self._handler = handler
        self._start = start
        self._aclose = aclose
        self._watch = _Watch(None)

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Serve one scope. Whatever is neither `http` nor `lifespan` is refused."""
        kind = scope["type"]
        if kind == "http":
            await self._exchange(scope, receive, send)
        elif kind == "lifespan":
            await self._lifespan(receive, send)
        elif kind == "websocket":
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
        else:
            raise ValueError(f"the ASGI scope type {kind!r} is not served")

    async def _exchange(self, scope: Message, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        if self._watch.loop is not loop:
            self._watch = _Watch(loop)
        client = _Client(receive, _current_task(loop), self._watch)
        try:
            headers: Headers = list(map(tuple, scope["headers"]))
            if scope.get("http_version", "1.1")[0] == "1":
                has_body = _announces_body(headers)
                if not has_body:
                    client.watch()
            else:
                has_body = await client.has_body()
            response = await self._handler.handle(_request(scope, headers, client, has_body))
            await _stream(response, send, client)
        except asyncio.CancelledError:
            # Ours, because the client left; or somebody else's, who must have it.
            if not client.gone or client.task.uncancel():
                raise
        finally:
            client.stop()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self._start()
                await send({"type": "lifespan.startup.complete"})
            else:
                await self._aclose()
                await send({"type": "lifespan.shutdown.complete"})
                return


_BLINK = 0.05
"""Seconds within which nobody looks whether a client has left."""


class _Watch:
    """Sees to it that exchanges that take longer than a blink are watched. One for each event loop.

    It rings twice a blink, and has those watched that it has heard of before: an exchange is not
    watched for having begun just before the bell.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self.loop = loop
        self._new: set[_Client] = set()
        self._known: set[_Client] = set()
        self._rings = False

    def add(self, client: "_Client") -> None:
        """Have a client watched within a blink, but not within half of one, unless it is removed before."""
        if client not in self._known:
            self._new.add(client)
        if not self._rings and self.loop is not None:
            self._rings = True
            self.loop.call_later(_BLINK / 2, self._ring)

    def remove(self, client: "_Client") -> None:
        """Leave it alone."""
        self._new.discard(client)
        self._known.discard(client)

    def _ring(self) -> None:
        due, self._known, self._new = self._known, self._new, set()
        for client in due:
            client.begin_to_watch()
        self._rings = bool(self._known)
        if self._rings and self.loop is not None:
            self.loop.call_later(_BLINK / 2, self._ring)


class _Client:
    """The client's side of an exchange: its body, and the moment it leaves."""

    __slots__ = ("_first", "_more", "_receive", "_watch", "_watcher", "gone", "meter", "task")

    def __init__(self, receive: Receive, task: "asyncio.Task[Any]", watch: _Watch) -> None:
        self.gone = False
        self.meter = BodyMeter()
        self.task = task
        self._watch = watch
        self._receive = receive
        self._first: Message | None = None
        self._more = True
        self._watcher: asyncio.Task[None] | None = None

    async def has_body(self) -> bool:
        """Look at the first message. Only HTTP/2 and later need it: there a body may be unannounced."""
        self._first = await self._receive()
        return bool(self._first.get("body") or self._first.get("more_body"))

    def __aiter__(self) -> "_Client":
        return self

    async def __anext__(self) -> bytes:
        while self._more:
            message, self._first = self._first or await self._next(), None
            if message["type"] != "http.request":
                self._more = False
                self.gone = True
                raise ClientGone("the client left while it was sending the body")
            self._more = message.get("more_body", False)
            if not self._more:
                self.watch()
            if chunk := message.get("body"):
                return self.meter.count(chunk)
        raise StopAsyncIteration

    async def _next(self) -> Message:
        try:
            return await within(self._receive(), self.meter.patience)
        except TimeoutError:
            raise ClientTooSlow(f"the client sent nothing for {self.meter.patience:g} seconds") from None

    def watch(self) -> None:
        """Notice from now on when the client leaves."""
        if self._watcher is None and not self.gone:
            self._watch.add(self)

    def begin_to_watch(self) -> None:
        """Wait for the client to leave."""
        self._watcher = self.task.get_loop().create_task(self._wait_until_gone())

    async def _wait_until_gone(self) -> None:
        while (await self._receive())["type"] == "http.request":
            pass  # what is left of a body that the upstream did not want
        self.gone = True
        self.task.cancel()

    def stop(self) -> None:
        """Stop waiting."""
        self._watch.remove(self)
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None  # what cancels a task holds its frame, which holds this


def _current_task(loop: asyncio.AbstractEventLoop) -> asyncio.Task[Any]:
    task = asyncio.current_task(loop)
    if task is None:
        raise RuntimeError("the ASGI application was not called from an asyncio task")
    return task


def _announces_body(headers: Headers) -> bool:
    # Names are in lower case; were one not, the guard would refuse the request.
    return not _FRAMING.isdisjoint(dict(headers))


def _request(scope: Message, headers: Headers, client: _Client, has_body: bool) -> Request:
    peer = scope.get("client")
    # In the order of its fields: their names would cost three times as much.
    return Request(
        scope["method"].encode("latin-1"),
        _target(scope),
        headers,
        client if has_body else None,
        scope.get("root_path", "").encode(),
        scope.get("scheme", "http").encode("latin-1"),
        peer[0] if peer else "",
        None,
        scope,
        client.meter,
    )


def _target(scope: Message) -> bytes:
    path: bytes = scope.get("raw_path") or scope["path"].encode().replace(b"%", b"%25")
    query: bytes = scope.get("query_string") or b""
    return path + b"?" + query if query else path


_EARLY = 0.01
"""Seconds by which a timer may ring too early: uvloop's count whole milliseconds."""


async def _stream(response: Response, send: Send, client: _Client) -> None:
    sent, outcome = 0, ClientGone.code
    patience, ends = client.meter.patience, response.ends
    try:
        client.watch()
        if isinstance(response.body, bytes):
            await within(_send_whole(response, send), patience, ends)
            sent = len(response.body)
        else:
            await within(send(_start(response)), patience, ends)
            async for chunk in response.body:  # type: ignore[union-attr]
                await within(send({"type": "http.response.body", "body": chunk, "more_body": True}), patience, ends)
                sent += len(chunk)
            await within(send({"type": "http.response.body", "body": b""}), patience, ends)
        outcome = ""
    except ProxyError as error:  # the upstream broke off: see rule 4
        outcome = error.code
    except TimeoutError:
        in_all = ends is not None and time.monotonic() > ends - _EARLY
        outcome = TotalTimeout.code if in_all else ClientTooSlow.code
    except OSError:
        pass  # how a server says that the client has gone (ASGI 2.4)
    finally:
        response.finish(outcome, sent)


async def _send_whole(response: Response, send: Send) -> None:
    await send(_start(response))
    await send({"type": "http.response.body", "body": response.body})


def _start(response: Response) -> Message:
    return {"type": "http.response.start", "status": response.status, "headers": response.headers}
