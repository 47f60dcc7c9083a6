"""Where a credential may stand in a request, and what is made of it."""

import base64

import pytest
from guard_calls import BEARER, TOKEN, a_request, inspect

from apitokenproxy.errors import ProxyError
from apitokenproxy.messages import Headers, Hidden


def basic(user: bytes, password: bytes = b"") -> bytes:
    return b"Basic " + base64.b64encode(user + b":" + password)


SIGNED = b"SignedHeaders=host;x-amz-date, Signature=00ff"
SIGV4 = b"AWS4-HMAC-SHA256 Credential=" + TOKEN + b"/20261124/eu-west-1/s3/aws4_request, " + SIGNED
JWT = b"eyJhbGciOiJFUzI1NiJ9.e30.c2ln"


@pytest.mark.parametrize(
    ("name", "value", "place", "credential"),
    [
        (b"Authorization", b"Bearer " + TOKEN, "bearer", TOKEN),
        (b"authorization", b"bearer " + TOKEN, "bearer", TOKEN),
        (b"AUTHORIZATION", b"BEARER   " + TOKEN + b" ", "bearer", TOKEN),
        (b"Authorization", b"Bearer " + JWT, "bearer", JWT),
        (b"Authorization", b"token " + TOKEN, "token", TOKEN),
        (b"Authorization", b"Token " + TOKEN, "token", TOKEN),
        (b"Authorization", basic(TOKEN), "basic", TOKEN),
        (b"Authorization", basic(TOKEN, b"x-oauth-basic"), "basic", TOKEN),
        (b"Authorization", basic(b"x-access-token", TOKEN), "basic", TOKEN),
        (b"Authorization", basic(b"user", b"pass:word"), "basic", b"user:pass:word"),
        (b"Authorization", b"bAsIc " + base64.b64encode(b"nocolon"), "basic", b"nocolon"),
        (b"Authorization", SIGV4, "sigv4", TOKEN),
        (b"Authorization", SIGV4.replace(b", ", b","), "sigv4", TOKEN),
        (b"Authorization", b"Negotiate abc=", "authorization", b"Negotiate abc="),
        (b"Authorization", TOKEN, "authorization", TOKEN),
        (b"Authorization", b'Digest username="a", realm="b"', "authorization", b'Digest username="a", realm="b"'),
        (b"X-Api-Key", TOKEN, "x-api-key", TOKEN),
        (b"api-key", TOKEN, "api-key", TOKEN),
        (b"X-Goog-Api-Key", TOKEN, "x-goog-api-key", TOKEN),
        (b"PRIVATE-TOKEN", TOKEN, "private-token", TOKEN),
    ],
)
def test_a_credential_is_taken_from_where_api_clients_put_it(
    name: bytes, value: bytes, place: str, credential: bytes
) -> None:
    """Every place of the contract is read, and scheme names have no case (RFC 9110, section 11.1)."""
    presented = inspect(a_request(b"/api/x", [(name, value)])).presented
    assert (place, credential) == (presented.place, bytes(presented.value))
    assert credential.decode() not in repr(presented)


def test_no_credential_presents_nothing() -> None:
    """Whether that is refused is for authentication to say: the host application may know the caller."""
    assert inspect(a_request(b"/api/x")).presented is None


KEY = (b"X-Api-Key", TOKEN)


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([BEARER, BEARER], id="D2-twice"),
        pytest.param([(b"Authorization", b"Bearer a,Bearer b")], id="D2-joined"),
        [BEARER, KEY],
        [KEY, BEARER],
        [KEY, KEY],
        [KEY, (b"Private-Token", b"x")],
        [(b"X-Api-Key", b"a,b")],
        [BEARER, (b"Authorization", b"")],
        [(b"Authorization", b"Bearer a, Basic b")],
        [(b"Authorization", b"Negotiate a,Bearer " + TOKEN)],
        [(b"Authorization", b"Negotiate a, Basic dTpw")],
        [(b"Authorization", b"Basic dTpw,Basic dTpw")],
        [(b"Authorization", basic(TOKEN, TOKEN))],
        [(b"Authorization", SIGV4 + b",Bearer " + TOKEN)],
        [(b"Authorization", SIGV4 + b", Credential=other/x")],
        [(b"Authorization", SIGV4 + b"," + SIGV4)],
    ],
)
def test_two_credentials_are_refused(headers: Headers) -> None:
    """D2: choosing between two credentials would be guessing; servers join or pass on repeated headers."""
    with pytest.raises(ProxyError) as refusal:
        inspect(a_request(b"/api/x", headers))
    assert refusal.value.code == "multiple_credentials"


@pytest.mark.parametrize(
    "header",
    [
        (b"Authorization", b""),
        (b"Authorization", b" "),
        (b"Authorization", b"Bearer"),
        (b"Authorization", b"Bearer "),
        (b"Authorization", b"token \t"),
        (b"Authorization", b"Basic"),
        (b"Authorization", b"Basic !!!"),
        (b"Authorization", b"Basic ===="),
        (b"Authorization", b"Basic a"),
        (b"Authorization", b"Bearer a b"),
        (b"Authorization", b"Bearer a\tb"),
        (b"Authorization", b"AWS4-HMAC-SHA256 " + SIGNED),
        (b"Authorization", b"AWS4-HMAC-SHA256 Credential=/20261124, " + SIGNED),
        (b"X-Api-Key", b""),
        (b"Private-Token", b"  "),
    ],
)
def test_an_empty_or_malformed_credential_is_refused(header: tuple[bytes, bytes]) -> None:
    """An empty credential is a client's mistake and never the same as none."""
    with pytest.raises(ProxyError) as refusal:
        inspect(a_request(b"/api/x", [header]))
    assert refusal.value.code == "bad_header"


# --- the operator's own header --------------------------------------------------------------


def test_the_token_header_alone_decides() -> None:
    """Where it is there, an SDK's placeholder keys are dropped unread, however malformed they are."""
    placeholders = [(b"Authorization", b"Bearer a,b"), (b"Authorization", b""), KEY, KEY]
    operation = inspect(a_request(b"/api/x", [*placeholders, (b"X-Proxy-Token", TOKEN)]), token_header=b"x-proxy-token")
    assert (
        operation.presented.place,
        bytes(operation.presented.value),
        operation.headers,
    ) == ("token-header", TOKEN, [])


def test_without_the_token_header_the_usual_places_count() -> None:
    operation = inspect(a_request(b"/api/x", [BEARER]), token_header=b"x-proxy-token")
    assert operation.presented.place == "bearer"


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ([b"a", b"b"], "multiple_credentials"),
        ([b"a,b"], "multiple_credentials"),
        ([b""], "bad_header"),
        ([b"a b"], "bad_header"),
    ],
)
def test_the_token_header_holds_one_token(values: list[bytes], code: str) -> None:
    with pytest.raises(ProxyError) as refusal:
        inspect(a_request(b"/api/x", [(b"X-Proxy-Token", value) for value in values]), token_header=b"x-proxy-token")
    assert code == refusal.value.code


@pytest.mark.parametrize("name", [b"x-api-key", b"user-agent", b"referer", b"x-forwarded-token"])
def test_any_other_header_can_be_the_token_header(name: bytes) -> None:
    """A header that would be forwarded or dropped is read instead, when the operator says so."""
    operation = inspect(a_request(b"/api/x", [(name.title(), TOKEN)]), token_header=name)
    assert (
        operation.presented.place,
        bytes(operation.presented.value),
        operation.headers,
    ) == ("token-header", TOKEN, [])


def test_without_configuration_the_header_is_a_strangers() -> None:
    """A header that the operator did not name is not read, and a token in it is misplaced."""
    with pytest.raises(ProxyError) as refusal:
        inspect(a_request(b"/api/x", [(b"X-Proxy-Token", TOKEN)]))
    assert refusal.value.code == "bad_header"


def test_a_token_given_apart_alone_decides() -> None:
    """A script's transport knows its token; whatever the SDK put into headers is dropped unread."""
    headers = [(b"Authorization", b"Bearer sk-placeholder"), KEY, (b"X-Proxy-Token", b"other")]
    operation = inspect(a_request(b"/api/x", headers, token=Hidden(TOKEN)), token_header=b"x-proxy-token")
    assert (
        operation.presented.place,
        bytes(operation.presented.value),
        operation.headers,
    ) == ("token-header", TOKEN, [])
