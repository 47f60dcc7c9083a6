"""A secret that the upstream refuses: read again, and the previous one in its place."""

import asyncio
import re
from typing import Any

import httpx
import pytest
from credential_calls import COLOURS

from apitokenproxy import Bearer, Caller, Credential, Proxy, Rule, Secret, Upstream, nonblocking
from apitokenproxy._colour import run
from apitokenproxy.credentials.versions import FAILING, Versions
from apitokenproxy.errors import SecretUnavailable
from apitokenproxy.messages import Hidden
from apitokenproxy.testing import MemoryAudit

NEW, OLD, BAD = "new-0c6f1d7a94e2", "old-7d1f4c0a52b9", "bad-5d20c7f4e1a8"


class Places:
    """A provider whose secrets a test changes."""

    ttl = 3600.0

    def __init__(self, **material: str) -> None:
        self.material = material
        self.fetched: list[str] = []

    @nonblocking
    def fetch(self, reference: str) -> Secret:
        self.fetched.append(reference)
        if reference not in self.material:
            raise SecretUnavailable(f"there is no {reference}")
        return Secret(self.material[reference])


class World:
    """A proxy before an upstream that accepts some keys, in one colour."""

    def __init__(self, colour: str, *accepted: str, refusal: int = 401, previous: Any = (), **material: str) -> None:
        self.colour = colour
        self.accepted = set(accepted)
        self.refusal = refusal
        self.seen: list[str] = []
        self.places = Places(**material)
        self.audit = MemoryAudit()
        transport = httpx.MockTransport(self.answer if colour == "sync" else self.aanswer)
        self.proxy = Proxy(
            upstreams=[
                Upstream(
                    "api", "https://a.example", credential=Bearer("places:key"), previous=previous, transport=transport
                )
            ],
            rules=[Rule("all", effect="allow")],
            audit=self.audit,
            secret_providers={"places": self.places},
        )
        self.token = self.proxy.tokens.issue(tenant="acme").token

    def answer(self, request: httpx.Request) -> httpx.Response:
        key = request.headers["authorization"].removeprefix("Bearer ")
        self.seen.append(key)
        return httpx.Response(200 if key in self.accepted else self.refusal)

    async def aanswer(self, request: httpx.Request) -> httpx.Response:
        return self.answer(request)

    def ask(self, method: str = "GET", content: bytes | None = None) -> int:
        if self.colour == "sync":
            with httpx.Client(transport=self.proxy.transport(self.token)) as client:
                return client.request(method, "http://proxy/api/x", content=content).status_code

        async def send() -> int:
            async with httpx.AsyncClient(transport=self.proxy.async_transport(self.token)) as client:
                return (await client.request(method, "http://proxy/api/x", content=content)).status_code

        return asyncio.run(send())


@pytest.fixture(params=COLOURS)
def colour(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what was read a moment ago be read again."""
    monkeypatch.setattr("apitokenproxy.loading._PAUSE", 0.0)


@pytest.mark.parametrize("refusal", [401, 403])
def test_a_secret_that_has_changed_is_read_again_and_the_client_notices_nothing(colour: str, refusal: int) -> None:
    """One request more upstream, and from then on none; the record names the version that was accepted."""
    world = World(colour, OLD, refusal=refusal, key=OLD)
    assert world.ask() == 200
    world.places.material["key"], world.accepted = NEW, {NEW}
    assert [world.ask(), world.ask("POST"), world.ask()] == [200, 200, 200]
    assert world.seen == [OLD, OLD, NEW, NEW, NEW]
    first, second = world.audit.records[0].credential, world.audit.records[1].credential
    assert (first != second, world.audit.records[1].code) == (True, "")


def test_a_secret_that_is_the_same_is_not_sent_again(colour: str) -> None:
    """The refusal is told as ever: the upstream's 401 is nobody's business but the operator's."""
    world = World(colour, key=BAD)
    assert world.ask() == 502
    assert world.seen == [BAD]
    assert world.audit.records[0].code == "upstream_auth_failed"
    forbidding = World(colour, refusal=403, key=BAD)
    assert forbidding.ask() == 403
    assert forbidding.seen == [BAD]


def test_a_request_with_a_body_is_sent_once(colour: str) -> None:
    """Its body is gone; the next request has the new secret."""
    world = World(colour, OLD, key=OLD)
    assert world.ask("POST", b"x") == 200
    world.places.material["key"], world.accepted = NEW, {NEW}
    assert world.ask("POST", b"x") == 502
    assert world.seen == [OLD, OLD]


def test_a_provider_that_does_not_answer_then_leaves_the_refusal(colour: str) -> None:
    """The client is told that the credential cannot be had, and nothing is sent without one."""
    world = World(colour, OLD, key=OLD)
    assert world.ask() == 200
    world.accepted = {NEW}
    del world.places.material["key"]
    assert world.ask() == 503
    assert world.audit.records[-1].code == "secret_unavailable"


def test_while_the_new_one_is_refused_the_previous_one_is_used(colour: str, caplog: pytest.LogCaptureFixture) -> None:
    """One request more upstream before all traffic uses it, and one line in the log."""
    world = World(colour, OLD, previous=Bearer("places:before"), key=BAD, before=OLD)
    assert [world.ask() for _ in range(5)] == [200] * 5
    assert world.seen == [BAD, OLD, OLD, OLD, OLD, OLD]
    [told] = [record.message for record in caplog.records if "refuses its credential" in record.message]
    assert re.search(r"\(version places#\w+\) and accepts the previous one \(places#\w+\), which is used$", told)
    assert BAD not in caplog.text
    assert {re.match("places#", record.credential) is not None for record in world.audit.records} == {True}
    assert len({record.credential for record in world.audit.records}) == 1


def test_if_both_are_refused_that_is_told(colour: str) -> None:
    """And the next request begins with the new one again."""
    world = World(colour, previous=Bearer("places:before"), key=BAD, before=OLD)
    assert [world.ask(), world.ask()] == [502, 502]
    assert world.seen == [BAD, OLD, BAD, OLD]


# --- the state -----------------------------------------------------------------------------------


class Clocked:
    """Versions of two credentials that a test changes, and a clock set by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.current, self.before = self.made("v1"), self.made("v0")
        self.versions = Versions("api", self.get, lambda _: None, self.get_previous, lambda: self.now)

    @staticmethod
    def made(version: str, token: str = "") -> Credential:
        return Credential(headers=((b"X-Key", Hidden(version.encode())),), version=version, token=token)

    async def get(self, _caller: Caller) -> Credential:
        return self.current

    async def get_previous(self, _caller: Caller) -> Credential:
        return self.before

    def obtained(self) -> str:
        return run(self.versions.obtain(Caller("acme"))).version  # type: ignore[arg-type]


def test_a_failing_version_is_tried_again_after_a_minute() -> None:
    """Or at once, when it has become another one."""
    world = Clocked()
    assert world.obtained() == "v1"
    run(world.versions.worked(Caller("acme"), world.current, world.before))
    for moment, version in ((1.0, "v0"), (FAILING - 0.1, "v0"), (FAILING, "v1")):
        world.now = moment
        assert world.obtained() == version
    run(world.versions.worked(Caller("acme"), world.current, world.before))
    assert world.obtained() == "v0"
    world.current = world.made("v2")
    assert world.obtained() == "v2"


def test_another_token_of_the_same_secret_is_another_credential() -> None:
    """It is tried when the one before was refused, and begins with a clean slate."""
    world = Clocked()
    refused = world.current = world.made("v1", "t1")
    assert run(world.versions.instead(Caller("acme"), refused)) is world.before
    world.current = world.made("v1", "t2")
    assert run(world.versions.instead(Caller("acme"), refused)) is world.current
    run(world.versions.worked(Caller("acme"), world.current, world.before))
    assert world.obtained() == "v0"
    world.current = world.made("v1", "t3")
    assert world.obtained() == "v1"


def test_a_new_version_that_works_says_nothing_of_the_one_before() -> None:
    """It was tried because the secret had changed, and not because it failed."""
    world = Clocked()
    refused = world.current
    world.current = world.made("v2")
    run(world.versions.worked(Caller("acme"), refused, world.current))
    assert world.obtained() == "v2"


def test_what_is_remembered_is_bounded() -> None:
    """By the versions that failed last."""
    world = Clocked()
    for number in range(3000):
        world.current = world.made(f"v{number + 1}")
        run(world.versions.worked(Caller("acme"), world.current, world.before))
    assert len(world.versions._failing) == 1000
