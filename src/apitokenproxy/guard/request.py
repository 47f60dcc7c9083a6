"""The guard: a request as the server handed it over becomes an operation, or is refused."""

from collections.abc import Mapping

from attrs import Factory, field, frozen

from apitokenproxy.errors import BadMethod, BodyTooLarge, ConfigurationError
from apitokenproxy.guard.address import Network, client_address
from apitokenproxy.guard.fields import Sorter
from apitokenproxy.guard.framing import body_length
from apitokenproxy.guard.headers import READ, host_of, request_sorter, sort_request
from apitokenproxy.guard.path import read_path
from apitokenproxy.guard.presented import PLACES, take_credential
from apitokenproxy.guard.target import split_target
from apitokenproxy.messages import Operation, Request
from apitokenproxy.upstream import Upstream
from apitokenproxy.wire import NAME

_USUAL_METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"})
_REFUSED_METHODS = frozenset({b"TRACE", b"TRACK", b"CONNECT"})
_METHOD = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ-"
_LONGEST_METHOD = 20


@frozen
class Guard:
    """Decides what may come in.

    `upstreams` are the known ones by name. `prefix` is the raw path below which they stand, for
    where the host application does not mount the proxy itself. `token_header` (lower case) is a
    header that alone decides who calls when it is there. `trusted_proxies` are the networks whose
    `X-Forwarded-For` is believed, and `unix:` for Unix sockets; by default nobody's is.

    Raises ConfigurationError.
    """

    upstreams: Mapping[str, Upstream]
    prefix: bytes = b""
    token_header: bytes | None = None
    trusted_proxies: tuple[Network, ...] = ()
    _sorter: Sorter = field(
        init=False, repr=False, default=Factory(lambda self: request_sorter(self.token_header), takes_self=True)
    )

    def __attrs_post_init__(self) -> None:
        if self.prefix and (self.prefix[:1] != b"/" or self.prefix[-1:] == b"/"):
            raise ConfigurationError(
                f"prefix {self.prefix!r}: begin it with a slash and end it without one, like /proxy"
            )
        header = self.token_header
        if header is not None and (
            not header or header.translate(None, NAME) or b"_" in header or header in _NOT_FOR_TOKENS
        ):
            raise ConfigurationError(
                f"token_header {header!r}: name a header of your own in lower case, like x-proxy-token"
            )

    def inspect(self, request: Request) -> Operation:
        """Return the operation that a request asks for.

        An upstream that is not known is judged by the strictest terms and passes, so that it can be
        denied after authentication: a stranger cannot find out which names there are. The body's
        limit and the patience with the client are set on the request's meter.

        Raises a subclass of Refused that says what is wrong.
        """
        method = request.method
        if method not in _USUAL_METHODS:
            _judge_method(method)
        headers, found = sort_request(request.headers, self._sorter)
        host = host_of(found)
        name, path, query = split_target(request.target, request.mount, self.prefix, host)
        upstream = self.upstreams.get(name)
        readings = read_path(path, upstream)
        length = body_length(found, request.body is not None)
        address = client_address(request.peer, found, self.trusted_proxies) if self.trusted_proxies else request.peer
        presented = take_credential(found, self.token_header, request.token, address)
        if upstream is not None:
            request.meter.patience = upstream.timeouts.client
            if upstream.max_body is not None:
                request.meter.limit = upstream.max_body
                if length is not None and length > upstream.max_body:
                    raise BodyTooLarge(f"Content-Length is {length}; {upstream.max_body} bytes are allowed")
        return Operation(
            name,
            method,
            path,
            query,
            readings,
            headers,
            presented,
            length,
            host,
            address,
            request,
        )

    def address_of(self, request: Request) -> str:
        """Return the address of a client that asks for something else than an operation. Raises BadHeader."""
        _, found = sort_request(request.headers, self._sorter)
        return client_address(request.peer, found, self.trusted_proxies)


_NOT_FOR_TOKENS = (READ - PLACES) | {b"authorization", b"content-type", b"cookie"}


def _judge_method(method: bytes) -> None:
    if not method or len(method) > _LONGEST_METHOD or method.translate(None, _METHOD) or method in _REFUSED_METHODS:
        raise BadMethod("the method is not one that is forwarded")
