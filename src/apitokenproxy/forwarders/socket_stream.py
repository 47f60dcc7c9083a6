"""Bytes to and from an upstream over a blocking socket."""

import contextlib
import select
import socket
import ssl
import time

from apitokenproxy.forwarders.dial import check_addresses
from apitokenproxy.messages import Origin

_CHUNK = 65536


class SocketStream:
    """One connection. The methods are `async def` and never suspend: they block."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._closed = False

    async def read(self, timeout: float) -> bytes:
        """Return what has arrived, waiting for it at most `timeout` seconds; empty at the end.

        Raises TimeoutError, OSError.
        """
        self._socket.settimeout(timeout)
        return self._socket.recv(_CHUNK)

    async def write(self, data: bytes, timeout: float) -> None:
        """Send it all within `timeout` seconds. Raises TimeoutError, OSError."""
        self._socket.settimeout(timeout)
        self._socket.sendall(data)

    def is_quiet(self) -> bool:
        """Tell whether nothing has arrived, not even the end."""
        if self._closed or (isinstance(self._socket, ssl.SSLSocket) and self._socket.pending()):
            return False
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return not poll.poll(0)

    def abort(self) -> None:
        """Close at once; a thread that is reading wakes up."""
        if not self._closed:
            self._closed = True
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()


def open_socket_stream(origin: Origin, tls: ssl.SSLContext | None) -> SocketStream:
    """Connect to an origin, address by address. Raises TimeoutError, OSError, ForbiddenAddress."""
    end = time.monotonic() + origin.timeouts.connect
    found = socket.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
    check_addresses(addresses, allow_private=origin.allow_private)
    failure: OSError = ConnectionError("no address")
    for address in addresses:
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        try:
            return SocketStream(_connected(address, origin, tls, left))
        except TimeoutError:
            raise
        except OSError as error:
            failure = error
    raise failure


def _connected(address: str, origin: Origin, tls: ssl.SSLContext | None, timeout: float) -> socket.socket:
    plain = socket.create_connection((address, origin.port), timeout)
    try:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return plain if tls is None else tls.wrap_socket(plain, server_hostname=origin.host)
    except BaseException:
        plain.close()
        raise
