"""OAuth 2.0 token exchange (RFC 8693), against a token endpoint on loopback, in both colours."""

import asyncio
import base64
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from credential_calls import ACME, call
from token_endpoint import EC, Asked, Endpoint, bearer, obtained, pem, reported, verified

from apitokenproxy import Caller, ConfigurationError, OAuth2TokenExchange, Secret, SecretUnavailable
from apitokenproxy._colour import ASYNC, SYNC, run
from apitokenproxy.config import read_config
from apitokenproxy.credentials.token_exchange import ACCESS_TOKEN, JWT
from apitokenproxy.secrets.cache import Secrets
from apitokenproxy.secrets.file import FileProvider
from loopback import wait_until

SUBJECT = "eyJhbGciOiJSUzI1NiJ9.subject-0f7a9c2e51d84b06.signature"
SECRET = "s3cret-1b7c09aa52ef4d10"


@pytest.fixture(autouse=True)
def judged(endpoint: Endpoint) -> None:
    """Answer as a server that knows tokens which begin like one, each with a token of its own."""

    def judge(asked: Asked) -> tuple[int, Any]:
        form = asked.form
        if (
            form["grant_type"] != "urn:ietf:params:oauth:grant-type:token-exchange"
            or "eyJ" not in form["subject_token"]
        ):
            return 400, {"error": "invalid_request"}
        return 200, endpoint.token(issued_token_type=form.get("requested_token_type", ACCESS_TOKEN))

    endpoint.judge = judge


def exchange(endpoint: Endpoint, reference: str = "fixed:token", **terms: Any) -> OAuth2TokenExchange:
    return OAuth2TokenExchange(endpoint.url, reference, **({"allow_private": True} | terms))


def test_a_request_carries_the_token_that_was_given_for_another(endpoint: Endpoint, colour: str) -> None:
    """What it was given for goes to the token endpoint alone; without a client nobody says who asks."""
    done = call(
        colour, exchange(endpoint, audience="api", resource="https://api.example.com", scope="r w"), token=SUBJECT
    )
    [asked] = endpoint.asked
    assert asked.form == {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": SUBJECT,
        "subject_token_type": JWT,
        "audience": "api",
        "resource": "https://api.example.com",
        "scope": "r w",
    }
    assert asked.authorization == ""
    assert done.sent[0].values(b"authorization") == [b"Bearer token-1-" + b"x" * 20]
    assert SUBJECT not in repr(done.record)
    assert re.fullmatch(r"fixed#[0-9a-f]+\+[0-9a-f]{8}", done.record.credential)


@pytest.mark.parametrize("auth", ["none", "basic", "post", "private-key-jwt"])
def test_a_client_may_say_who_it_is(endpoint: Endpoint, colour: str, auth: str) -> None:
    """As for client credentials; a public one by its name alone. The record names both secrets."""
    terms = {"auth": auth, "secret": "fixed:secret"} if auth != "none" else {}
    material = pem(EC) if auth == "private-key-jwt" else SECRET
    [made] = obtained(exchange(endpoint, client_id="me", **terms), colour, token=SUBJECT, secret=material)
    [asked] = endpoint.asked
    assert made.version.count("fixed#") == (1 if auth == "none" else 2)
    assert asked.form.get("client_id") == (None if auth == "basic" else "me")
    assert asked.form.get("client_secret") == (SECRET if auth == "post" else None)
    if auth == "basic":
        assert base64.b64decode(asked.authorization.removeprefix("Basic ")) == f"me:{SECRET}".encode()
    if auth == "private-key-jwt":
        assert verified(asked.form["client_assertion"], EC, "ES256") is not None


def test_a_thousand_requests_are_one_fetch_for_each_caller(endpoint: Endpoint, colour: str) -> None:
    """Whose tokens differ gets another one, also with the client's secret in common."""
    one = exchange(endpoint, "fixed:token-{tenant}", client_id="me", secret="fixed:secret")
    material = {"token-acme": SUBJECT, "token-globex": f"{SUBJECT}2", "secret": SECRET}
    found = [obtained(one, colour, 1000, Caller(tenant), **material) for tenant in ("acme", "globex", "acme")]
    assert len(endpoint.asked) == 2
    assert [{bearer(credential) for credential in each} for each in found] == [
        {f"token-{number}-{'x' * 20}"} for number in (1, 2, 1)
    ]


def test_a_token_in_a_file_is_exchanged_again_when_it_changes(endpoint: Endpoint, colour: str, tmp_path: Path) -> None:
    """As Kubernetes changes a pod's own: within a second, and without asking when it did not."""
    now = [0.0]
    secrets = Secrets({"file": FileProvider()}, clock=lambda: now[0])
    file = tmp_path / "token"
    one = exchange(endpoint, f"file:{file}")
    loop = asyncio.new_event_loop()
    obtain = one.bind(secrets.bind(ASYNC if colour == "async" else SYNC))

    def token() -> str:
        asked = obtain(ACME)
        return bearer(loop.run_until_complete(asked) if colour == "async" else run(asked))  # type: ignore[arg-type]

    file.write_text(f"{SUBJECT}\n")
    assert token().startswith("token-1-")
    now[0] = 2.0
    assert token().startswith("token-1-")
    (tmp_path / "next").write_text(f"{SUBJECT}-renewed\n")
    os.replace(tmp_path / "next", file)  # noqa: PTH105 - as a mounted volume is swapped
    now[0] = 4.0
    wait_until(lambda: token().startswith("token-2-"))
    assert endpoint.asked[1].form["subject_token"] == f"{SUBJECT}-renewed"
    loop.close()


def test_what_was_asked_for_must_come(endpoint: Endpoint, colour: str) -> None:
    """RFC 8693, section 2.2.1: issued_token_type says what it is; what is no access token is N_A to bearers."""
    id_token = "urn:ietf:params:oauth:token-type:id_token"
    endpoint.answer = endpoint.token(issued_token_type=id_token, token_type="N_A")
    assert obtained(exchange(endpoint, requested_token_type=id_token), colour, token=SUBJECT)
    assert endpoint.asked[0].form["requested_token_type"] == id_token
    for wanted in ("", ACCESS_TOKEN, JWT):
        with pytest.raises(SecretUnavailable, match="another type than was asked for"):
            obtained(exchange(endpoint, requested_token_type=wanted), colour, token=SUBJECT)


UNHAPPY = {
    "a token of no use": (200, None, "nonsense", "status 400, invalid_request"),
    "no client": (
        401,
        {"error": "invalid_client", "error_description": SUBJECT},
        SUBJECT,
        "status 401, invalid_client",
    ),
    "no such audience": (400, {"error": "invalid_target"}, SUBJECT, "status 400, invalid_target"),
    "a code of its own": (400, {"error": SUBJECT}, SUBJECT, "status 400"),
    "a redirect": (307, {}, SUBJECT, "status 307"),
    "nobody": (503, SUBJECT.encode(), SUBJECT, "status 503"),
    "garbage": (200, SUBJECT.encode(), SUBJECT, "does not answer with a JSON object"),
    "no type": (200, {"access_token": "x"}, SUBJECT, "another type"),
    "a list of types": (200, {"access_token": "x", "issued_token_type": [JWT]}, SUBJECT, "another type"),
    "a type of its own": (200, {"access_token": "x", "issued_token_type": SUBJECT}, SUBJECT, "another type"),
    "no token": (200, {"issued_token_type": JWT}, SUBJECT, "gave no token"),
    "no bearer": (
        200,
        {"access_token": "x", "issued_token_type": ACCESS_TOKEN, "token_type": "N_A"},
        SUBJECT,
        "no bearer token",
    ),
    "over": (200, {"access_token": "x", "issued_token_type": JWT, "expires_in": -5}, SUBJECT, "is over"),
}


@pytest.mark.parametrize("case", list(UNHAPPY))
def test_without_a_token_nothing_is_forwarded(endpoint: Endpoint, colour: str, case: str) -> None:
    """503, and the token that was given is told nowhere."""
    endpoint.status, endpoint.answer, material, told = UNHAPPY[case]
    done = call(colour, exchange(endpoint), token=material)
    assert (done.answer.headers.get("x-proxy-error"), done.sent) == ("secret_unavailable", [])
    assert told in done.record.reason
    assert SUBJECT not in done.answer.text + repr(done.record)
    with pytest.raises(SecretUnavailable) as refused:
        exchange(endpoint)._fetch(Secret(material))
    assert SUBJECT not in reported(refused.value)


def test_a_token_of_several_lines_is_given_to_nobody(endpoint: Endpoint, colour: str) -> None:
    """As a whole file of something else."""
    done = call(colour, exchange(endpoint), token=f"{SUBJECT}\nx")
    assert (done.answer.status_code, endpoint.asked) == (503, [])


def test_a_token_that_is_refused_is_not_given_by_every_request(endpoint: Endpoint, colour: str) -> None:
    """Once a second, for the same token."""
    one = exchange(endpoint)
    began = time.monotonic()
    with pytest.raises(SecretUnavailable, match="invalid_request"):
        obtained(one, colour, 1000, token="nonsense")
    assert len(endpoint.asked) <= 1 + (time.monotonic() - began)


def test_a_file_names_it_as_python_does(tmp_path: Path) -> None:
    """Each key is an argument."""
    (tmp_path / "proxy.toml").write_text(
        "[upstreams.api]\n"
        'url = "https://api.example.com"\n'
        'credential = { type = "oauth2-token-exchange", token_url = "https://sts.example.com/", '
        'subject_token = "file:/var/run/secrets/tokens/api", audience = "api", client_id = "me", secret = "env:S" }\n'
    )
    [upstream] = read_config(tmp_path / "proxy.toml")["upstreams"]
    assert upstream.credential[0] == OAuth2TokenExchange(
        "https://sts.example.com/",
        "file:/var/run/secrets/tokens/api",
        audience="api",
        client_id="me",
        secret="env:S",
    )


@pytest.mark.parametrize(
    ("terms", "sentence"),
    [
        ({"token_url": "http://sts.example.com/"}, "must be an https URL"),
        ({"subject_token_type": ""}, "is no URI"),
        ({"subject_token_type": "jwt"}, "is no URI"),
        ({"requested_token_type": "access_token"}, "is no URI"),
        ({"auth": "private-key-jwt", "client_id": "me"}, "and there is none"),
        ({"algorithm": "ES256"}, "and there is none"),
        ({"secret": "env:S"}, "client_id is empty"),
        ({"secret": "env:S", "client_id": "me", "auth": "digest"}, "basic, post or private-key-jwt"),
        ({"secret": "env:S", "client_id": "me", "key_id": "k1"}, "private-key-jwt alone"),
    ],
)
def test_what_is_wrong_is_said_when_it_is_built(terms: dict[str, Any], sentence: str) -> None:
    """In one sentence that names the kind."""
    with pytest.raises(ConfigurationError, match=sentence) as refused:
        OAuth2TokenExchange(**({"token_url": "https://sts.example.com/", "subject_token": "env:T"} | terms))
    assert str(refused.value).startswith("credential oauth2-token-exchange: ")


def test_nothing_shows_what_is_exchanged() -> None:
    """Nor where it is: a reference may be a token that was written in the wrong place."""
    one = OAuth2TokenExchange("https://sts.example.com/", SUBJECT, client_id="me", secret=SECRET)
    assert not any(material in repr(one) for material in (SUBJECT, SECRET))
