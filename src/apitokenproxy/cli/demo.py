"""`apitokenproxy demo`: everything in one process, on real HTTP, checked as it goes."""

import asyncio
import json
import secrets
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import httpx
import uvicorn
from attrs import Factory, define

from apitokenproxy.cli import demo_upstream
from apitokenproxy.cli.demo_upstream import DemoUpstream
from apitokenproxy.cli.options import examples
from apitokenproxy.credentials.bearer import Bearer
from apitokenproxy.limits.limit import Limit
from apitokenproxy.policy.rule import Rule
from apitokenproxy.proxy import Proxy
from apitokenproxy.upstream import Upstream

PATIENCE = 5.0
"""Seconds to wait for what should take milliseconds."""


@click.command(epilog=examples("apitokenproxy demo"))
def demo() -> None:
    """Show the proxy at work in one process, on real HTTP over loopback.

    Starts an upstream that refuses everything without the real key, mounts the proxy before it,
    issues a token, makes real calls and prints what each side saw. Exit code 1 when anything was
    not as promised.
    """
    with tempfile.TemporaryDirectory() as directory:
        kept = run(Path(directory))
    sys.exit(0 if kept else 1)


@define
class _World:
    """The running demo: what is where, and everything that the client was ever given."""

    upstream: DemoUpstream
    proxy: Proxy
    url: str
    token: str
    token_id: str
    audit: Path
    client: httpx.Client
    seen_by_client: list[bytes] = Factory(list)
    promises: list[tuple[str, bool]] = Factory(list)
    calls: int = 0
    unexpected: int = 0

    def promise(self, text: str, kept: object) -> None:
        self.promises.append((text, bool(kept)))

    def record(self) -> dict[str, Any]:
        """Return the audit record of the last call, which is written a moment after its end; empty if it is not."""
        end = time.monotonic() + PATIENCE
        while len(lines := self.audit.read_text().splitlines()) < self.calls:
            if time.monotonic() > end:
                return {}
            time.sleep(0.005)
        record: dict[str, Any] = json.loads(lines[-1])
        return record


def run(directory: Path) -> bool:
    """Run the demo in a directory of its own; return whether every promise was kept."""
    key = "real-" + secrets.token_hex(12)
    secret = directory / "key"
    secret.write_text(key + "\n")
    audit = directory / "audit.jsonl"
    with demo_upstream.running(key) as upstream:
        proxy = Proxy(
            upstreams=[
                Upstream(
                    "api", f"http://127.0.0.1:{upstream.port}", credential=Bearer(f"file:{secret}"), allow_private=True
                )
            ],
            rules=[
                Rule(
                    "read-own",
                    effect="allow",
                    methods=["GET"],
                    path="/repos/{owner}/**",
                    where={"path.owner": "caller.tenant"},
                ),
                Rule("events", effect="allow", methods=["GET"], path="/events"),
            ],
            limits=[Limit("per-token", per=["token"], rate="60/minute", burst=4)],
            store=f"sqlite:///{directory / 'tokens.db'}",
            audit=audit,
        )
        with _serving(proxy) as url, httpx.Client(base_url=url, trust_env=False) as client:
            issued = proxy.tokens.issue(tenant="acme")
            world = _World(upstream, proxy, url, issued.token, issued.id, audit, client)
            _introduce(world)
            _calls(world)
        proxy.close()
        _search(world)
    return _conclude(world)


def _introduce(world: _World) -> None:
    click.secho("apitokenproxy demo", bold=True)
    click.echo(f"  upstream  http://127.0.0.1:{world.upstream.port}  wants its key {_short(world.upstream.key)}")
    click.echo(f"  proxy     {world.url}/api  knows the key; rules: GET /repos/{{own tenant}}/**, GET /events")
    click.echo(f"  client    has only the token {_short(world.token)} (tenant acme, 4 at once, 60 a minute)")


def _calls(world: _World) -> None:
    direct = httpx.get(
        f"http://127.0.0.1:{world.upstream.port}/repos/acme/x", headers=_bearer(world.token), trust_env=False
    )
    world.upstream.received.clear()
    world.promise("the token is worth nothing at the upstream itself", direct.status_code == httpx.codes.UNAUTHORIZED)
    _call_each(world)
    world.promise("each of these calls ended as it should, at the upstream and in the audit too", not world.unexpected)


def _call_each(world: _World) -> None:
    _call(world, "a read that the rules allow", "GET", "/api/repos/acme/hello", 200, "")
    _call(world, "a stream, as it comes", "GET", "/api/events", 200, "")
    _call(world, "a write that no rule allows", "DELETE", "/api/repos/acme/hello", 403, "denied")
    _call(world, "somebody else's data", "GET", "/api/repos/globex/hello", 403, "denied")
    _call(world, "a path that servers read differently", "GET", "/api/repos/acme/..%2fglobex", 400, "encoded_slash")
    for _ in range(2):
        _send(world, "GET", "/api/repos/acme/hello")
    _call(world, "more than 4 at once", "GET", "/api/repos/acme/hello", 429, "rate_limited")
    world.proxy.tokens.revoke(world.token_id)
    _call(world, "the same token, revoked a moment ago", "GET", "/api/events", 401, "unauthenticated")


def _call(world: _World, what: str, method: str, target: str, status: int, code: str) -> None:
    """Make a call, show what each side saw of it, and note whether it ended as it should."""
    before = len(world.upstream.received)
    click.echo()
    click.secho(what, bold=True)
    _show("client sent", f"{method} {target}   Authorization: Bearer {_short(world.token)}")
    given_status, given_code, body = _send(world, method, target)
    received = world.upstream.received[before:]
    for request in received:
        shown = f"Bearer {_short(world.upstream.key)}" if f"Bearer {world.upstream.key}" in request else "no key"
        _show("upstream received", f"{request.partition(' HTTP/')[0]}   Authorization: {click.style(shown, fg='cyan')}")
    if given_code:
        answer = click.style(f"{given_status} {given_code}", fg="yellow")
        _show("answer", answer + ("" if received else "; the upstream received nothing"))
    else:
        shown = body.decode() if body.startswith(b"{") else ""
        _show("answer", click.style(f"{given_status} {shown}".strip(), fg="green"))
    record = world.record()
    _show("audit", record.get("reason") or f"{record.get('status')} by rule {record.get('rule')}")
    seen = (given_status, given_code, record.get("status"), record.get("code"), len(received))
    if seen != (status, code, status, code, int(not code)):
        world.unexpected += 1
        _show("expected", click.style(f"{status} {code}".strip(), fg="red"))


def _send(world: _World, method: str, target: str) -> tuple[int, str, bytes]:
    """Send exactly this target; return the status, the proxy's own code if any, and the body."""
    world.calls += 1
    request = world.client.build_request(method, "/", headers=_bearer(world.token))
    request.extensions["target"] = target.encode()
    response = world.client.send(request, stream=True)
    pieces = []
    streamed = response.headers.get("content-type") == "text/event-stream"
    if streamed:
        click.echo("  client got        ", nl=False)
    for piece in response.iter_raw():
        pieces.append(piece)
        if streamed:
            click.echo(f" {piece.decode().removeprefix('data:').strip()}", nl=False)
    if streamed:
        click.echo()
        world.promise("the stream came piece by piece", len(pieces) > 1)
    response.close()
    body = b"".join(pieces)
    world.seen_by_client += [body, *(name + value for name, value in response.headers.raw)]
    return response.status_code, response.headers.get("x-proxy-error", ""), body


def _show(side: str, text: str) -> None:
    click.echo(f"  {side:<17}  {text}")


def _search(world: _World) -> None:
    seen = b"".join(world.seen_by_client)
    received = "".join(world.upstream.received)
    audit = world.audit.read_text()
    world.promise(f"the client never saw the key (searched {len(seen)} bytes)", world.upstream.key.encode() not in seen)
    world.promise(f"the upstream never saw the token (searched {len(received)} bytes)", world.token not in received)
    world.promise(
        f"the audit file holds neither (searched {len(audit)} bytes)",
        world.token not in audit and world.upstream.key not in audit,
    )
    world.promise(f"each of the {world.calls} calls has one audit record", len(audit.splitlines()) == world.calls)


def _conclude(world: _World) -> bool:
    click.echo()
    click.secho("promises", bold=True)
    for text, kept in world.promises:
        mark = click.style("kept  ", fg="green") if kept else click.style("BROKEN", fg="red", bold=True)
        click.echo(f"  {mark}  {text}")
    kept_all = all(kept for _, kept in world.promises)
    if kept_all:
        click.echo("\nNext: README.md mounts it in FastAPI or Flask; `apitokenproxy serve` runs it from a file.")
    return kept_all


@contextmanager
def _serving(proxy: Proxy) -> Iterator[str]:
    # asyncio sends small answers at once only on sockets that say that they are TCP's.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = uvicorn.Server(uvicorn.Config(proxy.asgi, log_level="critical", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True)
        thread.start()
        while thread.is_alive() and not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _short(material: str) -> str:
    return f"{material[:8]}…"
