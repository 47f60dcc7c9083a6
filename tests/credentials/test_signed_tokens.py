"""Tokens that are had for a signature: JWT bearer, GitHub Apps, Google service accounts; in both colours.

What stands in for their endpoints verifies each signature with the public key, by joserfc.
"""

import base64
import copy
import json
import logging
import pickle
import re
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from attrs import define, frozen
from credential_calls import call
from token_endpoint import (
    EC,
    ED25519,
    OTHER_RSA,
    RSA,
    Asked,
    Endpoint,
    Key,
    bearer,
    obtained,
    pem,
    reported,
    verified,
)

from apitokenproxy import (
    Caller,
    ConfigurationError,
    GitHubApp,
    GoogleServiceAccount,
    JwtBearer,
    Secret,
    SecretUnavailable,
)
from apitokenproxy.config import read_config
from apitokenproxy.credentials.access_token import LEEWAY
from apitokenproxy.errors import NoSecretForCaller

MARK = "s3cret-0f7a9c2e51d84b06"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ROBOT = "robot@project.iam.gserviceaccount.com"
INSTALLATIONS = {"77", "78"}


@define
class World:
    """One endpoint, and the key that it knows; its clock may go wrong by `skew` seconds."""

    endpoint: Endpoint
    key: Key = RSA
    skew: float = 0.0

    @property
    def now(self) -> float:
        return time.time() + self.skew

    def claims(self, token: str, audience: str | None, at_most: int, *algorithms: str) -> dict[str, Any] | None:
        """Return the claims of a token as a strict server would: none when anything is wrong."""
        found = verified(token, self.key, *(algorithms or ("RS256",)))
        if found is None:
            return None
        claims = found[1]
        timely = claims["iat"] <= self.now + 1 and self.now < claims["exp"] <= self.now + at_most
        return claims if timely and claims.get("aud") == audience else None

    def jwt_bearer(self, asked: Asked) -> tuple[int, Any]:
        form = asked.form
        assert form["grant_type"] == GRANT
        claims = self.claims(form["assertion"], self.endpoint.url, 301, "RS256", "ES256", "EdDSA", "PS256")
        return (400, {"error": "invalid_grant"}) if claims is None else (200, self.endpoint.token())

    def github(self, asked: Asked) -> tuple[int, Any]:
        claims = self.claims(asked.authorization.removeprefix("Bearer "), None, 600)
        if claims is None or claims["iss"] not in {"12345", "Iv23li.abc"}:
            return 401, {"message": "A JSON web token could not be decoded"}
        found = re.fullmatch(r"/app/installations/([0-9]+)/access_tokens", asked.path)
        if found is None or found[1] not in INSTALLATIONS:
            return 404, {"message": "Not Found"}
        ends = datetime.fromtimestamp(self.now + 3600, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return 201, {"token": f"ghs_{found[1]}_{len(self.endpoint.asked)}", "expires_at": ends, "permissions": {}}

    def google(self, asked: Asked) -> tuple[int, Any]:
        form = asked.form
        claims = self.claims(form["assertion"], self.endpoint.url, 3601)
        if form["grant_type"] != GRANT or claims is None or claims["iss"] != ROBOT:
            return 400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
        if "target_audience" in claims:
            return 200, {"id_token": id_token(exp=self.now + 3600, aud=claims["target_audience"])}
        return 200, self.endpoint.token(access_token=f"ya29.{len(self.endpoint.asked)}")


def id_token(**claims: Any) -> str:
    parts = (json.dumps({"alg": "RS256"}), json.dumps(claims), "signature")
    return ".".join(base64.urlsafe_b64encode(part.encode()).rstrip(b"=").decode() for part in parts)


def account(endpoint: Endpoint, key: Key = RSA, **more: Any) -> str:
    """Return a service account's file, as Google makes it."""
    file = {
        "type": "service_account",
        "project_id": "project",
        "private_key_id": "k1",
        "private_key": pem(key),
        "client_email": ROBOT,
        "token_uri": endpoint.url,
        "mark": MARK,
    }
    return json.dumps({name: value for name, value in (file | more).items() if value is not None}, indent=2)


@frozen
class Kind:
    """How one kind is made, what material it takes of a key, and what answers it."""

    make: Callable[..., Any]
    material: Callable[[Endpoint, Key], str]
    judge: Callable[[World, Asked], tuple[int, Any]]

    def build(self, endpoint: Endpoint, **terms: Any) -> Any:
        return self.make(endpoint, **({"allow_private": True} | terms))


def jwt_bearer(endpoint: Endpoint, key: str = "fixed:key", **terms: Any) -> JwtBearer:
    return JwtBearer(endpoint.url, "me", key, **terms)


def github(endpoint: Endpoint, key: str = "fixed:key", installation: int | str = 77, **terms: Any) -> GitHubApp:
    return GitHubApp(12345, installation, key, **({"url": endpoint.base} | terms))


def google(endpoint: Endpoint, key: str = "fixed:key", **terms: Any) -> GoogleServiceAccount:
    return GoogleServiceAccount(key, **({"scopes": ["one", "two"]} | terms))


def id_tokens(endpoint: Endpoint, key: str = "fixed:key", **terms: Any) -> GoogleServiceAccount:
    return GoogleServiceAccount(key, audience="https://run.example.com", **terms)


KINDS = {
    "jwt-bearer": Kind(jwt_bearer, lambda _, key: pem(key), World.jwt_bearer),
    "github-app": Kind(github, lambda _, key: pem(key), World.github),
    "google-service-account": Kind(google, account, World.google),
    "google-id-token": Kind(id_tokens, account, World.google),
}


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture
def world(endpoint: Endpoint, kind: Kind) -> World:
    world = World(endpoint)
    endpoint.judge = lambda asked: kind.judge(world, asked)
    return world


# --- what all of them do --------------------------------------------------------------------


def test_a_request_carries_the_token_that_was_given_for_a_signature(
    world: World, kind: Kind, colour: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The key is sent nowhere and told nowhere; the record names the secret's version and the token."""
    caplog.set_level(logging.DEBUG)
    material = kind.material(world.endpoint, RSA)
    done = call(colour, kind.build(world.endpoint), key=material)
    assert (done.answer.status_code, done.record.reason) == (200, "")
    [asked], [sent] = world.endpoint.asked, done.sent
    [authorization] = sent.values(b"authorization")
    assert authorization.startswith(b"Bearer ")
    assert re.fullmatch(r"fixed#[0-9a-f]+\+[0-9a-f]{8}", done.record.credential)
    told = asked.body.decode() + str(asked.headers) + repr(done.record) + caplog.text
    assert not any(line in told for line in pem(RSA).splitlines() if "-----" not in line)
    assert MARK not in told
    assert authorization.decode() not in repr(done.record) + caplog.text


def test_a_thousand_requests_are_one_fetch(world: World, kind: Kind, colour: str) -> None:
    """All of them get the same credential."""
    found = obtained(kind.build(world.endpoint), colour, 1000, key=kind.material(world.endpoint, RSA))
    assert len(world.endpoint.asked) == 1
    assert len(set(map(id, found))) == 1


def test_each_tenant_has_the_token_of_its_own_key(world: World, kind: Kind, colour: str) -> None:
    """One whose key is no good gets none, and takes nothing from the others."""
    one = kind.build(world.endpoint, key="fixed:key-{tenant}")
    keys = {"key-acme": RSA, "key-globex": OTHER_RSA}
    material = {name: kind.material(world.endpoint, key) for name, key in keys.items()}
    mine = obtained(one, colour, 10, Caller("acme"), **material)
    world.key = OTHER_RSA
    theirs = obtained(one, colour, 10, Caller("globex"), **material)
    assert [len(set(map(bearer, found))) for found in (mine, theirs, mine + theirs)] == [1, 1, 2]
    assert len(world.endpoint.asked) == 2
    with pytest.raises(NoSecretForCaller):
        obtained(one, colour, 1, Caller("initech"), **material)


UNHAPPY = {
    "another key": {"key": OTHER_RSA},
    "a key for another algorithm": {"key": EC},
    "no key": {"material": MARK},
    "half a key": {"material": f"-----BEGIN PRIVATE KEY-----\n{MARK}\n-----END PRIVATE KEY-----\n"},
    "a clock ahead": {"clock": lambda: time.time() + 86400},
    "a clock behind": {"clock": lambda: time.time() - 86400},
    "401": {"status": 401, "answer": {"message": MARK}},
    "404": {"status": 404, "answer": {"message": MARK}},
    "a redirect": {"status": 302, "answer": {"message": MARK}},
    "500": {"status": 500, "answer": MARK.encode()},
    "garbage": {"status": 201, "answer": f"<html>{MARK}".encode()},
    "a list": {"answer": [MARK]},
    "nothing": {"answer": {}},
    "no token": {"answer": {"mark": MARK}},
    "a token of another kind": {"answer": {"access_token": 7, "token": 7, "id_token": 7, "mark": MARK}},
    "a token of two lines": {"answer": dict.fromkeys(["access_token", "token", "id_token"], f"{MARK}\nx")},
    "a token that is over": {
        "answer": {
            "access_token": MARK,
            "token": MARK,
            "id_token": id_token(exp=time.time() - 1),
            "expires_in": 0,
            "expires_at": "2020-01-01T00:00:00Z",
        }
    },
    "a token that ends some time": {
        "answer": {
            "access_token": MARK,
            "token": MARK,
            "id_token": id_token(exp="soon"),
            "expires_in": "soon",
            "expires_at": "soon",
        }
    },
}


@pytest.mark.long
@pytest.mark.parametrize("case", list(UNHAPPY))
@pytest.mark.parametrize("name", list(KINDS))
def test_without_a_token_nothing_is_forwarded(endpoint: Endpoint, colour: str, name: str, case: str) -> None:
    """503, and neither what stands in the secret nor what the endpoint said is told."""
    kind, wrong, world = KINDS[name], UNHAPPY[case], World(endpoint)
    endpoint.judge = lambda asked: kind.judge(world, asked)
    endpoint.status, endpoint.answer = wrong.get("status", 200), wrong.get("answer")
    terms = {"clock": wrong["clock"]} if "clock" in wrong else {}
    material = wrong.get("material") or kind.material(endpoint, wrong.get("key", RSA))
    done = call(colour, kind.build(endpoint, **terms), key=material)
    assert (done.answer.headers.get("x-proxy-error"), done.sent) == ("secret_unavailable", [])
    told = done.answer.text + repr(done.record)
    assert MARK not in told
    assert not any(line in told for line in material.splitlines() if len(line) > 30 and "-----" not in line)
    assert done.record.reason


@pytest.mark.long
@pytest.mark.parametrize("case", list(UNHAPPY))
@pytest.mark.parametrize("name", list(KINDS))
def test_an_error_report_with_locals_shows_neither_key_nor_token(endpoint: Endpoint, name: str, case: str) -> None:
    """Nor what was signed, nor what was answered."""
    kind, wrong, world = KINDS[name], UNHAPPY[case], World(endpoint)
    endpoint.judge = lambda asked: kind.judge(world, asked)
    endpoint.status, endpoint.answer = wrong.get("status", 200), wrong.get("answer")
    terms = {"clock": wrong["clock"]} if "clock" in wrong else {}
    material = wrong.get("material") or kind.material(endpoint, wrong.get("key", RSA))
    with pytest.raises(SecretUnavailable) as refused:
        kind.build(endpoint, **terms)._fetch(Secret(material))
    told = reported(refused.value)
    assert not any(word in told for word in (MARK, "eyJ", "PRIVATE KEY-----\\n", pem(RSA)[100:120]))


@pytest.mark.parametrize("name", list(KINDS))
def test_whatever_breaks_while_it_is_asked_shows_nothing(
    endpoint: Endpoint, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the signature under way."""

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("httpx.Client.stream", stop)
    kind = KINDS[name]
    with pytest.raises(KeyboardInterrupt) as stopped:
        kind.build(endpoint)._fetch(Secret(kind.material(endpoint, RSA)))
    told = reported(stopped.value)
    assert "asking.py" in told
    assert not any(word in told for word in (MARK, "eyJ", pem(RSA)[100:120]))


def test_what_is_refused_is_not_asked_again_by_every_request(world: World, kind: Kind, colour: str) -> None:
    """A thousand requests with a wrong key are one question a second."""
    one, material = kind.build(world.endpoint), kind.material(world.endpoint, OTHER_RSA)
    began = time.monotonic()
    for _ in range(3):
        with pytest.raises(SecretUnavailable, match=r"status 40[01]"):
            obtained(one, colour, 300, key=material)
    assert len(world.endpoint.asked) <= 1 + (time.monotonic() - began)


def test_what_is_missing_is_told_when_the_proxy_is_built(
    world: World, kind: Kind, colour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one sentence, with what to install."""
    monkeypatch.setitem(sys.modules, "joserfc", None)
    monkeypatch.delitem(sys.modules, "apitokenproxy.credentials.assertion", raising=False)
    with pytest.raises(ConfigurationError, match=r"install apitokenproxy\[jwt\]"):
        obtained(kind.build(world.endpoint), colour, key="x")


def test_nothing_shows_where_the_key_is(world: World, kind: Kind) -> None:
    """Nor what it is: a reference may be a secret that was written in the wrong place."""
    assert MARK not in repr(kind.build(world.endpoint, key=MARK))


def test_a_key_is_read_once(world: World, kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """To check an RSA key takes a while, in which nothing else goes on."""
    from apitokenproxy.credentials import assertion  # noqa: PLC0415 - needs the extra `jwt`

    read = []
    private_key = assertion.private_key
    monkeypatch.setattr(assertion, "private_key", lambda secret: read.append(secret) or private_key(secret))
    one, material = kind.build(world.endpoint), kind.material(world.endpoint, RSA)
    for _ in range(3):
        one._fetch(Secret(material))
    assert (len(world.endpoint.asked), len(read)) == (3, 1)
    for copied in (pickle.dumps, copy.copy):
        with pytest.raises(TypeError, match="cannot be pickled or copied"):
            copied(one._signing)


# --- JWT bearer ----------------------------------------------------------------------------------


def claims_of(asked: Asked, key: Key, *algorithms: str) -> tuple[dict[str, Any], dict[str, Any]]:
    found = verified(asked.form["assertion"], key, *(algorithms or ("RS256",)))
    assert found is not None
    return found


def test_a_jwt_says_who_signed_it_for_whom_and_for_what(endpoint: Endpoint, colour: str) -> None:
    """RFC 7523, section 3; what is left out is the issuer and the endpoint."""
    plain = jwt_bearer(endpoint, allow_private=True, clock=lambda: 1_000_000.9)
    full = jwt_bearer(
        endpoint,
        allow_private=True,
        subject="ada@example.com",
        audience="https://login.example.com",
        scope="read write",
        key_id="k1",
        algorithm="PS256",
        claims={"box_sub_type": "enterprise", "ids": [1, 2]},
        clock=lambda: 1_000_000.9,
    )
    for one in (plain, full):
        obtained(one, colour, key=pem(RSA))
    times = {"iat": 1_000_000, "exp": 1_000_300}
    (header, claims), (other_header, other) = (
        claims_of(endpoint.asked[0], RSA),
        claims_of(endpoint.asked[1], RSA, "PS256"),
    )
    assert header == {"alg": "RS256", "typ": "JWT"}
    assert claims == times | {"iss": "me", "sub": "me", "aud": endpoint.url, "jti": claims["jti"]}
    assert other_header == {"alg": "PS256", "typ": "JWT", "kid": "k1"}
    about = {"sub": "ada@example.com", "aud": "https://login.example.com", "box_sub_type": "enterprise", "ids": [1, 2]}
    assert other == times | {"iss": "me", "jti": other["jti"]} | about
    assert claims["jti"] != other["jti"]
    assert [set(asked.form) for asked in endpoint.asked] == [
        {"grant_type", "assertion"},
        {"grant_type", "assertion", "scope"},
    ]


@pytest.mark.parametrize(("key", "algorithm"), [(RSA, "RS256"), (EC, "ES256"), (ED25519, "EdDSA")])
def test_the_key_decides_how_it_signs(endpoint: Endpoint, key: Key, algorithm: str) -> None:
    """So that nothing need be named."""
    obtained(jwt_bearer(endpoint, allow_private=True), "sync", key=pem(key))
    assert claims_of(endpoint.asked[0], key, algorithm)[0]["alg"] == algorithm


# --- GitHub App ----------------------------------------------------------------------------------


def test_an_installation_is_asked_for_as_github_wants_it(endpoint: Endpoint, colour: str) -> None:
    """A JWT of ten minutes at most, begun a minute ago; and as little power as was said."""
    now = 1_700_000_000
    endpoint.answer, endpoint.status = {"token": "ghs_1", "expires_at": "2023-11-14T23:13:20Z"}, 201
    one = github(
        endpoint, allow_private=True, repositories=["docs"], permissions={"contents": "read"}, clock=lambda: now
    )
    [made] = obtained(one, colour, key=pem(RSA))
    [asked] = endpoint.asked
    assert (bearer(made), asked.path) == ("ghs_1", "/app/installations/77/access_tokens")
    found = verified(asked.authorization.removeprefix("Bearer "), RSA, "RS256")
    assert found is not None
    assert found[1] == {"iss": "12345", "iat": now - 60, "exp": now + 540}
    assert asked.json == {"repositories": ["docs"], "permissions": {"contents": "read"}}
    assert asked.headers["Accept"] == "application/vnd.github+json"
    assert asked.headers["X-GitHub-Api-Version"] == "2022-11-28"


def test_a_client_id_names_an_app_too(endpoint: Endpoint, colour: str) -> None:
    """GitHub recommends it; and without repositories and permissions the token has all of the installation's."""
    world = World(endpoint)
    endpoint.judge = world.github
    one = GitHubApp("Iv23li.abc", 77, "fixed:key", url=f"{endpoint.base}/", allow_private=True)
    [made] = obtained(one, colour, key=pem(RSA))
    assert bearer(made) == "ghs_77_1"
    assert endpoint.asked[0].body in {b"", b"{}"}


def test_the_end_that_github_names_is_the_end(endpoint: Endpoint) -> None:
    """By this machine's clock, and a little before."""
    endpoint.answer, endpoint.status = {"token": "ghs_1", "expires_at": "2023-11-14T23:13:20+00:00"}, 201
    one = github(endpoint, allow_private=True, clock=lambda: 1_700_000_000)
    loaded = one._fetch(Secret(pem(RSA)))
    assert (loaded.ttl, loaded.at_most) == (3600 - LEEWAY, 3600 - LEEWAY)


def test_each_tenant_has_its_own_installation(endpoint: Endpoint, colour: str) -> None:
    """The number stands where a reference with {tenant} leads; the version names both secrets."""
    world = World(endpoint)
    endpoint.judge = world.github
    one = github(endpoint, installation="fixed:installation-{tenant}", allow_private=True)
    material = {
        "key": pem(RSA),
        "installation-acme": "77",
        "installation-globex": "78",
        "installation-evil": "77/../78",
    }
    found = {tenant: obtained(one, colour, 20, Caller(tenant), **material)[0] for tenant in ("acme", "globex", "acme")}
    assert [bearer(found["acme"]), bearer(found["globex"])] == ["ghs_77_1", "ghs_78_2"]
    assert re.fullmatch(r"fixed#[0-9a-f]+,fixed#[0-9a-f]+", found["acme"].version)
    with pytest.raises(SecretUnavailable, match="is no number") as refused:
        obtained(one, colour, 1, Caller("evil"), **material)
    assert "78" not in refused.value.detail
    assert len(endpoint.asked) == 2


@pytest.mark.parametrize(
    ("terms", "hint"),
    [
        ({"installation": 99}, "status 404; the app has no such installation"),
        ({"clock": lambda: time.time() + 3000}, "status 401; see that the key is this app's"),
    ],
)
def test_what_github_refuses_is_told_with_what_to_mend(
    endpoint: Endpoint, colour: str, terms: dict[str, Any], hint: str
) -> None:
    """Where the status says it."""
    world = World(endpoint)
    endpoint.judge = world.github
    assert hint in call(colour, github(endpoint, allow_private=True, **terms), key=pem(RSA)).record.reason


# --- Google --------------------------------------------------------------------------------------


def test_an_access_token_is_asked_for_as_google_wants_it(endpoint: Endpoint, colour: str) -> None:
    """With the scopes, and the user whom the account stands for in a domain."""
    one = google(endpoint, subject="ada@example.com", allow_private=True, clock=lambda: 1_000_000)
    assert bearer(obtained(one, colour, key=account(endpoint))[0]).startswith("token-1")
    header, claims = claims_of(endpoint.asked[0], RSA)
    assert header == {"alg": "RS256", "typ": "JWT", "kid": "k1"}
    assert claims == {
        "iss": ROBOT,
        "sub": "ada@example.com",
        "aud": endpoint.url,
        "scope": "one two",
        "iat": 1_000_000,
        "exp": 1_003_600,
        "jti": claims["jti"],
    }


def test_an_id_token_is_for_its_audience_and_ends_when_it_says(endpoint: Endpoint) -> None:
    """No expires_in comes with it; its own claim counts."""
    now = time.time()
    endpoint.answer = {"id_token": id_token(exp=now + 600)}
    loaded = id_tokens(endpoint, allow_private=True, clock=lambda: now)._fetch(Secret(account(endpoint)))
    assert bearer(loaded.value) == endpoint.answer["id_token"]
    assert loaded.at_most == pytest.approx(600 - LEEWAY)
    _, claims = claims_of(endpoint.asked[0], RSA)
    assert claims["target_audience"] == "https://run.example.com"
    assert {"scope", "sub"}.isdisjoint(claims)


@pytest.mark.parametrize(
    ("file", "terms", "told"),
    [
        ({"type": "authorized_user"}, {}, 'no JSON of the type "service_account"'),
        ({"client_email": None}, {}, "has no client_email"),
        ({"private_key": None}, {}, "has no private_key"),
        ({"private_key": 7}, {}, "has no private_key"),
        ({"private_key": MARK}, {}, "not in PEM"),
        ({"private_key_id": ""}, {}, "has no private_key_id"),
        ({"token_uri": None}, {}, "has no token_uri"),
        ({"token_uri": MARK}, {}, "is no https URL"),
        ({"token_uri": "file:///etc/passwd"}, {}, "is no https URL"),
        ({"token_uri": f"https://{MARK}@127.0.0.1:9/"}, {}, "is no https URL"),
        ({}, {"allow_private": False}, "is no https URL"),
        ({"token_uri": "http://127.0.0.1:9/"}, {}, "token_uri of the Google service account cannot be asked"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_without_the_file(
    endpoint: Endpoint, colour: str, file: dict[str, Any], terms: dict[str, Any], told: str
) -> None:
    """Nobody but the endpoint that it names is asked, and over https alone."""
    one = google(endpoint, **({"allow_private": True} | terms))
    done = call(colour, one, key=account(endpoint, **file))
    assert (done.answer.status_code, done.sent, endpoint.asked) == (503, [], [])
    assert told in done.record.reason
    assert not any(word in done.record.reason for word in (MARK, ROBOT, "127.0.0.1", "passwd"))


# --- how they are written ------------------------------------------------------------------------

FILE = """
[upstreams.salesforce]
url = "https://api.example.com"
credential = { type = "jwt-bearer", token_url = "https://login.example.com/token", issuer = "me", key = "env:KEY", claims = { box_sub_type = "user" } }

[upstreams.github]
url = "https://api.github.com"
credential = { type = "github-app", app_id = 12345, installation = "file:/run/github/{tenant}", key = "env:KEY", repositories = ["docs"], permissions = { contents = "read" } }

[upstreams.ghe]
url = "https://ghe.example.com/api/v3"
credential = { type = "github-app", app_id = "Iv23li.abc", installation = 77, key = "env:KEY", url = "https://ghe.example.com/api/v3" }

[upstreams.google]
url = "https://storage.googleapis.com"
credential = { type = "google-service-account", key = "env:KEY", scopes = ["https://www.googleapis.com/auth/devstorage.read_only"] }
"""  # noqa: E501 - an inline table is one line


def test_a_file_names_them_as_python_does(tmp_path: Any) -> None:
    """Each key is an argument."""
    (tmp_path / "proxy.toml").write_text(FILE)
    made = [upstream.credential[0] for upstream in read_config(tmp_path / "proxy.toml")["upstreams"]]
    assert made == [
        JwtBearer("https://login.example.com/token", "me", "env:KEY", claims={"box_sub_type": "user"}),
        GitHubApp(
            12345,
            "file:/run/github/{tenant}",
            "env:KEY",
            repositories=["docs"],
            permissions={"contents": "read"},
        ),
        GitHubApp("Iv23li.abc", 77, "env:KEY", url="https://ghe.example.com/api/v3"),
        GoogleServiceAccount("env:KEY", scopes=["https://www.googleapis.com/auth/devstorage.read_only"]),
    ]


def _bearer(**terms: Any) -> JwtBearer:
    return JwtBearer(**({"token_url": "https://login.example.com/", "issuer": "me", "key": "env:KEY"} | terms))


def _app(**terms: Any) -> GitHubApp:
    return GitHubApp(**({"app_id": 1, "installation": 77, "key": "env:KEY"} | terms))


def _account(**terms: Any) -> GoogleServiceAccount:
    return GoogleServiceAccount("env:KEY", **terms)


@pytest.mark.parametrize(
    ("make", "terms", "sentence"),
    [
        (_bearer, {"token_url": "http://login.example.com/"}, "must be an https URL"),
        (_bearer, {"token_url": "https://"}, "must be an https URL"),
        (_bearer, {"token_url": "https://[::1/"}, "must be an https URL"),
        (_bearer, {"token_url": "https://login.example.com/\n"}, "must be an https URL"),
        (_bearer, {"token_url": "https://login example.com/"}, "must be an https URL"),
        (_bearer, {"token_url": "https://me:pass@example.com/"}, "token_url must be an https URL"),  # not quoted
        (_bearer, {"issuer": ""}, "issuer is empty"),
        (_bearer, {"algorithm": "HS256"}, "is none of RS256"),
        (_bearer, {"algorithm": "none"}, "is none of RS256"),
        (_bearer, {"claims": {"iss": "x", "exp": 1}}, "must not hold exp, iss"),
        (_bearer, {"claims": {"when": datetime(2026, 1, 1, tzinfo=UTC)}}, "what JSON cannot"),
        (_bearer, {"claims": {"n": float("nan")}}, "what JSON cannot"),
        (_app, {"url": "http://ghe.example.com"}, "must be an https URL"),
        (_app, {"app_id": ""}, "app_id must be"),
        (_app, {"app_id": "a/b"}, "app_id must be"),
        (_app, {"installation": 0}, "installation must be"),
        (_app, {"installation": True}, "installation must be"),
        (_app, {"repositories": "docs"}, "list of names"),
        (_app, {"permissions": {"contents": ["read"]}}, "permissions are texts"),
        (_account, {}, "either scopes or audience"),
        (_account, {"scopes": ["x"], "audience": "y"}, "either scopes or audience"),
        (_account, {"scopes": "x"}, "list of texts"),
        (_account, {"scopes": [""]}, "list of texts"),
        (_account, {"audience": "y", "subject": "z"}, "subject is for access tokens"),
    ],
)
def test_what_is_wrong_is_said_when_it_is_built(make: Any, terms: dict[str, Any], sentence: str) -> None:
    """In one sentence that names the kind."""
    with pytest.raises(ConfigurationError, match=sentence):
        make(**terms)


def test_what_is_no_installation_is_not_shown() -> None:
    """The reference may lead to another secret, by mistake."""
    with pytest.raises(SecretUnavailable, match="is no number") as refused:
        _app(installation="env:ID")._fetch(Secret(pem(RSA)), Secret(MARK))
    assert MARK not in reported(refused.value)
