"""Forwarding through a transport that the user brings: an outbound proxy, HTTP/2, a mock.

The built-in pool's guards against surplus bytes and forbidden addresses do not reach into it.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from apitokenproxy._colour import ASYNC, Colour
from apitokenproxy.errors import (
    ConfigurationError,
    ConnectTimeout,
    FirstByteTimeout,
    PoolTimeout,
    ProxyError,
    ReadTimeout,
    UpstreamFailure,
    UpstreamUnreachable,
    WriteTimeout,
)
from apitokenproxy.messages import Outbound, Reply

_MAP: list[tuple[type[httpx.TransportError], type[ProxyError]]] = [
    (httpx.ConnectTimeout, ConnectTimeout),
    (httpx.WriteTimeout, WriteTimeout),
    (httpx.PoolTimeout, PoolTimeout),
    (httpx.ConnectError, UpstreamUnreachable),
    (httpx.TransportError, UpstreamFailure),
]
_WITH_EMPTY_BODY = frozenset({b"POST", b"PUT", b"PATCH"})


class HttpxForwarder:
    """Forwards through an httpx transport; the transport alone is used, never a client."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def bind(self, colour: Colour) -> Callable[[Outbound], Awaitable[Reply]]:
        """Return the function that sends a request. Raises ConfigurationError for a transport of the other colour."""
        kind = httpx.AsyncBaseTransport if colour is ASYNC else httpx.BaseTransport
        if not isinstance(self._transport, kind):
            raise ConfigurationError(
                f"transport is {type(self._transport).__name__}; pass an httpx.{kind.__name__} for "
                + ("ASGI and async transports" if colour is ASYNC else "WSGI and sync transports")
            )
        return self._forward_async if colour is ASYNC else self._forward_sync

    async def _forward_async(self, outbound: Outbound) -> Reply:
        with _mapped(FirstByteTimeout):
            response = await self._transport.handle_async_request(_request(outbound))

        async def body() -> Any:
            with _mapped():
                async for chunk in response.stream:
                    yield chunk
            await response.aclose()

        loop = asyncio.get_running_loop()
        closing: set[asyncio.Task[None]] = set()

        def abort() -> None:
            if not response.is_closed and not closing and not loop.is_closed():
                closing.add(loop.create_task(response.aclose()))

        return Reply(response.status_code, response.headers.raw, body(), abort)

    async def _forward_sync(self, outbound: Outbound) -> Reply:
        with _mapped(FirstByteTimeout):
            response = self._transport.handle_request(_request(outbound))

        def body() -> Any:
            with _mapped():
                yield from response.stream
            response.close()

        return Reply(response.status_code, response.headers.raw, body(), response.close)

    async def aclose(self) -> None:
        """Leave the transport open: whoever made it closes it."""

    def close(self) -> None:
        """Leave the transport open: whoever made it closes it."""


@contextlib.contextmanager
def _mapped(late: type[ProxyError] = ReadTimeout) -> Any:
    try:
        yield
    except httpx.ReadTimeout:
        raise late("ReadTimeout in the transport") from None
    except httpx.TransportError as error:
        ours = next(ours for theirs, ours in _MAP if isinstance(error, theirs))
        raise ours(f"{type(error).__name__} in the transport") from None


def _request(outbound: Outbound) -> httpx.Request:
    headers: list[tuple[bytes, bytes]] = list(outbound.headers)
    if outbound.length is None:
        headers.append((b"Transfer-Encoding", b"chunked"))
    elif outbound.length or outbound.method in _WITH_EMPTY_BODY:
        headers.append((b"Content-Length", str(outbound.length).encode()))
    origin, timeouts = outbound.origin, outbound.origin.timeouts
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    return httpx.Request(
        outbound.method.decode("ascii"),
        httpx.URL(f"{origin.scheme}://{host}:{origin.port}", raw_path=bytes(outbound.target)),
        headers=headers,
        stream=httpx.ByteStream(outbound.body) if isinstance(outbound.body, bytes) else _Stream(outbound.body),
        extensions={
            "target": bytes(outbound.target),
            "timeout": {
                "pool": timeouts.pool,
                "connect": timeouts.connect,
                "read": max(timeouts.first_byte, timeouts.read),  # it has one for both
                "write": timeouts.write,
            },
        },
    )


class _Stream(httpx.SyncByteStream, httpx.AsyncByteStream):
    """The request's body as httpx takes it, in the colour that it has."""

    def __init__(self, body: Any) -> None:
        self._body = body

    def __iter__(self) -> Any:
        return iter(self._body or ())

    async def __aiter__(self) -> Any:
        if self._body is not None:
            async for chunk in self._body:
                yield chunk
