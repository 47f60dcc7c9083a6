"""What may go back: the headers of an upstream's answer, cleaned for the host application's origin.

Rules:
1. What acts on the origin at which the proxy stands (cookies, CORS, HSTS, service workers, reporting,
   alternative services) is not the upstream's to set; dropped.
2. What tells about the upstream's machinery, or instructs a server in front of us, is dropped.
3. A header in which the credential appears, in any of its traces, is dropped, whatever it is.
4. A redirect leads back through the proxy or nowhere, for a client that follows it takes its token there.
5. What is malformed is the upstream's failure and is not passed on in part.
"""

import re
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from apitokenproxy.errors import ForeignRedirect, UpstreamAuthFailed, UpstreamFailure
from apitokenproxy.guard.fields import PERCENT, Found, Sorter, nominated
from apitokenproxy.guard.links import lead_back
from apitokenproxy.messages import Credential, Headers, Operation, Reply
from apitokenproxy.upstream import Upstream
from apitokenproxy.wire import HOP_BY_HOP

_READ = frozenset(
    {
        b"cache-control",
        b"connection",
        b"content-length",
        b"content-location",
        b"link",
        b"location",
        b"transfer-encoding",
        b"x-request-id",
    }
)

_DROPPED = HOP_BY_HOP | {
    b"accept-ch",
    b"alt-svc",
    b"alt-used",
    b"cdn-cache-control",
    b"clear-site-data",
    b"cloudflare-cdn-cache-control",
    b"content-security-policy",
    b"content-security-policy-report-only",
    b"critical-ch",
    b"date",
    b"expect-ct",
    b"feature-policy",
    b"nel",
    b"origin-agent-cluster",
    b"origin-trial",
    b"p3p",
    b"permissions-policy",
    b"public-key-pins",
    b"public-key-pins-report-only",
    b"ratelimit",
    b"ratelimit-policy",
    b"refresh",
    b"report-to",
    b"reporting-endpoints",
    b"server",
    b"server-timing",
    b"service-worker-allowed",
    b"set-cookie",
    b"set-cookie2",
    b"set-login",
    b"sourcemap",
    b"speculation-rules",
    b"strict-transport-security",
    b"surrogate-control",
    b"surrogate-key",
    b"timing-allow-origin",
    b"via",
    b"www-authenticate",
    b"x-aspnet-version",
    b"x-aspnetmvc-version",
    b"x-content-type-options",
    b"x-generator",
    b"x-lighttpd-send-file",
    b"x-litespeed-location",
    b"x-powered-by",
    b"x-proxy-error",
    b"x-reproxy-url",
    b"x-runtime",
    b"x-sendfile",
    b"x-served-by",
    b"x-sourcemap",
}

_DROPPED_PREFIXES = (
    b"access-control-",
    b"cross-origin-",
    b"proxy-",
    b"sec-",
    b"x-accel-",
    b"x-backend",
    b"x-sendfile-",
    b"x-webkit-csp",
)

_SORTER = Sorter(_READ, _DROPPED, _DROPPED_PREFIXES, aliases=True, refusal=UpstreamFailure)

_NO_CONTENT = 204
_REFUSED = (401, 407)

_OURS = ((b"x-content-type-options", b"nosniff"), (b"content-security-policy", b"sandbox"))
_NOT_KEPT = (b"cache-control", b"private, no-store")


def clean_reply(reply: Reply, operation: Operation, upstream: Upstream, credential: Credential) -> Headers:
    """Return the headers under which the upstream's answer may go to the client.

    Raises UpstreamAuthFailed, ForeignRedirect, or UpstreamFailure for a malformed answer.
    """
    status = reply.status
    if not 200 <= status <= 599:  # noqa: PLR2004 - what servers can pass on
        raise UpstreamFailure(f"the upstream's status is {status}")
    if status in _REFUSED:
        raise UpstreamAuthFailed(f"the upstream answered {status}")
    fields = _SORTER.sort(reply.headers)
    if _shows(fields.text, credential.traces):
        clean = [header for header in reply.headers if not _shows(b" ".join(header), credential.traces)]
        fields = _SORTER.sort(clean)
    kept, found = fields.kept, fields.found
    for name in nominated(found):
        found.pop(name, None)
    if b"content-length" in found:
        _pass_length(kept, found, status)
    if b"x-request-id" in found:
        kept += [(b"x-upstream-request-id", value) for value in found[b"x-request-id"]]
    if b"location" in found or b"link" in found or b"content-location" in found:
        _pass_links(kept, found, status, operation, upstream)
    kept.append(
        (b"cache-control", _private(b",".join(found[b"cache-control"]))) if b"cache-control" in found else _NOT_KEPT
    )
    kept += _OURS
    return kept


def _pass_length(kept: Headers, found: Found, status: int) -> None:
    """Keep the length when there is exactly one (RFC 9112, section 6.3) and the answer may state it."""
    values = found[b"content-length"]
    if b"transfer-encoding" in found:
        raise UpstreamFailure("the upstream's answer has both Content-Length and Transfer-Encoding")
    if not values[0].isdigit() or (len(values) > 1 and len(set(values)) > 1):
        raise UpstreamFailure("the upstream's Content-Length is malformed, or there are two")
    if status != _NO_CONTENT:
        kept.append((b"content-length", values[0]))


_IN_LINK = re.compile(rb"<([^<>]*)>")


def _pass_links(kept: Headers, found: Found, status: int, operation: Operation, upstream: Upstream) -> None:
    for value in found.get(b"location", ()):
        back = lead_back(value, operation, upstream)
        if back is None and status // 100 == 3 and not upstream.allow_foreign_redirects:  # noqa: PLR2004 - the redirects
            raise ForeignRedirect("Location leads out of the upstream")
        kept.append((b"location", value if back is None else back))
    for value in found.get(b"content-location", ()):
        back = lead_back(value, operation, upstream)
        kept.append((b"content-location", value if back is None else back))
    for value in found.get(b"link", ()):
        kept.append(
            (
                b"link",
                _IN_LINK.sub(lambda link: b"<" + (lead_back(link[1], operation, upstream) or link[1]) + b">", value),
            )
        )


# --- caching --------------------------------------------------------------------------------

_DIRECTIVE = re.compile(rb'(?:[^,"]|"(?:[^"\\]|\\.)*+"?)+')
_ENOUGH = frozenset({b"private", b"no-store"})
_SHARED = (b"public", b"s-maxage")


@lru_cache(maxsize=64)
def _private(joined: bytes) -> bytes:
    """Return the directives without those that let a shared cache keep the answer, and `private`.

    `private="field"` does not count: it lets the rest of the answer be kept (RFC 9111, section 5.2.2.7).
    """
    directives, enough = [], False
    for item in _DIRECTIVE.findall(joined) if b'"' in joined else joined.split(b","):
        directive = item.strip(b" \t")
        lower = directive.lower()
        if lower in _ENOUGH:
            enough = True
        elif not lower or lower.startswith(_SHARED):
            continue
        directives.append(directive)
    if not enough:
        directives.append(b"private")
    return b", ".join(directives)


# --- the credential in the answer -----------------------------------------------------------


def _shows(text: bytes, traces: tuple[bytes, ...]) -> bool:
    for trace in traces:
        if text.find(trace) != -1:  # `in` tries bytes as a number first, at five times the cost
            return True
    if PERCENT in text:
        decoded = unquote_to_bytes(text)
        return any(trace in decoded for trace in traces)
    return False
