"""The secret in a field of the body, for APIs that take it nowhere else."""

import json
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlencode

from attrs import field, frozen

from apitokenproxy.credentials.making import making
from apitokenproxy.errors import BadBody, ConfigurationError, SecretUnavailable
from apitokenproxy.interfaces import SecretReader
from apitokenproxy.messages import Caller, Credential, Finish, Hidden, Outbound, Secret
from apitokenproxy.wire import likeness

_FORM = b"application/x-www-form-urlencoded"
_JSON = b"application/json"


@frozen
class BodyField:
    """The secret as the field `name` of a JSON object or a form: `BodyField("api_key", "env:KEY")`.

    Which of the two it is, the request's Content-Type says; any other body is refused, and so is one that
    has the field already. The body is held in memory, `max_body` bytes of it (64 KiB when left out), and what
    stands in it stays as it stands.
    """

    name: str
    secret: str = field(repr=False)
    max_body: int = field(default=65536, kw_only=True)

    place: ClassVar[str] = "body"

    def __attrs_post_init__(self) -> None:
        if not self.name:
            raise ConfigurationError("a body field needs a name, as api_key")
        if self.max_body < 1:
            raise ConfigurationError(
                f"body field {self.name}: max_body is {self.max_body} bytes; it must be at least 1"
            )

    def bind(self, secrets: SecretReader) -> Callable[[Caller], Awaitable[Credential]]:
        """Return the function that makes the credential for a caller."""
        return making(secrets, self.secret, self._make)

    def _make(self, secret: Secret) -> Credential:
        material = Hidden(secret.reveal())
        if not _is_text(material):
            raise SecretUnavailable("the secret is no text in UTF-8, which a body could hold")

        def put(outbound: Outbound, body: bytes | None) -> bytes:
            kind = _type(outbound)
            if kind == _JSON:
                return self._in_json(body or b"", material)
            if kind == _FORM:
                return self._in_form(body or b"", material)
            raise BadBody("the credential stands in the body, which is neither JSON nor a form")

        return Credential(finish=(Finish(put, self.max_body, (material,)),), version=secret.version)

    def _is_like(self, name: bytes) -> bool:
        """Tell whether a backend may take a field for the one of the secret: by case, by `key[]`, by a blank."""
        return likeness(name.partition(b"=")[0]) == likeness(self.name.encode())

    def _in_json(self, body: bytes, material: bytes) -> bytes:
        try:
            said = json.loads(body.decode(), object_pairs_hook=_once)
        except (ValueError, RecursionError):
            raise BadBody("the body is not JSON, or has a field twice") from None
        if not isinstance(said, dict) or any(self._is_like(name.encode()) for name in said):
            raise BadBody(f"the body is no JSON object, or has the field {self.name} already")
        # Put in front, so that all else of the body stays as it stands.
        added = f"{json.dumps(self.name)}:{json.dumps(material.decode())}".encode()
        return b"{" + added + (b"," if said else b"") + body.lstrip()[1:]

    def _in_form(self, body: bytes, material: bytes) -> bytes:
        try:
            parse_qsl(body.decode("ascii"), keep_blank_values=True, strict_parsing=bool(body), errors="strict")
            fields = body.decode("ascii").split("&")
        except ValueError:
            raise BadBody("the body is not a form") from None
        if any(self._is_like(name.encode()) for field in fields for name in field.split(";")):
            raise BadBody(f"the body has the field {self.name} already")
        added = urlencode({self.name: material}).encode()
        return body + b"&" + added if body else added


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a field stands there twice")
    return found


def _type(outbound: Outbound) -> bytes:
    types = [value.lower() for name, value in outbound.headers if name.lower() == b"content-type"]
    if len(types) != 1 or (b"charset" in types[0] and b"utf-8" not in types[0]):
        return b""
    return types[0].partition(b";")[0].strip()


def _is_text(material: bytes) -> bool:
    try:
        return bool(material.decode())
    except UnicodeDecodeError:
        return False
