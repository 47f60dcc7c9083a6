"""Who is calling, by the host application's own session; and several authenticators together."""

from typing import Any

import pytest
from identity_calls import COLOURS, a_request, authenticate, bearer

from apitokenproxy._colour import ASYNC, SYNC, nonblocking
from apitokenproxy.errors import ConfigurationError, CrossSite, InternalFault, Unauthenticated
from apitokenproxy.identity.authority import TokenAuthority
from apitokenproxy.identity.client_tokens import ClientTokens
from apitokenproxy.identity.first_of import FirstOf
from apitokenproxy.identity.format import mint
from apitokenproxy.identity.host import HostIdentity
from apitokenproxy.identity.memory import MemoryStore
from apitokenproxy.identity.verified import Verified
from apitokenproxy.messages import Caller, Hidden, Presented, Request

ANN = Caller("acme", subject="ann")
SESSION = {"user": "ann"}


def plain(context: dict[str, Any]) -> Caller | None:
    return Caller("acme", subject=context["user"]) if "user" in context else None


@nonblocking
def quick(context: dict[str, Any]) -> Caller | None:
    return plain(context)


async def slow(context: dict[str, Any]) -> Caller | None:
    return plain(context)


@pytest.fixture(params=COLOURS)
def colour(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("identify", [plain, quick])
@pytest.mark.parametrize(("context", "expected"), [(SESSION, ANN), ({}, None)])
def test_the_host_says_who_is_calling(colour: str, identify: Any, context: Any, expected: Caller | None) -> None:
    """Its function gets the ASGI scope or the WSGI environ, whole."""
    assert authenticate(HostIdentity(identify), colour, None, a_request(context=context)) == expected


def test_an_async_function_works_under_asgi_and_is_refused_under_wsgi() -> None:
    """A function of the wrong colour is an error when built, never a truthy coroutine."""
    assert authenticate(HostIdentity(slow), "async", None, a_request(context=SESSION)) == ANN
    with pytest.raises(ConfigurationError, match="is async def"):
        HostIdentity(slow).bind(SYNC)


@pytest.mark.parametrize("nonsense", [True, "ann", {"tenant": "acme"}])
def test_only_a_caller_is_a_caller(colour: str, nonsense: Any) -> None:
    """Whatever else the function returns refuses the request."""
    with pytest.raises(InternalFault):
        authenticate(HostIdentity(lambda _context: nonsense), colour, None, a_request(context=SESSION))


@pytest.mark.parametrize(
    ("presented", "request_"),
    [
        (None, a_request(context=None)),
        (Presented("bearer", Hidden(b"x")), a_request(context=SESSION, token=Hidden(b"x"))),
        (Presented("token-header", Hidden(b"x")), a_request(context=SESSION)),
    ],
    ids=["no context", "a script's token", "the operator's token header"],
)
def test_a_credential_that_decides_alone_is_not_the_sessions(presented: Presented | None, request_: Request) -> None:
    """A session does not stand in for a token that was given apart, or sent in the dedicated header."""
    assert authenticate(HostIdentity(lambda _context: ANN), "sync", presented, request_) is None


OWN = (b"Sec-Fetch-Site", b"same-origin")
CROSS_SITE = [
    ("another site", [(b"Sec-Fetch-Site", b"cross-site")]),
    ("another subdomain", [(b"sec-fetch-site", b"same-site")]),
    ("an unknown word", [(b"SEC-FETCH-SITE", b"future-value")]),
    ("empty", [(b"Sec-Fetch-Site", b"")]),
    ("twice, one foreign", [OWN, (b"Sec-Fetch-Site", b"cross-site")]),
    ("foreign though Origin fits", [(b"Sec-Fetch-Site", b"cross-site"), (b"Origin", b"https://app.example")]),
    ("foreign Origin", [(b"Origin", b"https://evil.example")]),
    ("longer Origin", [(b"Origin", b"https://app.example.evil.example")]),
    ("other port", [(b"Origin", b"https://app.example:8443")]),
    ("the other scheme's port", [(b"Origin", b"https://app.example:80")]),
    ("opaque Origin", [(b"Origin", b"null")]),
    ("Origin without scheme", [(b"Origin", b"app.example")]),
    ("empty Origin", [(b"Origin", b"")]),
    ("two Origins", [(b"Origin", b"https://app.example"), (b"Origin", b"https://evil.example")]),
    ("two Hosts", [(b"Origin", b"https://app.example"), (b"Host", b"app.example")]),
]
SAME_SITE = [
    ("own page", [OWN]),
    ("typed by the user", [(b"Sec-Fetch-Site", b"none")]),
    ("own Origin", [(b"Origin", b"https://app.example")]),
    ("own Origin in capitals", [(b"ORIGIN", b"https://APP.example")]),
    ("own Origin with default port", [(b"Origin", b"http://app.example:80")]),
    ("no browser", []),
]


@pytest.mark.parametrize("headers", [row[1] for row in CROSS_SITE], ids=[row[0] for row in CROSS_SITE])
@pytest.mark.parametrize("method", [b"POST", b"PUT", b"PATCH", b"DELETE", b"PROPFIND", b"get"])
def test_another_site_cannot_use_a_session(method: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    """A browser sends the session by itself; what may change something must come from the host's own pages."""
    with pytest.raises(CrossSite) as error:
        authenticate(HostIdentity(plain), "sync", None, a_request(method, *headers, context=SESSION))
    assert error.value.status == 403


@pytest.mark.parametrize("origin", [b"null", b"", b"https://", b"https://:443"])
@pytest.mark.parametrize("hosts", [[], [(b"Host", b"")]])
def test_nobodys_origin_is_not_an_empty_host(origin: bytes, hosts: list[tuple[bytes, bytes]]) -> None:
    """Two things that are missing do not make a match."""
    request = Request(b"POST", b"/", [*hosts, (b"Origin", origin)], context=SESSION)
    with pytest.raises(CrossSite):
        authenticate(HostIdentity(plain), "sync", None, request)


@pytest.mark.parametrize("headers", [row[1] for row in SAME_SITE], ids=[row[0] for row in SAME_SITE])
@pytest.mark.parametrize("method", [b"POST", b"DELETE"])
def test_the_hosts_own_pages_can(colour: str, method: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    """Browsers send Sec-Fetch-Site, older ones Origin, and other clients neither."""
    assert authenticate(HostIdentity(plain), colour, None, a_request(method, *headers, context=SESSION)) == ANN


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS"])
def test_reading_is_not_refused(method: bytes) -> None:
    """Another site cannot read the answer, and a link from elsewhere must work."""
    request = a_request(method, (b"Sec-Fetch-Site", b"cross-site"), context=SESSION)
    assert authenticate(HostIdentity(plain), "sync", None, request) == ANN


def test_without_a_session_another_site_is_just_nobody() -> None:
    """There is nothing to protect, so the answer is that of any stranger."""
    request = a_request(b"POST", (b"Sec-Fetch-Site", b"cross-site"), context={})
    assert authenticate(HostIdentity(plain), "sync", None, request) is None


# --- several --------------------------------------------------------------------------------


class Fixed:
    """An authenticator of a user: no bind, plain def."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked = 0

    def authenticate(self, _presented: Presented | None, _request: Request) -> Any:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


BOB = Caller("acme", subject="bob")


@pytest.mark.parametrize(
    ("answers", "expected", "asked"),
    [
        ([ANN, BOB], ANN, [1, 0]),
        ([None, BOB], BOB, [1, 1]),
        ([None, None], None, [1, 1]),
        ([None], None, [1]),
        ([BOB], BOB, [1]),
        ([None, None, ANN, BOB], ANN, [1, 1, 1, 0]),
    ],
)
def test_the_first_that_knows_decides(colour: str, answers: list[Any], expected: Any, asked: list[int]) -> None:
    """Nobody after it is asked."""
    parts = [Fixed(answer) for answer in answers]
    assert authenticate(FirstOf(parts), colour, None) == expected
    assert [part.asked for part in parts] == asked


def test_the_first_that_refuses_decides(colour: str) -> None:
    """A bad client token is not saved by a good session."""
    parts = [Fixed(Unauthenticated("bad")), Fixed(ANN)]
    with pytest.raises(Unauthenticated):
        authenticate(FirstOf(parts), colour, None)
    assert parts[1].asked == 0


@pytest.mark.parametrize("answer", [True, "ann", object()])
def test_what_is_neither_caller_nor_none_lets_nobody_in(colour: str, answer: Any) -> None:
    """An authenticator of a user is checked like every part."""
    with pytest.raises(InternalFault):
        authenticate(FirstOf([Fixed(answer), Fixed(ANN)]), colour, None)


def test_one_alone_is_used_as_it_is() -> None:
    """There is no layer around a single authenticator."""
    part = ClientTokens(MemoryStore(), Verified(bound=1.0))
    assert type(FirstOf([part]).bind(ASYNC)) is type(part.bind(ASYNC))


def test_none_at_all_is_a_mistake() -> None:
    """Without an authenticator nobody could call."""
    with pytest.raises(ConfigurationError, match="no authenticator"):
        FirstOf([])


def test_client_token_and_session_go_together(colour: str) -> None:
    """The token decides where there is one, the session where there is none."""
    store, verified = MemoryStore(), Verified(bound=1.0)
    issued = TokenAuthority(store, verified).issue(tenant="tokens")
    both = FirstOf([ClientTokens(store, verified), HostIdentity(plain)])
    session = a_request(context=SESSION)
    assert authenticate(both, colour, bearer(issued.token), session).tenant == "tokens"
    assert authenticate(both, colour, None, session) == ANN
    assert authenticate(both, colour, None, a_request(context={})) is None
    with pytest.raises(Unauthenticated):
        authenticate(both, colour, bearer(mint()[1]), session)


def test_a_token_is_not_bound_by_the_session_rule(colour: str) -> None:
    """No browser sends a client token by itself, so a page of another site may use one that it was given."""
    store, verified = MemoryStore(), Verified(bound=1.0)
    issued = TokenAuthority(store, verified).issue(tenant="tokens")
    both = FirstOf([ClientTokens(store, verified), HostIdentity(plain)])
    request = a_request(b"POST", (b"Sec-Fetch-Site", b"cross-site"), context=SESSION)
    assert authenticate(both, colour, bearer(issued.token), request).tenant == "tokens"
