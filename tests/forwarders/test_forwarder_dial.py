"""Where a connection may go, and whom TLS believes."""

import asyncio
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
import trustme
from attrs import evolve
from hostile import BOUND, COLOURS, Asker, drive, echo_forever, hostile, origin, request, send, silent, until_end

from apitokenproxy._colour import ASYNC
from apitokenproxy.errors import ConnectTimeout, ForbiddenAddress, UpstreamUnreachable
from apitokenproxy.forwarders.addresses import check_addresses, is_public
from apitokenproxy.forwarders.tls import tls_context

colours = pytest.mark.parametrize("colour", COLOURS.values(), ids=COLOURS)

NOT_PUBLIC = {
    "unspecified": ["0.0.0.0", "0.1.2.3", "::"],  # noqa: S104 - an address that must be refused
    "loopback": ["127.0.0.1", "127.255.255.254", "::1"],
    "private": ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1"],
    "link-local": ["169.254.169.254", "fe80::1", "fe80::1%eth0"],
    "cgnat": ["100.64.0.1", "100.127.255.255"],
    "multicast": ["224.0.0.1", "239.1.1.1", "ff02::1", "ff0e::1"],
    "reserved": ["240.0.0.1", "255.255.255.255", "192.0.0.8", "192.0.0.9", "192.88.99.1", "5f00::1", "100::1"],
    "documentation": ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1"],
    "benchmark": ["198.18.0.1", "198.19.255.255", "2001:2::1"],
    "6to4": ["2002:7f00:1::", "2002:808:808::1"],
    "teredo": ["2001::1", "2001:0:4136:e378::1"],
    "nat64": ["64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::8.8.8.8"],
    "v4-mapped": ["::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:100.64.0.1", "::ffff:169.254.169.254"],
    "v4-translated": ["::ffff:0:127.0.0.1", "::ffff:0:8.8.8.8"],
    "not given out": ["100:0:0:1::1", "200::1", "1fff::1", "4000::1", "a000::1", "e000::1"],
    "of the platform": ["168.63.129.16", "::ffff:168.63.129.16"],
    "v4-compatible": ["::127.0.0.1", "::8.8.8.8"],
    "unique-local": ["fc00::1", "fd12:3456::1"],
    "site-local": ["fec0::1"],
}
PUBLIC = ["8.8.8.8", "1.1.1.1", "140.82.121.6", "2606:4700::1111", "2a00:1450::1", "64:ff9b::8.8.8.8", "::ffff:8.8.8.8"]


@pytest.mark.parametrize("kind", NOT_PUBLIC)
def test_no_address_of_this_kind_is_public(kind: str) -> None:
    """Each is refused, also among public ones, unless private addresses are meant."""
    for address in NOT_PUBLIC[kind]:
        assert (address, False) == (address, is_public(address))
        with pytest.raises(ForbiddenAddress):
            check_addresses(["8.8.8.8", address], allow_private=False)
        check_addresses([address], allow_private=True)


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    """They may be dialled."""
    assert is_public(address)
    check_addresses(PUBLIC, allow_private=False)


@colours
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1", "2130706433"])
def test_a_name_that_resolves_to_this_machine_is_not_dialled(colour: Any, host: str) -> None:
    """The upstream sees no connection."""

    async def scenario(ask: Asker) -> None:
        with pytest.raises(ForbiddenAddress):
            await ask.whole(request(origin(upstream.port, host=host, allow_private=False)))

    with hostile([echo_forever]) as upstream:
        drive(colour, scenario)
        assert upstream.connections == 0


@colours
def test_the_next_address_is_tried_when_one_does_not_answer(colour: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with a dead address and a live one is reached."""
    resolves(monkeypatch, "127.0.0.9", "127.0.0.1")

    async def scenario(ask: Asker) -> None:
        assert await ask.whole(request(origin(upstream.port, host="two.example"), b"/x")) == (200, b"/x")

    with hostile([echo_forever]) as upstream:
        drive(colour, scenario)


@colours
def test_an_address_that_does_not_answer_costs_a_quarter_of_a_second(
    colour: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one is tried beside it (RFC 8305), long before the connect timeout, and no task is left of the loser."""
    resolves(monkeypatch, "127.0.0.9", "127.0.0.1")

    async def scenario(ask: Asker) -> None:
        to = origin(upstream.port, host="two.example", seconds={"connect": 60.0})
        assert await ask.whole(request(to, b"/x")) == (200, b"/x")

    with hostile([echo_forever]) as upstream, silent("127.0.0.9", upstream.port):
        drive(colour, scenario)
        assert upstream.connections == 1


@colours
def test_the_families_take_turns(colour: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many addresses of one family are dead, one of the other is tried second."""
    resolves(monkeypatch, "::1", "::1", "fe80::1", "fe80::2", "fe80::3", "127.0.0.1")

    async def scenario(ask: Asker) -> None:
        assert await ask.whole(request(origin(upstream.port, host="two.example"), b"/x")) == (200, b"/x")

    with hostile([echo_forever]) as upstream:
        drive(colour, scenario)


@colours
def test_a_name_server_that_does_not_answer_holds_up_nobody_else(colour: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connect timeout ends the wait for it; one look-up is under way, and the event loop's threads are free."""
    over, asked = threading.Event(), []
    real = socket.getaddrinfo

    def found(host: Any, *rest: Any, flags: int = 0, **terms: Any) -> Any:
        if host == "dead.example" and not flags & socket.AI_NUMERICHOST:
            asked.append(host)
            assert over.wait(BOUND)
        return real("127.0.0.1" if host == "dead.example" and over.is_set() else host, *rest, flags=flags, **terms)

    monkeypatch.setattr(socket, "getaddrinfo", found)

    async def scenario(ask: Asker) -> None:
        to = origin(upstream.port, host="dead.example", seconds={"connect": 0.05})

        async def fails() -> None:
            with pytest.raises(ConnectTimeout):
                await ask.whole(request(to))

        if colour is ASYNC:
            await asyncio.gather(*(fails() for _ in range(50)))
            await asyncio.wait_for(asyncio.to_thread(int), BOUND / 2)
        else:
            await fails()
            await fails()
        assert await ask.whole(request(origin(upstream.port), b"/x")) == (200, b"/x")
        assert asked == ["dead.example"]
        over.set()
        assert await ask.whole(request(evolve(to, timeouts=origin(0).timeouts), b"/y")) == (200, b"/y")

    with hostile([echo_forever]) as upstream:
        drive(colour, scenario)


def resolves(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Have `two.example` resolve to these addresses."""
    real = socket.getaddrinfo

    def found(host: Any, *rest: Any, **terms: Any) -> Any:
        if host != "two.example":
            return real(host, *rest, **terms)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", found)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_context(authority: trustme.CA, name: str = "localhost") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def pem(authority: trustme.CA, folder: Path) -> str:
    path = folder / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


@colours
def test_tls_under_a_named_authority_passes(colour: Any, authority: trustme.CA, tmp_path: Path) -> None:
    """Two requests share one verified connection."""

    async def scenario(ask: Asker) -> None:
        to = origin(upstream.port, host="localhost", scheme="https", ca=pem(authority, tmp_path))
        for target in (b"/1", b"/2"):
            assert (200, target) == await ask.whole(request(to, target))

    with hostile([echo_forever], tls=server_context(authority)) as upstream:
        drive(colour, scenario)
        assert [number for number, _ in upstream.requests] == [0, 0]


@colours
@pytest.mark.parametrize(
    "case", ["wrong name", "unknown authority", "default trust", "no file", "broken file", "plain"]
)
def test_tls_that_proves_nothing_is_unreachable(colour: Any, case: str, authority: trustme.CA, tmp_path: Path) -> None:
    """Nothing is sent to a server that is not who it should be."""
    ca: str | None = pem(trustme.CA() if case == "unknown authority" else authority, tmp_path)
    if case == "default trust":
        ca = None
    elif case == "no file":
        ca = str(tmp_path / "missing.pem")
    elif case == "broken file":
        Path(ca or "").write_text("nonsense")
    tls = server_context(authority, "other.example" if case == "wrong name" else "localhost")

    async def scenario(ask: Asker) -> None:
        with pytest.raises(UpstreamUnreachable):
            await ask.whole(request(origin(upstream.port, host="localhost", scheme="https", ca=ca)))

    plain = case == "plain"
    script = [send(b"HTTP/1.1 400 Bad Request\r\n\r\n"), until_end] if plain else [echo_forever]
    with hostile(script, tls=None if plain else tls) as upstream:
        drive(colour, scenario)
        assert upstream.requests == []


def test_tls_is_at_least_1_2_and_verifies() -> None:
    """An http origin has none."""
    context = tls_context(origin(443, scheme="https"))
    assert context is not None
    assert (ssl.TLSVersion.TLSv1_2, ssl.CERT_REQUIRED, True) == (
        context.minimum_version,
        context.verify_mode,
        context.check_hostname,
    )
    assert tls_context(origin(80)) is None
