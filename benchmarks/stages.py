"""What each stage of the pipeline costs by itself: `uv run python benchmarks/stages.py`.

Best of many interleaved rounds, in µs of CPU a call: the least disturbed round is the one that tells what the
code costs, so that two versions can be compared on a noisy machine. Run it before and after a change.
"""

import asyncio
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from apitokenproxy._colour import run
from apitokenproxy.adapters.asgi import AsgiApp
from apitokenproxy.adapters.wsgi import WsgiApp
from apitokenproxy.audit.record import to_json
from apitokenproxy.exchange import Exchange
from apitokenproxy.forwarders.http1 import Answer, request_head
from apitokenproxy.guard import clean_reply, inject
from apitokenproxy.messages import AuditRecord, Caller, Grant, Reply, Request
from pipeline import ANSWER, make_proxy, nothing, request_headers, without_upstream

ROUNDS = 60
CALLS = 400

WIRE = (
    b"HTTP/1.1 200 OK\r\n" + b"".join(b"%b: %b\r\n" % field for field in ANSWER if field[0] != b"Content-Length")
    + b"Content-Length: 1024\r\n\r\n" + b"x" * 1024
)  # fmt: skip


class Records:
    """An audit sink that keeps the last record."""

    last: AuditRecord

    def reserve(self) -> None:
        pass

    def write(self, record: AuditRecord) -> None:
        self.last = record

    def close(self) -> None:
        pass


async def receive() -> Any:
    raise AssertionError


async def send(_message: Any) -> None:
    pass


def stages(folder: Path) -> dict[str, Callable[[], Any]]:
    """Return each stage as a function without arguments, on values as they stand before it."""
    proxy = make_proxy(folder)
    token = proxy.tokens.issue(tenant="acme", attributes={"org": "octo"}).token
    target = b"/github/repos/octo/hello/issues?per_page=100&page=2"
    pipeline = without_upstream(proxy._sync_pipeline, b"x" * 1024)  # noqa: SLF001
    async_pipeline = without_upstream(proxy._async_pipeline, b"x" * 1024)  # noqa: SLF001
    request = Request(b"GET", target, request_headers(token), peer="127.0.0.1")
    route = pipeline.routes["github"]
    operation = pipeline.guard.inspect(request)
    caller = run(now(pipeline.authenticate(operation.presented, request)))
    assert isinstance(caller, Caller)
    grant = run(now(pipeline.decide(caller, operation)))
    assert isinstance(grant, Grant)
    credential = run(now(route.obtain(caller)))
    outbound = inject(grant, route.upstream, credential)
    reply = Reply(200, ANSWER, b"", nothing)
    sink = Records()

    def exchange() -> None:
        begun = Exchange(request, sink)
        begun.operation, begun.caller, begun.grant, begun.credential = operation, caller, grant, credential
        begun.answer(reply, []).finish("", 1024)

    def answer() -> None:
        read = Answer(b"GET")
        assert read.read_head(WIRE)

    def admit() -> None:
        run(now(pipeline.admit(grant))).settle()

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "raw_path": target.partition(b"?")[0],
        "query_string": target.partition(b"?")[2],
        "root_path": "",
        "headers": request_headers(token),
        "client": ("127.0.0.1", 1),
    }
    environ = {
        "REQUEST_METHOD": "GET",
        "RAW_URI": target.decode(),
        "REMOTE_ADDR": "127.0.0.1",
        **{f"HTTP_{name.decode().upper().replace('-', '_')}": value.decode() for name, value in request.headers},
    }
    asgi, wsgi = AsgiApp(async_pipeline, ended, ended), WsgiApp(pipeline)

    def through_wsgi() -> None:
        answered = wsgi(environ, lambda *_: None)
        b"".join(answered)
        answered.close()  # type: ignore[attr-defined]

    exchange()
    return {
        "guard: inspect": lambda: pipeline.guard.inspect(request),
        "authenticate": lambda: run(now(pipeline.authenticate(operation.presented, request))),
        "decide": lambda: run(now(pipeline.decide(caller, operation))),
        "admit and settle": admit,
        "obtain": lambda: run(now(route.obtain(caller))),
        "inject": lambda: inject(grant, route.upstream, credential),
        "request head": lambda: request_head(outbound),
        "answer's head and body": answer,
        "guard: clean the reply": lambda: clean_reply(reply, operation, route.upstream, credential),
        "exchange, closed": exchange,
        "audit line (its own thread)": lambda: to_json(sink.last),
        "whole, WSGI, with the adapter": through_wsgi,
        "whole, ASGI, with the adapter": lambda: asgi(scope, receive, send),
    }


async def ended() -> None:
    pass


async def now(awaitable: Any) -> Any:
    return await awaitable


async def measure(called: dict[str, Callable[[], Any]]) -> dict[str, float]:
    best = dict.fromkeys(called, float("inf"))
    for _ in range(ROUNDS):
        for name, function in called.items():
            waits = "ASGI" in name
            began = time.thread_time()
            if waits:
                for _ in range(CALLS):
                    coroutine: Coroutine[Any, Any, None] = function()
                    await coroutine
            else:
                for _ in range(CALLS):
                    function()
            best[name] = min(best[name], (time.thread_time() - began) / CALLS * 1e6)
        await asyncio.sleep(0.01)  # the audit thread catches up
    return best


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        best = asyncio.run(measure(stages(Path(name))))
    for stage, cost in best.items():
        print(f"{stage:32}{cost:8.2f} µs  {'#' * round(cost * 2)}")


if __name__ == "__main__":
    main()
