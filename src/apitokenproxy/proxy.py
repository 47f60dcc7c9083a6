"""Proxy: what users build. It holds the parts and hands out `.asgi`, `.wsgi` and `.transport()`."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from apitokenproxy._colour import ASYNC, SYNC, Colour, run
from apitokenproxy.adapters.asgi import AsgiApp
from apitokenproxy.adapters.httpx import AsyncTransport, Transport
from apitokenproxy.adapters.wsgi import WsgiApp
from apitokenproxy.audit import open_audit
from apitokenproxy.config import read_config
from apitokenproxy.errors import ConfigurationError
from apitokenproxy.forwarders.all import Forwarders
from apitokenproxy.guard import Guard
from apitokenproxy.identity.authority import TokenAuthority
from apitokenproxy.identity.client_tokens import ClientTokens
from apitokenproxy.identity.derived import DERIVE
from apitokenproxy.identity.deriving import DEFAULT_LIFETIME
from apitokenproxy.identity.first_of import FirstOf
from apitokenproxy.identity.host import HostIdentity, authenticator
from apitokenproxy.identity.signing import SigningKeys
from apitokenproxy.identity.stores import open_store, states_in
from apitokenproxy.identity.told import DerivedToken
from apitokenproxy.identity.verified import Verified
from apitokenproxy.interfaces import (
    AuditSink,
    Authenticator,
    Limiter,
    PolicyEngine,
    SecretProvider,
    TokenStore,
)
from apitokenproxy.limits.limit import Limit, own_limits
from apitokenproxy.limits.memory import MemoryLimiter
from apitokenproxy.messages import Admission, Caller, Denial, Grant, HiddenText
from apitokenproxy.pipeline import Pipeline
from apitokenproxy.policy.rule import Rule
from apitokenproxy.policy.rules import Rules
from apitokenproxy.rotation.authority import VersionAuthority
from apitokenproxy.rotation.records import VersionRecords
from apitokenproxy.routes import Routes
from apitokenproxy.secrets.builtin import built_in_providers
from apitokenproxy.secrets.cache import Secrets
from apitokenproxy.settings import by_name, header_name, network, prefix_of, seconds_of
from apitokenproxy.token_endpoint import Asked, TokenExchange
from apitokenproxy.upstream import Upstream

Identity = Callable[[Any], Any] | Authenticator | HostIdentity
"""What says who is calling without a client token."""


class Proxy:
    """Stands between programs and somebody else's APIs.

    `upstreams` are the APIs behind it. `rules` decide who may do what: nothing matching is a
    denial. `limits` count. `store` keeps client tokens: `"memory:"`, `"sqlite:///tokens.db"`,
    `"postgresql://user:password@host/database"` or a `TokenStore`. `audit` is the path of a JSON
    lines file, an `AuditSink`, or None to write to the logger `apitokenproxy.audit` alone.
    `identity` lets the host application's own session call: a function from ASGI scope or WSGI
    environ to `Caller | None`, or an `Authenticator`, such as a `JwtIdentity`; or several, asked in order.

    `prefix` is the path below which the proxy is mounted where neither server nor framework says so.
    `token_header` names a header that decides alone when a request carries it. `revocation_bound`
    is how long a revoked token may still work in another process. `store_outage` is how long
    verified tokens go on working when the store does not answer; by default they are refused with
    503. `trusted_proxies` are the addresses or networks whose X-Forwarded-For is believed (`"unix:"`: Unix sockets).
    `signing_keys` are secret references: the first signs derived tokens, each verifies them.
    `exchange_lifetime` is how long a token lasts that its holder derived at the token endpoint.
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
        identity: Identity | Sequence[Identity] | None = None,
        prefix: str = "",
        token_header: str | None = None,
        revocation_bound: timedelta = timedelta(seconds=1),
        store_outage: timedelta = timedelta(0),
        trusted_proxies: Iterable[str] = (),
        signing_keys: Sequence[str] = (),
        exchange_lifetime: timedelta = DEFAULT_LIFETIME,
        secret_providers: Mapping[str, SecretProvider] | None = None,
    ) -> None:
        if isinstance(store, str):
            store = HiddenText(store)
        self.upstreams = by_name(upstreams)
        self._policy = Rules(rules, upstreams=self.upstreams) if isinstance(rules, Sequence) else rules
        self._limiter = MemoryLimiter(limits) if isinstance(limits, Sequence) else limits
        self._guard = Guard(
            upstreams=self.upstreams,
            prefix=prefix_of(prefix),
            token_header=header_name(token_header),
            trusted_proxies=tuple(network(address) for address in trusted_proxies),
        )
        self._forwarders = Forwarders(self.upstreams)
        self._identity = identity
        self._store = open_store(store) if isinstance(store, str) else store
        self._states = states_in(self._store)
        self._secrets = Secrets({**built_in_providers(), **(secret_providers or {})}, states=self._states)
        records = VersionRecords(self._states)
        self._routes = Routes(self.upstreams, self._secrets, self._forwarders, records)
        self._verified = Verified(bound=seconds_of("revocation_bound", revocation_bound))
        outage = seconds_of("store_outage", store_outage)
        keys = SigningKeys(signing_keys, self._secrets.bind)
        self._signing_keys = keys
        seconds_of("exchange_lifetime", exchange_lifetime)
        self._exchange_lifetime = exchange_lifetime
        self._client_tokens = ClientTokens(self._store, self._verified, keys=keys, outage=outage)
        self._audit = open_audit(audit) if isinstance(audit, str | Path | None) else audit
        self.versions = VersionAuthority(self._routes.bind)
        self.tokens = TokenAuthority(self._store, self._verified, keys, self._check_own_limits)

    def _check_own_limits(self, terms: Mapping[str, str | int]) -> None:
        if terms and not isinstance(self._limiter, MemoryLimiter):
            raise ConfigurationError(
                "a derived token's own limits are counted by the built-in limiter alone; leave them out"
            )
        own_limits(terms)

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """Build what a configuration file describes. Raises ConfigurationError with every problem in it."""
        arguments = read_config(path)
        try:
            return cls(**arguments)
        except ConfigurationError as error:
            raise ConfigurationError(f"{path}: {error}") from None

    @classmethod
    def problems_in(cls, path: str | Path, *, spare: bool = True) -> list[str]:
        """Return every problem of a configuration file: its own, the store's, the audit file's, missing secrets.

        `spare`: those of candidates and previous versions too, without which requests are served all the same.
        """
        try:
            proxy = cls.from_toml(path)
        except ConfigurationError as error:
            return str(error).splitlines()
        problems = [f"{path}: {problem}" for problem in proxy.missing_secrets(spare=spare)]
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

    @cached_property
    def token_endpoint(self) -> AsgiApp:
        """The ASGI application at which holders of tokens with the scope `tokens:derive` derive others (RFC 8693)."""
        return AsgiApp(self._token_exchange(ASYNC), self.awarm_up, self.aclose)

    @cached_property
    def wsgi_token_endpoint(self) -> WsgiApp:
        """The same as a WSGI application."""
        return WsgiApp(self._token_exchange(SYNC))

    def transport(self, token: str) -> Transport:
        """Return a transport for `httpx.Client` that calls as the holder of `token`."""
        return Transport(self._sync_pipeline, token, self._forwarders.close)

    def async_transport(self, token: str) -> AsyncTransport:
        """Return a transport for `httpx.AsyncClient` that calls as the holder of `token`."""
        return AsyncTransport(self._async_pipeline, token, self._forwarders.aclose)

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
        await self._forwarders.warm_up(ASYNC)

    def warm_up(self) -> None:
        """Do what `awarm_up` does, for WSGI and scripts; after a fork, in each child."""
        run(self._forwarders.warm_up(SYNC))

    async def aclose(self) -> None:
        """Close connections, write down all audit records. A later request opens what it needs anew."""
        await self._forwarders.aclose()
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Close connections, write down all audit records. A later request opens what it needs anew."""
        self._forwarders.close()
        self._audit.close()
        self._client_tokens.close()
        self._store.close()

    def missing_secrets(self, *, spare: bool = True) -> list[str]:
        """Try to read every secret that does not depend on the caller; return a sentence for each that fails."""
        return asyncio.run(self._missing_secrets(spare=spare))

    async def _missing_secrets(self, *, spare: bool) -> list[str]:
        return await self._signing_keys.bind(ASYNC).problems() + await self._routes.missing_secrets(spare=spare)

    # --- wiring -----------------------------------------------------------------------------

    @cached_property
    def _async_pipeline(self) -> Pipeline:
        return self._pipeline(ASYNC)

    @cached_property
    def _sync_pipeline(self) -> Pipeline:
        return self._pipeline(SYNC)

    def _pipeline(self, colour: Colour) -> Pipeline:
        return Pipeline(
            guard=self._guard,
            authenticate=self._authenticator().bind(colour).authenticate,
            decide=colour.lift(self._policy.decide, (Grant, Denial)),
            admit=colour.lift(self._limiter.admit, Admission),
            routes=self._routes.bind(colour),
            audit=self._audit,
        )

    def _token_exchange(self, colour: Colour) -> TokenExchange:
        self._signing_keys.must_be_named()
        return TokenExchange(
            authenticate=self._client_tokens.bind(colour).authenticate,
            derive=colour.lift(self._derive, DerivedToken),
            may_derive=DERIVE,
            upstreams=frozenset(self.upstreams),
            address=self._guard.address_of,
            audit=self._audit,
        )

    def _derive(self, caller: Caller, asked: Asked) -> DerivedToken:
        return self.tokens.derive(
            caller.token_id,
            generation=caller.generation,
            scopes=asked.scopes,
            upstreams=asked.upstreams,
            expires_in=self._exchange_lifetime,
        )

    def _authenticator(self) -> FirstOf:
        several = self._identity if isinstance(self._identity, Sequence) else [self._identity]
        return FirstOf([self._client_tokens, *map(authenticator, filter(None, several))])
