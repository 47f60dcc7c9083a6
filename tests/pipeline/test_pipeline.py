"""The pipeline: every stage in order, every fault a refusal, every exchange closed exactly once."""

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from attrs import evolve

from apitokenproxy import Caller, Denial, Grant, Proxy, Rule, Upstream, nonblocking
from apitokenproxy._colour import ASYNC, SYNC, run
from apitokenproxy.errors import ConfigurationError, ProxyError, UpstreamUnreachable, all_errors
from apitokenproxy.messages import Admission, Hidden, Request, Response
from apitokenproxy.pipeline import Pipeline
from apitokenproxy.testing import FixedCredential, MemoryAudit, RecordingForwarder

COLOURS = ["async", "sync"]
SECRET = "sk-the-real-one"


class Settled:
    """A limiter whose admissions count how often they were settled."""

    def __init__(self) -> None:
        self.settled = 0

    @nonblocking
    def admit(self, _grant: Grant) -> Admission:
        return Admission(headers=((b"ratelimit", b'"x";r=1;t=1'),), settle=self._settle)

    def _settle(self) -> None:
        self.settled += 1


class World:
    """A proxy with fakes at its edges, in one colour."""

    def __init__(self, colour: str, **parts: Any) -> None:
        self.colour = colour
        self.audit = MemoryAudit()
        self.limiter = Settled()
        self.forwarder = RecordingForwarder(headers=[(b"Content-Type", b"text/plain")])
        settings: dict[str, Any] = {
            "upstreams": [
                Upstream("api", "https://api.example.com/v1", credential=FixedCredential(value=f"Bearer {SECRET}"))
            ],
            "rules": [Rule("all", effect="allow")],
            "limits": self.limiter,
            "audit": self.audit,
        }
        self.proxy = Proxy(**(settings | parts))
        self.token = self.proxy.tokens.issue(tenant="acme").token
        built: Pipeline = self.proxy._async_pipeline if colour == "async" else self.proxy._sync_pipeline
        self.pipeline = evolve(built, routes={name: self.route(route) for name, route in built.routes.items()})

    def route(self, route: Any) -> Any:
        return evolve(route, forward=self.forwarder.bind(ASYNC if self.colour == "async" else SYNC))

    def request(self, **changes: Any) -> Request:
        plain: dict[str, Any] = {
            "method": b"GET",
            "target": b"/api/things?page=2",
            "headers": [(b"Host", b"proxy"), (b"Authorization", b"Bearer " + self.token.encode())],
        }
        return Request(**(plain | changes))

    def send(self, request: Request | None = None) -> tuple[Response, bytes]:
        """Take a request through the pipeline and the answer to its end, as an adapter does."""

        async def with_loop() -> tuple[Response, bytes]:
            response = await self.pipeline.handle(request or self.request())
            body = response.body if isinstance(response.body, bytes) else b"".join([c async for c in response.body])  # type: ignore[union-attr]
            response.finish("", len(body))
            return response, body

        if self.colour == "async":
            return asyncio.run(with_loop())
        response = run(self.pipeline.handle(request or self.request()))
        body = response.body if isinstance(response.body, bytes) else b"".join(response.body)  # type: ignore[arg-type]
        response.finish("", len(body))
        return response, body


@pytest.fixture(params=COLOURS)
def make(request: pytest.FixtureRequest) -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make_world(**parts: Any) -> World:
        made.append(World(request.param, **parts))
        return made[-1]

    yield make_world
    for world in made:
        world.proxy.close()


def test_the_upstream_gets_the_real_credential_and_not_the_token(make: Callable[..., World]) -> None:
    """What is sent is the clean request: same path and query bytes, the real key, no client token."""
    world = make()
    response, body = world.send()
    [outbound] = world.forwarder.sent
    assert (response.status, body) == (200, b"ok")
    assert outbound.target == b"/v1/things?page=2"
    assert (b"Authorization", b"Bearer " + SECRET.encode()) in [(n.title(), v) for n, v in outbound.headers]
    assert world.token.encode() not in b"".join(name + value for name, value in outbound.headers)


def test_one_record_tells_the_whole_exchange(make: Callable[..., World]) -> None:
    """The record says who, what, by which rule, how it ended; the query is not in it."""
    world = make()
    world.send()
    [record] = world.audit.records
    assert (record.tenant, record.upstream, record.method, record.path) == ("acme", "api", "GET", "/things")
    assert (record.rule, record.status, record.code, record.bytes_out, record.sent) == ("all", 200, "", 2, True)
    assert "page=2" not in repr(record)


def test_every_answer_carries_the_request_id(make: Callable[..., World]) -> None:
    """The id on the answer is the id in the record."""
    world = make()
    response, _ = world.send()
    assert dict(response.headers)[b"x-request-id"].decode() == world.audit.records[0].request_id


def test_refusals_are_problem_documents(make: Callable[..., World]) -> None:
    """A refusal says type, title, status, code and request id, and names the proxy in a header."""
    world = make()
    response, body = world.send(world.request(headers=[(b"Host", b"proxy")]))
    headers = dict(response.headers)
    problem = json.loads(body)
    assert sorted(problem) == ["code", "error", "message", "request_id", "status", "title", "type"]
    assert (response.status, problem["code"], headers[b"x-proxy-error"]) == (401, "unauthenticated", b"unauthenticated")
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"www-authenticate"].startswith(b"Bearer")


def test_nothing_is_forwarded_without_a_token(make: Callable[..., World]) -> None:
    """A stranger learns nothing, not even whether the upstream exists."""
    world = make()
    answers = [
        world.send(world.request(target=target, headers=[(b"Host", b"proxy")]))[0].status
        for target in (b"/api/things", b"/no-such-upstream/things")
    ]
    assert answers == [401, 401]
    assert world.forwarder.sent == []


def test_an_unknown_upstream_looks_like_a_denial(make: Callable[..., World]) -> None:
    """A caller cannot enumerate upstreams; the audit record knows the difference."""
    world = make(rules=[Rule("other", effect="allow", tenants=["someone-else"])])
    unknown, denied = (world.send(world.request(target=t)) for t in (b"/nope/x", b"/api/x"))
    assert unknown[0].status == denied[0].status == 403
    assert json.loads(unknown[1])["code"] == json.loads(denied[1])["code"] == "denied"
    assert "nope" in world.audit.records[0].reason


class Raising:
    """A part that raises in whatever stage it stands."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    @nonblocking
    def decide(self, *_: object) -> Any:
        raise self.error

    @nonblocking
    def admit(self, *_: object) -> Any:
        raise self.error

    @nonblocking
    def credential(self, *_: object) -> Any:
        raise self.error

    @nonblocking
    def authenticate(self, *_: object) -> Any:
        raise self.error


STAGES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "policy": lambda part: {"rules": part},
    "limits": lambda part: {"limits": part},
    "credential": lambda part: {"upstreams": [Upstream("api", "https://api.example.com", credential=part)]},
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_fault_in_any_stage_refuses_without_telling(make: Callable[..., World], stage: str) -> None:
    """An unexpected exception is a 503 whose text, which could hold a secret, is nowhere."""
    world = make(**STAGES[stage](Raising(RuntimeError(f"boom {SECRET}"))))
    response, body = world.send()
    [record] = world.audit.records
    assert (response.status, json.loads(body)["code"]) == (503, "internal_fault")
    assert int(dict(response.headers)[b"retry-after"]) >= 1
    assert "RuntimeError" in record.reason
    assert "test_pipeline.py" in record.reason
    assert SECRET not in repr(record) + repr(response) + body.decode()
    assert world.forwarder.sent == []


class Lying:
    """A part that returns something truthy of the wrong kind."""

    def __init__(self, value: Any) -> None:
        self.value = value

    @nonblocking
    def decide(self, *_: object) -> Any:
        return self.value()

    admit = credential = decide


async def _coroutine() -> bool:
    return True


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    "value", [lambda: True, lambda: None, object, _coroutine], ids=["true", "none", "object", "coroutine"]
)
def test_only_the_promised_value_is_approval(make: Callable[..., World], stage: str, value: Any) -> None:
    """Whatever a part returns, nothing but the promised type lets a request through."""
    world = make(**STAGES[stage](Lying(value)))
    response, _ = world.send()
    assert (response.status, world.forwarder.sent) == (503, [])


def test_a_denial_from_a_policy_engine_is_a_refusal(make: Callable[..., World]) -> None:
    """The reason goes to the record, the client gets the code."""

    class Engine:
        @nonblocking
        def decide(self, caller: Caller, operation: Any) -> Denial:
            return Denial("the moon is full")

    world = make(rules=Engine())
    response, body = world.send()
    assert (response.status, world.audit.records[0].reason) == (403, "the moon is full")
    assert b"moon" not in body


@pytest.mark.parametrize("error", sorted(set(all_errors()), key=lambda e: e.code), ids=lambda e: e.code)
def test_every_error_becomes_its_answer(make: Callable[..., World], error: type[ProxyError]) -> None:
    """Each class in errors.py carries the status and the code that the client gets."""
    world = make(limits=Raising(error("the detail")))
    response, body = world.send()
    assert (response.status, json.loads(body)["code"]) == (error.status, error.code)
    assert world.audit.records[0].reason == "the detail"
    assert b"the detail" not in body


def test_codes_are_a_closed_set_without_doubles() -> None:
    """A client can rely on a code to mean one thing."""
    codes = [error.code for error in set(all_errors()) if "code" in vars(error)]
    assert sorted(codes) == sorted(set(codes))


def test_limits_are_settled_and_the_reply_given_back_once(make: Callable[..., World]) -> None:
    """However often the end is noticed, it happens once."""
    world = make()
    response, _ = world.send()
    response.finish("client_gone", 0)
    response.finish("", 2)
    assert (len(world.audit.records), world.limiter.settled, world.forwarder.aborted) == (1, 1, 1)
    assert world.audit.records[0].code == ""


def test_limits_are_settled_when_the_upstream_fails(make: Callable[..., World]) -> None:
    """A fault after admission gives back what admission held."""
    world = make()
    world.forwarder.error = UpstreamUnreachable("no route")
    response, _ = world.send()
    assert (response.status, world.limiter.settled, len(world.audit.records)) == (502, 1, 1)


def test_an_upstream_401_is_not_the_clients_401(make: Callable[..., World]) -> None:
    """The client's token is fine: it is the operator's secret that failed. The reply is given up."""
    world = make()
    world.forwarder.status = 401
    response, body = world.send()
    assert (response.status, json.loads(body)["code"]) == (502, "upstream_auth_failed")
    assert world.forwarder.aborted == 1


def test_nothing_is_forwarded_that_cannot_be_recorded(make: Callable[..., World]) -> None:
    """A full audit sink refuses requests before anything else."""
    world = make()
    world.audit.full = True
    response, body = world.send()
    assert (response.status, json.loads(body)["code"]) == (503, "audit_unavailable")
    assert (world.forwarder.sent, world.audit.records) == ([], [])


def test_a_settle_that_raises_does_not_lose_the_record(make: Callable[..., World]) -> None:
    """Every step of closing is tried."""

    class Broken(Settled):
        def _settle(self) -> None:
            raise RuntimeError("settle")

    world = make(limits=Broken())
    with pytest.raises(RuntimeError, match="settle"):
        world.send()
    assert len(world.audit.records) == 1


def test_cancelling_closes_the_exchange() -> None:
    """A task cancelled in the middle of a stage leaves a record and holds no limit."""
    world = World("async")
    started = asyncio.Event()

    async def never(_outbound: Any) -> Any:
        started.set()
        await asyncio.Event().wait()

    route = world.pipeline.routes["api"]
    pipeline = evolve(world.pipeline, routes={"api": evolve(route, forward=never)})

    async def scenario() -> None:
        task = asyncio.create_task(pipeline.handle(world.request()))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    world.proxy.close()
    [record] = world.audit.records
    assert (record.code, record.sent, world.limiter.settled) == ("client_gone", True, 1)


def test_a_head_refusal_has_no_body(make: Callable[..., World]) -> None:
    """RFC 9110 section 9.3.2."""
    world = make()
    _, body = world.send(world.request(method=b"HEAD", headers=[(b"Host", b"proxy")]))
    assert body == b""


def test_a_token_given_apart_decides_alone(make: Callable[..., World]) -> None:
    """A script's transport passes the token beside the headers; an SDK's placeholder is dropped."""
    world = make()
    headers = [(b"Host", b"proxy"), (b"Authorization", b"Bearer placeholder"), (b"X-Api-Key", b"placeholder")]
    response, _ = world.send(world.request(headers=headers, token=Hidden(world.token.encode())))
    assert response.status == 200
    assert b"placeholder" not in b"".join(value for _, value in world.forwarder.sent[0].headers)


def test_an_async_part_is_refused_when_the_wsgi_side_is_built() -> None:
    """The error comes before the first request and says what to do."""

    class Engine:
        async def decide(self, caller: Caller, operation: Any) -> Denial:
            return Denial("")

    proxy = Proxy(upstreams=[Upstream("api", "https://a.example", credential=FixedCredential())], rules=Engine())
    with pytest.raises(ConfigurationError, match=r"Engine.decide is async def .* mount proxy.asgi"):
        _ = proxy.wsgi
    assert proxy.asgi is not None
    proxy.close()


@pytest.mark.parametrize("times", range(6))
def test_a_refused_path_is_recorded_unless_a_token_could_stand_in_it(make: Callable[..., World], times: int) -> None:
    """What the guard refused can be found again by its path; a token in it cannot, however often it was encoded."""
    world = make()
    token = world.token.encode()
    for _ in range(times):
        token = b"".join(b"%%%02X" % byte if not chr(byte).isalnum() else bytes([byte]) for byte in token)
    world.send(world.request(target=b"/api/a/../b?q=1"))
    world.send(world.request(target=b"/api/a/../" + token))
    assert [record.path for record in world.audit.records] == ["/api/a/../b", ""]
