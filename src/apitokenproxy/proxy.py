"""Proxy: what users build. It holds the parts and hands out `.asgi`, `.wsgi` and `.transport()`."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import cached_property
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Self, cast

from apitokenproxy._colour import ASYNC, SYNC, Colour, run
from apitokenproxy.adapters.asgi import AsgiApp
from apitokenproxy.adapters.httpx import AsyncTransport, Transport
from apitokenproxy.adapters.wsgi import WsgiApp
from apitokenproxy.audit import open_audit
from apitokenproxy.config import read_config
from apitokenproxy.credentials.several import combine
from apitokenproxy.errors import ConfigurationError, ProxyError
from apitokenproxy.forwarders.httpx import HttpxForwarder
from apitokenproxy.forwarders.wire import WireForwarder
from apitokenproxy.guard import Guard
from apitokenproxy.identity.authority import TokenAuthority
from apitokenproxy.identity.client_tokens import ClientTokens
from apitokenproxy.identity.first_of import FirstOf
from apitokenproxy.identity.host import HostIdentity
from apitokenproxy.identity.stores import open_store
from apitokenproxy.identity.verified import Verified
from apitokenproxy.interfaces import (
    AuditSink,
    Authenticator,
    Limiter,
    PolicyEngine,
    SecretProvider,
    SecretReader,
    TokenStore,
)
from apitokenproxy.limits.limit import Limit
from apitokenproxy.limits.memory import MemoryLimiter
from apitokenproxy.messages import Admission, Caller, Credential, Denial, Grant
from apitokenproxy.pipeline import Pipeline, Route
from apitokenproxy.policy.rule import Rule
from apitokenproxy.policy.rules import Rules
from apitokenproxy.secrets.builtin import built_in_providers
from apitokenproxy.secrets.cache import Secrets
from apitokenproxy.upstream import Upstream


class Proxy:
    """Stands between programs and somebody else's APIs.

    `upstreams` are the APIs behind it. `rules` decide who may do what: nothing matching is a
    denial. `limits` count. `store` keeps client tokens: `"memory:"`, `"sqlite:///tokens.db"`,
    `"postgresql://user:password@host/database"` or a `TokenStore`. `audit` is the path of a JSON
    lines file, an `AuditSink`, or None to write to the logger `apitokenproxy.audit` alone.
    `identity` lets the host application's own session call: a function from ASGI scope or WSGI
    environ to `Caller | None`, or an `Authenticator`.

    `prefix` is the path below which the proxy is mounted where neither server nor framework says so.
    `token_header` names a header that decides alone when a request carries it. `revocation_bound`
    is how long a revoked token may still work in another process. `store_outage` is how long
    verified tokens go on working when the store does not answer; by default they are refused with
    503. `trusted_proxies` are the addresses or networks whose X-Forwarded-For is believed.
    `secret_providers` adds schemes for secret references to those of docs/secrets.md, or replaces them.

    Raises ConfigurationError. Nothing is opened or connected before the first request, except that
    the store and the audit file are tried.
    """

    def __init__(
        self,
        *,
        upstreams: Iterable[Upstream],
        rules: Sequence[Rule] | PolicyEngine,
        limits: Sequence[Limit] | Limiter = (),
        store: str | TokenStore = "memory:",
        audit: str | Path | AuditSink | None = None,
        identity: Callable[[Any], Any] | Authenticator | HostIdentity | None = None,
        prefix: str = "",
        token_header: str | None = None,
        revocation_bound: timedelta = timedelta(seconds=1),
        store_outage: timedelta = timedelta(0),
        trusted_proxies: Iterable[str] = (),
        secret_providers: Mapping[str, SecretProvider] | None = None,
    ) -> None:
        self.upstreams = _by_name(upstreams)
        self._policy = Rules(rules, upstreams=self.upstreams) if isinstance(rules, Sequence) else rules
        self._limiter = MemoryLimiter(limits) if isinstance(limits, Sequence) else limits
        self._guard = Guard(
            upstreams=self.upstreams,
            prefix=_prefix(prefix),
            token_header=_header_name(token_header),
            trusted_proxies=tuple(_network(address) for address in trusted_proxies),
        )
        self._secrets = Secrets({**built_in_providers(), **(secret_providers or {})})
        self._forwarders = {name: _forwarder(upstream) for name, upstream in self.upstreams.items()}
        self._identity = identity
        self._store = open_store(store) if isinstance(store, str) else store
        self._verified = Verified(bound=revocation_bound.total_seconds())
        self._client_tokens = ClientTokens(self._store, self._verified, outage=store_outage.total_seconds())
        self._audit = open_audit(audit) if isinstance(audit, str | Path | None) else audit
        self.tokens = TokenAuthority(self._store, self._verified)

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """Build what a configuration file describes. Raises ConfigurationError with every problem in it."""
        arguments = read_config(path)
        try:
            return cls(**arguments)
        except ConfigurationError as error:
            raise ConfigurationError(f"{path}: {error}") from None

    @classmethod
    def problems_in(cls, path: str | Path) -> list[str]:
        """Return every problem of a configuration file: its own, the store's, the audit file's, missing secrets."""
        try:
            proxy = cls.from_toml(path)
        except ConfigurationError as error:
            return str(error).splitlines()
        problems = [f"{path}: {problem}" for problem in proxy.missing_secrets()]
        proxy.close()
        return problems

    # --- ways in ----------------------------------------------------------------------------

    @cached_property
    def asgi(self) -> AsgiApp:
        """The ASGI application to mount."""
        return AsgiApp(self._async_pipeline, self.awarm_up, self.aclose)

    @cached_property
    def wsgi(self) -> WsgiApp:
        """The WSGI application to mount. Raises ConfigurationError when a part is `async def`."""
        return WsgiApp(self._sync_pipeline)

    def transport(self, token: str) -> Transport:
        """Return a transport for `httpx.Client` that calls as the holder of `token`."""
        return Transport(self._sync_pipeline, token, self._disconnect)

    def async_transport(self, token: str) -> AsyncTransport:
        """Return a transport for `httpx.AsyncClient` that calls as the holder of `token`."""
        return AsyncTransport(self._async_pipeline, token, self._adisconnect)

    # --- life -------------------------------------------------------------------------------

    @asynccontextmanager
    async def lifespan(self, _app: object = None) -> AsyncIterator[None]:
        """Open warm connections, and close the proxy when the host stops: `FastAPI(lifespan=proxy.lifespan)`."""
        await self.awarm_up()
        try:
            yield
        finally:
            await self.aclose()

    async def awarm_up(self) -> None:
        """Open the connections that upstreams want ahead (`warm_connections`), under this event loop.

        An upstream that cannot be reached is not an error yet: its first request will tell.
        """
        await self._warm_up(ASYNC)

    def warm_up(self) -> None:
        """Do what `awarm_up` does, for WSGI and scripts; after a fork, in each child."""
        run(self._warm_up(SYNC))

    async def _warm_up(self, colour: Colour) -> None:
        for name, forwarder in self._forwarders.items():
            if isinstance(forwarder, WireForwarder):
                with contextlib.suppress(ProxyError):
                    await forwarder.warm_up(self.upstreams[name].origin, colour)

    async def aclose(self) -> None:
        """Close connections, write down all audit records. A later request opens what it needs anew."""
        await self._adisconnect()
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Close connections, write down all audit records. A later request opens what it needs anew."""
        self._disconnect()
        self._audit.close()
        self._client_tokens.close()
        self._store.close()

    def _disconnect(self) -> None:
        for forwarder in self._forwarders.values():
            forwarder.close()

    async def _adisconnect(self) -> None:
        for forwarder in self._forwarders.values():
            await forwarder.aclose()

    def missing_secrets(self) -> list[str]:
        """Try to read every secret that does not depend on the caller; return a sentence for each that fails."""
        return asyncio.run(self._missing_secrets())

    async def _missing_secrets(self) -> list[str]:
        secrets = self._secrets.bind(ASYNC)
        problems = []
        for upstream in self.upstreams.values():
            for kind in upstream.credential:
                reference = getattr(kind, "secret", None)
                if isinstance(reference, str):
                    try:
                        read = secrets.reader(reference)
                        if "{" not in reference:
                            await read(Caller(tenant=""))
                    except (ConfigurationError, ProxyError) as error:
                        problems.append(f"upstreams.{upstream.name}.credential: {error}")
        return problems

    # --- wiring -----------------------------------------------------------------------------

    @cached_property
    def _async_pipeline(self) -> Pipeline:
        return self._pipeline(ASYNC)

    @cached_property
    def _sync_pipeline(self) -> Pipeline:
        return self._pipeline(SYNC)

    def _pipeline(self, colour: Colour) -> Pipeline:
        secrets = self._secrets.bind(colour)
        return Pipeline(
            guard=self._guard,
            authenticate=self._authenticator().bind(colour).authenticate,
            decide=colour.lift(self._policy.decide, (Grant, Denial)),
            admit=colour.lift(self._limiter.admit, Admission),
            routes={
                name: Route(
                    upstream=upstream,
                    obtain=_credential(upstream, secrets, colour),
                    forward=self._forwarders[name].bind(colour),
                )
                for name, upstream in self.upstreams.items()
            },
            audit=self._audit,
        )

    def _authenticator(self) -> FirstOf:
        authenticators: list[Any] = [self._client_tokens]
        if self._identity is not None:
            is_part = hasattr(self._identity, "authenticate") or hasattr(self._identity, "bind")
            authenticators.append(self._identity if is_part else HostIdentity(cast("Any", self._identity)))
        return FirstOf(authenticators)


def _credential(upstream: Upstream, secrets: SecretReader, colour: Colour) -> Callable[[Caller], Awaitable[Credential]]:
    return combine(
        [
            kind.bind(secrets) if hasattr(kind, "bind") else colour.lift(kind.credential, Credential)
            for kind in upstream.credential
        ]
    )


def _forwarder(upstream: Upstream) -> WireForwarder | HttpxForwarder:
    return WireForwarder() if upstream.forwarder == "wire" else HttpxForwarder(upstream.transport)


def _by_name(upstreams: Iterable[Upstream]) -> dict[str, Upstream]:
    found: dict[str, Upstream] = {}
    for upstream in upstreams:
        if upstream.name in found:
            raise ConfigurationError(f"upstream {upstream.name} is named twice; give each its own name")
        found[upstream.name] = upstream
    if not found:
        raise ConfigurationError("upstreams is empty; name at least one API to stand before")
    return found


def _prefix(prefix: str) -> bytes:
    stripped = prefix.rstrip("/")
    if stripped and not (stripped.startswith("/") and stripped.isascii() and "//" not in stripped):
        raise ConfigurationError(f"prefix {prefix!r} must begin with a slash, as /proxy does")
    return stripped.encode()


def _header_name(name: str | None) -> bytes | None:
    if name is None:
        return None
    if not name or not all(letter.isascii() and (letter.isalnum() or letter == "-") for letter in name):
        raise ConfigurationError(f"token_header {name!r} is not a header name; use letters, digits and hyphens")
    return name.lower().encode()


def _network(address: str) -> Any:
    try:
        return ip_network(address)
    except ValueError:
        raise ConfigurationError(
            f"trusted_proxies: {address!r} is not an address or network, as 10.0.0.0/8 is"
        ) from None
