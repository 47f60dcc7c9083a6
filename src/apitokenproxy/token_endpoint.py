"""The token endpoint: the holder of a client token exchanges it for one that is derived from it (RFC 8693).

It stands where the pipeline stands, behind the same adapters: a request in, a response out, one audit record.

Rules:
1. Whoever may derive has the scope `tokens:derive`; what is derived never has it.
2. An error is told as OAuth clients expect it (RFC 6749, section 5.2); why stands in the audit record alone.
3. A token that is presented here is judged, counted and guessed at as it is everywhere else.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Protocol
from urllib.parse import parse_qsl

from attrs import frozen

from apitokenproxy.errors import (
    AuditUnavailable,
    ExchangeRefused,
    Limited,
    ProxyError,
    TokenConflict,
    TokenNotFound,
    Unauthenticated,
    Unavailable,
    fault,
)
from apitokenproxy.exchange import Exchange, retry_after, unrecorded
from apitokenproxy.finishing import whole
from apitokenproxy.interfaces import AuditSink
from apitokenproxy.messages import Caller, Headers, Hidden, Presented, Request, Response

MAX_BODY = 16384
"""Bytes of a request to the token endpoint."""

_GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
_TYPE = "urn:ietf:params:oauth:token-type:access_token"
_FORM = b"application/x-www-form-urlencoded"
_MOST_FIELDS = 50
_MAY_REPEAT = {"audience", "resource"}


@frozen
class Asked:
    """What a client asks for: all that its token may (None), or less."""

    token: Hidden
    scopes: frozenset[str] | None
    upstreams: tuple[str, ...] | None


class Issued(Protocol):
    """What it gets."""

    @property
    def token(self) -> str:
        """The token."""

    @property
    def expires(self) -> datetime:
        """When it ends."""


@frozen
class TokenExchange:
    """Answers token requests.

    `derive` makes the token, `may_derive` is the scope that lets its holder do so, `upstreams` are the names
    that may be an audience, `address` tells where a request comes from.
    """

    authenticate: Callable[[Presented | None, Request], Awaitable[Caller | None]]
    derive: Callable[[Caller, Asked], Awaitable[Issued]]
    may_derive: str
    upstreams: frozenset[str]
    address: Callable[[Request], str]
    audit: AuditSink

    async def handle(self, request: Request) -> Response:
        """Answer a token request. Raises nothing but cancellation."""
        exchange = Exchange(request, self.audit)
        form = await _form(request)  # before a place for the record is taken: whoever dawdles holds nothing
        try:
            self.audit.reserve()
        except AuditUnavailable as error:
            return unrecorded(exchange, error)
        try:
            asked = self._asked(form)
            caller = exchange.caller = await self._holder(asked, request)
            issued = await self.derive(caller, asked)
        except ProxyError as error:
            return _refused(exchange, error)
        except (TokenConflict, TokenNotFound) as error:  # its parent has ended since
            return _refused(exchange, ExchangeRefused(str(error)))
        except Exception as error:  # noqa: BLE001 - whatever a part does, nothing is handed out
            return _refused(exchange, fault(error))
        except BaseException:
            exchange.close("client_gone")
            raise
        scopes = (caller.scopes if asked.scopes is None else asked.scopes) - {self.may_derive}
        said = {
            "access_token": issued.token,
            "issued_token_type": _TYPE,
            "token_type": "Bearer",
            "expires_in": int((issued.expires - datetime.now(UTC)).total_seconds()),
            "scope": " ".join(sorted(scopes)),
        }
        return _answered(exchange, 200, said)

    def _asked(self, form: bytes | ProxyError) -> Asked:
        if isinstance(form, ProxyError):
            raise form
        fields = _fields(form)
        if fields.get("grant_type") != [_GRANT]:
            raise ExchangeRefused("the grant type is not token exchange", "unsupported_grant_type")
        if fields.get("subject_token_type") != [_TYPE] or "subject_token" not in fields:
            raise ExchangeRefused("there is no subject_token, or its type is not access_token")
        if fields.get("requested_token_type", [_TYPE]) != [_TYPE] or "actor_token" in fields:
            raise ExchangeRefused("another type of token, or an actor, is asked for")
        upstreams = tuple(fields.get("audience", ()))
        if "resource" in fields or not self.upstreams.issuperset(upstreams):
            raise ExchangeRefused("the audience is not the name of an upstream", "invalid_target")
        scopes = frozenset(fields["scope"][0].split()) if "scope" in fields else None
        return Asked(Hidden(fields["subject_token"][0].encode()), scopes, upstreams or None)

    async def _holder(self, asked: Asked, request: Request) -> Caller:
        try:
            caller = await self.authenticate(Presented("token-header", asked.token, self.address(request)), request)
        except Unauthenticated as error:
            raise ExchangeRefused(error.detail) from None
        if caller is None:
            raise ExchangeRefused("the subject token is not a client token")
        if self.may_derive not in caller.scopes:
            raise ExchangeRefused(f"the token has not the scope {self.may_derive}", "unauthorized_client")
        if not (caller.scopes - {self.may_derive}).issuperset(asked.scopes or ()):
            raise ExchangeRefused("a scope is asked for that cannot be had", "invalid_scope")
        return caller


async def _form(request: Request) -> bytes | ProxyError:
    """Return the body of a token request, or why there is none."""
    types = [value for name, value in request.headers if name.lower() == b"content-type"]
    if request.method != b"POST":
        return ExchangeRefused("the method is not POST")
    if [value.partition(b";")[0].strip().lower() for value in types] != [_FORM]:
        return ExchangeRefused("the body is not a form")
    try:
        return await whole(request.body, MAX_BODY)
    except ProxyError as error:
        return error


def _fields(body: bytes) -> dict[str, list[str]]:
    """Return the fields of a form, none of which may be repeated (RFC 6749, section 3.2) but the targets."""
    try:
        text = body.decode("ascii")
        pairs = parse_qsl(
            text, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=_MOST_FIELDS
        )
    except ValueError:
        raise ExchangeRefused("the form is malformed") from None
    fields: dict[str, list[str]] = {}
    for name, value in pairs:
        if name in fields and name not in _MAY_REPEAT:
            raise ExchangeRefused("a field of the form is repeated")
        fields.setdefault(name, []).append(value)
    return fields


def _refused(exchange: Exchange, error: ProxyError) -> Response:
    exchange.code, exchange.reason = error.code, error.detail
    if isinstance(error, ExchangeRefused):
        return _answered(exchange, error.status, {"error": error.error})
    passing = isinstance(error, Limited | Unavailable)
    said = {"error": "temporarily_unavailable" if passing else "invalid_request"}
    return _answered(exchange, error.status, said, retry_after(error))


def _answered(exchange: Exchange, status: int, said: Mapping[str, object], more: Headers | None = None) -> Response:
    exchange.status = status
    body = json.dumps(said).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        (b"x-request-id", exchange.id.encode()),
        *(more or ()),
    ]
    return Response(status, headers, b"" if exchange.request.method == b"HEAD" else body, exchange.close)
