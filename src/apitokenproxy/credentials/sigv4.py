"""AWS Signature Version 4: the request is signed anew; the client's own signature only says who calls.

Rules:
1. What is signed is what is sent: method, target, Host, the headers that AWS wants signed, and the payload.
2. A hash of the payload that the client states (`x-amz-content-sha256`) is taken, for AWS holds the body to
   it: so a body of any size streams. Otherwise the body is held in memory and hashed; one for S3, which can
   do without, is left unsigned over https.
3. Chunks that the client signed by itself are refused: only the client's key could have signed them.
4. botocore makes the signature, and is kept from logging what it is made of: a session token is among that.
"""

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, ClassVar

from attrs import field, frozen

from apitokenproxy.credentials.making import kept_while_same
from apitokenproxy.errors import BadBody, ConfigurationError, Denied
from apitokenproxy.interfaces import SecretReader
from apitokenproxy.messages import Caller, Credential, Finish, Headers, Hidden, Outbound, Secret

try:
    from botocore.auth import SIGV4_TIMESTAMP, S3SigV4Auth, SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import ReadOnlyCredentials
except ImportError:
    raise ConfigurationError("credential sigv4 needs botocore; install apitokenproxy[aws]") from None

_SIGNED = (b"content-type", b"content-md5")
_SIGNED_PREFIX = b"x-amz-"
_PAYLOAD = b"x-amz-content-sha256"
_OURS = {b"authorization", b"x-amz-date", b"x-amz-security-token", _PAYLOAD}
_SIGNED_CHUNKS = b"STREAMING-AWS4-"
_TARGET = b"x-amz-target"
_POWERS = (b"x-amz-copy-source", b"x-amz-acl", b"x-amz-grant-", b"x-amz-website-redirect-location")
"""Headers with which an S3 request does more than its path says."""


@frozen
class SigV4:
    """Signs for an AWS service: `SigV4("s3", "eu-central-1", access_key="env:ID", secret="env:KEY")`.

    Rules see a path, and some AWS requests do more than that says: those with headers that copy from elsewhere
    or grant access (S3) are refused but for `allow_headers`, and those that name what they do in
    `X-Amz-Target` (DynamoDB, SQS ...) only pass with a target in `targets`, if any are listed.
    `session_token` is the reference of the token that temporary keys come with. `max_body` bounds a body that
    must be hashed, in bytes (1 MiB when left out); S3 clients state the hash. Raises ConfigurationError.
    """

    service: str
    region: str
    access_key: str = field(kw_only=True)
    secret: str = field(kw_only=True, repr=False)
    session_token: str | None = field(default=None, kw_only=True, repr=False)
    max_body: int = field(default=1024 * 1024, kw_only=True)
    allow_headers: tuple[str, ...] = field(default=(), converter=tuple, kw_only=True)
    targets: tuple[str, ...] = field(default=(), converter=tuple, kw_only=True)
    clock: Callable[[], float] = field(default=time.time, kw_only=True, repr=False, eq=False)

    place: ClassVar[str] = "header Authorization"

    def __attrs_post_init__(self) -> None:
        for name, value in (("service", self.service), ("region", self.region)):
            if not value.isascii() or not value.replace("-", "").isalnum():
                raise ConfigurationError(f"credential sigv4: {name} {value!r} is not like s3 or eu-central-1")
        if self.max_body < 1:
            raise ConfigurationError(f"credential sigv4: max_body is {self.max_body} bytes; it must be at least 1")

    def bind(self, secrets: SecretReader) -> Callable[[Caller], Awaitable[Credential]]:
        """Return the function that makes the credential for a caller."""
        references = [self.access_key, self.secret, *([self.session_token] if self.session_token else [])]
        return kept_while_same([secrets.reader(reference) for reference in references], self._credential)

    def _credential(self, secrets: list[Secret]) -> Credential:
        key, secret, *token = [one.reveal().decode("latin-1") for one in secrets]
        keys = ReadOnlyCredentials(key, secret, token[0] if token else None)
        auth = (S3SigV4Auth if self.service == "s3" else SigV4Auth)(keys, self.service, self.region)

        def sign(outbound: Outbound, body: bytes | None) -> bytes | None:
            self._refuse_powers(outbound)
            _sign(auth, keys, outbound, self._payload(outbound, body), datetime.fromtimestamp(self.clock(), UTC))
            return body

        most = None if self.service == "s3" else self.max_body
        version = ",".join(one.version for one in secrets)
        shown = (Hidden(secrets[2].reveal()),) if token else ()
        return Credential(finish=(Finish(sign, most, shown, signs=True),), version=version)

    def _refuse_powers(self, outbound: Outbound) -> None:
        """Raise Denied for a request that does more than its path says, unless that is allowed."""
        allowed = {name.lower().encode() for name in self.allow_headers}
        for name, value in outbound.headers:
            lower = name.lower()
            if lower.startswith(_POWERS) and lower not in allowed:
                raise Denied(f"the header {lower.decode()} is not allowed by this credential")
            if lower == _TARGET and self.targets and value.decode("latin-1") not in self.targets:
                raise Denied("X-Amz-Target is none of those that this credential lists")

    def _payload(self, outbound: Outbound, body: bytes | None) -> str:
        """Return the hash of the body, or what stands in its place. Raises BadBody."""
        stated = [value for name, value in outbound.headers if name.lower() == _PAYLOAD]
        if len(stated) > 1 or any(value.startswith(_SIGNED_CHUNKS) for value in stated):
            raise BadBody("the body is signed in chunks with the client's own key, which means nothing upstream")
        if stated:
            return stated[0].decode("latin-1")
        return "UNSIGNED-PAYLOAD" if body is None else sha256(body).hexdigest()


def _sign(auth: Any, keys: Any, outbound: Outbound, payload: str, now: datetime) -> None:
    ours = {"X-Amz-Date": now.strftime(SIGV4_TIMESTAMP), "X-Amz-Content-SHA256": payload}
    if keys.token:
        ours["X-Amz-Security-Token"] = keys.token
    ours["Authorization"] = _authorization(auth, outbound, [*_to_sign(outbound), *ours.items()], ours["X-Amz-Date"])
    kept = [header for header in outbound.headers if header[0].lower() not in _OURS]
    outbound.headers = kept + [(name.encode(), Hidden(value.encode("latin-1"))) for name, value in ours.items()]


def _authorization(auth: Any, outbound: Outbound, fields: list[tuple[str, str]], timestamp: str) -> str:
    """Return the signature of method, target, Host and these header fields."""
    authority = outbound.origin.authority.decode()
    request = AWSRequest(
        method=outbound.method.decode(),
        url=f"{outbound.origin.scheme}://{authority}{outbound.target.decode('latin-1')}",
    )
    request.context["timestamp"] = timestamp
    for name, value in fields:
        request.headers[name] = value
    request.headers["host"] = authority
    canonical = auth.canonical_request(request)
    signature = auth.signature(auth.string_to_sign(request, canonical), request)
    signed = auth.signed_headers(auth.headers_to_sign(request))
    return f"AWS4-HMAC-SHA256 Credential={auth.scope(request)}, SignedHeaders={signed}, Signature={signature}"


def _to_sign(outbound: Outbound) -> list[tuple[str, str]]:
    fields: Headers = [(name.lower(), value) for name, value in outbound.headers]
    return [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in fields
        if (name in _SIGNED or name.startswith(_SIGNED_PREFIX)) and name not in _OURS
    ]
