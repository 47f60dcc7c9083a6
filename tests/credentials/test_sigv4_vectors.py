"""SigV4 against the requests and signatures that AWS publishes (sigv4_vectors.json says where).

Ours always signs the hash of the payload, and of a client's headers only those that AWS wants signed; most vectors sign
all headers and no hash. So what is signed is shown twice: as it is sent, beside what botocore makes of the same
request on its own; and, through the same function, with the fields that the vector signs, beside what AWS published.
"""

import json
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from botocore.auth import SIGV4_TIMESTAMP, S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials

from apitokenproxy import Caller, Credential, Grant, ProxyError, Upstream
from apitokenproxy._colour import SYNC, run
from apitokenproxy.credentials.sigv4 import SigV4, _authorization
from apitokenproxy.finishing import finish
from apitokenproxy.guard import Guard, inject
from apitokenproxy.messages import Outbound, Request
from apitokenproxy.secrets.cache import Secrets
from apitokenproxy.testing import FixedSecrets

PUBLISHED = json.loads(Path(__file__).with_name("sigv4_vectors.json").read_text())
NOW = datetime.strptime(PUBLISHED["timestamp"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
TIMESTAMP = NOW.strftime(SIGV4_TIMESTAMP)

REFUSED = {
    **dict.fromkeys(["get-header-value-multiline"], "bad_header"),
    **dict.fromkeys(["get-relative-normalized", "get-relative-unnormalized"], "path_dot_segment"),
    **dict.fromkeys(["get-relative-relative-normalized", "get-relative-relative-unnormalized"], "path_dot_segment"),
    **dict.fromkeys(["get-slash-dot-slash-normalized", "get-slash-dot-slash-unnormalized"], "path_dot_segment"),
    **dict.fromkeys(["get-slash-pointless-dot-normalized", "get-slash-pointless-dot-unnormalized"], "path_dot_segment"),
    **dict.fromkeys(["get-slash-normalized", "get-slash-unnormalized"], "empty_segment"),
    **dict.fromkeys(["get-slashes-normalized", "get-slashes-unnormalized"], "empty_segment"),
    **dict.fromkeys(["get-space-normalized", "get-space-unnormalized"], "invalid_target"),
    **dict.fromkeys(["get-utf8", "get-vanilla-utf8-query"], "invalid_target"),
}
"""Requests that the guard does not pass, and the code of the refusal."""
PASSED = [name for name in PUBLISHED["vectors"] if name not in REFUSED]
SLASHES = [name for name, code in REFUSED.items() if code == "empty_segment"]


@frozen
class Vector:
    """One request and its signature as AWS published them."""

    method: bytes
    target: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes
    token: str | None
    signs_token: bool
    signs_body: bool
    normalizes: bool
    canonical: str
    to_sign: str
    authorization: str

    @property
    def keys(self) -> ReadOnlyCredentials:
        """Those that it is signed with."""
        return ReadOnlyCredentials(PUBLISHED["access_key"], PUBLISHED["secret"], self.token)

    @property
    def auth(self) -> Any:
        """What signs it in botocore. S3 alone signs paths as they stand."""
        kind = SigV4Auth if self.normalizes else S3SigV4Auth
        return kind(self.keys, PUBLISHED["service"], PUBLISHED["region"])


def vector(name: str) -> Vector:
    """Read one of them."""
    found = PUBLISHED["vectors"][name]
    head, _, body = found["request"].encode().partition(b"\n\n")
    first, *lines = head.split(b"\n")
    method, _, rest = first.partition(b" ")
    fields: list[tuple[bytes, bytes]] = []
    for line in filter(None, lines):
        if line[:1] == b" ":  # a value of several lines
            fields[-1] = fields[-1][0], fields[-1][1] + b"\r\n" + line
        else:
            field, _, value = line.partition(b":")
            fields.append((field, value))
    token = found.get("token")
    signs_token = token is not None and not found.get("omit_session_token", False)
    parts = found["sign_body"], found["normalize"], found["canonical"], found["to_sign"], found["authorization"]
    return Vector(method, rest.rpartition(b" ")[0], fields, body, token, signs_token, *parts)


def passed(vector: Vector, **terms: Any) -> Outbound:
    """Take a vector's request through the guard, with nothing put on. Raises ProxyError."""
    upstream = Upstream("api", "https://example.amazonaws.com", credential=credential(vector), **terms)
    fields = [(name, value if b"\n" in value else value.strip()) for name, value in vector.fields]
    body = iter([vector.body]) if vector.body else None
    operation = Guard({"api": upstream}).inspect(Request(vector.method, b"/api" + vector.target, fields, body))
    return inject(Grant(Caller(tenant="acme"), operation, "all"), upstream, Credential())


def credential(vector: Vector) -> SigV4:
    """Return the credential of an upstream that has the vector's keys."""
    references = {"access_key": "fixed:access_key", "secret": "fixed:secret"}
    token = "fixed:token" if vector.token else None
    service, region = PUBLISHED["service"], PUBLISHED["region"]
    return SigV4(service, region, session_token=token, clock=NOW.timestamp, **references)


def sign(vector: Vector, outbound: Outbound) -> None:
    """Sign it as the proxy does, with all that it puts on."""
    material = {"access_key": PUBLISHED["access_key"], "secret": PUBLISHED["secret"], "token": vector.token or "none"}
    obtain = credential(vector).bind(Secrets({"fixed": FixedSecrets(**material)}).bind(SYNC))
    run(finish(outbound, run(obtain(Caller(tenant="acme"))).finish))


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Return what botocore made of each request that it was given: canonical request and string to sign."""
    made: list[tuple[str, str]] = []
    original = SigV4Auth.string_to_sign

    def string_to_sign(self: Any, request: Any, canonical: str) -> str:
        made.append((canonical, original(self, request, canonical)))
        return made[-1][1]

    monkeypatch.setattr(SigV4Auth, "string_to_sign", string_to_sign)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: NOW.replace(tzinfo=None))
    return made


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_guard_does_not_pass_is_not_signed(name: str) -> None:
    """It is refused with a code that says why: what AWS signs as another path is no path here."""
    with pytest.raises(ProxyError) as refused:
        passed(vector(name))
    assert refused.value.code == REFUSED[name]


@pytest.mark.parametrize("name", PASSED)
def test_what_is_sent_is_signed_as_botocore_signs_it(name: str, seen: list[tuple[str, str]]) -> None:
    """Canonical request, string to sign and Authorization, byte for byte."""
    found = vector(name)
    outbound = passed(found)
    sign(found, outbound)
    fields = {field.lower().decode(): value.decode() for field, value in outbound.headers}
    authorization = fields.pop("authorization")
    signed = [field for field in fields if field in {"content-type", "x-amz-content-sha256"}]
    url = f"https://example.amazonaws.com{outbound.target.decode()}"
    request = AWSRequest(found.method.decode(), url, {field: fields[field] for field in signed}, found.body)
    SigV4Auth(found.keys, PUBLISHED["service"], PUBLISHED["region"]).add_auth(request)
    assert fields["x-amz-content-sha256"] == sha256(found.body).hexdigest()
    assert seen[0] == seen[1]
    assert authorization == request.headers["Authorization"]
    assert fields.get("x-amz-security-token") == found.token


@pytest.mark.parametrize("name", [*PASSED, *SLASHES])
def test_the_same_function_makes_the_published_signature(name: str, seen: list[tuple[str, str]]) -> None:
    """With the fields that the vector signs: every one of the client's, and no hash unless it says so.

    Also with slashes that stand together, where an upstream allows them: S3 signs them, all else one in their place.
    """
    found = vector(name)
    fields = [(field.decode(), value.decode()) for field, value in found.fields if field != b"Host"]
    fields.append(("X-Amz-Date", TIMESTAMP))
    if found.signs_token:
        fields.append(("X-Amz-Security-Token", str(found.token)))
    if found.signs_body:
        fields.append(("x-amz-content-sha256", sha256(found.body).hexdigest()))
    authorization = _authorization(found.auth, passed(found, allow_empty_segments=True), fields, TIMESTAMP)
    assert seen == [(found.canonical, found.to_sign)]
    assert authorization == found.authorization


def test_every_vector_is_here() -> None:
    """Each is either refused or signed."""
    assert sorted(PUBLISHED["vectors"]) == sorted([*REFUSED, *PASSED])
