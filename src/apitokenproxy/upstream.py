"""Upstream: one API behind the proxy. A value; nothing here connects."""

import re
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from attrs import Factory, field, frozen

from apitokenproxy.errors import ConfigurationError
from apitokenproxy.interfaces import CredentialKind, TokenProvider
from apitokenproxy.messages import Origin, Timeouts
from apitokenproxy.places import fields_of
from apitokenproxy.rotation.terms import Rotation

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62})")
_BASE_PATH = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,=:@-]+)*")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})|[0-9A-Fa-f:.]+")
_PORTS = {"http": 80, "https": 443}

Credentials = CredentialKind | TokenProvider


def _as_tuple(value: Credentials | Sequence[Credentials]) -> tuple[Credentials, ...]:
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else (value,)


@frozen
class Upstream:
    """One API behind the proxy: `<mount>/<name>/<rest>` goes to `<url>/<rest>`.

    `credential` is one credential or several that are all put on; `previous` is what was put on before,
    and is used while the upstream refuses `credential`; `candidate` is what shall be put on in the future, once
    it is proven as `rotation` says. `allow_private` says that a
    loopback or private address is meant, and permits plain http. `ca` is a PEM file to trust
    instead of the system's authorities, `client_certificate` one with a certificate and its key to
    show to the upstream; with `{tenant}` in it each tenant has a file and connections of its own.
    `max_body` bounds a request body in bytes. A body of at most `replay_body` bytes is read whole before it is
    sent, so that it can be sent once more with another credential; 0: none is.
    `max_connections` bounds what is open to the upstream, in
    each process, and `max_connections_per_tenant` what one tenant may hold of it, so that the others find
    one while its requests hang; `warm_connections` are opened ahead of the first request.

    Opt-ins for paths that are refused otherwise, because proxies and servers disagree about them:
    `allow_encoded_slash` (`%2F`; GitLab needs it), `allow_empty_segments` (`//`; S3 keys),
    `allow_path_parameters` (`;`) and `allow_encoded_percent` (`%25`). `allow_foreign_redirects`
    passes on a redirect to another site; a client that follows it may take its token there.

    `transport` is an httpx transport to send through instead of the built-in pool: a
    `BaseTransport` for WSGI and scripts, an `AsyncBaseTransport` for ASGI.

    Raises ConfigurationError.
    """

    name: str
    url: str
    credential: tuple[Credentials, ...] = field(converter=_as_tuple, repr=False)
    previous: tuple[Credentials, ...] = field(default=(), converter=_as_tuple, kw_only=True, repr=False)
    candidate: tuple[Credentials, ...] = field(default=(), converter=_as_tuple, kw_only=True, repr=False)
    rotation: Rotation = field(default=Rotation(), kw_only=True)
    allow_private: bool = field(default=False, kw_only=True)
    ca: str | None = field(default=None, kw_only=True)
    client_certificate: str | None = field(default=None, kw_only=True)
    timeouts: Timeouts = field(default=Timeouts(), kw_only=True)
    max_connections: int = field(default=100, kw_only=True)
    max_connections_per_tenant: int | None = field(default=None, kw_only=True)
    warm_connections: int = field(default=0, kw_only=True)
    max_body: int | None = field(default=None, kw_only=True)
    replay_body: int = field(default=65536, kw_only=True)
    allow_encoded_slash: bool = field(default=False, kw_only=True)
    allow_empty_segments: bool = field(default=False, kw_only=True)
    allow_path_parameters: bool = field(default=False, kw_only=True)
    allow_encoded_percent: bool = field(default=False, kw_only=True)
    allow_foreign_redirects: bool = field(default=False, kw_only=True)
    transport: Any = field(default=None, kw_only=True, repr=False)

    origin: Origin = field(init=False, default=Factory(lambda self: self._make_origin(), takes_self=True))
    base: bytes = field(
        init=False, default=Factory(lambda self: urlsplit(self.url).path.rstrip("/").encode(), takes_self=True)
    )

    @property
    def forwarder(self) -> str:
        """Which forwarder sends its requests: `wire`, or `httpx` when a transport was given."""
        return "wire" if self.transport is None else "httpx"

    @property
    def certificate_per_tenant(self) -> bool:
        """Whether each tenant shows a certificate of its own."""
        return bool(fields_of(self.client_certificate or ""))

    def __attrs_post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigurationError(
                f"upstream name {self.name!r}: use lower-case letters, digits and hyphens, at most 63"
            )
        if not self.credential:
            raise ConfigurationError(f"upstream {self.name}: credential is empty; name at least one")
        for kind in (*self.credential, *self.previous, *self.candidate):
            if isinstance(kind, type) or not (hasattr(kind, "bind") or hasattr(kind, "credential")):
                raise ConfigurationError(
                    f"upstream {self.name}: a credential is Bearer(...), Basic(...), Header(...), Query(...) "
                    f"or an object with credential(caller), not {type(kind).__name__}"
                )
        for key, value, wanted in (("timeouts", self.timeouts, Timeouts), ("rotation", self.rotation, Rotation)):
            if not isinstance(value, wanted):
                raise ConfigurationError(f"upstream {self.name}: {key} must be a {wanted.__name__}(...)")
        places = [kind.place for kind in self.credential if hasattr(kind, "place")]
        for place in places:
            if places.count(place) > 1:
                raise ConfigurationError(f"upstream {self.name}: two credentials claim the {place}; leave one out")
        self._check_terms()

    def _check_terms(self) -> None:
        if self.certificate_per_tenant:
            self._check_certificate_per_tenant()
        shown = None if self.certificate_per_tenant else self.client_certificate
        for key, file in (("ca", self.ca), ("client_certificate", shown)):
            if file is not None and not Path(file).is_file():
                raise ConfigurationError(f"upstream {self.name}: {key} file {file} cannot be found")
        if self.replay_body < 0:
            raise ConfigurationError(f"upstream {self.name}: replay_body is {self.replay_body}; it must be at least 0")
        if self.max_connections < 1:
            raise ConfigurationError(
                f"upstream {self.name}: max_connections is {self.max_connections}; it must be at least 1"
            )
        share = self.max_connections_per_tenant
        if share is not None and not 1 <= share <= self.max_connections:
            raise ConfigurationError(
                f"upstream {self.name}: max_connections_per_tenant is {share}; "
                f"it must be between 1 and max_connections, which is {self.max_connections}"
            )
        if not 0 <= self.warm_connections <= self.max_connections:
            raise ConfigurationError(
                f"upstream {self.name}: warm_connections is {self.warm_connections}; "
                f"it must be between 0 and max_connections, which is {self.max_connections}"
            )

    def _check_certificate_per_tenant(self) -> None:
        strange = [name for name in fields_of(self.client_certificate or "") if name != "tenant"]
        problem = ""
        if strange:
            problem = f"client_certificate: {{{strange[0]}}} is not known; use {{tenant}}"
        elif self.origin.scheme != "https":
            problem = "client_certificate is shown over https alone, and url is plain http"
        elif self.transport is not None:
            problem = "client_certificate is not shown by a transport of your own; leave one of them out"
        elif self.warm_connections:
            problem = "warm_connections are nobody's, but client_certificate names a tenant's; leave one of them out"
        if problem:
            raise ConfigurationError(f"upstream {self.name}: {problem}")

    def _make_origin(self) -> Origin:
        try:
            url = urlsplit(self.url)
            port = url.port
        except ValueError:
            url, port = urlsplit(""), None
        if url.scheme not in _PORTS or not url.hostname or not _HOST.fullmatch(url.hostname):
            raise ConfigurationError(f"upstream {self.name}: url {self.url!r} is not like https://api.example.com/base")
        if "@" in url.netloc or "?" in self.url or "#" in self.url:
            raise ConfigurationError(
                f"upstream {self.name}: url must not hold a user, a query or a fragment; use credential for keys"
            )
        base = url.path.rstrip("/")
        if not _BASE_PATH.fullmatch(base) or any(part in {".", ".."} for part in base.split("/")):
            raise ConfigurationError(
                f"upstream {self.name}: the path of url {self.url!r} has a dot segment "
                "or a character that is not forwarded"
            )
        if url.scheme == "http" and not self.allow_private:
            raise ConfigurationError(
                f"upstream {self.name}: url is plain http, which shows the secret to the network; "
                "use https, or set allow_private = true for a host of your own"
            )
        if not self.allow_private and _is_private(url.hostname):
            raise ConfigurationError(
                f"upstream {self.name}: {url.hostname} is no address of the public internet; "
                "set allow_private = true if it is meant"
            )
        return Origin(
            scheme=url.scheme,
            host=url.hostname,
            port=_PORTS[url.scheme] if port is None else port,
            allow_private=self.allow_private,
            ca=self.ca,
            client_certificate=self.client_certificate,
            timeouts=self.timeouts,
            max_connections=self.max_connections,
            max_connections_per_tenant=self.max_connections_per_tenant,
            warm_connections=self.warm_connections,
        )


def _is_private(host: str) -> bool:
    """Tell whether a host is written as an address that is not public; the forwarder judges what names lead to."""
    try:
        return not ip_address(host).is_global
    except ValueError:
        return host == "localhost"
