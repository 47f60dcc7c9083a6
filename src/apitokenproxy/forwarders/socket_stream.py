"""Bytes to and from an upstream over a blocking socket."""

import contextlib
import select
import socket
import ssl

_CHUNK = 65536


class SocketStream:
    """One connection. The methods are `async def` and never suspend: they block."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._secure = connected if isinstance(connected, ssl.SSLSocket) else None
        self._timeout = connected.gettimeout()
        self._poll = select.poll()
        self._poll.register(connected, select.POLLIN)
        self._said = b""
        self._closed = False

    async def read(self, timeout: float) -> bytes:
        """Return what has arrived, waiting for it at most `timeout` seconds; empty at the end.

        Raises TimeoutError, OSError.
        """
        if self._said:
            said, self._said = self._said, b""
            return said
        self._within(timeout)
        return self._socket.recv(_CHUNK)

    def write(self, data: bytes, timeout: float) -> bool:
        """Send it all within `timeout` seconds; there is always room after that. Raises TimeoutError, OSError."""
        self._within(timeout)
        self._socket.sendall(data)
        return False

    async def wait_for_room(self, timeout: float) -> None:
        """Return: there is room."""

    def _within(self, timeout: float) -> None:
        if timeout != self._timeout:  # each change is a system call
            self._socket.settimeout(timeout)
            self._timeout = timeout

    def is_quiet(self) -> bool:
        """Tell whether nothing has arrived, not even the end."""
        if self._closed or self._said or (self._secure is not None and self._secure.pending()):
            return False
        return not self._poll.poll(0) or (self._secure is not None and self._says_nothing(self._secure))

    def _says_nothing(self, secure: ssl.SSLSocket) -> bool:
        """Tell whether what has arrived is TLS's own, as the session tickets after a handshake are."""
        self._within(0)
        try:
            self._said = secure.recv(_CHUNK)
        except ssl.SSLWantReadError:
            return True
        except OSError:
            pass
        return False  # something was said, or it is the end

    is_silent = is_quiet
    """Both look into the socket: nothing else reads from it meanwhile."""

    def abort(self) -> None:
        """Close at once; a thread that is reading wakes up."""
        if not self._closed:
            self._closed = True
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()

    @property
    def session(self) -> ssl.SSLSession | None:
        """What may shorten the next TLS handshake."""
        return None if self._secure is None else self._secure.session
