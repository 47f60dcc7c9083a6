"""The token endpoint, under ASGI and WSGI: who may derive, what is derived, and what OAuth clients are told."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from apitokenproxy import Bearer, ConfigurationError, Grant, Proxy, Rule, Upstream, nonblocking
from apitokenproxy.errors import StoreUnavailable
from apitokenproxy.identity.format import mint
from apitokenproxy.identity.guessing import BURST
from apitokenproxy.identity.memory import MemoryStore
from apitokenproxy.messages import Admission
from apitokenproxy.testing import FixedSecrets, MemoryAudit
from apitokenproxy.token_endpoint import MAX_BODY
from loopback import UpstreamServer

TYPE = "urn:ietf:params:oauth:token-type:access_token"
GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"


class FailingStore(MemoryStore):
    """A store that can be taken away."""

    down = False

    def changes(self) -> int:
        if self.down:
            raise StoreUnavailable("down")
        return super().changes()


class World:
    """A proxy and its token endpoint, in one colour."""

    def __init__(self, colour: str, upstream: UpstreamServer, **more: Any) -> None:
        self.colour = colour
        self.audit = MemoryAudit()
        self.store = FailingStore()
        self.proxy = Proxy(
            upstreams=[Upstream("api", upstream.url, credential=Bearer("env:DEMO_KEY"), allow_private=True)],
            rules=[Rule("all", effect="allow")],
            store=self.store,
            audit=self.audit,
            secret_providers={"fixed": FixedSecrets(key="k" * 32)},
            signing_keys=["fixed:key"],
            **more,
        )
        self.parent = self.proxy.tokens.issue(tenant="acme", scopes=["a", "b", "tokens:derive"])

    def ask(self, app: str, method: str = "POST", path: str = "/token", **request: Any) -> httpx.Response:
        names = {"endpoint": ("token_endpoint", "wsgi_token_endpoint"), "proxy": ("asgi", "wsgi")}[app]
        if self.colour == "sync":
            transport = httpx.WSGITransport(app=getattr(self.proxy, names[1]))
            with httpx.Client(transport=transport, base_url="http://proxy") as client:
                return client.request(method, path, **request)

        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(app=getattr(self.proxy, names[0]))
            async with httpx.AsyncClient(transport=transport, base_url="http://proxy") as client:
                answer = await client.request(method, path, **request)
            await self.proxy.aclose()  # with its event loop, an upstream's connection would be left behind
            return answer

        return asyncio.run(send())

    def exchange(self, **fields: Any) -> httpx.Response:
        form = {"grant_type": GRANT, "subject_token": self.parent.token, "subject_token_type": TYPE} | fields
        return self.ask("endpoint", data={name: value for name, value in form.items() if value is not None})

    def call(self, token: str, method: str = "GET", path: str = "/api/x") -> int:
        return self.ask("proxy", method, path, headers={"Authorization": f"Bearer {token}"}).status_code


@pytest.fixture(params=["async", "sync"])
def world(request: pytest.FixtureRequest, upstream: UpstreamServer) -> Iterator[World]:
    world = World(request.param, upstream)
    yield world
    world.proxy.close()


def test_a_holder_gets_a_token_that_works_until_the_parent_ends(world: World) -> None:
    """RFC 8693, section 2.2.1: what is answered, never to be kept by a cache."""
    answer = world.exchange()
    said = answer.json()
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert {name: said[name] for name in ("issued_token_type", "token_type", "scope")} == {
        "issued_token_type": TYPE,
        "token_type": "Bearer",
        "scope": "a b",
    }
    assert 3595 <= said["expires_in"] <= 3600
    assert world.call(said["access_token"]) == 200
    world.proxy.tokens.revoke(world.parent.id)
    assert world.call(said["access_token"]) == 401


def test_less_can_be_asked_for(world: World) -> None:
    """Scopes, and upstreams as the audience."""
    said = world.exchange(scope="b", audience="api").json()
    assert said["scope"] == "b"
    assert world.call(said["access_token"]) == 200
    assert world.call(said["access_token"], path="/other/x") == 403


def test_the_lifetime_is_the_operators(upstream: UpstreamServer) -> None:
    """`exchange_lifetime`."""
    world = World("sync", upstream, exchange_lifetime=timedelta(minutes=5))
    assert 295 <= world.exchange().json()["expires_in"] <= 300


def test_what_is_derived_ends_with_the_secret_that_was_exchanged(world: World) -> None:
    """Whoever stole a secret loses what he derived with it, too."""
    token = world.exchange().json()["access_token"]
    world.proxy.tokens.rotate(world.parent.id, overlap=timedelta(0))
    assert world.call(token) == 401


def test_every_exchange_is_recorded_without_tokens(world: World) -> None:
    """Who, when, with which outcome; refusals with their reason."""
    token = world.exchange().json()["access_token"]
    world.exchange(scope="z")
    records = world.audit.records
    assert [(one.method, one.path, one.status, one.code, one.token_id, one.tenant) for one in records] == [
        ("POST", "/token", 200, "", world.parent.id, "acme"),
        ("POST", "/token", 400, "token_exchange_refused", "", ""),
    ]
    assert records[1].reason == "a scope is asked for that cannot be had"
    assert token not in repr(records)
    world.call(token)
    assert (world.audit.records[-1].derived, world.audit.records[-1].token_id) != ("", "")


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"grant_type": "client_credentials"}, "unsupported_grant_type"),
        ({"grant_type": None}, "unsupported_grant_type"),
        ({"subject_token": None}, "invalid_request"),
        ({"subject_token": "atp_nonsense"}, "invalid_request"),
        ({"subject_token": "something else"}, "invalid_request"),
        ({"subject_token": "ü"}, "invalid_request"),
        ({"subject_token": [GRANT, GRANT]}, "invalid_request"),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:jwt"}, "invalid_request"),
        ({"requested_token_type": "urn:ietf:params:oauth:token-type:jwt"}, "invalid_request"),
        ({"actor_token": "x"}, "invalid_request"),
        ({"audience": "elsewhere"}, "invalid_target"),
        ({"audience": ["api", "elsewhere"]}, "invalid_target"),
        ({"resource": "https://api.example.com"}, "invalid_target"),
        ({"scope": "z"}, "invalid_scope"),
        ({"scope": "a tokens:derive"}, "invalid_scope"),
    ],
)
def test_what_cannot_be_had_is_told_as_oauth_clients_expect_it(world: World, fields: Any, error: str) -> None:
    """RFC 6749, section 5.2, and RFC 8693, section 2.2.2: 400 and a code, nothing more."""
    answer = world.exchange(**fields)
    assert (answer.status_code, answer.json()) == (400, {"error": error})


@pytest.mark.parametrize(
    "request_",
    [
        {"method": "GET"},
        {"json": {"grant_type": GRANT}},
        {"content": b""},
        {"content": b"a&b", "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
        {"content": b"a=%ff", "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
        {"content": b"\xff=1", "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
        {"content": b"a=1&" * 60 + b"b=2", "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
        {"data": {"grant_type": "x"}, "headers": [("Content-Type", "a/b"), ("Content-Type", "c/d")]},
    ],
)
def test_what_is_no_token_request_is_refused(world: World, request_: dict[str, Any]) -> None:
    """Wrong method, wrong type, malformed, too many fields."""
    answer = world.ask("endpoint", **request_)
    assert (answer.status_code, answer.json()) == (400, {"error": "invalid_request"})


def test_a_request_that_is_too_large_is_not_read_to_its_end(world: World) -> None:
    """413, whether its length was announced or not."""
    body = urlencode({"grant_type": GRANT, "x": "y" * MAX_BODY}).encode()
    answer = world.ask("endpoint", content=body, headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert answer.status_code == 413
    assert world.audit.records[-1].code == "body_too_large"


def test_only_who_may_derive_can(world: World) -> None:
    """Neither a token without the scope, nor a derived token."""
    plain = world.proxy.tokens.issue(tenant="acme", scopes=["a"]).token
    derived = world.exchange().json()["access_token"]
    for token in (plain, derived):
        answer = world.exchange(subject_token=token)
        assert (answer.status_code, answer.json()) == (400, {"error": "unauthorized_client"})


def test_guessing_here_is_guessing(world: World) -> None:
    """After 20 wrong tokens the address has to wait, at the proxy as well."""
    answers = [world.exchange(subject_token=mint()[1])]
    while answers[-1].status_code == 400 and len(answers) < 200:
        answers.append(world.exchange(subject_token=mint()[1]))
    assert len(answers) > BURST
    assert (answers[-1].status_code, answers[-1].json()) == (429, {"error": "temporarily_unavailable"})
    assert int(answers[-1].headers["retry-after"]) >= 1
    statuses = [world.call(mint()[1])]
    while statuses[-1] == 401 and len(statuses) < 200:
        statuses.append(world.call(mint()[1]))
    assert statuses[-1] == 429


def test_a_store_that_does_not_answer_is_not_the_clients_fault(world: World) -> None:
    """503 and when to try again."""
    world.store.down = True
    answer = world.exchange()
    assert (answer.status_code, answer.json()) == (503, {"error": "temporarily_unavailable"})
    assert "retry-after" in answer.headers


def test_whoever_dawdles_over_the_form_holds_no_place_in_the_audit(world: World) -> None:
    """Ten thousand places are few for strangers who send one byte and wait."""
    reserved: list[str] = []
    world.audit.reserve = lambda: reserved.append("place")  # type: ignore[method-assign]
    seen: list[int] = []
    form = urlencode({"grant_type": GRANT, "subject_token": world.parent.token, "subject_token_type": TYPE}).encode()

    def chunks() -> Iterator[bytes]:
        for chunk in (form[:1], form[1:]):
            seen.append(len(reserved))
            yield chunk

    async def achunks() -> AsyncIterator[bytes]:
        for chunk in chunks():
            yield chunk

    body = chunks() if world.colour == "sync" else achunks()
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Content-Length": str(len(form))}
    answer = world.ask("endpoint", content=body, headers=headers)
    assert (answer.status_code, len(reserved)) == (200, 1)
    assert seen == [0, 0]


def test_the_answer_to_a_head_has_no_body(world: World) -> None:
    """Or a connection behind a front proxy would be out of step."""
    answer = world.ask("endpoint", "HEAD")
    assert (answer.status_code, answer.content) == (400, b"")
    assert int(answer.headers["content-length"]) > 0


def test_limits_of_its_own_need_a_limiter_that_counts_them(upstream: UpstreamServer) -> None:
    """They would be promised and not kept."""

    class Counting:
        @nonblocking
        def admit(self, _grant: Grant) -> Admission:
            return Admission()

    world = World("sync", upstream, limits=Counting())
    assert world.proxy.tokens.derive(world.parent.id).token
    with pytest.raises(ConfigurationError, match="built-in limiter"):
        world.proxy.tokens.derive(world.parent.id, rate="1/day")
    world.proxy.close()


def test_without_a_signing_key_there_is_no_endpoint(upstream: UpstreamServer) -> None:
    """Told when it is mounted, not when somebody asks."""
    proxy = Proxy(
        upstreams=[Upstream("api", upstream.url, credential=Bearer("env:DEMO_KEY"), allow_private=True)], rules=[]
    )
    for name in ("token_endpoint", "wsgi_token_endpoint"):
        with pytest.raises(ConfigurationError, match="signing_keys"):
            getattr(proxy, name)
    proxy.close()


def test_a_signing_key_that_cannot_be_had_is_found_by_check(upstream: UpstreamServer) -> None:
    """With its place in the configuration."""
    proxy = Proxy(
        upstreams=[Upstream("api", upstream.url, credential=Bearer("env:DEMO_KEY"), allow_private=True)],
        rules=[],
        signing_keys=["env:NO_SUCH_KEY"],
    )
    [problem] = proxy.missing_secrets()
    proxy.close()
    assert problem.startswith("proxy.signing_keys: ")
