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

import click
import httpx
import uvicorn
from attrs import Factory, define

from apitokenproxy.cli import demo_upstream
from apitokenproxy.cli.demo_upstream import DemoUpstream
from apitokenproxy.credentials.bearer import Bearer
from apitokenproxy.limits.limit import Limit
from apitokenproxy.policy.rule import Rule
from apitokenproxy.proxy import Proxy
from apitokenproxy.upstream import Upstream


@click.command()
def demo() -> None:
    r"""Show the proxy at work in one process, on real HTTP over loopback.

    Starts an upstream that refuses everything without the real key, mounts the proxy before it,
    issues a token, makes real calls and prints what each side saw. Exit code 1 when anything was
    not as promised.

    \b
    Example:
      apitokenproxy demo
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

    def promise(self, text: str, kept: object) -> None:
        self.promises.append((text, bool(kept)))


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

    _call(world, "a read that the rules allow", "GET", "/api/repos/acme/hello", 200, "")
    _call(world, "a stream, as it comes", "GET", "/api/events", 200, "")
    _call(world, "a write that no rule allows", "DELETE", "/api/repos/acme/hello", 403, "denied")
    _call(world, "somebody else's data", "GET", "/api/repos/globex/hello", 403, "denied")
    _call(world, "a path that servers read differently", "GET", "/api/repos/acme/..%2fglobex", 400, "encoded_slash")
    for _ in range(2):
        world.client.get("/api/repos/acme/hello", headers=_bearer(world.token))
        world.calls += 1
    _call(world, "more than 4 at once", "GET", "/api/repos/acme/hello", 429, "rate_limited")
    world.proxy.tokens.revoke(world.token_id)
    _call(world, "the same token, revoked a moment ago", "GET", "/api/events", 401, "unauthenticated")


def _call(world: _World, what: str, method: str, target: str, status: int, code: str) -> None:
    before = len(world.upstream.received)
    world.calls += 1
    click.echo()
    click.secho(f"{what}", bold=True)
    click.echo(f"  client sent        {method} {target}   Authorization: Bearer {_short(world.token)}")
    request = world.client.build_request(method, "/", headers=_bearer(world.token))
    request.extensions["target"] = target.encode()
    response = world.client.send(request, stream=True)
    pieces = []
    for piece in response.iter_raw():
        pieces.append(piece)
        if target.endswith("/events") and response.is_success:
            click.echo(f"  client got         {piece.decode().strip()}")
    body = b"".join(pieces)
    response.close()
    world.seen_by_client += [body, *(name + value for name, value in response.headers.raw)]
    _show_received(world, before)
    code_given = response.headers.get("x-proxy-error", "")
    answer = body.decode() if response.is_success and target.endswith("hello") else code_given
    colour = "green" if response.is_success else "yellow"
    click.echo("  answer             " + click.style(f"{response.status_code} {answer}".strip(), fg=colour))
    as_promised = response.status_code == status and code_given == code
    forwarded = len(world.upstream.received) - before
    world.promise(f"{what}: {status} {code}".strip(), as_promised and forwarded == int(not code))


def _show_received(world: _World, before: int) -> None:
    if len(world.upstream.received) == before:
        click.echo("  upstream received  nothing")
        return
    request = world.upstream.received[-1]
    line = request.partition(" HTTP/")[0]
    shown = f"Bearer {_short(world.upstream.key)}" if f"Bearer {world.upstream.key}" in request else "no key"
    click.echo(f"  upstream received  {line}   Authorization: " + click.style(shown, fg="cyan"))


def _search(world: _World) -> None:
    seen = b"".join(world.seen_by_client)
    received = "".join(world.upstream.received)
    audit = world.audit.read_text()
    records = [json.loads(line) for line in audit.splitlines()]
    world.promise(f"the client never saw the key (searched {len(seen)} bytes)", world.upstream.key.encode() not in seen)
    world.promise(f"the upstream never saw the token (searched {len(received)} bytes)", world.token not in received)
    world.promise(
        f"the audit file holds neither (searched {len(audit)} bytes)",
        world.token not in audit and world.upstream.key not in audit,
    )
    outcomes = " ".join(record["code"] or str(record["status"]) for record in records)
    world.promise(f"one audit record for each call: {outcomes}", len(records) == world.calls)


def _conclude(world: _World) -> bool:
    click.echo()
    click.secho("promises", bold=True)
    for text, kept in world.promises:
        mark = click.style("kept  ", fg="green") if kept else click.style("BROKEN", fg="red", bold=True)
        click.echo(f"  {mark}  {text}")
    kept_all = all(kept for _, kept in world.promises)
    if kept_all:
        click.echo("\nNext: README.md mounts it in FastAPI or Flask; `apitokenproxy serve --help` runs it by itself.")
    return kept_all


@contextmanager
def _serving(proxy: Proxy) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(proxy.asgi, log_level="critical", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _short(material: str) -> str:
    return f"{material[:8]}…"
