"""Credentials that are put on last: fields in the body, and signatures over what is sent."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from attrs import frozen
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from credential_calls import COLOURS
from hypothesis import given
from hypothesis import strategies as st

from apitokenproxy import BodyField, ConfigurationError, Cookie, Header, HmacSignature, Proxy, Rule, Upstream
from apitokenproxy.credentials.sigv4 import SigV4
from apitokenproxy.testing import FixedSecrets, MemoryAudit

KEY = "fixed:key"
MATERIAL = "s3cret-0f7a9c2e51d8"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json"}


@frozen
class Exchange:
    """How one call went: the answer, the request as the upstream saw it, and the audit record."""

    answer: httpx.Response
    sent: httpx.Request | None
    body: bytes
    record: Any

    @property
    def code(self) -> str | None:
        return self.answer.headers.get("x-proxy-error")


@pytest.fixture(params=COLOURS)
def colour(request: pytest.FixtureRequest) -> str:
    return request.param


def post(colour: str, kinds: Any, content: bytes = b"", target: str = "/x?b=2&a=1", **more: Any) -> Exchange:
    """Post once, in chunks, through a proxy whose upstream takes these credentials."""
    seen: list[tuple[httpx.Request, bytes]] = []
    reflected: bytes = more.pop("reflected", b"")

    def upstream(request: httpx.Request) -> httpx.Response:
        seen.append((request, request.read()))
        return httpx.Response(200, headers={"X-Echo": reflected} if reflected else {})

    async def aupstream(request: httpx.Request) -> httpx.Response:
        seen.append((request, await request.aread()))
        return httpx.Response(200, headers={"X-Echo": reflected} if reflected else {})

    transport = httpx.MockTransport(upstream if colour == "sync" else aupstream)
    audit = MemoryAudit()
    secrets = {"key": MATERIAL, "id": "AKIDEXAMPLE"} | more.pop("secrets", {})
    proxy = Proxy(
        upstreams=[Upstream("api", "https://api.example.com/v1", credential=kinds, transport=transport)],
        rules=[Rule("all", effect="allow")],
        audit=audit,
        secret_providers={"fixed": FixedSecrets(**secrets)},
    )
    token = proxy.tokens.issue(tenant="acme").token
    url, halves = f"http://proxy/api{target}", [content[:7], content[7:]]
    if colour == "sync":
        with httpx.Client(transport=proxy.transport(token)) as client:
            answer = client.post(url, content=_chunks(halves), **more)
    else:

        async def send() -> httpx.Response:
            async with httpx.AsyncClient(transport=proxy.async_transport(token)) as client:
                return await client.post(url, content=_achunks(halves), **more)

        answer = asyncio.run(send())
    proxy.close()
    [record] = audit.records
    request, body = seen[0] if seen else (None, b"")
    return Exchange(answer, request, body, record)


def _chunks(parts: list[bytes]) -> Iterator[bytes]:
    yield from filter(None, parts)


async def _achunks(parts: list[bytes]) -> AsyncIterator[bytes]:
    for part in filter(None, parts):
        yield part


# --- cookies ------------------------------------------------------------------------------------


def test_a_cookie_takes_the_place_of_the_clients_own(colour: str) -> None:
    """Those belong to the host application's origin."""
    done = post(colour, Cookie("session", KEY), headers={"Cookie": "mine=1"})
    assert done.sent is not None
    assert done.sent.headers.get_list("cookie") == [f"session={MATERIAL}"]


@pytest.mark.parametrize("material", ["a;b=c", "a,b", "a b", 'a"b', "a\\b", "\u00fc"])
def test_a_secret_that_would_be_more_than_one_cookie_is_refused(colour: str, material: str) -> None:
    """It is not sent in part."""
    done = post(colour, Cookie("session", KEY), secrets={"key": material})
    assert (done.code, done.sent) == ("secret_unavailable", None)


# --- fields in the body -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "headers", "sent"),
    [
        (b'{"a": 1.50,  "b": [1e400]}', JSON, b'{"api_key":"%b","a": 1.50,  "b": [1e400]}'),
        (b" {} ", JSON, b'{"api_key":"%b"} '),
        (b'{"\xc3\xbc":"\\u00fc"}', {"Content-Type": "Application/JSON;x=y"}, b'{"api_key":"%b","\xc3\xbc":"\\u00fc"}'),
        (b"a=1&b=%20+", FORM, b"a=1&b=%20+&api_key=%b"),
        (b"", FORM, b"api_key=%b"),
    ],
)  # fmt: skip
def test_a_field_is_put_into_the_body(colour: str, content: bytes, headers: Any, sent: bytes) -> None:
    """All else of the body stays as it stands, and its length is stated anew."""
    done = post(colour, BodyField("api_key", KEY), content, headers=headers)
    assert done.sent is not None
    assert done.body == sent.replace(b"%b", MATERIAL.encode(), 1)
    assert done.sent.headers["content-length"] == str(len(done.body))
    assert "transfer-encoding" not in done.sent.headers


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b'{"api_key": "mine"}', JSON),
        (b'{"a": 1, "a": 2}', JSON),
        (b"[]", JSON),
        (b"", JSON),
        (b"nonsense", JSON),
        (b'{"a": 1}{}', JSON),
        (b"\xef\xbb\xbf{}", JSON),
        ("{}".encode("utf-16"), JSON),
        (b'{"a": "\xff"}', JSON),
        (b"[" * 5000, JSON),
        (b"api_key=mine", FORM),
        (b"a=1&api%5Fkey=mine", FORM),
        (b"API_KEY=mine", FORM),
        (b"api_key[]=mine", FORM),
        (b"api.key=mine", FORM),
        (b"+api_key=mine", FORM),
        (b"api_key%00=mine", FORM),
        (b"a=1;api_key=mine", FORM),
        (b'{"API_KEY": "mine"}', JSON),
        (b'{"api_key\\u0000": "mine"}', JSON),
        (b"{}", {"Content-Type": "application/json; charset=utf-7"}),
        (b"nonsense", FORM),
        (b"a=%ff", FORM),
        (b"{}", {"Content-Type": "text/plain"}),
        (b"{}", {}),
    ],
)
def test_a_body_without_a_place_for_it_is_refused(colour: str, content: bytes, headers: Any) -> None:
    """400, and nothing goes upstream."""
    done = post(colour, BodyField("api_key", KEY), content, headers=headers)
    assert (done.code, done.answer.status_code, done.sent) == ("bad_body", 400, None)


def test_a_body_that_must_be_known_whole_is_bounded(colour: str) -> None:
    """413 for one that is larger than was said."""
    kind = BodyField("api_key", KEY, max_body=20)
    assert post(colour, kind, b'{"a": "0123456789"}', headers=JSON).code is None
    done = post(colour, kind, b'{"a": "0123456789abc"}', headers=JSON)
    assert (done.code, done.answer.status_code, done.sent) == ("body_too_large", 413, None)


def test_a_secret_in_the_body_does_not_come_back_in_a_header(colour: str) -> None:
    """It is looked for as any other."""
    done = post(colour, BodyField("api_key", KEY), b"{}", headers=JSON, reflected=f"key {MATERIAL}".encode())
    assert (done.answer.status_code, "x-echo" in done.answer.headers) == (200, False)


@given(st.dictionaries(st.text(max_size=5), st.one_of(st.integers(), st.text(), st.none(), st.lists(st.floats()))))
def test_any_json_object_keeps_what_it_says(said: dict[str, Any]) -> None:
    """Whatever stands in it."""
    kind = BodyField("api_key", KEY)
    said.pop("api_key", None)
    text = json.dumps(said, allow_nan=True).encode()
    assert json.dumps(json.loads(kind._in_json(text, b"x"))) == json.dumps({"api_key": "x"} | said)


# --- signatures with a shared secret -------------------------------------------------------------


def test_a_signature_covers_what_is_sent(colour: str) -> None:
    """Method, target, time and body, as the upstream sees them: the field that was put into it included."""
    signature = HmacSignature(
        "X-Signature",
        KEY,
        message="{method}\n{target}\n{host}\n{timestamp}\n{body}",
        template="t={timestamp},v1={signature}",
        timestamp_header="X-Timestamp",
        clock=lambda: 1_790_000_000.9,
    )
    done = post(colour, [signature, BodyField("api_key", KEY)], b'{"a":1}', headers=JSON | {"X-Signature": "mine"})
    assert done.sent is not None
    said = b"POST\n/v1/x?b=2&a=1\napi.example.com\n1790000000\n" + done.body
    expected = hmac.new(MATERIAL.encode(), said, "sha256").hexdigest()
    assert done.body == b'{"api_key":"%b","a":1}' % MATERIAL.encode()
    assert done.sent.headers.get_list("x-signature") == [f"t=1790000000,v1={expected}"]
    assert done.sent.headers["x-timestamp"] == "1790000000"


JEFE = {"message": "what do ya want for nothing?"}
JEFE_256 = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
JEFE_512 = (
    "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554"
    "9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737"
)


@pytest.mark.parametrize(
    ("terms", "secret", "name", "expected"),
    [
        # GitHub, "Validating webhook deliveries"
        (
            {"template": "sha256={signature}"},
            "It's a Secret to Everybody",
            "X-Hub-Signature-256",
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
        ),
        # RFC 4231, test case 2, as other encodings and algorithms have it
        (JEFE | {"encoding": "base64"}, "Jefe", "X-Sig", base64.b64encode(bytes.fromhex(JEFE_256)).decode()),
        (JEFE | {"algorithm": "sha512", "secret_encoding": "hex"}, "4a656665", "X-Sig", JEFE_512),
        (JEFE | {"secret_encoding": "base64"}, "SmVmZQ==", "X-Sig", JEFE_256),
    ],
)  # fmt: skip
def test_known_signatures(colour: str, terms: Any, secret: str, name: str, expected: str) -> None:
    """Of GitHub's documentation, and of RFC 4231."""
    done = post(colour, HmacSignature(name, KEY, **terms), b"Hello, World!", secrets={"key": secret})
    assert done.sent is not None
    assert done.sent.headers[name] == expected


def test_a_signature_without_the_body_lets_it_stream(colour: str) -> None:
    """Then nothing is held in memory, and there is no bound."""
    kind = HmacSignature("X-Sig", KEY, message="{timestamp}{method}{path}{query}", max_body=1, unit="milliseconds")
    done = post(colour, kind, b"x" * 100)
    assert done.sent is not None
    assert (done.body, "content-length" in done.sent.headers) == (b"x" * 100, False)


@pytest.mark.parametrize("encoding", ["base64", "hex"])
def test_a_secret_that_is_not_encoded_as_said_is_refused(colour: str, encoding: Any) -> None:
    """Nothing is signed with something else."""
    done = post(colour, HmacSignature("X-Sig", KEY, secret_encoding=encoding), secrets={"key": "not!encoded"})
    assert (done.code, done.sent) == ("secret_unavailable", None)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: HmacSignature("X-Sig", KEY, message="{secret}"), "may hold"),
        (lambda: HmacSignature("X-Sig", KEY, message="{body"), "may hold"),
        (lambda: HmacSignature("X-Sig", KEY, message="{body!r}"), "may hold"),
        (lambda: HmacSignature("X-Sig", KEY, message="{body:x}"), "may hold"),
        (lambda: HmacSignature("X-Sig", KEY, template="none"), "must hold {signature}"),
        (lambda: HmacSignature("X-Sig", KEY, template="{signature}\n"), "plain ASCII"),
        (lambda: HmacSignature("X-Sig", KEY, algorithm="md5"), "none of sha256"),
        (lambda: HmacSignature("X-Sig", KEY, max_body=0), "at least 1"),
        (lambda: HmacSignature("Host", KEY), "cannot carry a credential"),
        (lambda: BodyField("", KEY), "needs a name"),
        (lambda: BodyField("a", KEY, max_body=0), "at least 1"),
        (lambda: Cookie("a b", KEY), "a name has"),
        (lambda: SigV4("s3 ", "eu", access_key=KEY, secret=KEY), "is not like"),
        (lambda: SigV4("s3", "", access_key=KEY, secret=KEY), "is not like"),
        (lambda: Upstream("a", "https://a.io", credential=[Cookie("a", KEY), Cookie("b", KEY)]), "claim the header"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_when_it_is_built(make: Any, sentence: str) -> None:
    """In one sentence."""
    with pytest.raises(ConfigurationError, match=sentence):
        make()


# --- AWS ----------------------------------------------------------------------------------------

AWS = {"secrets": {"key": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "id": "AKIDEXAMPLE"}}
STS = SigV4("sts", "us-east-1", access_key="fixed:id", secret=KEY, clock=lambda: 1_440_938_160.0)
S3 = SigV4("s3", "us-east-1", access_key="fixed:id", secret=KEY, clock=lambda: 1_440_938_160.0)


def test_a_request_is_signed_anew_over_its_body(colour: str) -> None:
    """The client's own signature and date are gone; what is sent is botocore's signature, byte for byte."""
    body = b"Action=ListUsers&Version=2010-05-08"
    done = post(colour, STS, body, headers=FORM | {"X-Amz-Date": "20110909T233600Z", "X-Other": "1"}, **AWS)
    assert done.sent is not None
    request = AWSRequest("POST", "https://api.example.com/v1/x?b=2&a=1", headers=FORM, data=body)
    request.headers["X-Amz-Date"] = request.context["timestamp"] = "20150830T123600Z"
    request.headers["X-Amz-Content-SHA256"] = hashlib.sha256(body).hexdigest()
    auth = SigV4Auth(ReadOnlyCredentials("AKIDEXAMPLE", AWS["secrets"]["key"], None), "sts", "us-east-1")
    signature = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
    assert done.sent.headers.get_list("x-amz-date") == ["20150830T123600Z"]
    assert done.sent.headers["authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/sts/aws4_request, "
        f"SignedHeaders=content-type;host;x-amz-content-sha256;x-amz-date, Signature={signature}"
    )
    assert done.body == body


def test_a_session_token_is_sent_and_signed(colour: str) -> None:
    """Temporary keys come with one."""
    kind = SigV4("sts", "us-east-1", access_key="fixed:id", secret=KEY, session_token="fixed:session")
    done = post(colour, kind, headers={"X-Amz-Security-Token": "mine"}, secrets={"session": "the-session"})
    assert done.sent is not None
    assert done.sent.headers.get_list("x-amz-security-token") == ["the-session"]
    assert ";x-amz-security-token," in done.sent.headers["authorization"]


def test_a_hash_that_the_client_states_is_taken_and_the_body_streams(colour: str) -> None:
    """S3 holds the body to it; without one it is left unsigned, as S3 permits over TLS."""
    stated = hashlib.sha256(b"x" * 100).hexdigest()
    done = post(colour, S3, b"x" * 100, headers={"X-Amz-Content-SHA256": stated}, **AWS)
    without = post(colour, S3, b"x" * 100, **AWS)
    assert done.sent is not None
    assert without.sent is not None
    assert done.sent.headers.get_list("x-amz-content-sha256") == [stated]
    assert without.sent.headers.get_list("x-amz-content-sha256") == ["UNSIGNED-PAYLOAD"]
    assert "content-length" not in done.sent.headers


def test_chunks_that_the_client_signed_are_refused(colour: str) -> None:
    """Its key means nothing to AWS."""
    headers = {"X-Amz-Content-SHA256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"}
    done = post(colour, S3, b"x", headers=headers, **AWS)
    assert (done.code, done.sent) == ("bad_body", None)


POWERS = [
    "X-Amz-Copy-Source",
    "x-amz-copy-source-range",
    "x-amz-acl",
    "x-amz-grant-read",
    "x-amz-website-redirect-location",
]


@pytest.mark.parametrize("name", POWERS)
def test_a_header_that_does_more_than_the_path_says_is_refused(colour: str, name: str) -> None:
    """Rules saw the path alone; the operator may allow it by name."""
    done = post(colour, S3, headers={name: "/other/secret"}, **AWS)
    assert (done.code, done.answer.status_code, done.sent) == ("denied", 403, None)
    allowing = SigV4("s3", "us-east-1", access_key="fixed:id", secret=KEY, allow_headers=[name])
    allowed = post(colour, allowing, headers={name: "/other/secret"}, **AWS)
    assert allowed.sent is not None
    assert f"{name.lower()}" in allowed.sent.headers["authorization"]


def test_what_a_request_does_can_be_listed(colour: str) -> None:
    """Where the path says nothing: DynamoDB and others name it in a header."""
    kind = SigV4("dynamodb", "us-east-1", access_key="fixed:id", secret=KEY, targets=["DynamoDB_20120810.GetItem"])
    listed = post(colour, kind, headers={"X-Amz-Target": "DynamoDB_20120810.GetItem"}, **AWS)
    other = post(colour, kind, headers={"X-Amz-Target": "DynamoDB_20120810.DeleteTable"}, **AWS)
    assert (listed.answer.status_code, other.code) == (200, "denied")


def test_a_session_token_does_not_come_back_in_a_header(colour: str) -> None:
    """It is looked for as any other secret that is shown to the upstream."""
    kind = SigV4("sts", "us-east-1", access_key="fixed:id", secret=KEY, session_token="fixed:session")
    done = post(colour, kind, secrets={"session": "the-session-0f7a9c"}, reflected=b"x the-session-0f7a9c")
    assert (done.answer.status_code, "x-echo" in done.answer.headers) == (200, False)


def test_several_credentials_and_a_signature_go_together(colour: str) -> None:
    """A header that was put on is there when the signature is made."""
    kinds = [HmacSignature("X-Sig", KEY, message="{body}"), Header("X-Api-Key", KEY), BodyField("k", KEY)]
    done = post(colour, kinds, b"a=1", headers=FORM)
    assert done.sent is not None
    assert done.sent.headers["x-api-key"] == MATERIAL
    assert done.sent.headers["x-sig"] == hmac.new(MATERIAL.encode(), done.body, "sha256").hexdigest()
    assert done.record.credential.count(",") == 2
