"""What the tests of credentials share: making one in both colours, and sending with it."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
from attrs import frozen

from apitokenproxy import Caller, Credential, Proxy, Rule, Upstream
from apitokenproxy._colour import ASYNC, SYNC, run
from apitokenproxy.credentials.several import combine
from apitokenproxy.interfaces import CredentialKind
from apitokenproxy.secrets.cache import Secrets
from apitokenproxy.testing import FixedSecrets, MemoryAudit

COLOURS = ["async", "sync"]
ACME = Caller(tenant="acme", subject="ci")


def credentials(secrets: Secrets, colour: str, *kinds: CredentialKind, callers: list[Caller]) -> list[Credential]:
    """Bind the kinds of one upstream in one colour and make the credential for each caller in turn."""
    bound = secrets.bind(ASYNC if colour == "async" else SYNC)
    obtain = combine([kind.bind(bound) for kind in kinds])

    async def ask() -> list[Credential]:
        return [await obtain(caller) for caller in callers]

    return asyncio.run(ask()) if colour == "async" else run(ask())


def credential(colour: str, *kinds: CredentialKind, **material: str) -> Credential:
    """Make the credential of one upstream from secrets that are named `fixed:NAME`."""
    [made] = credentials(Secrets({"fixed": FixedSecrets(**material)}), colour, *kinds, callers=[ACME])
    return made


def plain(pairs: Any) -> list[tuple[bytes, bytes]]:
    """Return fields or parameters with their values shown."""
    return [(name, bytes(value)) for name, value in pairs]


@frozen
class Sent:
    """One request as the upstream saw it."""

    target: bytes
    headers: list[tuple[bytes, bytes]]

    def values(self, name: bytes) -> list[bytes]:
        return [bytes(value) for key, value in self.headers if key.lower() == name]


@frozen
class Exchange:
    """How one call went: the answer, what reached the upstream, and the audit record."""

    answer: httpx.Response
    sent: list[Sent]
    record: Any


def call(
    colour: str,
    kinds: Any,
    target: str = "/x",
    providers: Any = None,
    accepts: Callable[[bytes], bool] = lambda _: True,
    **material: str,
) -> Exchange:
    """Call once through a proxy whose upstream takes these credentials, if it `accepts` what Authorization says."""
    sent: list[Sent] = []

    def upstream(request: httpx.Request) -> httpx.Response:
        sent.append(Sent(request.url.raw_path, request.headers.raw))
        return httpx.Response(200 if accepts(request.headers.get("authorization", "").encode()) else 401)

    async def aupstream(request: httpx.Request) -> httpx.Response:
        return upstream(request)

    transport = httpx.MockTransport(upstream if colour == "sync" else aupstream)
    audit = MemoryAudit()
    proxy = Proxy(
        upstreams=[Upstream("api", "https://api.example.com", credential=kinds, transport=transport)],
        rules=[Rule("all", effect="allow")],
        audit=audit,
        secret_providers=providers or {"fixed": FixedSecrets(**material)},
    )
    token = proxy.tokens.issue(tenant="acme", subject="ci").token
    url = f"http://proxy/api{target}"
    if colour == "sync":
        with httpx.Client(transport=proxy.transport(token)) as client:
            answer = client.get(url)
    else:

        async def get() -> httpx.Response:
            async with httpx.AsyncClient(transport=proxy.async_transport(token)) as client:
                return await client.get(url)

        answer = asyncio.run(get())
    proxy.close()
    [record] = audit.records
    return Exchange(answer, sent, record)
