"""OAuth 2.0 refresh tokens, against a strict authorization server and its API on loopback, in both colours."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from attrs import Factory, define
from credential_calls import COLOURS
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from oauth2_server import CLIENT, SECRET, AuthorizationServer, Consent, Fault, running_server

from apitokenproxy import ConfigurationError, OAuth2RefreshToken, Proxy, Rule, SecretUnavailable, Upstream, nonblocking
from apitokenproxy._colour import ASYNC
from apitokenproxy.credentials import refresh, shared_token
from apitokenproxy.errors import StoreUnavailable
from apitokenproxy.identity.memory import MemoryStore
from apitokenproxy.messages import Secret
from apitokenproxy.sealing import new_master_key
from apitokenproxy.secrets.cache import Secrets
from apitokenproxy.testing import MemoryAudit
from loopback import wait_until

REFUSED = "secret_unavailable"


class Place:
    """A secret provider over a dictionary that a test writes to; it is read once a minute."""

    ttl = 60.0

    def __init__(self, **material: str) -> None:
        self.material = material

    @nonblocking
    def fetch(self, reference: str) -> Secret:
        if reference not in self.material:
            raise SecretUnavailable(f"there is no {reference}")
        return Secret(self.material[reference])


class Leaving(MemoryStore):
    """A store whose states are away when that is said."""

    away = False

    @nonblocking
    def state(self, name: str) -> Any:
        if self.away:
            raise StoreUnavailable("the store is away")
        return super().state(name)

    @nonblocking
    def write_state(self, name: str, value: bytes, number: int) -> bool:
        if self.away:
            raise StoreUnavailable("the store is away")
        return super().write_state(name, value, number)


@define
class World:
    """A server, a store and what is in the secret manager; `proxy` makes what a process has."""

    server: AuthorizationServer
    colour: str
    store: Any = Factory(Leaving)
    place: Place = Factory(lambda: Place(secret=SECRET, key=new_master_key()))
    audit: MemoryAudit = Factory(MemoryAudit)
    made: list[Proxy] = Factory(list)

    def proxy(self, **terms: Any) -> Proxy:
        """Return what a process of its own would have: it shares the store alone."""
        if "refresh_token" not in terms:
            self.place.material.setdefault("first", self.server.authorise())
        reference = {"refresh_token": "my:first", "key": "my:key", "secret": "my:secret", "allow_private": True}
        kind = OAuth2RefreshToken(self.server.token_url, CLIENT, **(reference | terms))
        proxy = Proxy(
            upstreams=[Upstream("api", self.server.url, credential=kind, allow_private=True)],
            rules=[Rule("all", effect="allow")],
            store=self.store,
            audit=self.audit,
            secret_providers={"my": self.place},
        )
        self.made.append(proxy)
        return proxy

    def get(self, *proxies: Proxy, times: int = 1, tenant: str = "acme") -> list[httpx.Response]:
        """Send so many requests at once through each of the proxies."""
        asked = [(each, each.tokens.issue(tenant=tenant, subject="ci").token) for each in proxies or self.made]
        url = "http://proxy/api/x"
        if self.colour == "sync":
            clients = [httpx.Client(transport=each.transport(token)) for each, token in asked]
            with ThreadPoolExecutor(32) as pool:
                answers = list(pool.map(lambda client: client.get(url), clients * times))
            for client in clients:
                client.close()
            return answers

        async def send() -> list[httpx.Response]:
            clients = [httpx.AsyncClient(transport=each.async_transport(token), timeout=60) for each, token in asked]
            answers = await asyncio.gather(*(client.get(url) for client in clients * times))
            for client in clients:
                await client.aclose()
            return answers

        return asyncio.run(send())

    def outcome(self, *proxies: Proxy, **terms: Any) -> str:
        """Return how a request ended: 200, or the code of the proxy's refusal."""
        [answer] = self.get(*proxies, **terms)
        return answer.headers.get("x-proxy-error", str(answer.status_code))

    @property
    def reason(self) -> str:
        return self.audit.records[-1].reason

    def counted(self, *names: str) -> list[int]:
        return [self.server.counts[name] for name in names]

    def close(self) -> None:
        for proxy in self.made:
            proxy.close()


@pytest.fixture(params=COLOURS)
def colour(request: pytest.FixtureRequest) -> str:
    return request.param


@contextmanager
def running_world(colour: str, **terms: Any) -> Iterator[World]:
    with running_server(**terms) as server:
        world = World(server, colour)
        try:
            yield world
        finally:
            world.close()
            # Whatever went wrong, the API saw nothing that it did not like.
            assert world.counted("unauthenticated", "expired") == [0, 0]


@pytest.fixture
def world(colour: str) -> Iterator[World]:
    with running_world(colour) as world:
        yield world


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten what is waited: for the endpoint 2 s, for a lease 3 s, for another process 0.4 s; pauses to 0.2 s."""
    for module, name, seconds in (
        (refresh, "REQUEST", 2.0),
        (shared_token, "REQUEST", 2.0),
        (shared_token, "LEASE", 3.0),
        (refresh, "PATIENCE", 0.4),
        (shared_token, "PATIENCE", 0.4),
        (shared_token, "_REFUSED", 0.2),
        (shared_token, "_LONGEST", 0.2),
    ):
        monkeypatch.setattr(module, name, seconds)


# --- what is asked, and how often -----------------------------------------------------------


@pytest.mark.parametrize("auth", ["basic", "post", "private-key-jwt", "public"])
def test_a_request_carries_an_access_token(world: World, auth: str) -> None:
    """The refresh token and the client's secret go to the token endpoint alone; none of them is told."""
    world.server.auth = auth
    if auth == "private-key-jwt":
        key = Ed25519PrivateKey.generate()
        written = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        world.place.material["secret"] = written.decode()
    terms: dict[str, Any] = {"secret": ""} if auth == "public" else {"auth": auth}
    assert world.outcome(world.proxy(scope="read", **terms)) == "200"
    [form] = world.server.asked
    first = world.place.material["first"]
    assert (form["grant_type"], form["refresh_token"], form["scope"]) == ("refresh_token", first, "read")
    [record] = world.audit.records
    shown = repr(record) + repr(world.made[0].upstreams)
    assert [one for one in (first, SECRET, *world.server.accesses, *world.server.refreshes) if one in shown] == []
    assert "+" in record.credential


@pytest.mark.long
def test_a_thousand_requests_over_four_processes_are_one_refresh(world: World) -> None:
    """All of them are served."""
    proxies = [world.proxy() for _ in range(4)]
    world.server.faults.append(Fault(wait=0.2))
    assert {answer.status_code for answer in world.get(*proxies, times=250)} == {200}
    assert world.counted("refreshes", "served") == [1, 1000]


def test_after_a_restart_nothing_is_asked(world: World, tmp_path: Path) -> None:
    """The access token is in the store; the next refresh uses the newest refresh token, not the first."""
    world.store = f"sqlite:///{tmp_path}/tokens.db"
    for _ in range(3):
        proxy = world.proxy()
        assert world.outcome(proxy) == "200"
        proxy.close()
    assert world.counted("refreshes", "reuse") == [1, 0]


@pytest.mark.long
def test_tokens_are_rotated_for_life(colour: str) -> None:
    """Each refresh uses the token that the one before brought; two processes take turns."""
    with running_world(colour, lasts=11.0) as world:  # of which one second is used
        proxies = [world.proxy(), world.proxy()]
        for _ in range(3):
            assert {answer.status_code for answer in world.get(*proxies)} == {200}
            time.sleep(1.0)
        assert world.counted("reuse") == [0]
        used = [form["refresh_token"] for form in world.server.asked]
        assert 3 <= len(used) == len(set(used))


def test_a_refresh_token_may_hold_blanks(colour: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 6749, appendix A.17: it is sent in a form. If one were dropped, the spent one would be used again."""
    new_refresh = AuthorizationServer._new_refresh

    def with_blanks(server: AuthorizationServer, consent: Consent) -> str:
        plain = new_refresh(server, consent)
        server.refreshes[f"a b+c %20 {plain}"] = server.refreshes.pop(plain)
        return f"a b+c %20 {plain}"

    monkeypatch.setattr(AuthorizationServer, "_new_refresh", with_blanks)
    with running_world(colour, lasts=11.0) as world:
        proxy = world.proxy()
        for _ in range(2):
            assert world.outcome(proxy) == "200"
            time.sleep(1.0)
        assert world.counted("refreshes", "reuse") == [2, 0]


def test_a_server_that_does_not_rotate_is_asked_with_the_same_token(colour: str) -> None:
    """RFC 6749, section 6."""
    with running_world(colour, lasts=11.0, rotates=False) as world:
        proxy = world.proxy()
        for _ in range(2):
            assert world.outcome(proxy) == "200"
            time.sleep(1.0)
        assert {form["refresh_token"] for form in world.server.asked} == {world.place.material["first"]}
        assert world.counted("refreshes") == [2]


def test_what_is_configured_anew_begins_with_the_newest_refresh_token(world: World) -> None:
    """Another scope, another way to the endpoint: the first refresh token is spent and is not used again."""
    assert world.outcome(world.proxy()) == "200"
    assert world.outcome(world.proxy(scope="read")) == "200"
    world.server.url = world.server.url.replace("127.0.0.1", "localhost")
    assert world.outcome(world.proxy(scope="write")) == "200"
    assert world.counted("refreshes", "reuse", "refused") == [3, 0, 0]


def test_tenants_have_refresh_tokens_of_their_own(world: World) -> None:
    """With `{tenant}` in the reference; what one tenant lacks is nobody else's trouble."""
    for tenant in ("acme", "globex"):
        world.place.material[f"first-{tenant}"] = world.server.authorise()
    proxy = world.proxy(refresh_token="my:first-{tenant}")
    assert [world.outcome(proxy, tenant=tenant) for tenant in ("acme", "globex", "other")] == ["200", "200", REFUSED]
    assert world.counted("refreshes") == [2]


# --- what goes wrong ------------------------------------------------------------------------


def said(**more: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda document: {name: value for name, value in (document | more).items() if value is not ...}


@pytest.mark.parametrize(
    ("fault", "reason", "lives"),
    [
        (Fault(status=500), "answers with status 500", True),
        (Fault(status=503, retry_after="2"), "answers with status 503", True),
        (Fault(status=429, retry_after="Fri, 31 Dec 1999 23:59:59 GMT"), "answers with status 429", True),
        (Fault(status=302, body={}), "status 302", True),
        (Fault(status=400, body={"error": "invalid_scope", "error_description": SECRET}), "400, invalid_scope", True),
        (Fault(status=400, body={"error": SECRET}), "gives no token: status 400", True),
        (Fault(status=400, body=SECRET.encode()), "gives no token: status 400", True),
        (Fault(body=b"nonsense"), "does not answer with a JSON object", False),
        (Fault(body=b"x" * 100_000), "more than 64 KiB", False),
        (Fault(body=said(access_token=...)), "no token, or one that cannot stand in a header", True),
        (Fault(body=said(access_token="x\r\ny")), "cannot stand in a header", True),
        (Fault(body=said(token_type="mac")), "no bearer token", True),
        (Fault(body=said(expires_in=0)), "that is over", True),
        (Fault(body=said(refresh_token=7)), "cannot stand in a header", False),
    ],
)
def test_without_an_access_token_nothing_is_forwarded(world: World, fault: Fault, reason: str, lives: bool) -> None:
    """503, told without what the endpoint said; a new refresh token in such an answer is used the next time."""
    world.server.faults.append(fault)
    proxy = world.proxy()
    assert world.outcome(proxy) == REFUSED
    assert reason in world.reason
    assert SECRET not in world.reason
    assert world.counted("served") == [0]
    assert world.outcome(proxy) == REFUSED  # it is not asked again at once
    assert len(world.server.asked) == 1
    paused(world, proxy)
    assert world.outcome(proxy) == ("200" if lives else REFUSED)
    assert world.counted("reuse") == [0 if lives else 1]


def paused(world: World, proxy: Proxy) -> None:
    """Have the pause be over, as after some seconds."""
    kind = proxy.upstreams["api"].credential[0]
    kind._shared._clock = lambda: time.time() + 10


def test_a_wrong_client_secret_is_told(world: World) -> None:
    """And mended where it is."""
    world.place.material["secret"] = "wrong"
    assert world.outcome(world.proxy()) == REFUSED
    assert "status 401, invalid_client" in world.reason
    world.place.material["secret"] = SECRET
    proxy = world.proxy()
    paused(world, proxy)
    assert world.outcome(proxy) == "200"


def test_an_endpoint_that_is_not_there_is_told(world: World) -> None:
    """With its name."""
    port = world.server.url
    world.server.url = "http://127.0.0.1:9"
    proxy = world.proxy()
    world.server.url = port
    assert world.outcome(proxy) == REFUSED
    assert "http://127.0.0.1:9/token cannot be asked: ConnectError" in world.reason


def test_a_withdrawn_consent_is_told_with_what_to_do(world: World) -> None:
    """The endpoint is not asked again for some seconds; the refresh token is not shown."""
    proxies = [world.proxy(), world.proxy()]
    world.server.revoke()
    assert [world.outcome(proxy) for proxy in proxies * 2] == [REFUSED] * 4
    assert "refuses the refresh token: status 400, invalid_grant: authorise anew" in world.reason
    assert world.reason.endswith("write the new refresh token to my:…")
    assert len(world.server.asked) == 1
    assert world.place.material["first"] not in repr(world.audit.records)


def test_a_new_consent_is_taken_up_at_once(world: World) -> None:
    """Though secrets are read once a minute: the reference is read again when the old token is refused."""
    proxy = world.proxy()
    world.place.material["first"] = world.server.authorise()
    assert world.outcome(proxy) == "200"
    world.server.revoke()
    world.place.material["first"] = world.server.authorise()
    kind = proxy.upstreams["api"].credential[0]
    time.sleep(1.1)  # what was read within the last second is not read again
    kind._shared._clock = lambda: time.time() + 4000
    kind._loads._clock = lambda: time.monotonic() + 4000
    assert world.outcome(proxy) == "200"
    assert world.counted("refused", "reuse") == [1, 0]


@pytest.mark.parametrize("key", ["another", "malformed"])
def test_a_wrong_master_key_refuses_and_overwrites_nothing(world: World, key: str) -> None:
    """With the right one all goes on."""
    right = world.place.material["key"]
    assert world.outcome(world.proxy()) == "200"
    world.place.material["key"] = new_master_key() if key == "another" else "c2hvcnQ="
    assert world.outcome(world.proxy()) == REFUSED
    assert ("another master key" if key == "another" else "is not 32 bytes in base64") in world.reason
    world.place.material["key"] = right
    assert world.outcome(world.proxy()) == "200"
    assert world.counted("refreshes") == [1]


@pytest.mark.long
def test_while_the_store_is_away_the_access_tokens_in_memory_go_on(colour: str) -> None:
    """To their end; then requests are refused, and the endpoint is not asked."""
    with running_world(colour, lasts=12.0) as world:  # of which two seconds are used
        proxy, other = world.proxy(), world.proxy()
        states = world.store
        assert world.outcome(proxy) == "200"
        states.away = True
        assert world.outcome(proxy) == "200"
        assert world.outcome(other) == REFUSED
        assert "the store is away" in world.reason
        time.sleep(2.1)
        assert world.outcome(proxy) == REFUSED
        assert len(world.server.asked) == 1
        states.away = False
        assert world.outcome(proxy) == "200"


# --- slow endpoints, and processes that end in the middle -----------------------------------


@pytest.mark.usefixtures("quick")
def test_an_answer_that_comes_too_late_for_one_request_serves_the_next(world: World) -> None:
    """It is waited for longer than requests are, for it may bring a new refresh token."""
    proxy, other = world.proxy(), world.proxy()
    gate = threading.Event()
    world.server.faults.append(Fault(gate=gate))
    assert world.outcome(proxy) == REFUSED
    assert world.outcome(other) == REFUSED
    gate.set()
    wait_until(lambda: world.outcome(other) == "200")
    assert world.outcome(proxy) == "200"
    assert world.counted("refreshes", "reuse") == [1, 0]


@pytest.mark.long
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("late", "attentive", "grace", "reuse", "lives"),
    [
        (False, False, 0.0, 1, False),
        (False, False, 60.0, 0, True),
        (True, True, 0.0, 0, True),
    ],
)
def test_an_answer_that_never_comes(
    world: World, late: bool, attentive: bool, grace: float, reuse: int, lives: bool
) -> None:
    """A server that has decided has taken the old token: unless it has a grace period, only a new consent helps."""
    world.server.grace = grace
    proxy = world.proxy()
    world.server.faults.append(Fault(wait=2.5, late=late, attentive=attentive))
    assert world.outcome(proxy) == REFUSED
    if lives:
        wait_until(lambda: world.outcome(proxy) == "200")
    else:
        wait_until(lambda: world.outcome(proxy) == REFUSED and "authorise anew" in world.reason)
    assert world.counted("reuse") == [reuse]


WORKER = """
import sys, threading
import httpx
from apitokenproxy import OAuth2RefreshToken, Proxy, Rule, Upstream
from apitokenproxy.credentials import refresh, shared_token
url, store = sys.argv[1:]
shared_token.LEASE = 4.0
shared_token.REQUEST = refresh.REQUEST = 3.0
references = {"refresh_token": "env:FIRST", "key": "env:KEY", "secret": "env:SECRET"}
kind = OAuth2RefreshToken(f"{url}/token", "me:1", **references, allow_private=True)
api = Upstream("api", url, credential=kind, allow_private=True)
proxy = Proxy(upstreams=[api], rules=[Rule("all", effect="allow")], store=store)
token = proxy.tokens.issue(tenant="acme").token
def get():
    with httpx.Client(transport=proxy.transport(token)) as client:
        client.get("http://proxy/api/x")
threading.Thread(target=get, daemon=True).start()
sys.stdin.readline()
"""


def started(world: World, store: str) -> "subprocess.Popen[str]":
    material = world.place.material
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, world.server.url, store],
        env={"FIRST": material["first"], "KEY": material["key"], "SECRET": material["secret"]},
        stdin=subprocess.PIPE,
        text=True,
    )


@pytest.mark.long
@pytest.mark.parametrize(
    ("way", "late", "grace", "lives"),
    [
        ("ends", False, 0.0, True),
        ("killed", True, 0.0, True),
        pytest.param("killed", False, 60.0, True, marks=pytest.mark.long),
        pytest.param("killed", False, 0.0, False, marks=pytest.mark.long),
    ],
)
def test_a_process_ends_in_the_middle_of_a_refresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, late: bool, grace: float, lives: bool
) -> None:
    """One that ends in order waits for the answer and stores it. After kill -9 the next one asks when the lease ends.

    What a killed one was given is lost: without a grace period at the server, only a new consent helps.
    """
    for module in (refresh, shared_token):
        monkeypatch.setattr(module, "REQUEST", 3.0)
    monkeypatch.setattr(shared_token, "LEASE", 4.0)
    with running_world("sync", grace=grace) as world:
        world.store = store = f"sqlite:///{tmp_path}/tokens.db"
        proxy = world.proxy()
        gate = threading.Event()
        world.server.faults.append(Fault(gate=gate, late=late, attentive=late))
        with started(world, store) as process:
            wait_until(lambda: len(world.server.asked) == 1, 20)
            began = time.monotonic()
            if way == "killed":
                process.kill()
                process.wait()
                gate.set()
            else:
                process.stdin.close()
                time.sleep(0.5)
                assert process.poll() is None
                gate.set()
                assert process.wait(10) == 0
        assert world.outcome(proxy) == ("200" if lives else REFUSED)
        if way == "killed":
            assert 3.5 < time.monotonic() - began < 30
        assert world.counted("reuse") == [0 if lives else 1]
        assert len(world.server.asked) == (1 if way == "ends" else 2)


# --- what is configured ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("terms", "sentence"),
    [
        ({"allow_private": False}, "must be an https URL"),
        ({"auth": "digest"}, "it must be basic, post"),
        ({"client_id": ""}, "client_id is empty"),
        ({"auth": "private-key-jwt"}, "needs a secret, the private key"),
    ],
)
def test_what_is_wrong_is_said_when_it_is_built(terms: Any, sentence: str) -> None:
    """In one sentence."""
    arguments = {"token_url": "http://127.0.0.1/t", "client_id": "me", "refresh_token": "env:A", "key": "env:B"}
    with pytest.raises(ConfigurationError, match=sentence):
        OAuth2RefreshToken(**({"allow_private": True} | arguments | terms))


def test_what_is_not_installed_is_said_when_it_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that mends it."""
    monkeypatch.setitem(sys.modules, "apitokenproxy.sealing", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'apitokenproxy\[sealed\]'"):
        OAuth2RefreshToken("https://as.example.com/t", "me", refresh_token="env:A", key="env:B")


def test_without_a_store_it_is_refused_when_it_is_mounted() -> None:
    """There would be no place for what is newer than the first refresh token."""
    kind = OAuth2RefreshToken("https://as.example.com/t", "me", refresh_token="my:a", key="my:b")
    with pytest.raises(ConfigurationError, match="no store"):
        kind.bind(Secrets({"my": Place()}).bind(ASYNC))


def test_a_file_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every key; `check` reads what it needs."""
    (tmp_path / "p.toml").write_text("""
[proxy]
store = "memory:"
[upstreams.api]
url = "https://api.example.com"
[upstreams.api.credential]
type = "oauth2-refresh-token"
token_url = "https://as.example.com/token"
client_id = "me"
refresh_token = "env:FIRST"
key = "env:KEY"
secret = "env:SECRET"
scope = "read"
auth = "post"
""")
    proxy = Proxy.from_toml(tmp_path / "p.toml")
    monkeypatch.setenv("KEY", new_master_key())
    assert proxy.missing_secrets() == [
        f"upstreams.api.credential: environment variable {name} is not set; export it before starting"
        for name in ("FIRST", "SECRET")
    ]
    [kind] = proxy.upstreams["api"].credential
    assert kind == OAuth2RefreshToken(
        "https://as.example.com/token",
        "me",
        refresh_token="env:FIRST",
        key="env:KEY",
        secret="env:SECRET",
        scope="read",
        auth="post",
    )
    assert "env:FIRST" not in repr(kind)
    proxy.close()
