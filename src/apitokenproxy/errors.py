"""Everything that can go wrong, with the answer that a client gets for it.

Every class below `ProxyError` carries the HTTP `status`, the stable `code` and the `title` that
the client sees. What a person needs to find the cause goes into `detail`: it is written to the
audit record and the log, and never sent.

    ApitokenproxyError
    ├── ConfigurationError          what was built or written wrongly; raised before any request
    ├── TokenNotFound               a management call names a token that is not there
    ├── TokenConflict               a management call does not fit the token's state
    └── ProxyError                  a request ends without the upstream's answer
        ├── Refused                 the request is at fault (4xx)
        │   ├── BadTarget           400  invalid_target
        │   │   ├── PathDotSegment       path_dot_segment
        │   │   ├── EncodedSlash         encoded_slash
        │   │   ├── EncodedPercent       encoded_percent
        │   │   ├── EmptySegment         empty_segment
        │   │   ├── PathParameter        path_parameter
        │   │   ├── BadUtf8              bad_utf8
        │   │   ├── TokenInTarget        token_in_target
        │   │   └── TargetTooLong   414  target_too_long
        │   ├── BadHeader           400  bad_header
        │   │   ├── BadHost              bad_host
        │   │   ├── BadFraming           bad_framing
        │   │   ├── MultipleCredentials  multiple_credentials
        │   │   ├── HeadersTooLarge 431  headers_too_large
        │   │   └── BadExpectation  417  expectation_failed
        │   ├── NotMounted          404  not_found
        │   ├── BadMethod           405  method_not_allowed
        │   ├── BodyTooLarge        413  body_too_large
        │   ├── BadBody             400  bad_body
        │   ├── ClientTooSlow       408  client_too_slow
        │   ├── ClientGone          499  client_gone (never sent: nobody is there to read it)
        │   ├── Unauthenticated     401  unauthenticated
        │   ├── ExchangeRefused     400  token_exchange_refused
        │   ├── CrossSite           403  cross_site
        │   ├── Denied              403  denied
        │   ├── NoSecretForCaller   403  no_secret_for_caller
        │   └── Limited             429
        │       ├── RateLimited          rate_limited
        │       ├── QuotaExceeded        quota_exceeded
        │       ├── ConcurrencyExceeded  concurrency_exceeded
        │       └── TooManyFailures      too_many_failures
        ├── Unavailable             503  the proxy cannot do its work now; carries Retry-After
        │   ├── InternalFault            internal_fault
        │   ├── StoreUnavailable         store_unavailable
        │   ├── KeysUnavailable          keys_unavailable
        │   ├── SecretUnavailable        secret_unavailable
        │   │   └── SecretMissing        secret_missing
        │   ├── LimiterUnavailable       limiter_unavailable
        │   ├── AuditUnavailable         audit_unavailable
        │   ├── PoolTimeout              pool_timeout
        │   └── PoolFull                 pool_full
        └── UpstreamFailure         502  upstream_protocol_error
            ├── UpstreamUnreachable      upstream_unreachable
            ├── ForbiddenAddress         upstream_address_forbidden
            ├── UpstreamAuthFailed       upstream_auth_failed
            ├── ForeignRedirect          foreign_redirect
            └── UpstreamTimeout     504
                ├── ConnectTimeout       upstream_connect_timeout
                ├── TlsTimeout           upstream_tls_timeout
                ├── WriteTimeout         upstream_write_timeout
                ├── FirstByteTimeout     upstream_first_byte_timeout
                ├── ReadTimeout          upstream_read_timeout
                └── TotalTimeout         upstream_total_timeout

This module imports nothing of ours, so that an error path can never fail for want of a package.
"""

import traceback
from collections.abc import Iterator
from typing import ClassVar


class ApitokenproxyError(Exception):
    """The root of every exception that this package raises on purpose."""


class ConfigurationError(ApitokenproxyError, ValueError):
    """Something was built or written wrongly. The text is one sentence that says what to do."""


class TokenNotFound(ApitokenproxyError, LookupError):
    """No client token has that id."""


class TokenConflict(ApitokenproxyError, ValueError):
    """A client token is in a state in which that cannot be done to it. Nothing was changed."""


class ProxyError(ApitokenproxyError):
    """A request that ends without the upstream's answer.

    `detail` is for the audit record and the log and is never sent. `retry_after` is in seconds.
    """

    status: ClassVar[int]
    code: ClassVar[str]
    title: ClassVar[str]

    def __init__(self, detail: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after


# --- the request is at fault ----------------------------------------------------------------


class Refused(ProxyError):
    """The request is at fault; sending it again unchanged will not help."""


class BadTarget(Refused):
    """The request target is not one that may be forwarded."""

    status = 400
    code = "invalid_target"
    title = "The request target has a character or a form that is not forwarded."


class PathDotSegment(BadTarget):
    """A segment is, or could be read as, `.` or `..`."""

    code = "path_dot_segment"
    title = "The path has a dot segment."


class EncodedSlash(BadTarget):
    """A `%2F` (or what normalises to `/`) in an upstream that did not opt in."""

    code = "encoded_slash"
    title = "The path has an encoded slash, which this upstream does not allow."


class EncodedPercent(BadTarget):
    """A `%25` in an upstream that did not opt in."""

    code = "encoded_percent"
    title = "The path has an encoded percent sign, which this upstream does not allow."


class EmptySegment(BadTarget):
    """A `//` in an upstream that did not opt in."""

    code = "empty_segment"
    title = "The path has an empty segment, which this upstream does not allow."


class PathParameter(BadTarget):
    """A `;` in an upstream that did not opt in."""

    code = "path_parameter"
    title = "The path has a semicolon, which this upstream does not allow."


class BadUtf8(BadTarget):
    """The decoded path is not UTF-8 (this includes overlong forms)."""

    code = "bad_utf8"
    title = "The path does not decode to UTF-8."


class TokenInTarget(BadTarget):
    """A client token stands in the path or the query, where logs would keep it."""

    code = "token_in_target"
    title = "A token must be sent in a header, never in the URL; treat this one as leaked."


class TargetTooLong(BadTarget):
    """The target is longer than 8 KiB."""

    status = 414
    code = "target_too_long"
    title = "The request target is too long."


class BadHeader(Refused):
    """A header that no well-behaved client sends."""

    status = 400
    code = "bad_header"
    title = "A request header is malformed."


class BadHost(BadHeader):
    """No Host, several, or one with characters that are not a host and port."""

    code = "bad_host"
    title = "The Host header is missing, repeated or malformed."


class BadFraming(BadHeader):
    """Content-Length and Transfer-Encoding contradict each other, themselves or the body."""

    code = "bad_framing"
    title = "The length of the request body is not stated unambiguously."


class MultipleCredentials(BadHeader):
    """More than one credential; choosing between them would be guessing."""

    code = "multiple_credentials"
    title = "The request carries more than one credential; send exactly one."


class HeadersTooLarge(BadHeader):
    """More than 100 headers, or more than 64 KiB of them."""

    status = 431
    code = "headers_too_large"
    title = "The request has too many or too large headers."


class BadExpectation(BadHeader):
    """An `Expect` other than `100-continue`."""

    status = 417
    code = "expectation_failed"
    title = "The Expect header asks for something unknown."


class NotMounted(Refused):
    """The target is not below the path at which the proxy is mounted."""

    status = 404
    code = "not_found"
    title = "The proxy does not answer at this path."


class BadMethod(Refused):
    """A method that is not forwarded: TRACE, CONNECT, or one that is not upper-case letters."""

    status = 405
    code = "method_not_allowed"
    title = "This method is not forwarded."


class BodyTooLarge(Refused):
    """The body is longer than the upstream's `max_body`."""

    status = 413
    code = "body_too_large"
    title = "The request body is too large."


class BadBody(Refused):
    """The credential must stand in the body, and this body has no place for it."""

    status = 400
    code = "bad_body"
    title = "The body is not one that the credential of this upstream can be put into."


class ClientTooSlow(Refused):
    """The client sent nothing more of its body, or took nothing more of the answer, within the client timeout."""

    status = 408
    code = "client_too_slow"
    title = "The client took too long."


class ClientGone(Refused):
    """The client left before its request was complete."""

    status = 499
    code = "client_gone"
    title = "The client closed the connection."


class Unauthenticated(Refused):
    """No credential, or one that is unknown, expired or revoked: the client cannot tell which."""

    status = 401
    code = "unauthenticated"
    title = "A valid client token is required."


class ExchangeRefused(Refused):
    """A token request that cannot be granted. `error` is its code for OAuth clients.

    The codes are those of RFC 6749, section 5.2, and RFC 8693, section 2.2.2.
    """

    status = 400
    code = "token_exchange_refused"
    title = "The token cannot be exchanged as asked."

    def __init__(self, detail: str = "", error: str = "invalid_request") -> None:
        super().__init__(detail)
        self.error = error


class CrossSite(Refused):
    """A browser sent the host application's session from another site."""

    status = 403
    code = "cross_site"
    title = "Requests from another site are not accepted with a session."


class Denied(Refused):
    """No rule allows the request, or a rule denies it; or there is no such upstream."""

    status = 403
    code = "denied"
    title = "No rule allows this request, or there is no such upstream."


class NoSecretForCaller(Refused):
    """There is no secret for the caller's tenant or subject: it is not set up at this upstream."""

    status = 403
    code = "no_secret_for_caller"
    title = "You have no credential for this upstream; ask its operator to set one up."


class Limited(Refused):
    """A limit is reached; `retry_after` says when it may be tried again."""

    status = 429


class RateLimited(Limited):
    """Too many requests in a short window."""

    code = "rate_limited"
    title = "Too many requests."


class QuotaExceeded(Limited):
    """The calendar window's allowance is used up."""

    code = "quota_exceeded"
    title = "The quota is used up."


class ConcurrencyExceeded(Limited):
    """Too many requests in flight."""

    code = "concurrency_exceeded"
    title = "Too many requests at the same time."


class TooManyFailures(Limited):
    """Too many credentials from this address were wrong; only those that were good lately are looked at."""

    code = "too_many_failures"
    title = "Too many wrong credentials came from this address."


# --- the proxy cannot do its work now -------------------------------------------------------


class Unavailable(ProxyError):
    """The proxy cannot do its work now, so it refuses; trying again later may help.

    `outage` says that nobody answered, so that what was answered last may stand in for a while.
    """

    status = 503

    def __init__(self, detail: str = "", *, retry_after: float | None = 1.0, outage: bool = False) -> None:
        super().__init__(detail, retry_after=retry_after)
        self.outage = outage


class InternalFault(Unavailable):
    """A part raised something unexpected or returned what it must not."""

    code = "internal_fault"
    title = "The proxy could not process the request."


class StoreUnavailable(Unavailable):
    """The token store does not answer."""

    code = "store_unavailable"
    title = "The proxy cannot verify tokens at the moment."


class KeysUnavailable(Unavailable):
    """The keys with which somebody else's tokens are verified cannot be had."""

    code = "keys_unavailable"
    title = "The keys that verify this token cannot be had now."


class SecretUnavailable(Unavailable):
    """The upstream's secret cannot be had."""

    code = "secret_unavailable"
    title = "The proxy cannot obtain the credential for this upstream at the moment."


class SecretMissing(SecretUnavailable):
    """The place where the secret should be answers that there is no such secret."""

    code = "secret_missing"
    title = "The proxy has no credential for this upstream."


class LimiterUnavailable(Unavailable):
    """The limits cannot be counted."""

    code = "limiter_unavailable"
    title = "The proxy cannot count this request at the moment."


class AuditUnavailable(Unavailable):
    """Audit records cannot be written, so nothing is forwarded."""

    code = "audit_unavailable"
    title = "The proxy cannot record this request at the moment."


class PoolTimeout(Unavailable):
    """No connection to the upstream became free in time."""

    code = "pool_timeout"
    title = "All connections to the upstream are busy."


class PoolFull(Unavailable):
    """Too many requests wait for a connection to the upstream already."""

    code = "pool_full"
    title = "Too many requests wait for the upstream."


# --- the upstream is at fault ---------------------------------------------------------------


class UpstreamFailure(ProxyError):
    """The upstream did not give an answer that can be passed on."""

    status = 502
    code = "upstream_protocol_error"
    title = "The upstream's answer could not be understood."


class UpstreamUnreachable(UpstreamFailure):
    """Name resolution, connection or TLS failed."""

    code = "upstream_unreachable"
    title = "The upstream cannot be reached."


class ForbiddenAddress(UpstreamFailure):
    """The upstream's name resolves to an address that is not public, and it did not opt in."""

    code = "upstream_address_forbidden"
    title = "The upstream resolves to an address that is not allowed."


class UpstreamAuthFailed(UpstreamFailure):
    """The upstream answered 401 or 407: the operator's secret is wrong, not the client's token."""

    code = "upstream_auth_failed"
    title = "The upstream did not accept the proxy's credential."


class ForeignRedirect(UpstreamFailure):
    """The upstream redirects to another origin, where a client would take its token."""

    code = "foreign_redirect"
    title = "The upstream redirects to another site, which is not passed on."


class UpstreamTimeout(UpstreamFailure):
    """A deadline passed."""

    status = 504


class ConnectTimeout(UpstreamTimeout):
    """No connection within the connect timeout."""

    code = "upstream_connect_timeout"
    title = "The upstream did not accept a connection in time."


class TlsTimeout(UpstreamTimeout):
    """No TLS handshake within the tls timeout."""

    code = "upstream_tls_timeout"
    title = "The upstream did not complete the TLS handshake in time."


class FirstByteTimeout(UpstreamTimeout):
    """The head of the answer was not there within the first-byte timeout."""

    code = "upstream_first_byte_timeout"
    title = "The upstream did not answer in time."


class ReadTimeout(UpstreamTimeout):
    """Nothing more of the answer's body within the read timeout."""

    code = "upstream_read_timeout"
    title = "The upstream stopped in the middle of its answer."


class TotalTimeout(UpstreamTimeout):
    """The exchange was not over within the total timeout."""

    code = "upstream_total_timeout"
    title = "The exchange with the upstream took too long."


class WriteTimeout(UpstreamTimeout):
    """The upstream did not take the request body within the write timeout."""

    code = "upstream_write_timeout"
    title = "The upstream did not take the request in time."


def fault(error: Exception) -> InternalFault:
    """Turn what a part raised into a refusal that says where, but not what: its text could hold a secret."""
    places = traceback.extract_tb(error.__traceback__)
    place = f"{places[-1].filename}:{places[-1].lineno} in {places[-1].name}" if places else "an unknown place"
    return InternalFault(f"{type(error).__name__} at {place}")


def all_errors() -> Iterator[type[ProxyError]]:
    """Yield every class that can end a request, for the documentation and the tests."""
    waiting: list[type[ProxyError]] = [ProxyError]
    while waiting:
        error = waiting.pop()
        waiting.extend(error.__subclasses__())
        if "code" in vars(error):
            yield error
