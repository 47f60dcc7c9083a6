"""OAuth 2.0 client credentials, against a token endpoint on loopback, in both colours."""

import base64
import re
import sys
import time
from typing import Any

import pytest
from credential_calls import call, credential
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc.jwk import ECKey, OKPKey
from token_endpoint import EC, ED25519, RSA, Endpoint, Key, obtained, pem, verified

from apitokenproxy import ConfigurationError, Header, OAuth2ClientCredentials
from apitokenproxy.credentials.tokens import FRESH
from apitokenproxy.errors import SecretUnavailable

KEY = "fixed:key"
MATERIAL = "s3cret/+0f7a9c2e51d8"
SHORT_KEY = rsa.generate_private_key(65537, 1024)  # noqa: S505 - what is refused
SHORT = SHORT_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def kind(endpoint: Endpoint, **terms: Any) -> OAuth2ClientCredentials:
    return OAuth2ClientCredentials(endpoint.url, "me:1", KEY, **({"allow_private": True} | terms))


def test_a_request_carries_the_token_that_was_given(endpoint: Endpoint, colour: str) -> None:
    """The secret goes to the token endpoint alone; the audit record names the token without telling it."""
    done = call(colour, kind(endpoint, scope="read write", audience="api"), key=MATERIAL)
    [asked] = endpoint.asked
    assert asked.form == {"grant_type": "client_credentials", "scope": "read write", "audience": "api"}
    assert base64.b64decode(asked.authorization.removeprefix("Basic ")) == b"me%3A1:s3cret%2F%2B0f7a9c2e51d8"
    assert done.sent[0].values(b"authorization") == [b"Bearer token-1-" + b"x" * 20]
    assert re.fullmatch(r"fixed#[0-9a-f]{12}\+[0-9a-f]{8}", done.record.credential)


def test_a_token_among_other_credentials_is_named_after_the_secrets(endpoint: Endpoint) -> None:
    """So that each secret's version stands where it stood."""
    made = credential("sync", Header("X-Partner", "fixed:partner"), kind(endpoint), key=MATERIAL, partner="p")
    assert re.fullmatch(r"fixed#[0-9a-f]{12},fixed#[0-9a-f]{12}", made.version)
    assert made.name == f"{made.version}+{made.token}"
    assert len(made.token) == 8


def test_the_secret_may_go_into_the_form(endpoint: Endpoint, colour: str) -> None:
    """RFC 6749, section 2.3.1, for servers that do not take Basic."""
    call(colour, kind(endpoint, auth="post", resource="https://api.example.com"), key=MATERIAL)
    [asked] = endpoint.asked
    assert asked.form == {
        "grant_type": "client_credentials",
        "resource": "https://api.example.com",
        "client_id": "me:1",
        "client_secret": MATERIAL,
    }
    assert asked.authorization == ""


@pytest.mark.parametrize(
    ("key", "algorithm", "used"),
    [(RSA, "", "RS256"), (RSA, "PS256", "PS256"), (EC, "", "ES256"), (ED25519, "", "EdDSA"), (EC, "ES256", "ES256")],
)
def test_a_key_signs_who_asks(endpoint: Endpoint, colour: str, key: Key, algorithm: str, used: str) -> None:
    """RFC 7523, section 2.2: the key itself is not sent, and no two assertions are the same."""
    one = kind(endpoint, auth="private-key-jwt", algorithm=algorithm, key_id="k1", clock=lambda: 1_000_000.5)
    made = [call(colour, one, key=pem(key)), call(colour, kind(endpoint, auth="private-key-jwt"), key=pem(key))]
    assert [done.answer.status_code for done in made] == [200, 200]
    form, other = (asked.form for asked in endpoint.asked)
    assert form["client_id"] == "me:1"
    assert form["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    assert "client_secret" not in form
    header, claims = verified(form["client_assertion"], key, used) or ({}, {})
    assert header == {"alg": used, "kid": "k1", "typ": "JWT"}
    times = {"iat": 1_000_000, "exp": 1_000_300}
    assert claims == {"iss": "me:1", "sub": "me:1", "aud": endpoint.url, "jti": claims["jti"]} | times
    assert verified(other["client_assertion"], key, "RS256", "ES256", "EdDSA")
    assert pem(key)[30:60] not in endpoint.asked[0].body.decode() + repr(made[0].record)


@pytest.mark.parametrize(
    ("material", "terms", "told"),
    [
        (MATERIAL, {}, "not in PEM"),
        (f"-----BEGIN PRIVATE KEY-----\n{MATERIAL}\n-----END PRIVATE KEY-----", {}, "is broken"),
        (RSA.as_pem(private=True, password=MATERIAL).decode(), {}, "is encrypted"),
        (RSA.as_pem(private=False).decode(), {}, "is a public one"),
        (pem(RSA), {"algorithm": "ES256"}, "not one for ES256"),
        (pem(EC), {"algorithm": "RS256"}, "not one for RS256"),
        (pem(ECKey.generate_key("secp256k1")), {}, "not one for any"),
        (pem(OKPKey.generate_key("X25519")), {}, "not one for any"),
        (SHORT, {}, "is broken, or of a kind that is not used to sign"),
    ],
)
def test_a_key_that_does_not_sign_is_told_without_a_word_of_it(
    endpoint: Endpoint, colour: str, material: str, terms: Any, told: str
) -> None:
    """Nobody is asked, and nothing is forwarded."""
    done = call(colour, kind(endpoint, auth="private-key-jwt", **terms), key=material)
    assert (done.answer.headers.get("x-proxy-error"), done.sent, endpoint.asked) == ("secret_unavailable", [], [])
    assert told in done.record.reason
    assert not any(line in done.record.reason for line in material.splitlines() if "-----" not in line)


@pytest.mark.parametrize("auth", ["basic", "post"])
def test_a_secret_beyond_ascii_is_sent_in_utf_8(endpoint: Endpoint, colour: str, auth: Any) -> None:
    """RFC 6749, appendix B."""
    assert call(colour, kind(endpoint, auth=auth), key="gehéim").answer.status_code == 200
    [asked] = endpoint.asked
    if auth == "post":
        assert asked.form["client_secret"] == "gehéim"
    else:
        assert base64.b64decode(asked.authorization.removeprefix("Basic ")).endswith(b":geh%C3%A9im")


def test_a_token_that_utf_8_cannot_write_is_none(endpoint: Endpoint, colour: str) -> None:
    """It is not sent as something else."""
    endpoint.answer = b'{"access_token": "a\\ud800", "token_type": "Bearer"}'
    done = call(colour, kind(endpoint), key=MATERIAL)
    assert "cannot stand in a header" in done.record.reason
    assert done.sent == []


def test_a_secret_of_several_lines_is_sent_to_nobody(endpoint: Endpoint, colour: str) -> None:
    """A private key, where a client secret belongs."""
    done = call(colour, kind(endpoint, auth="post"), key=pem(EC))
    assert (done.answer.status_code, endpoint.asked) == (503, [])


def test_signing_without_its_package_is_told_when_the_proxy_is_built(
    endpoint: Endpoint, colour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one sentence, with what to install; other ways work without it."""
    monkeypatch.setitem(sys.modules, "joserfc", None)
    monkeypatch.delitem(sys.modules, "apitokenproxy.credentials.assertion", raising=False)
    with pytest.raises(ConfigurationError, match=r"install apitokenproxy\[jwt\]"):
        obtained(kind(endpoint, auth="private-key-jwt"), colour, key=pem(EC))
    assert obtained(kind(endpoint), colour, key=MATERIAL)


def test_a_thousand_requests_are_one_fetch(endpoint: Endpoint, colour: str) -> None:
    """All of them get the same credential."""
    found = obtained(kind(endpoint), colour, 1000, key=MATERIAL)
    assert len(endpoint.asked) == 1
    assert len(set(map(id, found))) == 1


def test_another_secret_is_another_token(endpoint: Endpoint, colour: str) -> None:
    """A rotated secret is used as soon as it is read."""
    one = kind(endpoint)
    assert call(colour, one, key=MATERIAL).answer.status_code == 200
    assert call(colour, one, key=MATERIAL).answer.status_code == 200
    assert call(colour, one, key="another").answer.status_code == 200
    assert len(endpoint.asked) == 2


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (400, {"error": "invalid_client", "error_description": MATERIAL}),
        (401, {"error": "invalid_client"}),
        (302, {}),
        (429, {}),
        (500, MATERIAL.encode()),
        (200, b"nonsense"),
        (200, []),
        (200, {}),
        (200, {"access_token": ""}),
        (200, {"access_token": 7}),
        (200, {"access_token": "x", "token_type": "mac"}),
        (200, {"access_token": "x", "expires_in": 0}),
        (200, {"access_token": "x", "expires_in": 0.5}),
        (200, {"access_token": "x", "expires_in": "soon"}),
        (200, {"access_token": "x", "expires_in": True}),
        (200, {"access_token": "x", "expires_in": "9" * 5000}),
        (200, {"access_token": "x\r\ny"}),
        (200, {"access_token": "\u00fc"}),
        (200, b"x" * 100_000),
    ],
)
def test_without_a_token_nothing_is_forwarded(endpoint: Endpoint, colour: str, status: int, answer: Any) -> None:
    """503, and what the endpoint said is told nowhere, for it may repeat the secret."""
    endpoint.status, endpoint.answer = status, answer
    done = call(colour, kind(endpoint), key=MATERIAL)
    assert (done.answer.headers.get("x-proxy-error"), done.sent) == ("secret_unavailable", [])
    assert MATERIAL not in done.answer.text + repr(done.record)


def test_an_endpoint_that_is_not_there_is_a_fault(colour: str) -> None:
    """The reason names it."""
    done = call(colour, OAuth2ClientCredentials("http://127.0.0.1:9/t", "me", KEY, allow_private=True), key=MATERIAL)
    assert (done.answer.status_code, done.sent) == (503, [])
    assert "http://127.0.0.1:9/t cannot be asked" in done.record.reason


def test_a_token_that_does_not_say_how_long_it_lasts_is_used_for_minutes(endpoint: Endpoint) -> None:
    """RFC 6749, section 5.1: expires_in is recommended only."""
    endpoint.answer = {"access_token": "x" * 20, "token_type": "bearer"}
    assert len(obtained(kind(endpoint), "sync", 3, key=MATERIAL)) == 3
    assert len(endpoint.asked) == 1


@pytest.mark.parametrize(
    ("terms", "sentence"),
    [
        ({"allow_private": False}, "must be an https URL"),
        ({"auth": "digest"}, "basic, post or private-key-jwt"),
        ({"auth": "private-key-jwt", "algorithm": "HS256"}, "is none of RS256"),
        ({"key_id": "k1"}, "are for auth private-key-jwt alone"),
    ],
)
def test_what_is_wrong_is_said_when_it_is_built(endpoint: Endpoint, terms: Any, sentence: str) -> None:
    """In one sentence."""
    with pytest.raises(ConfigurationError, match=sentence):
        kind(endpoint, **terms)


def test_a_token_that_was_withdrawn_is_replaced_without_the_client_noticing(endpoint: Endpoint, colour: str) -> None:
    """A request without a body is sent once more, with a new one; not while the token is fresh."""
    now, one = [0.0], kind(endpoint)
    one._tokens._clock = lambda: now[0]
    withdrawn = {"token-1"}

    def accepts(authorization: bytes) -> bool:
        return authorization.decode().removeprefix("Bearer ")[:7] not in withdrawn

    assert call(colour, one, key=MATERIAL, accepts=accepts).answer.status_code == 502
    now[0] = FRESH
    done = call(colour, one, key=MATERIAL, accepts=accepts)
    assert (done.answer.status_code, len(done.sent), len(endpoint.asked)) == (200, 2, 2)
    assert done.record.credential.startswith("fixed#")


@pytest.mark.parametrize("status", [401, 500])
def test_an_endpoint_is_not_flooded_with_what_it_refuses(endpoint: Endpoint, colour: str, status: int) -> None:
    """A fault is told to all who wait, and to whoever comes within the next second."""
    one = kind(endpoint)
    endpoint.status = status
    began = time.monotonic()
    for _ in range(3):
        with pytest.raises(SecretUnavailable, match=f"status {status}"):
            obtained(one, colour, 300, key=MATERIAL)
    assert len(endpoint.asked) <= 1 + (time.monotonic() - began)


def test_a_code_of_the_standard_is_told(endpoint: Endpoint, colour: str) -> None:
    """It says what to mend; any other text does not get into the record."""
    endpoint.status, endpoint.answer = 400, {"error": "invalid_scope", "error_description": MATERIAL}
    assert call(colour, kind(endpoint), key=MATERIAL).record.reason.endswith("status 400, invalid_scope")
    endpoint.answer = {"error": MATERIAL}
    assert call(colour, kind(endpoint), key=MATERIAL).record.reason.endswith("status 400")
