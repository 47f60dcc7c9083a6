"""TLS to an upstream: whom to believe, and the bytes of a connection, without I/O.

Rules:
1. The certificate is verified, and for the upstream's name; 1.2 at least.
2. An end is an end only when the upstream says so (close_notify). A connection that is merely cut
   could be an attacker's way to make half an answer look whole.
"""

import ssl
from pathlib import Path

from apitokenproxy.authorities import system_authorities
from apitokenproxy.errors import SecretUnavailable, UpstreamUnreachable
from apitokenproxy.messages import Origin

_READ = 16 * 1024  # a record holds no more (RFC 8446, section 5.1)


def tls_context(origin: Origin) -> ssl.SSLContext | None:
    """Return the TLS settings for an origin, None for plain http.

    Raises SecretUnavailable for the client certificate, UpstreamUnreachable and OSError for what is trusted.
    """
    if origin.scheme != "https":
        return None
    if origin.ca is None:
        context = system_authorities()
    elif Path(origin.ca).is_file():
        context = ssl.create_default_context(cafile=origin.ca)
    else:
        raise UpstreamUnreachable(f"the ca file {origin.ca} is gone")
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if origin.client_certificate is not None:
        _show(origin.client_certificate, context)
    return context


def _show(file: str, context: ssl.SSLContext) -> None:
    try:
        # Without a password callback of our own, OpenSSL would ask for one on the terminal.
        context.load_cert_chain(file, password=lambda: b"")
    except ssl.SSLError as error:  # its text could hold some of the file
        why = f": {error.reason}" if error.reason else ""
        raise SecretUnavailable(f"the client certificate {file} is no certificate with its key in PEM{why}") from None
    except OSError as error:
        raise SecretUnavailable(f"the client certificate {file} cannot be read: {error.strerror}") from None


class TlsBytes:
    """One TLS connection: what arrived goes in, what it means and what must be sent come out."""

    def __init__(self, context: ssl.SSLContext, name: str, session: ssl.SSLSession | None) -> None:
        self._received = ssl.MemoryBIO()
        self._sending = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._received, self._sending, server_hostname=name, session=session)
        self.established = False
        self.ended = False

    def start(self) -> None:
        """Begin the handshake."""
        self._shake()

    def _shake(self) -> None:
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return
        self.established = True

    def receive(self, data: bytes) -> bytes:
        """Take what arrived and return what it says. Raises OSError."""
        self._received.write(data)
        if not self.established:
            self._shake()
        return self._said() if self.established else b""

    def _said(self) -> bytes:
        said, more = [], not self.ended
        try:
            # To be told by an exception that there is no more costs as much as decrypting a record. Something
            # of one can be left only where as much came as was asked for.
            while more:
                chunk = self._object.read(_READ)
                said.append(chunk)
                self.ended = not chunk
                partly = len(chunk) == _READ and self._object.pending()
                more = bool(chunk and (self._received.pending or partly))
        except ssl.SSLWantReadError:
            pass
        return said[0] if len(said) == 1 else b"".join(said)

    def say(self, data: bytes) -> None:
        """Take what is to be said. Raises OSError."""
        written = self._object.write(data)
        while written < len(data):  # one record at a time
            written += self._object.write(memoryview(data)[written:])

    def to_send(self) -> bytes:
        """Return what must be sent now; it may be nothing."""
        return self._sending.read() if self._sending.pending else b""

    @property
    def session(self) -> ssl.SSLSession | None:
        """What may shorten the next handshake."""
        return self._object.session
