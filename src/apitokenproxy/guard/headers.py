"""Request headers: what may go upstream and what is read here.

Rules:
1. At most 100 fields and 64 KiB of them.
2. What tells a backend who asks, from where, for which host or path, or with which method, is
   dropped: the proxy has decided that, and a stranger must not overrule it.
3. Cookies, referrers and what browsers add belong to the host application's origin; dropped.
4. A client token in a field that is forwarded is refused, so that it cannot reach the upstream.
"""

from functools import lru_cache

from apitokenproxy.errors import BadExpectation, BadHeader, BadHost, HeadersTooLarge
from apitokenproxy.guard.fields import Found, Sorter
from apitokenproxy.guard.presented import PLACES
from apitokenproxy.messages import TOKEN_PREFIX, Headers
from apitokenproxy.wire import HOP_BY_HOP

_MOST_FIELDS = 100
_MOST_BYTES = 64 * 1024

READ = frozenset(
    {b"connection", b"content-length", b"expect", b"host", b"transfer-encoding", b"x-forwarded-for", *PLACES}
)
"""The headers that are read here, in lower case; none is forwarded."""

_DROPPED = HOP_BY_HOP | {
    b"cf-connecting-ip",
    b"cf-connecting-ipv6",
    b"cf-pseudo-ipv4",
    b"client-ip",
    b"cookie",
    b"cookie2",
    b"date",
    b"fastly-client-ip",
    b"fly-client-ip",
    b"forwarded",
    b"forwarded-for",
    b"front-end-https",
    b"origin",
    b"referer",
    b"remote-user",
    b"true-client-ip",
    b"via",
    b"x-amz-security-token",
    b"x-appengine-user-ip",
    b"x-azure-clientip",
    b"x-azure-socketip",
    b"x-client-ip",
    b"x-cluster-client-ip",
    b"x-host",
    b"x-http-method",
    b"x-http-method-override",
    b"x-method-override",
    b"x-nf-client-connection-ip",
    b"x-originating-ip",
    b"x-override-url",
    b"x-proxy-user-ip",
    b"x-proxyuser-ip",
    b"x-real-ip",
    b"x-request-id",
    b"x-rewrite-url",
    b"x-url-scheme",
    b"x-webauth-user",
}

_DROPPED_PREFIXES = (
    b"proxy",  # Proxy-Authorization, Proxy-Connection, and Proxy itself: CGI makes HTTP_PROXY of it
    b"sec-",
    b"x-auth-request-",
    b"x-envoy-",
    b"x-forwarded",
    b"x-original-",
    b"x-remote-",
)


def request_sorter(token_header: bytes | None) -> Sorter:
    """Return what becomes of request headers where `token_header` (lower case) carries client tokens."""
    read = READ if token_header is None else READ | {token_header}
    return Sorter(read, _DROPPED, _DROPPED_PREFIXES, aliases=False, refusal=BadHeader)


def sort_request(headers: Headers, sorter: Sorter) -> tuple[Headers, Found]:
    """Return the headers that may be forwarded and the values of those that are read.

    Raises HeadersTooLarge, BadHeader or BadExpectation.
    """
    if len(headers) > _MOST_FIELDS:
        raise HeadersTooLarge(f"the request has {len(headers)} headers")
    fields = sorter.sort(headers)
    kept, found = fields.kept, fields.found
    if fields.size > _MOST_BYTES:
        raise HeadersTooLarge(f"the request has {fields.size} bytes of headers")
    if b"expect" in found and any(value.lower() != b"100-continue" for value in found[b"expect"]):
        raise BadExpectation("the Expect header is not 100-continue")
    # Where the one token that there is stands in Authorization, there is no other to look for.
    bearer = found.get(b"authorization")
    if fields.text.count(TOKEN_PREFIX) != (bearer[0].count(TOKEN_PREFIX) if bearer else 0):
        for _, value in kept:
            if TOKEN_PREFIX in value:
                raise BadHeader("a client token stands in a header that would be forwarded")
    return kept, found


_HOST_NAME = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._"
_HOST_ADDRESS = b"0123456789ABCDEFabcdef:."
_LONGEST_HOST = 255
_LONGEST_PORT = 5


def host_of(found: Found) -> bytes:
    """Return the one Host (RFC 9112, section 3.2): a name or an address, with or without a port.

    Raises BadHost.
    """
    hosts = found.get(b"host", ())
    if len(hosts) != 1:
        raise BadHost(f"the request has {len(hosts)} Host headers")
    if not _is_host(hosts[0]):
        raise BadHost("the Host header is not a host and a port")
    return hosts[0]


@lru_cache(maxsize=256)
def _is_host(host: bytes) -> bool:
    if host[:1] == b"[":
        name, bracket, port = host[1:].partition(b"]")
        bad = not bracket or name.translate(None, _HOST_ADDRESS) or port[:1] not in {b"", b":"}
        port = port[1:]
    else:
        name, _, port = host.partition(b":")
        bad = bool(name.translate(None, _HOST_NAME))
    bad_port = port and (len(port) > _LONGEST_PORT or not port.isdigit())
    return not (bad or bad_port or not name or len(name) > _LONGEST_HOST)
