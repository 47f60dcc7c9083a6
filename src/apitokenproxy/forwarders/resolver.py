"""Looking up an origin's name, in both colours.

Rules:
1. One name has one thread at most, which runs while it is looked up, and whoever asks meanwhile gets what
   it finds. So a name server that does not answer holds up those who want that name and nobody else: the
   event loop's threads, in which stores and secrets are read, are left alone.
2. Nobody waits longer than they want to. The look-up itself ends when the system's resolver gives up.
3. Nothing is remembered: how long an answer holds is the system's resolver's to know.
"""

import socket
import threading
from concurrent.futures import Future
from typing import Any

from apitokenproxy._colour import Colour

Found = list[Any]
"""What getaddrinfo returns."""


class Resolver:
    """Looks up one name. It belongs to one process, as the pool does whose it is."""

    def __init__(self, host: str, port: int, colour: Colour) -> None:
        self._host = host
        self._port = port
        self._colour = colour
        self._lock = threading.Lock()
        self._running: Future[Found] | None = None

    async def look_up(self, timeout: float) -> Found:
        """Return what the name resolves to, within `timeout` seconds. Raises TimeoutError, OSError, UnicodeError."""
        try:
            return self._ask(socket.AI_NUMERICHOST)  # an address is known at once
        except socket.gaierror:
            return await self._colour.wait(self._asked(), timeout)

    def _ask(self, flags: int = 0) -> Found:
        return socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM, flags=flags)

    def _asked(self) -> "Future[Found]":
        """Return the look-up that is under way, or begin one. Raises OSError."""
        with self._lock:
            if self._running is None or self._running.done():
                future: Future[Found] = Future()
                try:
                    threading.Thread(
                        target=self._answer, args=(future,), name="apitokenproxy-name", daemon=True
                    ).start()
                except RuntimeError:
                    raise OSError(0, "no thread can be started") from None
                self._running = future
            return self._running

    def _answer(self, future: "Future[Found]") -> None:
        try:
            future.set_result(self._ask())
        except BaseException as error:  # noqa: BLE001 - whoever waits is told
            future.set_exception(error)
