"""The TLS settings of an origin, as the files that it names say now.

Rules:
1. A file that was changed is read anew: for the next connection at once, and within `LOOK_SECONDS` for all.
   A connection that was made before carries on with the request that it has, and then no other.
2. A session is resumed only under the settings that made it. Settings are of one origin: a tenant's own
   certificate is a tenant's own settings.
3. Under asyncio the files are read in a thread, once for all who wait: the system's authorities alone take tens
   of milliseconds.
"""

import ssl
import threading
import time
from concurrent.futures import Future
from pathlib import Path

from apitokenproxy._colour import Colour
from apitokenproxy.errors import ProxyError, TlsTimeout, UpstreamUnreachable
from apitokenproxy.forwarders.tls import tls_context
from apitokenproxy.messages import Origin

LOOK_SECONDS = 1.0
"""How often connections that are kept have their files looked at."""

_Stamps = tuple[tuple[int, int, int] | None, ...]


class Trust:
    """TLS settings as they were read, and the session that may shorten the next handshake under them."""

    def __init__(self, context: ssl.SSLContext, files: tuple[str, ...], stamps: _Stamps) -> None:
        self.context = context
        self.session: ssl.SSLSession | None = None
        self._files = files
        self._stamps = stamps
        self._looked = time.monotonic()
        self._changed = False

    def is_outdated(self) -> bool:
        """Tell whether a file was changed since, as far as was seen within the last `LOOK_SECONDS`."""
        if self._files and not self._changed and time.monotonic() - self._looked >= LOOK_SECONDS:
            return self.look()
        return self._changed

    def look(self) -> bool:
        """Tell whether a file was changed since."""
        self._looked = time.monotonic()
        self._changed = self._changed or _stamps(self._files) != self._stamps
        return self._changed


class Trusting:
    """What an origin is trusted by. It belongs to one process, as the pool does whose it is."""

    def __init__(self, origin: Origin, colour: Colour) -> None:
        self._origin = origin
        self._colour = colour
        self._files = tuple(filter(None, (origin.ca, origin.client_certificate)))
        self._lock = threading.Lock()
        self._trust: Trust | None = None
        self._reading: Future[Trust] | None = None

    async def now(self) -> Trust | None:
        """Return the settings for a new connection, None for plain http. Raises SecretUnavailable, UpstreamFailure."""
        if self._origin.scheme != "https":
            return None
        trust = self._trust
        if trust is not None and not trust.look():
            return trust
        try:
            return await self._colour.wait(self._read(), self._origin.timeouts.tls)
        except TimeoutError:
            raise TlsTimeout(
                f"reading the TLS settings took longer than {self._origin.timeouts.tls:g} seconds"
            ) from None
        except ProxyError as error:
            raise type(error)(error.detail) from None  # whoever waits gets one of their own
        except OSError as error:
            raise UpstreamUnreachable(f"the TLS settings cannot be loaded: {error.strerror}") from None

    def _read(self) -> "Future[Trust]":
        """Return the reading that is under way, or begin one."""
        with self._lock:
            if self._reading is not None:
                return self._reading
            reading = self._reading = Future()
        if self._colour.blocks:
            self._read_into(reading)
            return reading
        try:
            threading.Thread(target=self._read_into, args=(reading,), name="apitokenproxy-tls", daemon=True).start()
        except RuntimeError:
            self._end(reading, OSError(0, "no thread can be started"))
        return reading

    def _read_into(self, reading: "Future[Trust]") -> None:
        try:
            stamps = _stamps(self._files)  # first: what is changed meanwhile is read once more
            context = tls_context(self._origin)
        except BaseException as error:  # noqa: BLE001 - whoever waits is told
            self._end(reading, error)
        else:
            self._end(reading, None if context is None else Trust(context, self._files, stamps))

    def _end(self, reading: "Future[Trust]", outcome: Trust | BaseException | None) -> None:
        with self._lock:
            self._reading = None
            self._trust = outcome if isinstance(outcome, Trust) else None
        if isinstance(outcome, BaseException):
            reading.set_exception(outcome)
        elif outcome is not None:
            reading.set_result(outcome)


def _stamps(files: tuple[str, ...]) -> _Stamps:
    return tuple(map(_stamp, files))


def _stamp(file: str) -> tuple[int, int, int] | None:
    """Return what is another one when a file was written, or another one put in its place."""
    try:
        found = Path(file).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
