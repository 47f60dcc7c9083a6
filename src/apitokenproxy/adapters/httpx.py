"""The proxy inside a script, with no server: httpx transports that run the same pipeline.

The URL's path is `/<upstream name>/<rest>`; its scheme and host only appear in rewritten links. The
client token is given to the transport and decides alone: placeholder keys that an SDK insists on
are dropped.

SDKs bring httpx or a successor with the same classes under another name (httpx2). The answer is made
of the classes of the package that the request came from, because its client checks for them.
"""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import lru_cache
from typing import Any

import httpx

from apitokenproxy._colour import run
from apitokenproxy.errors import ClientGone, ProxyError
from apitokenproxy.interfaces import Handler
from apitokenproxy.messages import Body, BodyMeter, Hidden, Request, Response


class Transport(httpx.BaseTransport):
    """For `httpx.Client`. Closing it closes idle connections; the proxy stays usable."""

    def __init__(self, handler: Handler, token: str, let_go: Callable[[], None]) -> None:
        self._handler = handler
        self._token = Hidden(token.encode())
        self._let_go = let_go

    def close(self) -> None:
        """Close idle connections."""
        self._let_go()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Take a request through the pipeline. Refusals are responses, not exceptions."""
        meter = BodyMeter()
        stream = request.stream
        body = (meter.count(chunk) for chunk in stream) if _has_body(request) else None  # type: ignore[union-attr]
        response = run(self._handler.handle(_request(request, self._token, body, meter)))
        return _answer(_SyncAnswer, "SyncByteStream", response, request)


class AsyncTransport(httpx.AsyncBaseTransport):
    """For `httpx.AsyncClient`. Closing it closes this event loop's idle connections; the proxy stays usable."""

    def __init__(self, handler: Handler, token: str, let_go: Callable[[], Awaitable[None]]) -> None:
        self._handler = handler
        self._token = Hidden(token.encode())
        self._let_go = let_go

    async def aclose(self) -> None:
        """Close this event loop's idle connections."""
        await self._let_go()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Take a request through the pipeline. Refusals are responses, not exceptions."""
        meter = BodyMeter()
        stream = request.stream
        body = (meter.count(chunk) async for chunk in stream) if _has_body(request) else None  # type: ignore[union-attr]
        response = await self._handler.handle(_request(request, self._token, body, meter))
        return _answer(_AsyncAnswer, "AsyncByteStream", response, request)


class _Answer:
    def __init__(self, response: Response, request: httpx.Request) -> None:
        self._response = response
        self._request = request
        self._sent = 0
        self._outcome = ClientGone.code

    def _broken(self, error: ProxyError) -> Exception:
        self._outcome = error.code
        text = f"the upstream broke off its answer: {error.code}"
        broken: Exception = _package(self._request).ReadError(text, request=self._request)
        return broken

    def _end(self) -> None:
        self._response.finish(self._outcome, self._sent)


class _SyncAnswer(_Answer):
    def __iter__(self) -> Iterator[bytes]:
        body: Any = self._response.body
        try:
            for chunk in (body,) if isinstance(body, bytes) else body:
                self._sent += len(chunk)
                yield chunk
        except ProxyError as error:
            raise self._broken(error) from None
        self._outcome = ""

    def close(self) -> None:
        self._end()


class _AsyncAnswer(_Answer):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        body: Any = self._response.body
        try:
            if isinstance(body, bytes):
                self._sent = len(body)
                yield body
            else:
                async for chunk in body:
                    self._sent += len(chunk)
                    yield chunk
        except ProxyError as error:
            raise self._broken(error) from None
        self._outcome = ""

    async def aclose(self) -> None:
        self._end()


def _answer(kind: Any, base: str, response: Response, request: httpx.Request) -> httpx.Response:
    try:
        package: Any = _package(request)
        stream = _stream_class(kind, getattr(package, base))(response, request)
        answer: httpx.Response = package.Response(response.status, headers=response.headers, stream=stream)
    except BaseException:
        response.finish(ClientGone.code, 0)
        raise
    return answer


def _package(request: httpx.Request) -> Any:
    return sys.modules[type(request).__module__.partition(".")[0]]


@lru_cache(maxsize=8)
def _stream_class(kind: Any, base: Any) -> Any:
    return type(kind.__name__, (kind, base), {})


def _has_body(request: httpx.Request) -> bool:
    return "content-length" in request.headers or "transfer-encoding" in request.headers


def _request(request: httpx.Request, token: Hidden, body: Body | None, meter: BodyMeter) -> Request:
    return Request(
        method=request.method.encode("ascii"),
        target=request.extensions.get("target", request.url.raw_path),
        headers=request.headers.raw,
        body=body,
        scheme=request.url.scheme.encode("ascii"),
        token=token,
        meter=meter,
    )
