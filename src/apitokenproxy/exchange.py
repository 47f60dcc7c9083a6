"""One request and its reply, from first byte to last; closed exactly once, whatever happens.

Rules:
1. Closing is plain `def`: it happens in `finally`, while a task is being cancelled, and from
   whichever side notices the end first.
2. Every step of closing is tried even when the one before it failed.
3. A place in the audit sink is reserved before anything else, so that the record always fits.
"""

import json
import random
import time
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

from attrs import define, field

from apitokenproxy.errors import ProxyError
from apitokenproxy.interfaces import AuditSink
from apitokenproxy.messages import (
    TOKEN_PREFIX,
    Admission,
    AuditRecord,
    Caller,
    Credential,
    Grant,
    Headers,
    Operation,
    Reply,
    Request,
    Response,
)

_LONGEST_PATH = 512


def _request_id() -> str:
    # Not a secret: it only has to differ. Python reseeds `random` in a forked child.
    return f"{random.getrandbits(96):024x}"


@define
class Exchange:
    """What is known of a request so far; the pipeline fills it in stage by stage."""

    request: Request
    audit: AuditSink
    id: str = field(factory=_request_id)
    at: float = field(factory=time.time)
    started: float = field(factory=time.monotonic)
    operation: Operation | None = None
    caller: Caller | None = None
    grant: Grant | None = None
    admission: Admission | None = None
    credential: Credential | None = None
    sent: bool = False
    reply: Reply | None = None
    status: int = 0
    code: str = ""
    reason: str = ""
    closed: bool = False

    def refuse(self, error: ProxyError) -> Response:
        """Answer with a problem document (RFC 9457) instead of the upstream's answer."""
        self.status, self.code, self.reason = error.status, error.code, error.detail
        body = _problem(error, self.id)
        headers = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
            (b"x-proxy-error", error.code.encode()),
            (b"x-request-id", self.id.encode()),
        ]
        if error.status == HTTPStatus.UNAUTHORIZED:
            headers.append((b"www-authenticate", b'Bearer realm="apitokenproxy"'))
        headers += retry_after(error)
        if error.status == HTTPStatus.METHOD_NOT_ALLOWED:
            headers.append((b"allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"))
        headers += _own_headers(self.admission, self.caller)
        return Response(error.status, headers, b"" if self.request.method == b"HEAD" else body, self.close)

    def answer(self, reply: Reply, headers: Headers) -> Response:
        """Answer with the upstream's reply under the headers that may be passed on."""
        self.status = reply.status
        headers.append((b"x-request-id", self.id.encode()))
        headers += _own_headers(self.admission, self.caller)
        return Response(reply.status, headers, reply.body, self.close, reply.ends)

    def close(self, outcome: str = "", sent: int = 0) -> None:
        """End the exchange: give back the connection and the limits, write the record. Once."""
        if self.closed:
            return
        self.closed = True
        self.code = self.code or outcome  # what refused a request is told even if the client did not wait
        try:
            if self.reply is not None:
                self.reply.abort()
        finally:
            try:
                if self.admission is not None:
                    self.admission.settle()
            finally:
                self.audit.write(self._record(sent))

    def _record(self, sent: int) -> AuditRecord:
        operation, caller = self.operation, self.caller
        # In the order of its fields: names would cost as much again as all the rest of it.
        return AuditRecord(
            self.at,
            self.id,
            operation.address if operation else self.request.peer,
            operation.method.decode() if operation else self.request.method.decode("ascii", "backslashreplace"),
            operation.upstream if operation else "",
            operation.path.decode() if operation else _tellable(self.request.target),
            caller.tenant if caller else "",
            caller.subject if caller else "",
            caller.token_id if caller else "",
            caller.generation if caller else 0,
            caller.derived if caller else "",
            self.grant.rule if self.grant else "",
            self.credential.name if self.credential else "",
            self.status,
            self.code,
            self.reason,
            self.sent,
            self.request.meter.seen,
            sent,
            time.monotonic() - self.started,
        )


def retry_after(error: ProxyError) -> Headers:
    """Return the header that says when to try again (RFC 9110, section 10.2.3), if the error knows."""
    if error.retry_after is None:
        return []
    return [(b"retry-after", str(max(1, round(error.retry_after + 0.5))).encode())]


def unrecorded(exchange: Exchange, error: ProxyError) -> Response:
    """Refuse a request for which no record can be kept."""
    exchange.closed = True
    return exchange.refuse(error)


def _tellable(target: bytes) -> str:
    """Return the path of a target that the guard refused, unless a token could stand in it."""
    path = plain = target.partition(b"?")[0][:_LONGEST_PATH]
    while (decoded := unquote_to_bytes(plain)) != plain:
        plain = decoded
    return path.decode("ascii", "backslashreplace") if path[:1] == b"/" and TOKEN_PREFIX not in plain else ""


def _own_headers(admission: Admission | None, caller: Caller | None) -> tuple[tuple[bytes, bytes], ...]:
    """Return what the client is told about its limits and about its token."""
    headers = admission.headers if admission is not None else ()
    return headers + caller.notice if caller is not None and caller.notice else headers


def _problem(error: ProxyError, request_id: str) -> bytes:
    return json.dumps(
        {
            "type": f"urn:apitokenproxy:error:{error.code}",
            "title": error.title,
            "status": error.status,
            "code": error.code,
            "request_id": request_id,
            # Where SDKs look for the sentence: GitHub's here, OpenAI's, Anthropic's and Stripe's below it.
            "message": error.title,
            "error": {"type": error.code, "code": error.code, "message": error.title},
        }
    ).encode()
