"""Callers who bring a JWT: whose it is, whether it is good, and what it says."""

import base64
import hmac
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import httpx
import pytest
from identity_calls import COLOURS, Hand, a_request, authenticate, bearer
from issuer import Issuer, rsa, running_issuer
from joserfc.jwk import ECKey, OctKey, OKPKey

from apitokenproxy import Bearer, Caller, ConfigurationError, Proxy, Rule, Upstream
from apitokenproxy._colour import SYNC, run
from apitokenproxy.errors import KeysUnavailable, Unauthenticated
from apitokenproxy.identity.jwks import TTL
from apitokenproxy.identity.jwt import JwtIdentity
from loopback import UpstreamServer

ONE, TWO = rsa("one"), rsa("two")


@pytest.fixture(params=COLOURS)
def colour(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with running_issuer() as issuer:
        issuer.keys = [ONE]
        yield issuer


class World:
    """An authenticator for one issuer, whose clocks are set by hand."""

    def __init__(self, issuer: Issuer, colour: str = "sync", **more: Any) -> None:
        self.colour = colour
        self.clock, self.timer = Hand(time.time()), Hand(1000.0)
        terms = {"audience": "proxy", "tenant_claim": "org", "allow_private": True} | more
        self.part = JwtIdentity(issuer.url, clock=self.clock, timer=self.timer, **terms)

    def ask(self, token: str | bytes) -> Caller | None:
        return authenticate(self.part, self.colour, bearer(token))

    def refused(self, token: str | bytes) -> str:
        with pytest.raises(Unauthenticated) as refusal:
            self.ask(token)
        return refusal.value.detail

    def wait(self, seconds: float) -> None:
        self.clock.now += seconds
        self.timer.now += seconds


def test_claims_say_who_is_calling(issuer: Issuer, colour: str) -> None:
    """Tenant, subject, scopes and attributes, also from within an object."""
    world = World(issuer, colour, attributes={"team": "team.name", "roles": "https://example.com/roles"})
    more = {"team": {"name": "blue"}, "https://example.com/roles": ["a", "b"]}
    caller = world.ask(issuer.sign(ONE, scope="read write", **more))
    assert caller is not None
    assert (caller.tenant, caller.subject, caller.scopes) == ("acme", "ada", {"read", "write"})
    assert dict(caller.attributes) == {"team": "blue", "roles": ("a", "b")}
    assert (caller.token_id, caller.key) == ("", ("acme", "ada"))


def test_claims_can_have_other_names(issuer: Issuer, colour: str) -> None:
    """A tenant may be the operator's to say; scopes may be a list."""
    world = World(issuer, colour, tenant="fixed", tenant_claim=None, subject_claim="azp", scopes_claim="scp")
    caller = world.ask(issuer.sign(ONE, azp="app", scp=["x"], sub=None))
    assert caller is not None
    assert (caller.tenant, caller.subject, caller.scopes) == ("fixed", "app", {"x"})


@pytest.mark.parametrize(
    "key", [rsa(), ECKey.generate_key("P-256", {"kid": "ec"}), OKPKey.generate_key("Ed25519", {"kid": "ed"})]
)
def test_keys_of_every_kind_verify(issuer: Issuer, key: Any) -> None:
    """RSA, elliptic curves and Ed25519; by the issuer's metadata or at an address of their own."""
    issuer.keys = [key]
    for more in ({}, {"jwks": issuer.jwks}):
        assert World(issuer, **more).ask(issuer.sign(key)) is not None
    assert issuer.asked == ["/.well-known/openid-configuration", "/keys", "/keys"]


def test_what_is_not_of_this_issuer_is_left_to_others(issuer: Issuer, colour: str) -> None:
    """Whatever it is, it is not fetched for, and not refused either."""
    world = World(issuer, colour)
    part = base64.urlsafe_b64encode(b'{"iss": 1}').decode().rstrip("=")
    deep = base64.urlsafe_b64encode(b"[" * 5000).decode().rstrip("=")
    others = [issuer.sign(ONE, iss=issuer.url + "/"), issuer.sign(ONE, iss=None), issuer.sign(ONE, pad="x" * 9000)]
    nonsense = ["a.b.c", "..", "sk-12345", "x" * 9000, f"{part}.{part}.x", f"{deep}.{part}.x", "\xff.\xff.\xff"]
    for token in (*others, *nonsense, issuer.sign(ONE) + ".x"):
        assert world.ask(token) is None
    assert authenticate(world.part, colour, None) is None
    assert issuer.asked == []


def unsigned(issuer: Issuer, alg: str) -> str:
    def part(said: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(said).encode()).decode().rstrip("=")

    claims = {"iss": issuer.url, "aud": "proxy", "exp": time.time() + 300, "sub": "ada", "org": "acme"}
    return f"{part({'alg': alg, 'kid': 'one'})}.{part(claims)}."


def test_the_token_does_not_choose_how_it_is_verified(issuer: Issuer, colour: str) -> None:
    """No `none`, no HMAC with the public key as its secret, no algorithm but those that are named."""
    world = World(issuer, colour)
    signed = unsigned(issuer, "HS256")[:-1]
    mac = hmac.digest(ONE.as_pem(private=False), signed.encode(), "sha256")
    forged = f"{signed}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"
    for token in (unsigned(issuer, "none"), unsigned(issuer, "None"), forged, issuer.sign(ONE, {"alg": "RS512"})):
        assert "algorithm that is not allowed" in world.refused(token)
    assert issuer.asked == []
    assert "not good" in world.refused(unsigned(issuer, "RS256"))


def test_a_key_for_one_algorithm_is_used_with_no_other(issuer: Issuer) -> None:
    """Nor for another use, nor a symmetric one, nor one that is too short."""
    pinned, for_encryption = rsa("pinned"), rsa("enc")
    issuer.keys = [
        pinned.as_dict(private=False) | {"alg": "RS512"},
        for_encryption.as_dict(private=False) | {"use": "enc"},
        rsa("short", 1024),
        OctKey.generate_key(256, {"kid": "oct"}).as_dict(),
        {"kty": "NEW", "kid": "new"},
        {"kty": "RSA", "kid": "half"},
        "nonsense",
        {},
        ONE,
    ]
    world = World(issuer)
    assert world.ask(issuer.sign(ONE)) is not None
    assert "another algorithm" in world.refused(issuer.sign(pinned))
    assert "does not publish" in world.refused(issuer.sign(for_encryption))
    world.wait(60)
    assert "does not publish" in world.refused(issuer.sign(issuer.keys[2]))


@pytest.mark.parametrize(
    ("claims", "header"),
    [
        ({"aud": "other"}, {}),
        ({"aud": ["other", "another"]}, {}),
        ({"aud": None}, {}),
        ({"exp": None}, {}),
        ({"exp": 1}, {}),
        ({"exp": "never"}, {}),
        ({"nbf": 9_999_999_999}, {}),
        ({"iat": 9_999_999_999}, {}),
        ({"org": None}, {}),
        ({"org": ""}, {}),
        ({"org": "x" * 200}, {}),
        ({"org": ["acme"]}, {}),
        ({"sub": None}, {}),
        ({"sub": 7}, {}),
        ({"scope": 7}, {}),
        ({"scope": [7]}, {}),
        ({}, {"typ": "secevent+jwt"}),
        ({}, {"kid": "unknown"}),
    ],
)
def test_what_is_not_right_is_refused(issuer: Issuer, claims: dict[str, Any], header: dict[str, Any]) -> None:
    """Though it is signed: for somebody else, over, not begun, or without what the caller would be made of."""
    world = World(issuer)
    assert world.ask(issuer.sign(ONE, aud=["other", "proxy"], nbf=1, iat=1)) is not None
    said = world.refused(issuer.sign(ONE, header, **claims))
    assert issuer.url in said


def test_a_signature_of_somebody_else_is_refused(issuer: Issuer, colour: str) -> None:
    """Under the right key's name, or changed by a letter."""
    world = World(issuer, colour)
    assert "BadSignatureError" in world.refused(issuer.sign(rsa("one")))
    token = issuer.sign(ONE)
    head, claims, signature = token.split(".")
    other = base64.urlsafe_b64encode(base64.urlsafe_b64decode(claims + "==").replace(b"ada", b"bob")).decode()
    assert "BadSignatureError" in world.refused(f"{head}.{other.rstrip('=')}.{signature}")
    assert world.ask(token) is not None


def test_a_token_that_is_over_is_refused_though_it_was_verified(issuer: Issuer, colour: str) -> None:
    """With half a minute for clocks that differ."""
    world = World(issuer, colour)
    token = issuer.sign(ONE)
    for seconds in (0, 200, 120):
        world.wait(seconds)
        assert world.ask(token) is not None
    world.wait(15)
    assert "ExpiredTokenError" in world.refused(token)


def test_a_verified_token_is_not_verified_again_for_a_minute(issuer: Issuer, colour: str) -> None:
    """The same caller is returned, without a key being looked for."""
    world = World(issuer, colour)
    token = issuer.sign(ONE)
    first = world.ask(token)
    issuer.keys = []
    assert world.ask(token) is first
    world.wait(60)
    assert world.ask(token) is not first


def test_keys_are_fetched_once_however_many_ask(issuer: Issuer) -> None:
    """By thirty threads at the same time."""
    issuer.pause = 0.1
    bound = World(issuer).part.bind(SYNC)
    tokens = [bearer(issuer.sign(ONE, jti=str(number))) for number in range(30)]
    with ThreadPoolExecutor(30) as pool:
        callers = list(pool.map(lambda token: run(bound.authenticate(token, a_request())), tokens))
    assert [caller.tenant for caller in callers if caller is not None] == ["acme"] * 30
    assert issuer.asked == ["/.well-known/openid-configuration", "/keys"]


def test_a_new_key_is_found_and_an_old_one_forgotten(issuer: Issuer, colour: str) -> None:
    """A key that is not known is looked for, at most once in ten seconds; what it signed before is over then."""
    world = World(issuer, colour, jwks=issuer.jwks)
    old = issuer.sign(ONE)
    assert world.ask(old) is not None
    issuer.keys = [TWO]
    assert world.ask(issuer.sign(TWO)) is not None
    assert issuer.asked == ["/keys"] * 2
    world.wait(60)
    issuer.asked.clear()
    assert "does not publish" in world.refused(old)
    for number in range(5):
        world.refused(issuer.sign(rsa(f"unknown{number}", 2048)))
    assert issuer.asked == ["/keys"]
    world.wait(30)
    world.refused(issuer.sign(rsa("another")))
    assert issuer.asked == ["/keys"] * 2


def test_all_who_bring_a_new_key_wait_for_it(issuer: Issuer) -> None:
    """Those that come while it is fetched are not refused meanwhile."""
    world = World(issuer, jwks=issuer.jwks)
    assert world.ask(issuer.sign(ONE)) is not None
    issuer.keys, issuer.pause = [TWO], 0.1
    bound = world.part.bind(SYNC)
    tokens = [bearer(issuer.sign(TWO, jti=str(number))) for number in range(10)]
    with ThreadPoolExecutor(10) as pool:
        callers = list(pool.map(lambda token: run(bound.authenticate(token, a_request())), tokens))
    assert [caller.tenant for caller in callers if caller is not None] == ["acme"] * 10
    assert issuer.asked == ["/keys"] * 2


def test_what_must_be_claimed_is_required(issuer: Issuer, colour: str) -> None:
    """An issuer that serves everybody signs for strangers too."""
    world = World(issuer, colour, required={"org": ["acme", "octo"], "team.name": "blue"})
    assert world.ask(issuer.sign(ONE, team={"name": "blue"})) is not None
    for claims in ({}, {"team": {"name": "red"}}, {"team": {"name": "blue"}, "org": "other"}, {"team": "blue"}):
        assert "required" in world.refused(issuer.sign(ONE, **claims))


@pytest.mark.parametrize("end", [10**400, 1e308, -(10**400)])
def test_an_end_beyond_all_time_is_no_fault(issuer: Issuer, colour: str, end: float) -> None:
    """It lasts, or it is over."""
    world = World(issuer, colour)
    if end > 0:
        assert world.ask(issuer.sign(ONE, exp=end)) is not None
    else:
        world.refused(issuer.sign(ONE, exp=end))


def test_while_nobody_answers_the_last_keys_go_on(issuer: Issuer, colour: str) -> None:
    """For as long as was said; then 503 and never 401."""
    world = World(issuer, colour, jwks=issuer.jwks, outage=timedelta(hours=1))
    assert world.ask(issuer.sign(ONE)) is not None
    issuer.broken = (500, b"")
    world.wait(TTL + 3590)
    assert world.ask(issuer.sign(ONE, exp=int(world.clock.now) + 300)) is not None
    world.wait(20)
    with pytest.raises(KeysUnavailable):
        world.ask(issuer.sign(ONE, exp=int(world.clock.now) + 300))
    issuer.broken = None
    world.wait(2)
    assert world.ask(issuer.sign(ONE, exp=int(world.clock.now) + 300)) is not None


@pytest.mark.parametrize(
    "broken",
    [
        (500, b""),
        (302, b""),
        (200, b"nonsense"),
        (200, b"[]"),
        (200, b"{}"),
        (200, b'{"keys": []}'),
        (200, b"x" * 300_000),
    ],
)
def test_keys_that_cannot_be_had_are_not_the_clients_fault(
    issuer: Issuer, colour: str, broken: tuple[int, bytes]
) -> None:
    """503, with the reason in the record."""
    issuer.broken = broken
    world = World(issuer, colour, jwks=issuer.jwks)
    with pytest.raises(KeysUnavailable) as refusal:
        world.ask(issuer.sign(ONE))
    assert issuer.url in refusal.value.detail
    assert refusal.value.status == 503


@pytest.mark.parametrize(
    "metadata", [{"issuer": "https://other.example"}, {"jwks_uri": None}, {"jwks_uri": "ftp://x/"}]
)
def test_metadata_of_another_issuer_names_no_keys(issuer: Issuer, metadata: dict[str, Any]) -> None:
    """OpenID Connect Discovery 1.0, section 4.3."""
    issuer.metadata = metadata
    with pytest.raises(KeysUnavailable):
        World(issuer).ask(issuer.sign(ONE))
    assert issuer.asked == ["/.well-known/openid-configuration"]


@pytest.mark.parametrize(
    ("terms", "sentence"),
    [
        ({"audience": []}, "audience"),
        ({"audience": ""}, "audience"),
        ({"tenant_claim": None}, "either tenant or tenant_claim"),
        ({"tenant": "x"}, "either tenant or tenant_claim"),
        ({"tenant": "", "tenant_claim": None}, "tenant must be"),
        ({"algorithms": []}, "algorithms is a list"),
        ({"algorithms": ["HS256"]}, "algorithms is a list"),
        ({"algorithms": ["none"]}, "algorithms is a list"),
        ({"algorithms": "RS256"}, "algorithms is a list"),
        ({"allow_private": False}, "over https"),
        ({"jwks": "file:///keys"}, "over https"),
    ],
)
def test_what_is_wrong_is_said_when_it_is_built(issuer: Issuer, terms: dict[str, Any], sentence: str) -> None:
    """In one sentence."""
    with pytest.raises(ConfigurationError, match=sentence):
        World(issuer, **terms)


def test_a_proxy_takes_client_tokens_and_several_issuers(issuer: Issuer, upstream: UpstreamServer) -> None:
    """The first that knows its kind decides; a bad one of its kind is refused and not tried elsewhere."""
    with running_issuer() as other:
        other.keys = [TWO]
        proxy = Proxy(
            upstreams=[Upstream("api", upstream.url, credential=Bearer("env:DEMO_KEY"), allow_private=True)],
            rules=[Rule("acme", effect="allow", tenants=["acme"])],
            identity=[
                JwtIdentity(one.url, audience="proxy", tenant_claim="org", allow_private=True)
                for one in (issuer, other)
            ]
            + [lambda _environ: Caller("acme", "everybody")],
        )
        tokens = {
            "client": (proxy.tokens.issue(tenant="acme").token, 200),
            "first": (issuer.sign(ONE), 200),
            "second": (other.sign(TWO), 200),
            "forged": (other.sign(ONE, {"kid": "two"}), 401),
            "another tenant": (issuer.sign(ONE, org="other"), 403),
            "the session": ("sk-something", 200),
        }
        with httpx.Client(transport=httpx.WSGITransport(app=proxy.wsgi), base_url="http://proxy") as client:
            found = {
                name: client.get("/api/x", headers={"Authorization": f"Bearer {token}"}).status_code
                for name, (token, _) in tokens.items()
            }
        assert found == {name: status for name, (_, status) in tokens.items()}
        proxy.close()
