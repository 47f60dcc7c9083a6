"""Whom to believe when a server shows its certificate, where nobody else is named: the system's authorities."""

import ssl
import sys


def system_authorities() -> ssl.SSLContext:
    """Return TLS settings that verify a server's certificate and name as the operating system would."""
    if sys.platform == "linux":
        # Its trust store is files, read once here; truststore would read them again for every connection, in 16 ms.
        return ssl.create_default_context()
    import truststore  # noqa: PLC0415 - macOS and Windows, where OpenSSL cannot see the trust store

    return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
