"""The product on one screen: how a request becomes a response.

Rules:
1. Every stage takes what the stages before it made, so none can be left out.
2. Approval is a positive value. Whatever else comes back, or is raised, refuses the request.
3. The exchange is closed exactly once: by the adapter when the response has been streamed, or here
   when there will be none.
"""

from collections.abc import Awaitable, Callable, Mapping

from attrs import frozen

from apitokenproxy.errors import AuditUnavailable, Denied, ProxyError, Unauthenticated, fault
from apitokenproxy.exchange import Exchange, unrecorded
from apitokenproxy.guard import Guard, clean_reply
from apitokenproxy.interfaces import AuditSink
from apitokenproxy.messages import (
    Admission,
    Caller,
    Denial,
    Grant,
    Operation,
    Presented,
    Request,
    Response,
)
from apitokenproxy.route import Route


@frozen
class Pipeline:
    """The stages, lifted into one colour and wired. Built once, never changed."""

    guard: Guard
    authenticate: Callable[[Presented | None, Request], Awaitable[Caller | None]]
    decide: Callable[[Caller, Operation], Awaitable[Grant | Denial]]
    admit: Callable[[Grant], Awaitable[Admission]]
    routes: Mapping[str, Route]
    audit: AuditSink

    async def handle(self, request: Request) -> Response:
        """Take a request through every stage. Raises nothing but cancellation."""
        exchange = Exchange(request, self.audit)
        try:
            self.audit.reserve()
        except AuditUnavailable as error:
            return unrecorded(exchange, error)
        try:
            operation = exchange.operation = self.guard.inspect(request)
            caller = exchange.caller = _known(await self.authenticate(operation.presented, request))
            route = _found(self.routes, operation.upstream)
            grant = exchange.grant = _granted(caller, await self.decide(caller, operation))
            exchange.admission = await self.admit(grant)
            credential = exchange.credential = await route.obtain(caller)
            reply = await route.send(exchange, grant, credential)
            return exchange.answer(reply, clean_reply(reply, operation, route.upstream, exchange.credential))
        except ProxyError as error:
            return exchange.refuse(error)
        except Exception as error:  # noqa: BLE001 - whatever a part does, the request is refused
            return exchange.refuse(fault(error))
        except BaseException:  # cancelled: nobody is left to answer
            exchange.close("client_gone")
            raise


def _known(caller: Caller | None) -> Caller:
    if caller is None:
        raise Unauthenticated("no authenticator knows what was presented")
    return caller


def _found(routes: Mapping[str, Route], upstream: str) -> Route:
    """Return the route. Asked only now, so that a stranger cannot find out which names there are."""
    route = routes.get(upstream)
    if route is None:
        raise Denied(f"there is no upstream {upstream!r}")
    return route


def _granted(caller: Caller, verdict: Grant | Denial) -> Grant:
    """Return the grant, if the token was not narrowed to less: no policy engine can overlook that."""
    if not isinstance(verdict, Grant):
        raise Denied(verdict.reason)
    if caller.caveats and (what := caller.excludes(verdict)):
        raise Denied(f"rule {verdict.rule} allows it, but the token was narrowed: {what}")
    return verdict
