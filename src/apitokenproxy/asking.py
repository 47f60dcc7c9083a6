"""Asking somebody else for a JSON object: bounded in bytes and in time, and nothing of the answer in a message.

Rules:
1. No redirect is followed and no proxy of the environment used: what is sent may hold a secret. Certificates are
   judged by the system's authorities, as an upstream's are.
2. No more than `most` bytes are read, and `seconds` after the request began its connection is cut, whatever
   it waits for: a server that sends a byte a second keeps nobody for longer. Only looking up a name is not cut,
   and trying one of its addresses after the other, half of that time each.
3. Nobody answered when no answer came, when it says that of itself (429, 5xx), and when what says that all is
   well is no JSON object, as the page of a captive portal. What was had last may stand in then (`outage`). For
   how long it does not want to be asked again (Retry-After) is told, as `retry_after`.
4. What an answer says is never told, for it may repeat what was sent; its status is. Nor does an error report
   with local variables show it, or what was sent, as long as that is HiddenText; nor is
   it logged: httpcore logs the head of an answer, and of one that is no HTTP what it is instead; httpx the URL.
"""

import contextlib
import json
import socket
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
from attrs import field, frozen

from apitokenproxy.authorities import system_authorities
from apitokenproxy.errors import Unavailable
from apitokenproxy.messages import Hidden
from apitokenproxy.quiet import quiet

MOST = 64 * 1024
"""Bytes of an answer."""
SECONDS = 10.0
"""Within which an answer must be there."""
_LONGEST = 3600.0  # seconds that are waited at most before somebody who said so is asked again


@frozen
class Answer:
    """What was answered: the status, and the JSON object, which is empty for a refusal in any other form."""

    status: int
    said: dict[str, Any] = field(repr=False)

    @property
    def ok(self) -> bool:
        """Whether the status says that what was asked for is here."""
        return httpx.codes.is_success(self.status)


def ask(
    method: str,
    url: str,
    *,
    error: type[Unavailable],
    headers: Mapping[str, str] | None = None,
    form: Mapping[str, str] | None = None,
    document: Mapping[str, Any] | None = None,
    what: str = "",
    most: int = MOST,
    seconds: float = SECONDS,
) -> Answer:
    """Send a request, with a form or a JSON document, and return the answer.

    `what` is how messages name who was asked; the URL, when it is left out. Raises `error`, with `outage` when
    nobody answered.
    """
    what = what or url
    sent = {"accept": "application/json", "accept-encoding": "identity", "user-agent": "apitokenproxy"}
    deadline, timeouts = Deadline(seconds), httpx.Timeout(seconds, connect=seconds / 2)
    body = Hidden()
    try:
        with (
            deadline,
            httpx.Client(trust_env=False, timeout=timeouts, verify=system_authorities()) as client,
            quiet("httpcore", "httpx"),  # once there is a client, for the first one of a process imports httpcore
            client.stream(
                method,
                url,
                headers=sent | dict(headers or {}),
                data=form,
                json=document,
                extensions={"trace": deadline.trace},
            ) as answer,
        ):
            for chunk in map(Hidden, answer.iter_raw()):
                body = Hidden(body + chunk)
                if len(body) > most:
                    raise error(f"{what} answers with more than {most // 1024} KiB")
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, RuntimeError) as failure:
        name = "it took too long" if deadline.passed else type(failure).__name__
        raise error(f"{what} cannot be asked: {name}", outage=True) from None
    if deadline.passed:  # where only the end of the connection says that the answer is whole
        raise error(f"{what} cannot be asked: it took too long", outage=True)
    return _read(what, answer, body, error)


def _read(what: str, answer: httpx.Response, body: Hidden, error: type[Unavailable]) -> Answer:
    status = answer.status_code
    if status == httpx.codes.TOO_MANY_REQUESTS or httpx.codes.is_server_error(status):
        later = _seconds(answer.headers.get("retry-after", ""))
        raise error(f"{what} answers with status {status}", retry_after=later, outage=True)
    said = _object(body)
    if said is None and httpx.codes.is_success(status):
        raise error(f"{what} does not answer with a JSON object", outage=True)
    return Answer(status, said or {})


def _object(body: Hidden) -> dict[str, Any] | None:
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def _seconds(written: str) -> float:
    """Return the seconds that Retry-After says (RFC 9110, section 10.2.3), between one and an hour."""
    try:
        if written.isdecimal():
            seconds = float(written)
        else:
            seconds = (parsedate_to_datetime(written) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError, OverflowError):  # none, or a date without a zone
        seconds = 1.0
    return min(max(seconds, 1.0), _LONGEST)


class Deadline:
    """Cuts the connection of a request when its time is over. httpx's own timeouts are of one read or write each.

    `trace` is the request's extension of that name; `passed` tells whether the time, in seconds, was over.
    """

    def __init__(self, seconds: float) -> None:
        self.passed = False
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Take note of the connection. The copy stays valid when TLS takes over the socket itself."""
        if event == "connection.connect_tcp.complete":
            with self._lock:
                self._socket = info["return_value"].get_extra_info("socket").dup()
            if self.passed:
                self._cut()

    def _cut(self) -> None:
        self.passed = True
        with self._lock, contextlib.suppress(OSError):
            if self._socket is not None:
                self._socket.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None
