"""Client certificates, one for all or one for each tenant: whose connection it is, and files that change."""

import asyncio
import logging
import random
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from attrs import define, frozen
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from hostile import (
    COLOURS,
    Asker,
    Conversation,
    answer,
    drive,
    head,
    hostile,
    origin,
    request,
    wait,
)

from apitokenproxy import Header, Proxy, Rule, Upstream
from apitokenproxy._colour import ASYNC, SYNC, Colour, run
from apitokenproxy.errors import ConfigurationError, PoolFull, SecretUnavailable, TlsTimeout, UpstreamUnreachable
from apitokenproxy.forwarders import trust as trust_module
from apitokenproxy.forwarders import wire as wire_module
from apitokenproxy.forwarders.wire import WireForwarder
from apitokenproxy.testing import FixedSecrets, MemoryAudit
from loopback import wait_until

colours = pytest.mark.parametrize("colour", COLOURS.values(), ids=COLOURS)
versions = pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])

TENANTS = ["acme", "globex"]


@define
class Files:
    """An authority, and a folder with a client certificate for each tenant."""

    authority: trustme.CA
    folder: Path

    @property
    def template(self) -> str:
        return str(self.folder / "{tenant}.pem")

    @property
    def terms(self) -> dict[str, Any]:
        return {"host": "localhost", "scheme": "https", "ca": str(self.folder / "ca.pem")}

    def path(self, tenant: str) -> Path:
        return self.folder / f"{tenant}.pem"

    def give(self, tenant: str, name: str = "") -> None:
        """Put a new certificate in the place of a tenant's, in one step."""
        new = self.folder / "new"
        self.authority.issue_cert(f"{name or tenant}.example").private_key_and_cert_chain_pem.write_to_path(new)
        new.rename(self.path(tenant))

    def server(self, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
        """Return the settings of a server that insists on a certificate of this authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.maximum_version = newest
        context.verify_mode = ssl.CERT_REQUIRED
        self.authority.issue_cert("localhost").configure_cert(context)
        self.authority.configure_trust(context)
        return context


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(authority: trustme.CA, tmp_path: Path) -> Files:
    made = Files(authority, tmp_path)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    for tenant in TENANTS:
        made.give(tenant)
    return made


@frozen
class Shown:
    """A request as the upstream saw it: which connection, whose certificate, whether its session was resumed."""

    number: int
    name: str
    resumed: bool | None
    target: bytes


def telling(shown: list[Shown], *, last: bool = False) -> Callable[[Conversation], None]:
    """Answer each request with the name in the certificate that its connection showed; once if it is the last."""

    def tell(conversation: Conversation) -> None:
        peer = conversation.peer
        assert isinstance(peer, ssl.SSLSocket)
        certificate: Any = peer.getpeercert()
        name = certificate["subjectAltName"][0][1]
        while True:
            head(conversation)
            shown.append(Shown(conversation.number, name, peer.session_reused, conversation.target))
            whole = answer(name.encode())
            conversation.peer.sendall(whole.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") if last else whole)
            if last:
                return

    return tell


def own(colour: Colour, scenario: Any) -> Any:
    """Run a scenario with a forwarder for certificates of each tenant's own."""
    return drive(colour, scenario, WireForwarder(per_tenant=True))


@colours
def test_tenants_never_share_a_connection(colour: Colour, files: Files) -> None:
    """200 interleaved requests over kept connections: each is answered to the tenant's own certificate."""
    dice = random.Random(1)  # noqa: S311 - not for secrets
    order = dice.choices(TENANTS, k=200)
    shown: list[Shown] = []
    forwarder = WireForwarder(per_tenant=True)

    async def one(ask: Asker, to: Any, tenant: str) -> str:
        status, name = await ask.whole(request(to, f"/{tenant}".encode(), tenant=tenant))
        assert status == 200
        return name.decode()

    async def at_once(ask: Asker) -> list[str]:
        return await asyncio.gather(*(one(ask, to, tenant) for tenant in order))

    with hostile([telling(shown)], tls=files.server()) as upstream:
        to = origin(upstream.port, client_certificate=files.template, max_connections=4, **files.terms)
        if colour is ASYNC:
            names = drive(ASYNC, at_once, forwarder)
        else:
            ask = Asker(SYNC, forwarder.bind(SYNC))
            with ThreadPoolExecutor(8) as threads:
                names = list(threads.map(lambda tenant: run(one(ask, to, tenant)), order))
            forwarder.close()
        assert upstream.connections <= 2 * 4
    assert names == [f"{tenant}.example" for tenant in order]
    users = {(each.number, each.target) for each in shown}
    assert len(users) == len({each.number for each in shown})
    assert all(each.name == f"{each.target.decode()[1:]}.example" for each in shown)


@colours
@versions
def test_sessions_are_resumed_by_their_own_tenant_alone(colour: Colour, newest: ssl.TLSVersion, files: Files) -> None:
    """A new tenant's handshake is whole, whoever called before; its next one is short."""
    shown: list[Shown] = []

    async def scenario(ask: Asker) -> None:
        to = origin(upstream.port, client_certificate=files.template, **files.terms)
        for tenant in [*TENANTS, *TENANTS]:
            for path in (b"/kept", b"/last"):
                await ask.whole(request(to, path, tenant=tenant))

    def kept_once(conversation: Conversation) -> None:
        peer = conversation.peer
        assert isinstance(peer, ssl.SSLSocket)
        certificate: Any = peer.getpeercert()
        name = certificate["subjectAltName"][0][1]
        for end in (b"", b"\r\nConnection: close"):
            head(conversation)
            shown.append(Shown(conversation.number, name, peer.session_reused, conversation.target))
            peer.sendall(answer(b"ok").replace(b"\r\n\r\n", end + b"\r\n\r\n"))

    with hostile([kept_once], tls=files.server(newest)) as upstream:
        own(colour, scenario)
    assert [(each.name, each.resumed) for each in shown if each.target == b"/last"] == [
        ("acme.example", False),
        ("globex.example", False),
        ("acme.example", True),
        ("globex.example", True),
    ]


@colours
@pytest.mark.parametrize("per_tenant", [False, True], ids=["one for all", "one each"])
def test_a_file_that_is_replaced_is_noticed(
    colour: Colour, per_tenant: bool, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in flight goes on, and its connection is used for nothing more; the next shows the new certificate."""
    monkeypatch.setattr(trust_module, "LOOK_SECONDS", 0.0)
    shown: list[Shown] = []
    go = threading.Event()

    def in_halves(conversation: Conversation) -> None:
        head(conversation)
        conversation.peer.sendall(answer(b"ok")[:-1])
        wait(go)(conversation)
        conversation.peer.sendall(b"k")
        telling(shown)(conversation)

    async def scenario(ask: Asker) -> None:
        shows = files.template if per_tenant else str(files.path("acme"))
        to = origin(upstream.port, client_certificate=shows, **files.terms)
        running = await ask.forward(request(to, tenant="acme"))
        assert await ask.whole(request(to, tenant="acme")) == (200, b"acme.example")
        files.give("acme", "acme-2")
        assert await ask.whole(request(to, tenant="acme")) == (200, b"acme-2.example")
        go.set()
        assert await ask.rest(running) == b"ok"
        for _ in range(2):
            assert await ask.whole(request(to, tenant="acme")) == (200, b"acme-2.example")

    with hostile([in_halves], [telling(shown)], tls=files.server()) as upstream:
        drive(colour, scenario, WireForwarder(per_tenant=per_tenant))
        assert upstream.connections == 3
    assert [each.resumed for each in shown] == [False] * 4


def test_whoever_waits_is_not_handed_a_connection_of_before(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file was changed while all connections were busy: a new one is made in the place of the first that ends."""
    monkeypatch.setattr(trust_module, "LOOK_SECONDS", 0.0)
    go = threading.Event()

    def in_halves(conversation: Conversation) -> None:
        head(conversation)
        conversation.peer.sendall(answer(b"ok")[:-1])
        wait(go)(conversation)
        conversation.peer.sendall(b"k")
        telling([])(conversation)

    async def scenario(ask: Asker) -> None:
        shows = str(files.path("acme"))
        to = origin(upstream.port, client_certificate=shows, max_connections=1, **files.terms)
        running = await ask.forward(request(to))
        waiting = asyncio.create_task(ask.whole(request(to)))
        await asyncio.sleep(0)
        files.give("acme", "acme-2")
        go.set()
        assert await ask.rest(running) == b"ok"
        assert await waiting == (200, b"acme-2.example")

    with hostile([in_halves], [telling([])], tls=files.server()) as upstream:
        drive(ASYNC, scenario)


@colours
def test_a_kept_connection_has_its_files_looked_at_now_and_then(
    colour: Colour, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at each request: between two looks it is used on."""
    monkeypatch.setattr(trust_module, "LOOK_SECONDS", 3600.0)

    async def scenario(ask: Asker) -> None:
        to = origin(upstream.port, client_certificate=str(files.path("acme")), **files.terms)
        assert await ask.whole(request(to)) == (200, b"acme.example")
        files.give("acme", "acme-2")
        assert await ask.whole(request(to)) == (200, b"acme.example")
        monkeypatch.setattr(trust_module, "LOOK_SECONDS", 0.0)
        assert await ask.whole(request(to)) == (200, b"acme-2.example")

    with hostile([telling([])], tls=files.server()) as upstream:
        drive(colour, scenario)


@colours
def test_an_authority_that_is_replaced_is_noticed(
    colour: Colour, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file of `ca` is looked at as well."""
    monkeypatch.setattr(trust_module, "LOOK_SECONDS", 0.0)

    async def scenario(ask: Asker) -> None:
        to = origin(upstream.port, client_certificate=str(files.path("acme")), **files.terms)
        assert (await ask.whole(request(to)))[0] == 200
        trustme.CA().cert_pem.write_to_path(files.folder / "ca.pem")
        with pytest.raises(UpstreamUnreachable):
            await ask.whole(request(to))

    with hostile([telling([])], tls=files.server()) as upstream:
        drive(colour, scenario)


# --- what cannot be shown ---------------------------------------------------------------------


def _missing(files: Files) -> None:
    files.path("acme").unlink()


def _garbage(files: Files) -> None:
    files.path("acme").write_text("s3cr3t")


def _empty(files: Files) -> None:
    files.path("acme").write_text("")


def _folder(files: Files) -> None:
    files.path("acme").unlink()
    files.path("acme").mkdir()


def _no_key(files: Files) -> None:
    files.path("acme").write_bytes(files.authority.issue_cert("acme.example").cert_chain_pems[0].bytes())


def _wrong_key(files: Files) -> None:
    certificate, other = (files.authority.issue_cert("acme.example") for _ in range(2))
    files.path("acme").write_bytes(certificate.cert_chain_pems[0].bytes() + other.private_key_pem.bytes())


def _password(files: Files) -> None:
    certificate = files.authority.issue_cert("acme.example")
    key = load_pem_private_key(certificate.private_key_pem.bytes(), None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"s3cr3t")
    )
    files.path("acme").write_bytes(certificate.cert_chain_pems[0].bytes() + key)


SPOILT = {
    "missing": _missing,
    "garbage": _garbage,
    "empty": _empty,
    "a folder": _folder,
    "no key": _no_key,
    "another's key": _wrong_key,
    "a key with a password": _password,
}


def ask_proxy(proxy: Proxy, colour: Colour, tenant: str) -> httpx.Response:
    token = proxy.tokens.issue(tenant=tenant).token
    if colour is SYNC:
        with httpx.Client(transport=proxy.transport(token)) as client:
            return client.get("http://proxy/api/x")

    async def main() -> httpx.Response:
        async with httpx.AsyncClient(transport=proxy.async_transport(token)) as client:
            return await client.get("http://proxy/api/x")

    return asyncio.run(main())


def proxy_to(port: int, files: Files, audit: MemoryAudit) -> Proxy:
    return Proxy(
        upstreams=[
            Upstream(
                "api",
                f"https://localhost:{port}",
                credential=Header("X-Key", "fixed:key"),
                allow_private=True,
                ca=files.terms["ca"],
                client_certificate=files.template,
            )
        ],
        rules=[Rule("all", effect="allow")],
        secret_providers={"fixed": FixedSecrets(key="k3y-0f7a9c2e51d84b06")},
        audit=audit,
    )


@colours
@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_certificate_that_cannot_be_shown_refuses_its_tenant_alone(
    colour: Colour, spoil: Callable[[Files], None], files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    """503 `secret_unavailable`, one sentence in the audit record that shows nothing of the file, and no traceback."""
    caplog.set_level(logging.DEBUG)
    spoil(files)
    audit = MemoryAudit()
    with hostile([telling([])], tls=files.server()) as upstream:
        proxy = proxy_to(upstream.port, files, audit)
        refused, served = (ask_proxy(proxy, colour, tenant) for tenant in TENANTS)
        proxy.close()
        assert upstream.connections == 1
    assert (refused.status_code, refused.headers["x-proxy-error"]) == (503, "secret_unavailable")
    assert (served.status_code, served.content) == (200, b"globex.example")
    reason = audit.records[0].reason
    assert str(files.path("acme")) in reason
    assert "\n" not in reason
    assert "s3cr3t" not in reason + caplog.text
    assert "Traceback" not in caplog.text


@colours
@pytest.mark.parametrize("name", ["../acme", "acme/../globex", "a..b", ".acme", "acme\n", "{tenant}", "ac*", "\u00e4"])
def test_no_path_is_made_of_a_name_that_is_not_plain(colour: Colour, name: str, files: Files) -> None:
    """The tenant is refused as it is where a secret reference names it."""

    async def scenario(ask: Asker) -> None:
        to = origin(upstream.port, client_certificate=files.template, **files.terms)
        with pytest.raises(SecretUnavailable) as caught:
            await ask.whole(request(to, tenant=name))
        assert caught.value.detail == "the caller's tenant is not a plain name, so no secret is looked up for it"

    with hostile([telling([])], tls=files.server()) as upstream:
        own(colour, scenario)
        assert upstream.connections == 0


@colours
def test_whose_certificate_is_taken_away_is_refused_at_once(colour: Colour, files: Files) -> None:
    """Also while there is a kept connection."""

    async def scenario(ask: Asker) -> None:
        to = origin(upstream.port, client_certificate=files.template, **files.terms)
        assert await ask.whole(request(to, tenant="acme")) == (200, b"acme.example")
        files.path("acme").unlink()
        with pytest.raises(SecretUnavailable):
            await ask.whole(request(to, tenant="acme"))

    with hostile([telling([])], tls=files.server()) as upstream:
        own(colour, scenario)


@colours
def test_a_file_is_tried_again_after_it_was_mended(colour: Colour, files: Files) -> None:
    """Nothing is remembered of the failure."""

    async def scenario(ask: Asker) -> None:
        to = origin(upstream.port, client_certificate=files.template, **files.terms)
        _wrong_key(files)
        with pytest.raises(SecretUnavailable) as caught:
            await ask.whole(request(to, tenant="acme"))
        assert caught.value.detail.endswith("KEY_VALUES_MISMATCH")
        files.give("acme")
        assert await ask.whole(request(to, tenant="acme")) == (200, b"acme.example")

    with hostile([telling([])], tls=files.server()) as upstream:
        own(colour, scenario)


def test_files_are_read_once_for_all_who_wait(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a thread, so that the event loop goes on; whoever gives up waiting takes nothing from the others."""
    read: list[int] = []
    begun, go = threading.Event(), threading.Event()
    real = trust_module.tls_context

    def slowly(origin: Any) -> Any:
        read.append(threading.get_ident())
        begun.set()
        assert go.wait(5)
        return real(origin)

    monkeypatch.setattr(trust_module, "tls_context", slowly)

    async def scenario(ask: Asker) -> None:
        to = origin(upstream.port, client_certificate=files.template, **files.terms)
        tasks = [asyncio.create_task(ask.whole(request(to, tenant="acme"))) for _ in range(5)]
        await ask.pause(begun.is_set)
        tasks[0].cancel()
        await asyncio.sleep(0)
        go.set()
        assert await asyncio.gather(*tasks[1:]) == [(200, b"acme.example")] * 4

    with hostile([telling([])], tls=files.server()) as upstream:
        own(ASYNC, scenario)
    assert len(read) == 1
    assert read[0] != threading.get_ident()


def test_files_that_cannot_be_read_in_time_are_a_tls_timeout(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a disk elsewhere that hangs; the event loop goes on, and so does the next request when it is back."""
    go, real = threading.Event(), trust_module.tls_context
    monkeypatch.setattr(trust_module, "tls_context", lambda origin: real(origin) if go.wait(5) else None)

    async def scenario(ask: Asker) -> None:
        terms = {"client_certificate": files.template, **files.terms}
        with pytest.raises(TlsTimeout):
            await ask.whole(request(origin(upstream.port, seconds={"tls": 0.05}, **terms), tenant="acme"))
        go.set()
        assert await ask.whole(request(origin(upstream.port, **terms), tenant="acme")) == (200, b"acme.example")

    with hostile([telling([])], tls=files.server()) as upstream:
        own(ASYNC, scenario)


def test_files_for_which_there_is_no_thread_are_told(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit of threads the request is refused, and the next one tries again."""

    async def scenario(ask: Asker) -> None:
        to = origin(upstream.port, client_certificate=files.template, **files.terms)
        with monkeypatch.context() as patch:
            patch.setattr(trust_module, "threading", NoThreads)
            with pytest.raises(UpstreamUnreachable) as caught:
                await ask.whole(request(to, tenant="acme"))
        assert caught.value.detail == "the TLS settings cannot be loaded: no thread can be started"
        assert await ask.whole(request(to, tenant="acme")) == (200, b"acme.example")

    with hostile([telling([])], tls=files.server()) as upstream:
        own(ASYNC, scenario)


class NoThreads:
    """`threading` at the limit of threads."""

    Lock = threading.Lock

    class Thread(threading.Thread):
        def start(self) -> None:
            raise RuntimeError


# --- how many pools ---------------------------------------------------------------------------


@colours
def test_the_pool_that_was_idle_longest_makes_room(
    colour: Colour, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connections are closed; the others' are kept."""
    monkeypatch.setattr(wire_module, "MAX_POOLS", 2)
    shown: list[Shown] = []
    files.give("initech")

    async def scenario(ask: Asker) -> None:
        to = origin(upstream.port, client_certificate=files.template, **files.terms)
        for tenant in ("acme", "globex", "acme", "initech", "acme", "globex"):
            assert await ask.whole(request(to, tenant=tenant)) == (200, f"{tenant}.example".encode())
        await ask.pause(lambda: upstream.open == 2)

    with hostile([telling(shown)], tls=files.server()) as upstream:
        own(colour, scenario)
    assert [each.number for each in shown] == [0, 1, 0, 2, 0, 3]


@colours
def test_a_pool_in_use_is_never_closed(colour: Colour, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """When all of them are, a further tenant is refused with 503 `pool_full` until one is free."""
    monkeypatch.setattr(wire_module, "MAX_POOLS", 2)
    files.give("initech")

    def unfinished(conversation: Conversation) -> None:
        head(conversation)
        conversation.peer.sendall(answer(b"ok")[:-1])
        conversation.peer.recv(1)

    async def scenario(ask: Asker) -> None:
        to = origin(upstream.port, client_certificate=files.template, **files.terms)
        replies = [await ask.forward(request(to, tenant=tenant)) for tenant in TENANTS]
        with pytest.raises(PoolFull):
            await ask.forward(request(to, tenant="initech"))
        assert upstream.open == 2
        replies[0].abort()
        replies.append(await ask.forward(request(to, tenant="initech")))
        for reply in replies:
            reply.abort()

    with hostile([unfinished], tls=files.server()) as upstream:
        own(colour, scenario)


@colours
def test_a_pool_that_nobody_uses_is_closed(colour: Colour, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the next tenant comes, though there is room."""
    monkeypatch.setattr(wire_module, "IDLE_SECONDS", 0.0)

    async def scenario(ask: Asker) -> None:
        to = origin(upstream.port, client_certificate=files.template, **files.terms)
        for tenant in TENANTS:
            await ask.whole(request(to, tenant=tenant))
        await ask.pause(lambda: upstream.open == 1)

    with hostile([telling([])], tls=files.server()) as upstream:
        own(colour, scenario)


@pytest.mark.parametrize("seed", range(3))
def test_threads_whose_pools_come_and_go_lose_nothing(seed: int, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight tenants share three pools: each request shows its tenant's certificate, or finds all in use."""
    monkeypatch.setattr(wire_module, "MAX_POOLS", 3)
    tenants = [f"t{number}" for number in range(8)]
    for tenant in tenants:
        files.give(tenant)
    order = random.Random(seed).choices(tenants, k=200)  # noqa: S311 - not for secrets
    forwarder = WireForwarder(per_tenant=True)
    with hostile([telling([])], tls=files.server()) as upstream, ThreadPoolExecutor(12) as threads:
        ask = Asker(SYNC, forwarder.bind(SYNC))
        to = origin(upstream.port, client_certificate=files.template, **files.terms)

        def one(tenant: str) -> bool:
            try:
                assert run(ask.whole(request(to, tenant=tenant))) == (200, f"{tenant}.example".encode())
            except PoolFull:
                return False
            return True

        served = list(threads.map(one, order))
        assert any(served)
        assert len(forwarder._pools[None]) <= 3
        assert len({pool.names for pool in forwarder._pools[None].values()}) == 1
        forwarder.close()
        wait_until(lambda: upstream.open == 0)


# --- what is refused when it is built ---------------------------------------------------------

MISTAKES = {
    "another field": (
        {"client_certificate": "/certs/{subject}.pem"},
        "client_certificate: {subject} is not known; use {tenant}",
    ),
    "plain http": (
        {"url": "http://api.example.com", "allow_private": True},
        "client_certificate is shown over https alone, and url is plain http",
    ),
    "a transport": (
        {"transport": httpx.HTTPTransport()},
        "client_certificate is not shown by a transport of your own; leave one of them out",
    ),
    "warm connections": (
        {"warm_connections": 1},
        "warm_connections are nobody's, but client_certificate names a tenant's; leave one of them out",
    ),
}


@pytest.mark.parametrize(("terms", "told"), MISTAKES.values(), ids=MISTAKES)
def test_what_cannot_be_meant_is_told(terms: dict[str, Any], told: str) -> None:
    """One sentence."""
    with pytest.raises(ConfigurationError) as caught:
        Upstream(
            "api",
            terms.pop("url", "https://api.example.com"),
            credential=Header("X-Key", "env:KEY"),
            **{"client_certificate": "/certs/{tenant}.pem", **terms},
        )
    assert str(caught.value) == f"upstream api: {told}"
