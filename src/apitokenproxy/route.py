"""Route: the way to one upstream, from a grant to its reply.

Rules:
1. The credential is put on a clean request last, and what is put on is what the audit record names.
2. A request whose credential was refused is sent once more with another one, if there is another: nothing was
   done by it, and nothing of the answer was passed on. A body must be here whole for that, so a small one is
   read before it is sent; it is held until the answer begins. One that is longer, or of unknown length, streams.
3. A credential that can answer a challenge is asked first. It is told of the refusal even where nothing can be
   sent again, so that the next request knows what this one learnt.
"""

from collections.abc import Awaitable, Callable

from attrs import evolve, frozen

from apitokenproxy.exchange import Exchange
from apitokenproxy.finishing import finish, whole
from apitokenproxy.guard import inject
from apitokenproxy.messages import Caller, Credential, Grant, Outbound, Reply
from apitokenproxy.upstream import Upstream

_REFUSED = frozenset({401, 403})


@frozen
class Route:
    """One upstream as the pipeline sees it: its terms, its credential and its forwarder.

    `instead` returns what may be tried in the place of a credential that was refused; `worked` is told of both
    when the upstream accepted it.
    """

    upstream: Upstream
    obtain: Callable[[Caller], Awaitable[Credential]]
    instead: Callable[[Caller, Credential], Awaitable[Credential | None]]
    worked: Callable[[Caller, Credential, Credential], Awaitable[None]]
    forward: Callable[[Outbound], Awaitable[Reply]]

    async def send(self, exchange: Exchange, grant: Grant, credential: Credential) -> Reply:
        """Put the credential on, send, and return the reply; that of a second attempt where the first was refused."""
        outbound = inject(grant, self.upstream, credential)
        if outbound.length and outbound.length <= self.upstream.replay_body:
            outbound.body = await whole(outbound.body, self.upstream.replay_body, outbound.origin.timeouts.total)
        body = outbound.body
        reply = await self._once(exchange, outbound, credential)
        if reply.status not in _REFUSED:
            return reply
        answer = None if credential.again is None else await credential.again(reply)
        if not (body is None or isinstance(body, bytes)):
            return reply
        instead = answer or await self.instead(grant.caller, credential)
        if instead is None:
            return reply
        reply.abort()
        outbound = inject(grant, self.upstream, instead)
        outbound.body = body
        reply = await self._once(exchange, outbound, instead)
        if answer is None and reply.status not in _REFUSED:
            await self.worked(grant.caller, credential, instead)
        return reply

    async def _once(self, exchange: Exchange, outbound: Outbound, credential: Credential) -> Reply:
        exchange.credential = credential
        if credential.finish:
            await finish(outbound, credential.finish)
            if outbound.shown:
                exchange.credential = evolve(credential, shown=credential.shown + outbound.shown)
        exchange.sent = True
        reply = exchange.reply = await self.forward(outbound)
        return reply
