"""How three programs read the bytes of an answer: ours, h11 and httptools."""

from itertools import pairwise
from typing import Any

import h11
import httptools
from attrs import define, frozen

from apitokenproxy.forwarders.http1 import Answer, Malformed

REFUSED, PARTIAL, WHOLE = "refused", "partial", "whole"


@frozen
class Reading:
    """What was made of the bytes: refused, part of an answer, or a whole one; and whether to go on after it."""

    verdict: str
    status: int = 0
    body: bytes = b""
    reusable: bool = False


def ours(raw: bytes, method: bytes = b"GET", *, cuts: tuple[int, ...] = (), closed: bool = False) -> Reading:
    """Read with our own reader, in the pieces that the cuts make."""
    answer, body = Answer(method), b""
    edges = [0, *sorted(cuts), len(raw)]
    pieces = [raw[start:end] for start, end in pairwise(edges) if end > start]
    head = False
    try:
        for piece in pieces:
            if head:
                body += answer.read_body(piece)
            else:
                head = answer.read_head(piece)
                body += answer.first
        if closed and not answer.complete and not answer.close():
            return Reading(REFUSED)
    except Malformed:
        return Reading(REFUSED)
    if not answer.complete:
        return Reading(PARTIAL)
    return Reading(WHOLE, answer.status, body, answer.reusable)


def of_h11(raw: bytes, method: bytes = b"GET", *, closed: bool = False) -> Reading:
    """Read with h11."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=64 * 1024)
    connection.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
    connection.send(h11.EndOfMessage())
    status, body = 0, b""
    try:
        connection.receive_data(raw)
        if closed:
            connection.receive_data(b"")
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                reusable = connection.their_state is h11.DONE and not connection.trailing_data[0]
                return Reading(WHOLE, status, body, reusable)
            elif event is h11.NEED_DATA:
                return Reading(PARTIAL)
            elif not isinstance(event, h11.InformationalResponse):
                return Reading(REFUSED)
    except h11.RemoteProtocolError:
        return Reading(REFUSED)


@define
class _Heard:
    body: bytes = b""
    begun: int = 0
    ended: int = 0
    interim: int = 0
    status: int = 0
    keep_alive: bool = False
    parser: Any = None

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_headers_complete(self) -> None:
        if self.ended == 0:
            self.status = self.parser.get_status_code()
            self.keep_alive = self.parser.should_keep_alive()

    def on_body(self, data: bytes) -> None:
        if self.ended == 0:
            self.body += data

    def on_message_complete(self) -> None:
        if self.status < 200 and not self.ended:
            self.interim += 1
        else:
            self.ended += 1


def of_httptools(raw: bytes) -> Reading:
    """Read with httptools, which does not know the request's method and is not told of the end."""
    heard = _Heard()
    heard.parser = httptools.HttpResponseParser(heard)
    surplus = False
    try:
        heard.parser.feed_data(raw)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        if not heard.ended:
            return Reading(REFUSED)
        surplus = True  # what came after the answer was no second one
    if not heard.ended:
        return Reading(PARTIAL)
    after = heard.begun > 1 + heard.interim
    return Reading(WHOLE, heard.status, heard.body, heard.keep_alive and not after and not surplus)
