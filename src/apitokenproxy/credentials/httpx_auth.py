"""Whatever an `httpx.Auth` puts on: Digest, a vendor's own scheme, one that was written for httpx already."""

from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache, partial
from typing import Any, ClassVar

import httpx
from attrs import Factory, field, frozen

from apitokenproxy.credentials.apart import Apart
from apitokenproxy.credentials.auth_flow import LARGEST, Conversation
from apitokenproxy.errors import BodyTooLarge, ConfigurationError, SecretUnavailable, TotalTimeout
from apitokenproxy.finishing import whole
from apitokenproxy.interfaces import SecretReader
from apitokenproxy.messages import Caller, Credential, Finish, Headers, Hidden, HiddenText, Outbound, Reply

_MOST_AT_ONCE = 32
_MOST_KEPT = 1000
_CHALLENGE = 401


def _references(secret: str | Sequence[str]) -> tuple[str, ...]:
    return (secret,) if isinstance(secret, str) else tuple(secret)


@frozen
class HttpxAuth:
    """What an `httpx.Auth` puts on: `HttpxAuth(lambda key: httpx.DigestAuth("me", key), secret="env:KEY")`.

    `make` is given what `secret` names, one reference or several, as text, and returns the auth without waiting for
    anything; or it is an auth itself. One is made for each secret and used by all requests at once, from several
    threads, as `httpx.Client` does: by this process, for this secret, whoever calls.

    The auth sees the request as it will be sent, without its body unless it has `requires_request_body`: then
    the body is held in memory, `max_body` bytes of it (1 MiB when left out). It may put on header fields and query
    parameters; where it changes anything else, raises, or takes too long, the request is refused as one whose secret
    cannot be had. Requests of its own, to fetch a token say,
    are sent directly, over https unless the upstream has `allow_private`; ten of them within `timeout` seconds, with
    answers of at most 64 KiB. It is told of the upstream's answer when that is 401, of its body only with
    `requires_response_body`; if it yields the request again, that is sent once more, if it has no body or one of at
    most the upstream's `replay_body` bytes.

    Some schemes ask without a credential first, to be challenged: Digest does. That request has what all others have,
    and no Authorization. Schemes that authenticate a connection (NTLM, Negotiate) are refused: tenants share those.

    Raises ConfigurationError.
    """

    make: Callable[..., httpx.Auth] | httpx.Auth = field(repr=False)
    secret: tuple[str, ...] = field(default=(), converter=_references, repr=False)
    max_body: int = field(default=1024 * 1024, kw_only=True)
    timeout: float = field(default=10.0, kw_only=True)

    _apart: Apart = field(init=False, repr=False, eq=False, default=Factory(lambda: Apart(_MOST_AT_ONCE)))
    _auth: Callable[[tuple[HiddenText, ...]], httpx.Auth] = field(
        init=False,
        repr=False,
        eq=False,
        default=Factory(lambda self: lru_cache(_MOST_KEPT)(self._made), takes_self=True),
    )

    place: ClassVar[str] = "place of an httpx.Auth"

    def __attrs_post_init__(self) -> None:
        if isinstance(self.make, httpx.Auth):
            if self.secret:
                raise ConfigurationError("HttpxAuth: an auth that is made already takes no secret; pass what makes it")
            if not _has_a_flow(self.make):
                raise ConfigurationError(f"HttpxAuth: {type(self.make).__name__} has no auth_flow or sync_auth_flow")
        elif not callable(self.make) or not self.secret:
            raise ConfigurationError(
                "HttpxAuth takes an httpx.Auth, or a function that makes one and the secret for it"
            )
        if self.max_body < 1 or self.timeout <= 0:
            raise ConfigurationError("HttpxAuth: max_body must be at least 1 byte, and timeout more than 0 seconds")

    def bind(self, secrets: SecretReader) -> Callable[[Caller], Awaitable[Credential]]:
        """Return the function that makes the credential for a caller: a new one for each request."""
        readers = [secrets.reader(reference) for reference in self.secret]
        call: Any = partial(self._apart.call, secrets.colour)

        async def obtain(caller: Caller) -> Credential:
            found = [await read(caller) for read in readers]
            materials = tuple(Hidden(secret.reveal()) for secret in found)
            auth = self._auth(_texts(materials))
            version = ",".join(secret.version for secret in found) or type(auth).__name__
            return self._credential(Conversation(auth, call, self.timeout), auth, materials, version)

        return obtain

    def _credential(
        self, conversation: Conversation, auth: httpx.Auth, materials: tuple[Hidden, ...], version: str
    ) -> Credential:
        shown: tuple[Hidden, ...] = ()

        async def put(outbound: Outbound, body: bytes | None) -> bytes | None:
            nonlocal shown
            await conversation.begin(outbound, body)
            conversation.put_on(outbound)
            shown = outbound.shown
            return body

        def put_again(outbound: Outbound, _body: bytes | None) -> None:
            conversation.put_on(outbound)

        async def again(reply: Reply) -> Credential | None:
            if reply.status != _CHALLENGE:
                return None
            headers, body = await _told(reply, self.timeout, body=auth.requires_response_body)
            if not await conversation.go_on(reply.status, headers, body):
                return None
            last = Finish(put_again, None, materials, signs=True)
            return Credential(version=version, finish=(last,), shown=shown)

        most = self.max_body if auth.requires_request_body else None
        return Credential(version=version, finish=(Finish(put, most, materials, signs=True),), again=again)

    def _made(self, texts: tuple[HiddenText, ...]) -> httpx.Auth:
        if isinstance(self.make, httpx.Auth):
            return self.make
        try:
            auth = self.make(*texts)
        except Exception as error:  # noqa: BLE001 - its text could hold the secret
            raise SecretUnavailable(f"what makes the httpx.Auth raised {type(error).__name__}") from None
        if not isinstance(auth, httpx.Auth) or not _has_a_flow(auth):
            raise SecretUnavailable(
                f"what makes the httpx.Auth returned {type(auth).__name__}, which is none that works"
            )
        return auth


def _has_a_flow(auth: httpx.Auth) -> bool:
    """Tell whether an auth does anything where it is not awaited; httpx's own would pass every request as it is."""
    kind = type(auth)
    return (kind.auth_flow, kind.sync_auth_flow) != (httpx.Auth.auth_flow, httpx.Auth.sync_auth_flow)


def _texts(materials: tuple[Hidden, ...]) -> tuple[HiddenText, ...]:
    try:
        return tuple(HiddenText(material.decode()) for material in materials)
    except UnicodeDecodeError:
        raise SecretUnavailable("the secret is no text in UTF-8, which an httpx.Auth could be made of") from None


_ABOUT_THE_BODY = frozenset({b"content-encoding", b"content-length", b"transfer-encoding"})


async def _told(reply: Reply, seconds: float, *, body: bool) -> tuple[Headers, Hidden]:
    """Return what a flow is told of an answer. Raises SecretUnavailable, UpstreamFailure."""
    headers: Headers = [(name, Hidden(value)) for name, value in reply.headers if name.lower() not in _ABOUT_THE_BODY]
    if not body:
        return headers, Hidden()
    if any(name.lower() == b"content-encoding" for name, _ in reply.headers):
        raise SecretUnavailable("the upstream's challenge has a compressed body, which the auth cannot be shown")
    try:
        return headers, Hidden(await whole(reply.body, LARGEST, seconds))
    except (BodyTooLarge, TotalTimeout):
        raise SecretUnavailable(
            f"the upstream's challenge has a body of more than {LARGEST} bytes, or no end"
        ) from None
