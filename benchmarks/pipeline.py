"""What the pipeline costs without forwarding: `uv run python benchmarks/pipeline.py`.

A verified token, three rules with a path template, a rate, a quota and a concurrency limit, a bearer
credential, twelve request headers, fifteen headers on the answer, the audit file on a real disk.
Only the upstream is left out: the reply stands ready in memory.

Times are CPU time: "serving" is the thread that serves, which is what the budget is about; "in all"
adds the thread that writes the audit file. Rounds of both colours are interleaved with rounds of a
fixed piece of work, so that a slow moment of the machine shows as such.
"""

import asyncio
import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Self

from attrs import evolve

from apitokenproxy import Bearer, Limit, Proxy, Rule, Upstream
from apitokenproxy._colour import run
from apitokenproxy.messages import Body, Outbound, Reply, Request
from apitokenproxy.pipeline import Pipeline
from apitokenproxy.testing import FixedSecrets

ROUNDS = 15
REQUESTS = 2_000
BUDGET = 25.0

ANSWER = [
    (b"Date", b"Tue, 24 Nov 2026 00:00:00 GMT"),
    (b"Content-Type", b"application/json; charset=utf-8"),
    (b"Content-Length", b"2"),
    (b"Connection", b"keep-alive"),
    (b"Cache-Control", b"private, max-age=60, s-maxage=60"),
    (b"Vary", b"Accept, Authorization, Cookie"),
    (b"ETag", b'W/"8f1c2d3e4b5a69788796a5b4c3d2e1f0"'),
    (b"X-RateLimit-Limit", b"5000"),
    (b"X-RateLimit-Remaining", b"4999"),
    (b"X-RateLimit-Reset", b"1790000000"),
    (b"Access-Control-Allow-Origin", b"*"),
    (b"Strict-Transport-Security", b"max-age=31536000; includeSubdomains; preload"),
    (b"X-Content-Type-Options", b"nosniff"),
    (b"Server", b"github.com"),
    (b"X-Request-Id", b"A1B2:3C4D:5E6F:7081:92A3B4C5"),
]


def request_headers(token: str) -> list[tuple[bytes, bytes]]:
    return [
        (b"host", b"proxy.example.com"),
        (b"user-agent", b"python-requests/2.32.3"),
        (b"accept", b"application/vnd.github+json"),
        (b"accept-encoding", b"gzip, deflate"),
        (b"accept-language", b"en-GB,en;q=0.5"),
        (b"authorization", b"Bearer " + token.encode()),
        (b"x-github-api-version", b"2022-11-28"),
        (b"if-none-match", b'W/"8f1c2d3e4b5a69788796a5b4c3d2e1f0"'),
        (b"x-client-version", b"1.2.3"),
        (b"traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        (b"content-type", b"application/json"),
        (b"connection", b"keep-alive"),
    ]


def make_proxy(directory: Path) -> Proxy:
    upstream = Upstream("github", "https://api.github.com", credential=Bearer("fixed:key"))
    return Proxy(
        upstreams=[upstream],
        rules=[
            Rule("no-admin", effect="deny", path="/admin/**"),
            Rule("no-delete", effect="deny", upstream="github", methods=["DELETE"]),
            Rule(
                "own-repos",
                effect="allow",
                upstream="github",
                methods=["GET"],
                path="/repos/{owner}/**",
                where={"path.owner": "caller.attributes.org"},
            ),
        ],
        limits=[
            Limit("rate", per=["token"], rate="100000000/minute"),
            Limit("quota", per=["tenant"], quota="1000000000/month"),
            Limit("parallel", per=["token", "upstream"], concurrency=1000),
        ],
        store=f"sqlite:///{directory / 'tokens.db'}",
        audit=directory / "audit.jsonl",
        secret_providers={"fixed": FixedSecrets(key="ghp_R7m2Kq9sXv4TzB8nWc1LfYd5JhGa3PeU6oQi")},
    )


def without_upstream(pipeline: Pipeline, body: Body | bytes) -> Pipeline:
    """Return the pipeline with a reply that stands ready where the forwarder was."""

    async def forward(_outbound: Outbound) -> Reply:
        return Reply(200, ANSWER, body, nothing)

    return evolve(pipeline, routes={name: evolve(route, forward=forward) for name, route in pipeline.routes.items()})


def nothing() -> None:
    pass


class Stopwatch:
    """Microseconds of CPU a request: of this thread, and of the whole process."""

    def __enter__(self) -> Self:
        self.thread, self.process = time.thread_time(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.thread = (time.thread_time() - self.thread) / REQUESTS * 1e6
        self.process = (time.process_time() - self.process) / REQUESTS * 1e6


def sync_round(pipeline: Pipeline, new_request: Callable[[], Request]) -> Stopwatch:
    with Stopwatch() as watch:
        for _ in range(REQUESTS):
            response = run(pipeline.handle(new_request()))
            assert response.status == 200
            response.finish("", 2)
    return watch


async def async_round(pipeline: Pipeline, new_request: Callable[[], Request]) -> Stopwatch:
    with Stopwatch() as watch:
        for _ in range(REQUESTS):
            response = await pipeline.handle(new_request())
            assert response.status == 200
            response.finish("", 2)
    return watch


def reference_round() -> Stopwatch:
    with Stopwatch() as watch:
        for _ in range(REQUESTS):
            for _ in range(10):
                hashlib.sha256(b"x" * 64).hexdigest()
    return watch


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        proxy = make_proxy(Path(name))
        token = proxy.tokens.issue(tenant="acme", attributes={"org": "octo"}).token
        target = b"/github/repos/octo/hello/issues?per_page=100&page=2"
        new_request = partial(Request, method=b"GET", target=target, headers=request_headers(token), peer="127.0.0.1")
        sync_pipeline = without_upstream(proxy._sync_pipeline, iter(()))  # noqa: SLF001
        async_pipeline = without_upstream(proxy._async_pipeline, iter(()))  # noqa: SLF001
        rounds: dict[str, list[Stopwatch]] = {"WSGI": [], "ASGI": [], "10 x sha256": []}
        with asyncio.Runner() as runner:
            for number in range(ROUNDS + 1):
                figures = {
                    "WSGI": sync_round(sync_pipeline, new_request),
                    "ASGI": runner.run(async_round(async_pipeline, new_request)),
                    "10 x sha256": reference_round(),
                }
                if number:  # the first round warms up
                    for colour, watch in figures.items():
                        rounds[colour].append(watch)
                time.sleep(0.1)  # the audit thread catches up, so that its queue never fills
        proxy.close()
        lines = len((Path(name) / "audit.jsonl").read_text().splitlines())
    print(f"{ROUNDS} interleaved rounds of {REQUESTS} requests; {lines} audit records written; µs of CPU a request\n")
    print(f"{'':12} {'serving: median':>16} {'best':>7} {'worst':>7} {'in all: median':>16}")
    for colour, watches in rounds.items():
        serving = sorted(watch.thread for watch in watches)
        in_all = statistics.median(watch.process for watch in watches)
        print(f"{colour:12} {statistics.median(serving):16.1f} {serving[0]:7.1f} {serving[-1]:7.1f} {in_all:16.1f}")
    worst = max(statistics.median(watch.thread for watch in rounds[colour]) for colour in ("WSGI", "ASGI"))
    print(f"\nbudget {BUDGET:.0f} µs: {'kept' if worst <= BUDGET else 'NOT kept'} ({worst:.1f} µs)")


if __name__ == "__main__":
    main()
