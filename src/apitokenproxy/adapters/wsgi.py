"""The proxy as a WSGI application (PEP 3333).

Rules:
1. `RAW_URI` or `REQUEST_URI` is the target. `PATH_INFO` was decoded by the server; only where there
   is nothing else is it taken, and then whatever decoding could have changed is refused by the guard.
2. The server calls `close()` on the result, also when the client has left: that ends the exchange. What
   the server does not take is ended here.
3. An answer that breaks off raises out of the iteration, so that the server cuts the connection.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from http import HTTPStatus
from typing import Any

from apitokenproxy._colour import run
from apitokenproxy.errors import BadFraming, ClientGone, ProxyError
from apitokenproxy.interfaces import Handler
from apitokenproxy.messages import BodyMeter, Headers, Request, Response

Environ = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], Any]

_CHUNK = 65536
_MOST_DIGITS = 18
_PHRASES = {status.value: status.phrase for status in HTTPStatus}


class WsgiApp:
    """Answers each environ through the pipeline, in place: no thread, no event loop."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        response = run(self._handler.handle(_request(environ)))
        answer = _Answer(response)
        try:
            headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers]
            start_response(f"{response.status} {_PHRASES.get(response.status, 'Unknown')}", headers)
        except BaseException:
            answer.close()
            raise
        return answer


class _Answer:
    """The body as WSGI wants it; closing it ends the exchange."""

    def __init__(self, response: Response) -> None:
        body = response.body
        self._chunks: Iterator[bytes] = iter((body,)) if isinstance(body, bytes) else body  # type: ignore[assignment]
        self._finish = response.finish
        self._outcome = ClientGone.code
        self._sent = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            chunk = next(self._chunks)
        except StopIteration:
            self._outcome = ""
            raise
        except ProxyError as error:
            self._outcome = error.code
            raise
        self._sent += len(chunk)
        return chunk

    def close(self) -> None:
        self._finish(self._outcome, self._sent)


class _Body:
    """The request body from `wsgi.input`, which may be read `length` bytes far and no further."""

    def __init__(self, environ: Environ, length: int | None) -> None:
        self.meter = BodyMeter()
        self._read: Callable[[int], bytes] = environ["wsgi.input"].read
        self._left = length
        self._ends_by_itself = bool(environ.get("wsgi.input_terminated"))

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._left == 0:
            raise StopIteration
        if self._left is None and not self._ends_by_itself:
            raise BadFraming("this WSGI server does not say where a chunked body ends")
        try:
            chunk = self._read(_CHUNK if self._left is None else min(_CHUNK, self._left))
        except (OSError, ValueError) as error:
            raise ClientGone(f"the body could not be read: {type(error).__name__}") from None
        if self._left is not None:
            if not chunk:
                raise ClientGone(f"the client left {self._left} bytes before the end of the body")
            self._left -= len(chunk)
        elif not chunk:
            raise StopIteration
        return self.meter.count(chunk)


def _request(environ: Environ) -> Request:
    headers = _headers(environ)
    length = environ.get("CONTENT_LENGTH") or ""
    chunked = "HTTP_TRANSFER_ENCODING" in environ
    body = None
    if chunked or length not in {"", "0"}:
        # What is longer, or no plain number, the guard refuses: the body is never read.
        stated = length.isascii() and length.isdigit() and len(length) <= _MOST_DIGITS
        body = _Body(environ, int(length) if stated and not chunked else None)
    return Request(
        method=environ["REQUEST_METHOD"].encode("latin-1"),
        target=_target(environ),
        headers=headers,
        body=body,
        mount=environ.get("SCRIPT_NAME", "").encode("latin-1"),
        scheme=environ.get("wsgi.url_scheme", "http").encode("latin-1"),
        peer=environ.get("REMOTE_ADDR", ""),
        context=environ,
        meter=body.meter if body else BodyMeter(),
    )


def _headers(environ: Environ) -> Headers:
    headers = [
        (_field_name(key), value.encode("latin-1"))
        for key, value in environ.items()
        if key.startswith("HTTP_") or key in {"CONTENT_TYPE", "CONTENT_LENGTH"}
    ]
    # Servers set these two to an empty string when the client did not send them.
    return [(name, value) for name, value in headers if value or not name.startswith(b"Content-")]


@lru_cache(maxsize=1024)
def _field_name(key: str) -> bytes:
    return key.removeprefix("HTTP_").replace("_", "-").title().encode("latin-1")


def _target(environ: Environ) -> bytes:
    raw = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    if raw:
        return raw.encode("latin-1", "replace")  # type: ignore[no-any-return]
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    target: bytes = path.encode("latin-1").replace(b"%", b"%25")
    query = environ.get("QUERY_STRING")
    return target + b"?" + query.encode("latin-1") if query else target
