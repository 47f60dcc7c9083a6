"""Route: the way to one upstream, from a grant to its reply.

Rules:
1. The credential is put on a clean request last, and what is put on is what the audit record names.
2. A request whose credential was refused is sent once more with another one, if there is another: nothing was
   done by it, and nothing of the answer was passed on. A body must be here whole for that, so a small one is
   read before it is sent; it is held until the answer begins. One that is longer, or of unknown length, streams.
3. A credential that can answer a challenge is asked first. It is told of the refusal even where nothing can be
   sent again, so that the next request knows what this one learnt.
4. Only a request that could be sent once more, and may be (RFC 9110, section 9.2.2), proves a candidate. What
   the live credential gets is what the client sees, unless the candidate was accepted.
5. Only an answer below 400 says that a credential was accepted where another one was refused.
"""

from collections.abc import Awaitable, Callable

from attrs import evolve, frozen

from apitokenproxy.exchange import Exchange
from apitokenproxy.finishing import finish, whole
from apitokenproxy.guard import inject
from apitokenproxy.messages import IDEMPOTENT, Caller, Credential, Grant, Operation, Outbound, Reply, Request
from apitokenproxy.rotation.versions import MAYBE_REFUSED, MOST_OK, REFUSED, Versions
from apitokenproxy.upstream import Upstream


@frozen
class Route:
    """One upstream as the pipeline sees it: its terms, its credentials and its forwarder."""

    upstream: Upstream
    versions: Versions
    obtain: Callable[[Caller], Awaitable[Credential]]
    forward: Callable[[Outbound], Awaitable[Reply]]

    async def send(self, exchange: Exchange, grant: Grant, live: Credential) -> Reply:
        """Put the credential on, send, and return the reply; that of a second attempt where the first was refused."""
        versions, caller, operation = self.versions, grant.caller, grant.operation
        twice = operation.length is not None and operation.length <= self.upstream.replay_body
        candidate = None
        if versions.candidate is not None:
            versions.begin_probe(caller, self.probe)
            if twice and operation.method in IDEMPOTENT:
                candidate = await versions.trial(caller, live)
        first = candidate or live
        outbound = inject(grant, self.upstream, first)
        if twice and outbound.body is not None:
            outbound.body = await whole(outbound.body, self.upstream.replay_body, outbound.origin.timeouts.total)
        body = outbound.body
        reply = await self._once(exchange, outbound, first)
        if reply.status not in (REFUSED if candidate is None else MAYBE_REFUSED):
            if candidate is not None:
                await versions.accepted(candidate, reply.status)
            return reply
        status = reply.status
        answer = None if first.again is None else await first.again(reply)
        if not (body is None or isinstance(body, bytes)):
            return reply
        instead = answer or (live if candidate is not None else await versions.instead(caller, first, status))
        if instead is None:
            return reply
        reply.abort()
        outbound = inject(grant, self.upstream, instead)
        outbound.body = body
        reply = await self._once(exchange, outbound, instead)
        if answer is None and status in REFUSED and reply.status <= MOST_OK:
            await versions.worked(caller, first, instead, status)
        return reply

    async def probe(self, caller: Caller, credential: Credential, path: str = "") -> int:
        """Send a GET of `path`, or the probe of the upstream's rotation, and return the answer's status."""
        target, question, query = (path or self.upstream.rotation.probe).encode().partition(b"?")
        headers = [(b"Accept", b"*/*"), (b"User-Agent", b"apitokenproxy")]
        request = Request(b"GET", b"", headers)
        operation = Operation(
            self.upstream.name, b"GET", target, question + query, (), headers, None, 0, b"", "", request
        )  # what the pipeline would have made of such a request
        outbound = inject(Grant(caller, operation, "probe"), self.upstream, credential)
        if credential.finish:
            await finish(outbound, credential.finish)
        reply = await self.forward(outbound)
        reply.abort()
        return reply.status

    async def _once(self, exchange: Exchange, outbound: Outbound, credential: Credential) -> Reply:
        exchange.credential = credential
        if credential.finish:
            await finish(outbound, credential.finish)
            if outbound.shown:
                exchange.credential = evolve(credential, shown=credential.shown + outbound.shown)
        exchange.sent = True
        reply = exchange.reply = await self.forward(outbound)
        return reply
