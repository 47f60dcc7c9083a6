"""HTTP/1.1 as a client speaks it (RFC 9112), without I/O: a request as bytes, and what an answer's bytes mean.

Rules:
1. An answer is understood one way or refused: no bare newline, no folded line, no second length, no
   length beside a transfer coding, nothing that another reader could take for something else.
2. Framing fields are only ever written here, from the length that the guard read.
3. After an answer without a body the connection is used again only if nothing in its head promises one:
   a 204 or 304 with a length or chunked, and an answer to HEAD whose GET would have a body, may be
   followed by that body after all, however late, and it would be the next caller's answer. HEAD with a
   length is legal and common; it costs a connection each time.
4. What is counted is bounded: a head, its fields, interim answers, a chunk's line, trailers.
5. Errors say what is wrong and quote nothing: what an upstream sends may hold the credential. So do the
   local variables here, which is why `Malformed` must not leave the connection: it would take them along.
"""

import re
from collections.abc import Callable
from typing import Final

from apitokenproxy.errors import BadFraming, BadHeader
from apitokenproxy.messages import Headers, Outbound

MAX_HEAD: Final = 64 * 1024
"""Bytes of an answer's head."""
MAX_FIELDS: Final = 256
"""Header fields of an answer."""
_MAX_INTERIM = 16
_MAX_CHUNK_LINE = 1024
_MAX_TRAILERS = 8 * 1024
_MAX_DIGITS = 18

_SWITCHING_PROTOCOLS, _OK, _NO_CONTENT, _NOT_MODIFIED = 101, 200, 204, 304
_WITH_EMPTY_BODY = frozenset({b"POST", b"PUT", b"PATCH"})

# Every repetition is possessive, so that no input makes them try twice.
_TEXT = rb"[^\x00-\x08\x0a-\x1f\x7f]*+"
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: " + _TEXT + rb")?+\r\n")
_FIELD = re.compile(rb"^([!#$%&'*+\-.^_`|~0-9A-Za-z]++):[ \t]*+(" + _TEXT + rb")\r\n", re.MULTILINE)
_BARE_NEWLINE = re.compile(rb"(?<!\r)\n")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15}+)(?:;" + _TEXT + rb")?+\r\n")
_START = b"HTTP/1."


class Malformed(Exception):
    """What the upstream sent is not an answer; the text says why."""


# --- a request as bytes ---------------------------------------------------------------------


def request_head(outbound: Outbound) -> bytes:
    """Return the request line and the header fields. Raises BadHeader for what would read as something else."""
    lines = [b"%b %b HTTP/1.1" % (outbound.method, outbound.target)]
    lines += [b": ".join(header) for header in outbound.headers]
    if outbound.length is None:
        lines.append(b"Transfer-Encoding: chunked")
    elif outbound.length or outbound.method in _WITH_EMPTY_BODY:
        lines.append(b"Content-Length: %d" % outbound.length)
    lines.append(b"\r\n")
    head = b"\r\n".join(lines)
    # The guard has judged all of it; this is the last look before the wire.
    strays = head.count(b"\0") + outbound.target.count(b" ")
    if strays or not len(lines) == head.count(b"\n") == head.count(b"\r"):
        raise BadHeader("a target or a header that cannot be sent")
    return head


class RequestBody:
    """Frames a request's body, and sees that it is exactly as long as was stated."""

    __slots__ = ("_left",)

    def __init__(self, length: int | None) -> None:
        self._left = length

    def frame(self, chunk: bytes) -> bytes:
        """Return a chunk as it is sent. Raises BadFraming."""
        if self._left is None:
            return b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunk else b""
        self._left -= len(chunk)
        if self._left < 0:
            raise BadFraming("the body is longer than was stated")
        return chunk

    def end(self) -> bytes:
        """Return what ends the body. Raises BadFraming."""
        if self._left:
            raise BadFraming("the body is shorter than was stated")
        return b"0\r\n\r\n" if self._left is None else b""


# --- what an answer's bytes mean ------------------------------------------------------------


class Answer:
    """One answer as it arrives: `read_head` until it is True, then `read_body` until `complete`.

    `reusable` tells whether the connection may carry another request: the message ended by its own
    framing, no byte was left over, and the upstream keeps the connection.
    """

    __slots__ = (
        *("complete", "first", "headers", "reusable", "status"),
        *("_buffer", "_first_chunk", "_interim", "_keep_alive", "_left", "_method", "_reader"),
    )

    def __init__(self, method: bytes) -> None:
        self.status = 0
        self.headers: Headers = []
        self.first = b""
        """What came of the body with the head."""
        self.complete = False
        self.reusable = False
        self._method = method
        self._buffer = b""
        self._interim = 0
        self._left = 0
        self._first_chunk = True
        self._keep_alive = False
        # Functions, not methods: a method of its own would make each answer a cycle for the collector.
        self._reader: Callable[[Answer, bytes], bytes] = Answer._until_closed

    def read_head(self, data: bytes) -> bool:
        """Take what arrived; True when status and headers are known. Raises Malformed."""
        known = len(self._buffer)
        if known:
            data = self._buffer + data
        end = data.find(b"\r\n\r\n", max(0, known - 3))
        while end != -1:
            head, data, known = data[: end + 2], data[end + 4 :], 0
            self._read_fields(head)
            if self.status >= _OK:
                self._buffer = b""
                self._read_framing(head)
                if data:
                    self.first = self.read_body(data)
                return True
            self._interim += 1
            if self.status == _SWITCHING_PROTOCOLS or self._interim > _MAX_INTERIM:
                raise Malformed("no final answer, or a change of protocol that nobody asked for")
            end = data.find(b"\r\n\r\n")
        self._keep(data, known)
        return False

    def _keep(self, data: bytes, known: int) -> None:
        """Keep the beginning of a head, of which some is known, unless it can never become one."""
        if len(data) > MAX_HEAD:
            raise Malformed(f"the head of the answer passed {MAX_HEAD} bytes")
        if not data.startswith(_START[: len(data)]) or _BARE_NEWLINE.search(data, known):
            raise Malformed("what the upstream sent is not an HTTP/1.1 answer")
        self._buffer = data

    def _read_fields(self, head: bytes) -> None:
        line = _STATUS_LINE.match(head)
        if line is None or len(head) > MAX_HEAD:
            raise Malformed("the status line of the answer is malformed, or its head is too long")
        fields = _FIELD.findall(head, line.end())
        if len(fields) + 1 != head.count(b"\n"):
            raise Malformed("a header of the answer is malformed")
        if len(fields) > MAX_FIELDS:
            raise Malformed(f"the answer has more than {MAX_FIELDS} headers")
        if head.find(b" \r\n") != -1 or head.find(b"\t\r\n") != -1:
            fields = [(name, value.rstrip(b" \t")) for name, value in fields]
        self._keep_alive = line[1] == b"1"
        self.status = int(line[2])
        self.headers = fields

    def _read_framing(self, head: bytes) -> None:
        """Find out where the body ends (RFC 9112, section 6.3)."""
        lower = head.lower()
        length = _only(lower, b"\r\ncontent-length:")
        coding = _only(lower, b"\r\ntransfer-encoding:", b" ")  # some readers take a tab for part of the coding
        if length is not None and (not length.isdigit() or len(length) > _MAX_DIGITS):
            raise Malformed("the Content-Length of the answer is malformed")
        if coding is not None and (coding != b"chunked" or length is not None or not self._keep_alive):
            raise Malformed("the answer is not chunked alone, or has a length as well, or speaks HTTP/1.0")
        at = lower.find(b"\r\nconnection:")
        while at != -1 and self._keep_alive:
            self._keep_alive = lower.find(b"close", at, lower.find(b"\r\n", at + 2)) == -1
            at = lower.find(b"\r\nconnection:", at + 2)
        left = int(length or 0)
        if length is not None and not left:
            self._end(surplus=False)
        elif self.status in (_NO_CONTENT, _NOT_MODIFIED):
            self._end(surplus=length is not None or coding is not None)
        elif self._method == b"HEAD":
            self._end(surplus=True)
        elif coding is not None:
            self._reader = Answer._chunked
        elif length is not None:
            self._left = left
            self._reader = Answer._by_length

    def read_body(self, data: bytes) -> bytes:
        """Take what arrived and return what it holds of the body. Raises Malformed."""
        if self.complete:
            self._end(surplus=True)
            return b""
        return self._reader(self, data)

    def close(self) -> bool:
        """Take note that the upstream closed, and tell whether the answer ended so, or was cut off."""
        self.complete = self.status >= _OK and self._reader is Answer._until_closed
        return self.complete

    def _end(self, *, surplus: bool) -> None:
        """End the answer. `surplus`: there is more on the connection than the answer, or may come."""
        self.complete = True
        self.reusable = self._keep_alive and not surplus

    def _until_closed(self, data: bytes) -> bytes:
        return data

    def _by_length(self, data: bytes) -> bytes:
        left = self._left = self._left - len(data)
        if left > 0:
            return data
        self._end(surplus=left < 0)
        return data[:left] if left else data

    def _chunked(self, data: bytes) -> bytes:
        if self._buffer:
            data, self._buffer = self._buffer + data, b""
        content, at = [], 0
        while at < len(data):
            if not self._left:
                line = self._chunk_line(data, at)
                if line is None:
                    break
                at = line
                if not self._left:
                    self._reader = Answer._trailers
                    self._trailers(data[at:])
                    break
            content.append(data[at : at + self._left])
            at += len(content[-1])
            self._left -= len(content[-1])
        return content[0] if len(content) == 1 else b"".join(content)

    def _chunk_line(self, data: bytes, at: int) -> int | None:
        """Read a chunk's length, after the end of the chunk before it; None when it is not all there."""
        start = at
        if not self._first_chunk:
            start += 2
            if not b"\r\n".startswith(data[at:start]):
                raise Malformed("a chunk of the answer is longer than it said")
        line = _CHUNK_LINE.match(data, start)
        if line is None or line.end() - start > _MAX_CHUNK_LINE:
            if line or data.find(b"\n", start) != -1 or len(data) - at > _MAX_CHUNK_LINE:
                raise Malformed("the length of a chunk of the answer is malformed")
            self._buffer = data[at:]
            return None
        self._left, self._first_chunk = int(line[1], 16), False
        return line.end()

    def _trailers(self, data: bytes) -> bytes:
        """Read trailer fields (RFC 9112, section 7.1.2) to their end, and drop them."""
        data = self._buffer + data
        if data.startswith(b"\r\n"):
            self._end(surplus=len(data) > 2)  # noqa: PLR2004 - the empty line
            return b""
        end = data.find(b"\r\n\r\n")
        fields = data[: end + 2] if end != -1 else data
        malformed = _BARE_NEWLINE.search(fields) or (end != -1 and len(_FIELD.findall(fields)) != fields.count(b"\n"))
        if malformed or len(fields) > _MAX_TRAILERS:
            raise Malformed("the trailers of the answer are malformed or too long")
        if end == -1:
            self._buffer = data
        else:
            self._end(surplus=len(data) > end + 4)
        return b""


def _only(lower: bytes, name: bytes, blanks: bytes = b" \t") -> bytes | None:
    """Return the value of the one field of a head that has this name."""
    at = lower.find(name)
    if at == -1:
        return None
    if lower.find(name, at + 2) != -1:
        raise Malformed("a field of the answer that says how long it is stands there twice")
    return lower[at + len(name) : lower.find(b"\r\n", at + 2)].strip(blanks)
