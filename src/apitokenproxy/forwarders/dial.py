"""Connecting to an origin, in both colours.

Rules:
1. The name is resolved once for each connection, every address is judged before one is dialled, and
   the judged address itself is dialled, so that no second look-up can lead elsewhere. SNI and Host
   stay the name's.
2. A dead address costs a quarter of a second, not the whole timeout: the next one is tried beside it,
   IPv6 and IPv4 in turn, and the first to answer is taken (RFC 8305).
"""

import asyncio
import contextlib
import errno
import os
import select
import socket
import ssl
import time
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from apitokenproxy._colour import run
from apitokenproxy.errors import ConnectTimeout, TlsTimeout, UpstreamUnreachable
from apitokenproxy.forwarders.addresses import check_addresses
from apitokenproxy.forwarders.asyncio_stream import AsyncioStream
from apitokenproxy.forwarders.resolver import Resolver
from apitokenproxy.forwarders.socket_stream import SocketStream
from apitokenproxy.forwarders.tls import TlsBytes
from apitokenproxy.messages import Origin

_HEAD_START = 0.25
"""Seconds that an address has for itself before the next one is tried."""


async def open_asyncio_stream(
    origin: Origin, names: Resolver, context: ssl.SSLContext | None, session: ssl.SSLSession | None
) -> AsyncioStream:
    """Connect under asyncio. Raises UpstreamFailure."""
    with _connecting(origin):
        async with asyncio.timeout(origin.timeouts.connect):
            found = await names.look_up(origin.timeouts.connect)
            stream = await _first_stream(_judged(found, origin), origin, context, session)
    try:
        with _shaking_hands(origin):
            await stream.shake_hands(origin.timeouts.tls)
    except BaseException:
        stream.abort()
        raise
    return stream


async def _first_stream(addresses: list[str], origin: Origin, context: Any, session: Any) -> AsyncioStream:
    async def connect(address: str) -> AsyncioStream:
        tls = None if context is None else TlsBytes(context, origin.host, session)
        _, stream = await asyncio.get_running_loop().create_connection(lambda: AsyncioStream(tls), address, origin.port)
        return stream

    failure: BaseException = ConnectionError("no address")
    running: set[asyncio.Task[AsyncioStream]] = set()
    try:
        while addresses or running:
            if addresses:
                running.add(asyncio.create_task(connect(addresses.pop(0))))
            done, _ = await asyncio.wait(
                running, timeout=_HEAD_START if addresses else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                running.remove(task)
                if (error := task.exception()) is None:
                    return task.result()
                failure = error
    finally:
        for task in running:
            if not task.cancel() and not task.cancelled() and task.exception() is None:
                task.result().abort()
    raise failure


def open_socket_stream(
    origin: Origin, names: Resolver, context: ssl.SSLContext | None, session: ssl.SSLSession | None
) -> SocketStream:
    """Connect, blocking. Raises UpstreamFailure."""
    with _connecting(origin):
        deadline = time.monotonic() + origin.timeouts.connect
        found = run(names.look_up(origin.timeouts.connect))
        connected = _first_socket(_judged(found, origin), origin.port, deadline)
    try:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            connected.settimeout(origin.timeouts.tls)
            with _shaking_hands(origin):
                connected = context.wrap_socket(
                    connected, server_hostname=origin.host, session=session, suppress_ragged_eofs=False
                )
    except BaseException:
        connected.close()
        raise
    return SocketStream(connected)


def _first_socket(addresses: list[str], port: int, deadline: float) -> socket.socket:
    failure: OSError = ConnectionError("no address")
    running: dict[int, socket.socket] = {}
    poll = select.poll()
    try:
        while addresses or running:
            if addresses:
                address = addresses.pop(0)
                started = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
                running[started.fileno()] = started
                started.setblocking(False)
                code = started.connect_ex((address, port))
                poll.register(started, select.POLLOUT)
                if code not in {0, errno.EINPROGRESS}:
                    failure = OSError(code, os.strerror(code))
                    poll.unregister(started)
                    running.pop(started.fileno()).close()
                    continue
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            for number, _ in poll.poll(1000 * (min(left, _HEAD_START) if addresses else left)):
                poll.unregister(number)
                tried = running.pop(number)
                code = tried.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code == 0:
                    tried.setblocking(True)
                    return tried
                failure = OSError(code, os.strerror(code))
                tried.close()
    finally:
        for loser in running.values():
            loser.close()
    raise failure


def _judged(found: Any, origin: Origin) -> list[str]:
    """Return the addresses, families in turn. Raises ForbiddenAddress."""
    addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
    check_addresses(addresses, allow_private=origin.allow_private)
    first = [address for address in addresses if (":" in address) == (":" in addresses[0])]
    second = [address for address in addresses if address not in first]
    return [address for pair in zip_longest(first, second) for address in pair if address is not None]


@contextlib.contextmanager
def _connecting(origin: Origin) -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise ConnectTimeout(f"{origin.host} took longer than {origin.timeouts.connect:g} seconds") from None
    except UnicodeError:
        raise UpstreamUnreachable(f"{origin.host} cannot be a host's name") from None
    except OSError as error:  # also name resolution
        raise UpstreamUnreachable(f"{origin.host}: {error.strerror or type(error).__name__}") from None


@contextlib.contextmanager
def _shaking_hands(origin: Origin) -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise TlsTimeout(f"{origin.host} took longer than {origin.timeouts.tls:g} seconds") from None
    except ssl.SSLCertVerificationError as error:
        mend = (
            "" if origin.ca else "; if it is right, install the system's CA certificates, or name its authority with ca"
        )
        raise UpstreamUnreachable(
            f"{origin.host}: its certificate is not accepted: {error.verify_message}{mend}"
        ) from None
    except OSError as error:
        raise UpstreamUnreachable(f"{origin.host}: {error.strerror or type(error).__name__} in the handshake") from None
