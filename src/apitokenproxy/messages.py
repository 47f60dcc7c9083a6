"""The values that travel through the pipeline, in the order in which they come to be.

    Request -> Operation -> Caller -> Grant -> Admission -> Credential -> Outbound -> Reply -> Response

Rules:
1. Each is made from the ones before it, so a stage that is skipped is a type error.
2. They carry bytes as they came. Nothing here decodes, normalises or joins.
3. What holds secret material has a constant repr (`Secret`, `Hidden`, `HiddenText`).
4. What a decision rests on is frozen. What is only handed on is not: freezing costs 50 ns a field.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any, Final, NoReturn, SupportsIndex, final

from attrs import Factory, define, field, frozen

from apitokenproxy.errors import BodyTooLarge, InternalFault, SecretUnavailable
from apitokenproxy.traces import traces
from apitokenproxy.wire import authenticates_a_connection, can_be_injected

Headers = list[tuple[bytes, bytes]]
"""Header fields as received: order, case and repetition kept."""

TOKEN_PREFIX = b"atp_"
"""Every client token begins with it, so that leaked ones can be found and misplaced ones refused."""

IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"})
"""Methods that do no more when they are sent twice (RFC 9110, section 9.2.2)."""

Body = AsyncIterator[bytes] | Iterator[bytes]
"""Chunks of a body: an async iterator under ASGI, an ordinary one under WSGI."""


# --- material that must not be shown --------------------------------------------------------


def not_pickled(self: object, _protocol: SupportsIndex) -> NoReturn:
    """Refuse to be pickled or copied, as a class's `__reduce_ex__`: what is kept elsewhere is shown elsewhere."""
    raise TypeError(f"a {type(self).__name__} cannot be pickled or copied: it holds what must not be shown")


@final
class Hidden(bytes):
    """Bytes that are sent as they are and shown to nobody: repr() is constant."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Show nothing."""
        return "Hidden(***)"

    __str__ = __repr__  # bytes has one of its own, which shows them

    __reduce_ex__ = not_pickled


@final
class HiddenText(str):
    """Text that is handed on as it is, but that error reports with local variables do not show: repr() is constant."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Show nothing."""
        return "HiddenText(***)"

    __reduce_ex__ = not_pickled


@final
class Secret:
    """Raw material from a secret provider. It cannot be printed, formatted, pickled or copied.

    `reveal()` is the one way to the bytes, so that a search for it finds every use. `one_line` tells whether
    they may stand in a header: no control character is among them, as a stray newline from a file.
    `version` names the material without telling anything about it. `good_for` (seconds from when it was
    asked for) is for what ends by itself, as a lease does: it is never used longer, not even in an outage.

    Raises ValueError for material that is empty or is text that UTF-8 cannot write.
    """

    __slots__ = ("_material", "good_for", "one_line", "version")

    def __init__(self, material: str | bytes, *, version: str = "", good_for: float | None = None) -> None:
        raw = material.encode() if isinstance(material, str) else bytes(memoryview(material))  # not of a number
        if not raw:
            message = "a secret must not be empty"
            raise ValueError(message)
        self._material = raw
        self.one_line = not any(byte < 32 or byte == 127 for byte in raw)  # noqa: PLR2004 - ASCII controls
        self.version = version
        self.good_for = good_for

    def reveal(self) -> bytes:
        """Return the material."""
        return self._material

    def __repr__(self) -> str:
        """Show nothing."""
        return "Secret(***)"

    def __str__(self) -> NoReturn:
        """Refuse: a formatted secret is a leak, or a bug that sends "Secret(***)" upstream."""
        message = "a Secret cannot be turned into text; use .reveal() where the bytes are needed"
        raise TypeError(message)

    def __format__(self, _spec: str) -> NoReturn:
        """Refuse."""
        self.__str__()

    __reduce_ex__ = not_pickled


# --- what comes in --------------------------------------------------------------------------


@frozen
class Presented:
    """The one credential that a request carries, already taken off its headers, and the address it came from.

    `place` says where it stood: `bearer`, `token`, `basic`, `x-api-key`, `api-key`,
    `x-goog-api-key`, `private-token`, `sigv4` or `token-header`.
    """

    place: str
    value: Hidden
    address: str = ""


CLIENT_SECONDS: Final = 60.0
"""How long a client is waited for, where no upstream says otherwise."""


@final
class BodyMeter:
    """Counts the bytes of a request body while it streams and stops it at `limit` (bytes).

    `patience` (seconds) is how long the adapter waits for the client: for each part of its body, and until
    it takes each part of the answer.
    """

    __slots__ = ("limit", "patience", "seen")

    def __init__(self) -> None:
        self.limit: int | None = None
        self.patience = CLIENT_SECONDS
        self.seen = 0

    def count(self, chunk: bytes) -> bytes:
        """Count a chunk and return it. Raises BodyTooLarge."""
        self.seen += len(chunk)
        if self.limit is not None and self.seen > self.limit:
            raise BodyTooLarge(f"the body passed {self.limit} bytes")
        return chunk


@define
class Request:
    """What an adapter was handed, untouched.

    `target` is the raw request target as it stood on the request line. `mount` is the raw path
    below which the host application mounted the proxy. `token` is a client token that was given
    apart from the headers (a script's transport); it alone decides, then. `context` is the ASGI
    scope or WSGI environ, for host identity. `body` is None where there cannot be one.
    """

    method: bytes
    target: bytes = field(repr=False)
    headers: Headers = field(repr=False)
    body: Body | None = None
    mount: bytes = b""
    scheme: bytes = b"http"
    peer: str = ""
    token: Hidden | None = None
    context: Any = field(default=None, repr=False)
    meter: BodyMeter = Factory(BodyMeter)

    __reduce_ex__ = not_pickled


@frozen
class Operation:
    """A request that the guard has passed: what policy decides on, and exactly what is sent.

    `path` and `query` are the raw bytes below the upstream's name (`query` has its leading `?`, or
    is empty). `readings` holds the path as decoded segments: first as it stands, then every other
    way in which a backend might read it; a denial is tried on each. `headers` are those that may
    go upstream, without credentials, framing and hop-by-hop fields. `length` is the body's length
    in bytes, None when it will only be known at its end. `address` is the client's, which a trusted
    proxy may have told.
    """

    upstream: str
    method: bytes
    path: bytes
    query: bytes
    readings: tuple[tuple[str, ...], ...]
    headers: Headers
    presented: Presented | None
    length: int | None
    host: bytes
    address: str
    request: Request


# --- who and whether ------------------------------------------------------------------------


@frozen
class Caller:
    """Who is calling. `token_id` and `generation` are set when a client token said so.

    `derived` is the id of a token that was derived from it; `given_up` are scopes that only its parent has,
    by which a denial still holds; `caveats` say what of a grant such a token
    was narrowed not to do, and `limits` are the terms of limits of its own (`(("rate", "10/minute"),)`).
    `notice` are headers that tell the caller something about their own token. `key` stands for the
    token in counting; without one (the host's session), for tenant and subject.
    """

    tenant: str
    subject: str = ""
    scopes: frozenset[str] = frozenset()
    attributes: Mapping[str, Any] = Factory(dict)
    token_id: str = ""
    generation: int = 0
    notice: tuple[tuple[bytes, bytes], ...] = ()
    derived: str = ""
    given_up: frozenset[str] = frozenset()
    caveats: tuple[Callable[["Grant"], str], ...] = ()
    limits: tuple[tuple[str, str | int], ...] = ()
    key: Any = field(init=False, repr=False, eq=False)

    @key.default
    def _key(self) -> Any:
        return self.token_id or (self.tenant, self.subject)

    def excludes(self, grant: "Grant") -> str:
        """Return what of a grant the caller's token was narrowed not to do, in a word; empty when nothing."""
        for excludes in self.caveats:
            if what := excludes(grant):
                return what
        return ""


@frozen
class Grant:
    """The positive result of authorisation: this caller, this operation, by this rule."""

    caller: Caller
    operation: Operation
    rule: str


@frozen
class Denial:
    """The negative result: `reason` goes to the audit record, never to the client."""

    reason: str
    rule: str = ""


def _nothing_to_settle() -> None:
    """Settle an admission that holds nothing."""


@define
class Admission:
    """The limits have counted this request.

    `headers` tell the client how much is left. `settle` gives back what is held only while the
    request runs; it is called exactly once, must not block and must not raise.
    """

    headers: tuple[tuple[bytes, bytes], ...] = ()
    settle: Callable[[], None] = _nothing_to_settle


# --- what goes out --------------------------------------------------------------------------


@frozen
class Finish:
    """What is done to a request when all else of it stands: a field in its body, or a signature.

    `apply` takes the request, whose headers and query it may change, and its body, and returns the body that is
    sent, or something to await for it where it takes a while. `max_body` is how many bytes of body it needs to see
    at the most; None: it is given none and returns none. `secrets` are what it shows in body or headers; what it
    only knows when it is done it adds to the request's `shown`. A signature (`signs`) comes after all else.
    """

    apply: Callable[["Outbound", bytes | None], "bytes | Awaitable[bytes | None] | None"]
    max_body: int | None = None
    secrets: tuple[Hidden, ...] = ()
    signs: bool = False


@frozen
class Credential:
    """What makes the upstream accept the request: header fields and query parameters to add, and what is done last.

    Names and values are bytes as they will stand on the wire (query parameters already
    percent-encoded). `version` names the versions of its secrets, `token` the short-lived token that was made
    of them, where there is one, and `name` both, for the audit record; neither tells anything about them.
    `again` is told of an answer that refused it, and returns what answers a challenge in it, if there is one.
    `shown` is what was put on last. `names` are those of the header fields in lower case, `traces` the forms in
    which it must not come back in an answer.

    Raises InternalFault for what cannot stand in a request, or would stand there twice, and SecretUnavailable for
    a scheme that authenticates a connection: tenants share connections.
    """

    headers: tuple[tuple[bytes, Hidden], ...] = ()
    query: tuple[tuple[bytes, Hidden], ...] = ()
    version: str = ""
    finish: tuple[Finish, ...] = ()
    token: str = ""
    again: "Callable[[Reply], Awaitable[Credential | None]] | None" = None
    shown: tuple[Hidden, ...] = ()
    name: str = field(init=False, eq=False)
    names: tuple[bytes, ...] = field(init=False, repr=False, eq=False)
    traces: tuple[bytes, ...] = field(init=False, repr=False, eq=False)

    @name.default
    def _name(self) -> str:
        return f"{self.version}+{self.token}" if self.token else self.version

    @names.default
    def _names(self) -> tuple[bytes, ...]:
        return tuple(name.lower() for name, _ in self.headers)

    @traces.default
    def _traces(self) -> tuple[bytes, ...]:
        last = [*self.shown, *(secret for finish in self.finish for secret in finish.secrets)]
        return tuple(map(Hidden, traces([*self.headers, *((b"", secret) for secret in last)], self.query)))

    def __attrs_post_init__(self) -> None:
        if not can_be_injected(self.headers, self.query):
            raise InternalFault("a credential holds a header or a query parameter that cannot be sent")
        if authenticates_a_connection(self.headers):
            raise SecretUnavailable("NTLM and Negotiate authenticate a connection, and tenants share connections")
        for names in (self.names, [name for name, _ in self.query]):
            if len(set(names)) < len(names):
                raise InternalFault("a credential puts a header or a parameter on twice")


@frozen
class Timeouts:
    """Deadlines in seconds, each with an error code of its own.

    `pool` for a free connection, `connect` and `tls` to make one, `write` for each part of the request,
    `first_byte` for the head of the answer to be there, `read` between two parts of its body, `client` for
    the client to send each part of its body and to take each part of the answer, and `total` for the whole
    exchange from the moment it has a connection (None: as long as it goes on).
    """

    pool: float = 5.0
    connect: float = 5.0
    tls: float = 5.0
    write: float = 30.0
    first_byte: float = 60.0
    read: float = 60.0
    client: float = CLIENT_SECONDS
    total: float | None = None


@frozen(cache_hash=True)  # pools are found by it
class Origin:
    """Where to connect, and on which terms.

    `allow_private` permits loopback and private addresses. `ca` is the path of a PEM file that
    replaces the system's trust, `client_certificate` that of one with the certificate and key to show.
    `max_connections` bounds the pool, `max_connections_per_tenant` what one tenant holds of it, and
    `warm_connections` are opened ahead. `authority` is what Host says.
    """

    scheme: str
    host: str
    port: int
    allow_private: bool = False
    ca: str | None = None
    client_certificate: str | None = None
    timeouts: Timeouts = Timeouts()
    max_connections: int = 100
    max_connections_per_tenant: int | None = None
    warm_connections: int = 0
    authority: bytes = field(init=False, eq=False, repr=False)

    @authority.default
    def _authority(self) -> bytes:
        """Return the Host (RFC 9110, section 7.2): with the port only where it is not the default."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = {"http": 80, "https": 443}[self.scheme]
        return (host if self.port == default else f"{host}:{self.port}").encode("ascii")


@define
class Outbound:
    """The clean request with its credential: the bytes that will be sent.

    `headers` holds Host first and no framing; the forwarder frames the body by `length` (bytes;
    None: chunked). `body` is bytes when all of it is there, and None where there is none. Whose request it is,
    `tenant` tells: those that wait for a connection get one in turn. `shown` is what was put on last of its
    credential, and must not come back.
    """

    origin: Origin
    method: bytes
    target: Hidden
    headers: Headers
    body: Body | bytes | None
    length: int | None
    tenant: str = ""
    shown: tuple[Hidden, ...] = ()


@define
class Reply:
    """The upstream's answer; `body` is bytes when all of it was there with the head.

    `ends` (of the monotonic clock) is when its exchange must be over. `abort` gives up what is not read yet;
    it is idempotent, plain `def` and never waits, so that it can be called while a task is being cancelled.
    """

    status: int
    headers: Headers
    body: Body | bytes
    abort: Callable[[], None]
    ends: float | None = None


# --- what goes back -------------------------------------------------------------------------


@define
class Response:
    """What the client gets. The adapter streams `body` and calls `finish` exactly once at its end.

    `ends` (of the monotonic clock) is when that must have been. `finish(outcome, sent)` takes how it ended
    (empty: complete) and the body bytes sent. It is plain `def` and never waits.
    """

    status: int
    headers: Headers
    body: Body | bytes
    finish: Callable[[str, int], None]
    ends: float | None = None


@define
class AuditRecord:
    """One exchange, from first byte to last. Never holds a secret, a token, a query or a body.

    `time` is seconds since the epoch, `seconds` the duration. `code` is empty for an answer of the
    upstream that was delivered whole; otherwise it says what ended the exchange, and `reason` why.
    `sent` tells whether anything may have reached the upstream.
    """

    time: float
    request_id: str
    peer: str
    method: str
    upstream: str
    path: str
    tenant: str
    subject: str
    token_id: str
    generation: int
    derived: str
    rule: str
    credential: str
    status: int
    code: str
    reason: str
    sent: bool
    bytes_in: int
    bytes_out: int
    seconds: float
