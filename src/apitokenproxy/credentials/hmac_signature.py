"""A signature with a shared secret over what is sent, as exchanges and webhook receivers want it."""

import base64
import time
from collections.abc import Awaitable, Callable, Mapping
from hmac import digest
from string import Formatter
from typing import Literal

from attrs import Factory, field, frozen

from apitokenproxy.credentials.making import making
from apitokenproxy.credentials.naming import header_name
from apitokenproxy.errors import ConfigurationError, SecretUnavailable
from apitokenproxy.interfaces import SecretReader
from apitokenproxy.messages import Caller, Credential, Finish, Headers, Hidden, Outbound, Secret

_IN_MESSAGE = ("method", "path", "query", "target", "host", "timestamp", "body")
_IN_HEADER = ("signature", "timestamp")
_DECODE: Mapping[str, Callable[[bytes], bytes]] = {
    "text": bytes,
    "base64": lambda text: base64.b64decode(text, validate=True),
    "hex": lambda text: bytes.fromhex(text.decode("ascii")),
}
_ALGORITHMS = ("sha256", "sha384", "sha512", "sha1")


@frozen
class HmacSignature:
    """The header `name` holds an HMAC of `message`: `HmacSignature("X-Signature", "env:KEY")`.

    `message` says what is signed: `{method}`, `{target}` (path and query), `{path}`, `{query}`, `{host}`,
    `{timestamp}` and `{body}`, as they are sent, with whatever stands between them. `template` says how the
    header is written, of `{signature}` and `{timestamp}`. `timestamp_header` names a header for the timestamp
    alone, in `unit` since the epoch. The secret is used as it stands, or decoded from base64 or hex first
    (`secret_encoding`). A body that is signed is held in memory, `max_body` bytes of it (1 MiB when left out).

    Raises ConfigurationError.
    """

    name: str
    secret: str = field(repr=False)
    message: str = field(default="{body}", kw_only=True)
    template: str = field(default="{signature}", kw_only=True)
    algorithm: Literal["sha256", "sha384", "sha512", "sha1"] = field(default="sha256", kw_only=True)
    encoding: Literal["hex", "base64"] = field(default="hex", kw_only=True)
    secret_encoding: Literal["text", "base64", "hex"] = field(default="text", kw_only=True)
    timestamp_header: str | None = field(default=None, kw_only=True)
    unit: Literal["seconds", "milliseconds"] = field(default="seconds", kw_only=True)
    max_body: int = field(default=1024 * 1024, kw_only=True)
    clock: Callable[[], float] = field(default=time.time, kw_only=True, repr=False, eq=False)

    _pieces: tuple[tuple[bytes, str | None], ...] = field(
        init=False,
        repr=False,
        eq=False,
        default=Factory(lambda self: self._read("message", _IN_MESSAGE), takes_self=True),
    )

    @property
    def place(self) -> str:
        """What it puts on a request."""
        return f"header {self.name.title()}"

    def __attrs_post_init__(self) -> None:
        header_name(self.name)
        if self.timestamp_header is not None:
            header_name(self.timestamp_header)
        if "signature" not in [name for _, name in self._read("template", _IN_HEADER)]:
            raise ConfigurationError(f"signature {self.name}: template must hold {{signature}}")
        if not (self.template.isascii() and self.template.isprintable()):
            raise ConfigurationError(f"signature {self.name}: template must be plain ASCII")
        for key, value, known in (
            ("algorithm", self.algorithm, _ALGORITHMS),
            ("encoding", self.encoding, ("hex", "base64")),
            ("secret_encoding", self.secret_encoding, tuple(_DECODE)),
            ("unit", self.unit, ("seconds", "milliseconds")),
        ):
            if value not in known:
                raise ConfigurationError(f"signature {self.name}: {key} {value!r} is none of {', '.join(known)}")
        if self.max_body < 1:
            raise ConfigurationError(f"signature {self.name}: max_body is {self.max_body} bytes; it must be at least 1")

    def _read(self, key: str, known: tuple[str, ...]) -> tuple[tuple[bytes, str | None], ...]:
        """Return the pieces of a text, each with the name that follows it. Raises ConfigurationError."""
        text = str(getattr(self, key))
        try:
            parts = list(Formatter().parse(text))
        except ValueError:
            parts = [("", "{", "", None)]
        if any(spec or conversion or name not in {*known, None} for _, name, spec, conversion in parts):
            raise ConfigurationError(f"signature {self.name}: {key} {text!r} may hold {{{'}, {'.join(known)}}}")
        return tuple((before.encode(), name) for before, name, _, _ in parts)

    def bind(self, secrets: SecretReader) -> Callable[[Caller], Awaitable[Credential]]:
        """Return the function that makes the credential for a caller."""
        return making(secrets, self.secret, self._make)

    def _make(self, secret: Secret) -> Credential:
        key = self._key(secret)

        def sign(outbound: Outbound, body: bytes | None) -> bytes | None:
            timestamp = str(int(self.clock() * (1 if self.unit == "seconds" else 1000)))
            mac = digest(key, self._message(outbound, timestamp, body), self.algorithm)
            signature = mac.hex() if self.encoding == "hex" else base64.b64encode(mac).decode()
            added: Headers = [
                (self.name.encode(), Hidden(self.template.format(signature=signature, timestamp=timestamp).encode()))
            ]
            if self.timestamp_header is not None:
                added.append((self.timestamp_header.encode(), timestamp.encode()))
            mine = {name.lower() for name, _ in added}
            outbound.headers = [header for header in outbound.headers if header[0].lower() not in mine] + added
            return body

        signs_body = any(name == "body" for _, name in self._pieces)
        return Credential(
            finish=(Finish(sign, self.max_body if signs_body else None, signs=True),), version=secret.version
        )

    def _key(self, secret: Secret) -> Hidden:
        try:
            return Hidden(_DECODE[self.secret_encoding](secret.reveal()))
        except ValueError:
            raise SecretUnavailable(f"the secret is not {self.secret_encoding}") from None

    def _message(self, outbound: Outbound, timestamp: str, body: bytes | None) -> bytes:
        path, _, query = outbound.target.partition(b"?")
        parts = {
            "method": outbound.method,
            "path": path,
            "query": query,
            "target": bytes(outbound.target),
            "host": outbound.origin.authority,
            "timestamp": timestamp.encode(),
            "body": body or b"",
        }
        return b"".join(before + (parts[name] if name else b"") for before, name in self._pieces)
