"""This proxy and its peers on the same work, in interleaved rounds.

    uv run --group benchmarks python benchmarks/forwarding.py --short     # a minute, nothing is installed
    uv run --group benchmarks python benchmarks/forwarding.py             # all of it; writes docs/benchmarks.md

The work: check a client's token, put the real key on, forward a request for 1 KB of JSON. The proxy has
one core, the load (wrk) and the upstream (nginx) have the other. Each round measures every contender once,
so that a slow moment of the machine falls on all; what is told is the median round and the spread.

What a contender needs comes from PyPI, npm and, as root, Debian; one that cannot be had is skipped with the
reason. Everything lies in --home. Only loopback is used.
"""

import argparse
import asyncio
import json
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from string import Template
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import psutil
import trustme
from attrs import asdict, define, field, frozen
from contenders import CONTENDERS, PEERS, SHORT, Contender, Missing, Place, program
from report import print_summary, write

from apitokenproxy import Bearer, Proxy, Rule, Upstream

PROXY_CORE, LOAD_CORE = "0", "1"
FILES = {"16 KB": 16 * 1024, "1 MB": 1024**2, "100 MB": 100 * 1024**2}
STARTING = 60.0
EVENTS = 50


@define
class Sample:
    """One run of the load: requests a second, latencies in ms, CPU µs a request, resident MiB."""

    rate: float
    p50: float
    p99: float
    cpu: float
    memory: float
    failed: int


@define
class Running:
    """A contender that serves."""

    contender: Contender
    url: str
    headers: list[str]
    process: psutil.Process
    cold_start: float
    samples: dict[str, list[Sample]] = field(factory=dict)

    def tree(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]

    def cpu(self) -> float:
        return float(sum(sum(process.cpu_times()[:2]) for process in self.tree()))

    def memory(self) -> float:
        return float(sum(process.memory_info().rss for process in self.tree()) / 1024**2)


# --- running the parts ----------------------------------------------------------------------


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def process(command: list[str], core: str, log: Path, **environment: str) -> Iterator[psutil.Process]:
    """Run a program on one core, and end it and its children."""
    with log.open("wb") as out:
        started = subprocess.Popen(  # noqa: S603
            [program("taskset", "util-linux"), "-c", core, *command],
            stdout=out,
            stderr=out,
            env={**os.environ, **environment},
            cwd=log.parent,
            start_new_session=True,
        )
    watched = psutil.Process(started.pid)
    try:
        yield watched
    finally:
        family = [watched, *watched.children(recursive=True)] if watched.is_running() else []
        started.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            started.wait(5)
        for left in family:
            with suppress(psutil.NoSuchProcess):
                left.kill()
        started.wait()


def status(url: str, headers: list[str]) -> int:
    """Return the status of an answer, 0 when there is none."""
    request = Request(url, headers=dict(header.split(": ", 1) for header in headers))  # noqa: S310
    try:
        with urlopen(request, timeout=5) as answer:  # noqa: S310
            return int(answer.status)
    except HTTPError as error:
        return error.code
    except (URLError, OSError):
        return 0


def serve_upstream(place: Place, running: ExitStack) -> None:
    """Start nginx as the API that wants the real key."""
    (place.home / "tmp").mkdir(exist_ok=True)
    (place.home / "files").mkdir(exist_ok=True)
    for name, size in FILES.items():
        (place.home / "files" / name.replace(" ", "")).write_bytes(os.urandom(1024) * (size // 1024))
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(place.ca))
    authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
        str(place.home / "upstream.pem")
    )
    place.http_port, place.https_port, place.events_port = free_port(), free_port(), free_port()
    body = json.dumps({"items": [{"id": number, "name": "x" * 40} for number in range(15)]})
    config = Template((PEERS / "upstream.conf").read_text()).substitute(
        HOME=place.home,
        HTTP_PORT=place.http_port,
        HTTPS_PORT=place.https_port,
        EVENTS_PORT=place.events_port,
        JSON=f"{body:<1024}",
    )
    (place.home / "upstream.conf").write_text(config)
    command = [program("nginx", "nginx-light"), "-p", str(place.home), "-c", str(place.home / "upstream.conf")]
    running.enter_context(process(command, LOAD_CORE, place.home / "upstream.log"))
    events_upstream = [sys.executable, str(PEERS / "events_upstream.py"), str(place.events_port)]
    running.enter_context(process(events_upstream, LOAD_CORE, place.home / "events.log"))


def start(contender: Contender, place: Place, running: ExitStack, token: str) -> Running:
    """Start a contender and see that it does the work. Raises Missing."""
    port = free_port()
    command = contender.start(place, port)
    log = place.home / f"{port}.log"
    environment = {
        **place.variables(port),
        "SSL_CERT_FILE": str(place.ca),
        "NODE_EXTRA_CA_CERTS": str(place.ca),
        "STORE": str(place.home / "tokens.db"),
        "PYTHONPATH": "",
        **contender.environment,
    }
    environment["HOME"] = str(place.home)
    began = time.monotonic()
    watched = running.enter_context(process(command, PROXY_CORE, log, **environment))
    url = f"http://127.0.0.1:{port}{contender.path}"
    headers = [Template(header).substitute(TOKEN=token, UPSTREAM=place.upstream) for header in contender.headers]
    while (got := status(url, headers)) != 200:
        if time.monotonic() - began > STARTING or not watched.is_running() or watched.status() == "zombie":
            raise Missing(f"it does not serve (status {got}); see {log}")
        time.sleep(0.05)
    cold_start = time.monotonic() - began
    refused = [header for header in headers if not header.startswith("Authorization")]
    if not contender.note and status(url, [*refused, "Authorization: Bearer wrong"]) not in {400, 401, 403}:
        raise Missing("it let a wrong token through")
    return Running(contender, url, headers, watched, cold_start)


# --- measuring ------------------------------------------------------------------------------

PACKAGES = {
    *("asgiproxy", "django-revproxy", "fastapi-proxy-lib", "granian", "gunicorn", "httptools", "httpx", "litellm"),
    *("mitmproxy", "urllib3", "uvicorn", "uvloop"),
}
"""Whose versions are told."""
UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


def load(url: str, headers: list[str], connections: int, seconds: int, script: Path | None = None) -> dict[str, float]:
    """Run wrk and return its figures: requests, rate, p50 and p99 in ms, failures."""
    command = [program("taskset", "util-linux"), "-c", LOAD_CORE, program("wrk", "wrk")]
    command += ["-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "20s"]
    command += [word for header in headers for word in ("-H", header)]
    command += ["-s", str(script)] if script else []
    text = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout  # noqa: S603

    def number(pattern: str) -> float:
        found = re.search(pattern, text)
        return float(found[1]) * UNITS.get(found[2] if found.re.groups > 1 else "ms", 1.0) if found else 0.0

    return {
        "requests": number(r"(\d+) requests in"),
        "rate": number(r"Requests/sec:\s+([\d.]+)"),
        "p50": number(r"50%\s+([\d.]+)(us|ms|s|m)"),
        "p99": number(r"99%\s+([\d.]+)(us|ms|s|m)"),
        "failed": number(r"Non-2xx or 3xx responses: (\d+)")
        + sum(map(int, re.findall(r"(?:connect|read|write|timeout) (\d+)", text))),
    }


def measure(one: Running, url: str, connections: int, seconds: int, script: Path | None = None) -> Sample:
    before = one.cpu()
    found = load(url, one.headers, connections, seconds, script)
    spent = one.cpu() - before
    return Sample(
        rate=found["rate"],
        p50=found["p50"],
        p99=found["p99"],
        cpu=1e6 * spent / max(1.0, found["requests"]),
        memory=one.memory(),
        failed=int(found["failed"]),
    )


@frozen
class Case:
    """One kind of load. `path` and `script` are for bodies; `few` is measured once, not in every round."""

    name: str
    connections: int
    path: str = "/json"
    script: str = ""
    few: bool = False


def cases_of(scheme: str) -> list[Case]:
    """Return what is measured over a scheme."""
    if scheme == "http":
        return [Case("http, 32 connections", 32)]
    return [
        Case("https, 1 connection", 1),
        Case("https, 32 connections", 32),
        Case("https, 128 connections", 128),
        Case("https, 500 connections", 500, few=True),
        Case("https, 1000 connections", 1000, few=True),
        Case("16 KB down", 8, "/16KB"),
        Case("1 MB down", 8, "/1MB"),
        Case("100 MB down", 1, "/100MB", few=True),
        Case("16 KB up", 8, "/upload", f"{16 * 1024}"),
        Case("1 MB up", 8, "/upload", f"{1024**2}"),
        Case("100 MB up", 1, "/upload", f"{100 * 1024**2}", few=True),
    ]


def rounds(contenders: list[Running], cases: list[Case], count: int, seconds: int, home: Path) -> None:
    """Measure every case for every contender, `count` times, a round of all at a time."""
    for number in range(count):
        for case in cases:
            if case.few and number:
                continue
            script = None
            if case.script:
                script = home / "upload.lua"
                script.write_text(f'wrk.method = "POST"\nwrk.body = string.rep("x", {case.script})\n')
            for one in contenders:
                if case.path != "/json" and not one.contender.bodies:
                    continue
                url = one.url.replace("/json", case.path)
                sample = measure(one, url, case.connections, 4 * seconds if case.few else seconds, script)
                one.samples.setdefault(case.name, []).append(sample)
                print(
                    f"  round {number + 1}/{count}  {case.name:>23}  {one.contender.name:<32}"
                    f"{sample.rate:>10.0f}/s {sample.cpu:>8.0f} µs CPU  p99 {sample.p99:.2f} ms"
                    + (f"  {sample.failed} failed" if sample.failed else ""),
                    flush=True,
                )


# --- streams, memory, workers ---------------------------------------------------------------


@asynccontextmanager
async def streams(one: Running, path: str, count: int) -> AsyncIterator[list[asyncio.StreamReader]]:
    """Open so many requests, read the head of each answer, and close them all in the end."""
    host, port = "127.0.0.1", int(one.url.split(":")[2].split("/")[0])
    target = "/" + one.url.replace("/json", path).split("/", 3)[3]
    head = "\r\n".join([f"GET {target} HTTP/1.1", "Host: localhost", *one.headers, "", ""]).encode()
    opened = []
    try:
        async with asyncio.timeout(10):
            for _ in range(count):
                opened.append(await asyncio.open_connection(host, port))
                opened[-1][1].write(head)
            for reader, _ in opened:
                await reader.readuntil(b"\r\n\r\n")
        yield [reader for reader, _ in opened]
    finally:
        for _, writer in opened:
            writer.transport.abort()


def events(one: Running) -> float | None:
    """Return by how many ms an event is late, at the median; None when none came within ten seconds."""

    async def listen() -> float:
        late: list[float] = []
        async with streams(one, "/events", 1) as (reader,), asyncio.timeout(10):
            while len(late) < EVENTS:
                if found := re.search(rb"at=([\d.]+)", await reader.readuntil(b"\n")):
                    late.append(1000 * (time.time() - float(found[1])))
        return statistics.median(late)

    try:
        return asyncio.run(listen())
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return None


def held(one: Running, count: int = 500) -> dict[str, float]:
    """Return KiB of memory for a kept-alive client connection, and for a running exchange."""

    async def grown(path: str) -> float:
        before = one.memory()
        async with streams(one, path, count):
            await asyncio.sleep(0.5)
            after = one.memory()
        await asyncio.sleep(0.5)
        return 1024 * (after - before) / count

    try:
        load(one.url, one.headers, 8, 1)  # what is made once is there
        return {"idle": asyncio.run(grown("/json")), "running": asyncio.run(grown("/events"))}
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return {}


def workers(place: Place, token: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one and two workers that may use both cores, beside load and upstream."""
    config = place.home / "served.toml"
    config.write_text(
        f"""[proxy]
store = "sqlite:///{place.home}/tokens.db"
audit = "{place.home}/served.jsonl"
[upstreams.api]
url = "{place.upstream}"
credential = {{ type = "bearer", secret = "env:BENCHMARK_KEY" }}
allow_private = true
ca = "{place.ca}"
[[rules]]
id = "read"
effect = "allow"
"""
    )
    found: dict[str, list[float]] = {"1": [], "2": []}
    with ExitStack() as running:
        serving = {}
        for count in found:
            port = str(free_port())
            command = [
                sys.executable,
                "-m",
                "apitokenproxy",
                "serve",
                "-c",
                str(config),
                "--port",
                port,
                "--workers",
                count,
            ]
            log = place.home / f"workers-{count}.log"
            running.enter_context(process(command, "0,1", log, BENCHMARK_KEY="real-key"))
            serving[count] = f"http://127.0.0.1:{port}/proxy/api/json"
        headers = [f"Authorization: Bearer {token}"]
        for url in serving.values():
            began = time.monotonic()
            while status(url, headers) != 200 and time.monotonic() - began < STARTING:
                time.sleep(0.1)
        for _ in range(options.rounds):
            for count, url in serving.items():
                found[count].append(load(url, headers, 32, options.seconds)["rate"])
    return found


def versions(place: Place) -> dict[str, str]:
    """Return the machine and the versions of what was measured."""
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), ": unknown")
    found = {
        "machine": f"{os.cpu_count()} cores, {cpu.split(':', 1)[1].strip()}, {platform.system()} {platform.release()}",
        "Python": platform.python_version(),
    }
    for name, command in {
        "nginx": ["nginx", "-v"],
        "haproxy": ["haproxy", "-v"],
        "caddy": ["caddy", "version"],
        "apache": ["apache2", "-v"],
        "node": ["node", "--version"],
        "wrk": ["wrk", "-v"],
    }.items():
        path = shutil.which(command[0]) or shutil.which(command[0], path="/usr/sbin")
        if path:
            told = subprocess.run([path, *command[1:]], capture_output=True, text=True, check=False)  # noqa: S603
            version = re.search(r"v?(\d+\.\d+[\w.-]*)", told.stdout + told.stderr)
            found[name] = version[1] if version else "unknown"
    for manifest in sorted((place.home / "node_modules").glob("*/package.json")) + sorted(
        (place.home / "node_modules").glob("@*/*/package.json")
    ):
        data = json.loads(manifest.read_text())
        if data.get("name") in {"http-proxy", "fastify", "@fastify/http-proxy", "@portkey-ai/gateway"}:
            found[data["name"]] = data["version"]
    folders = [Path(sys.prefix), *(place.home / "venvs").glob("*")]
    for folder in folders:
        for installed in folder.glob("lib/python*/site-packages/*.dist-info"):
            name, _, number = installed.name.removesuffix(".dist-info").replace("_", "-").rpartition("-")
            if name in PACKAGES:
                found.setdefault(name, number)
    return found


def measured(place: Place, wanted: list[Contender], token: str, options: argparse.Namespace) -> dict[str, Any]:
    """Start everybody, measure, and return the figures."""
    results: dict[str, Any] = {"contenders": {}, "skipped": {}, "direct": [], "workers": {}}
    quick = options.short or (options.only and not options.all_cases)
    for scheme in ["http" if options.http else "https"] if quick else ["https", "http"]:
        place.https = scheme == "https"
        cases = [Case(f"{scheme}, 32 connections", 32)] if quick else cases_of(scheme)
        with ExitStack() as running:
            serving = []
            for contender in wanted:
                try:
                    serving.append(start(contender, place, running, token))
                    print(f"  {contender.name} serves after {serving[-1].cold_start:.2f} s", flush=True)
                except Missing as missing:
                    results["skipped"][contender.name] = str(missing)
                    print(f"  skipped: {contender.name}: {missing}", flush=True)
            if not quick and place.https:  # before a load makes room that is not given back
                ours = [
                    one
                    for one in serving
                    if one.contender.path.startswith("/api") and "gunicorn" not in one.contender.name
                ]
                results["memory"] = {one.contender.name: held(one) for one in ours}
            rounds(serving, cases, options.rounds, options.seconds, place.home)
            if not quick and place.https:
                for _ in range(options.rounds):
                    real = ["Authorization: Bearer real-key"]
                    results["direct"].append(load(f"{place.upstream}/json", real, 1, options.seconds))
                results["events"] = {one.contender.name: events(one) for one in serving if one.contender.bodies}
            for one in serving:
                found = results["contenders"].setdefault(one.contender.name, {"cold_start": one.cold_start})
                found.update({name: [asdict(sample) for sample in samples] for name, samples in one.samples.items()})
    if not quick:
        place.https = True
        results["workers"] = workers(place, token, options)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a few contenders, three short rounds, nothing written")
    parser.add_argument("--only", action="append", metavar="NAME", help="contenders whose name holds this; repeatable")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured")
    parser.add_argument("--seconds", type=int, default=2, help="of load in each measurement")
    parser.add_argument("--home", type=Path, default=Path(".benchmarks"), help="where installations and results lie")
    parser.add_argument("--all-cases", action="store_true", help="every kind of load, with --only as well")
    parser.add_argument("--http", action="store_true", help="plain http to the upstream, in --short and --only")
    parser.add_argument("--write", type=Path, default=Path("docs"), help="where a full run writes benchmarks.md")
    options = parser.parse_args()
    options.home.mkdir(parents=True, exist_ok=True)
    place = Place(options.home.resolve())
    wanted = [one for one in CONTENDERS if not options.short or one.name in SHORT]
    if options.only:
        wanted = [one for one in CONTENDERS if any(part in one.name for part in options.only)]
    with ExitStack() as running:
        try:
            serve_upstream(place, running)
            program("wrk", "wrk")
        except Missing as missing:
            sys.exit(f"cannot measure: {missing}")
        proxy = Proxy(
            upstreams=[Upstream("api", "https://localhost", credential=Bearer("env:KEY"))],
            rules=[Rule("read", effect="allow")],
            store=f"sqlite:///{place.home / 'tokens.db'}",
        )
        token = proxy.tokens.issue(tenant="acme", expires_in=timedelta(days=1)).token
        proxy.close()
        results = measured(place, wanted, token, options)
    if not results["contenders"]:
        sys.exit("nothing was measured")
    (place.home / "results.json").write_text(json.dumps({**results, "versions": versions(place)}, indent=1))
    print_summary(results)
    if not options.short and not options.only:
        write(json.loads((place.home / "results.json").read_text()), options.write)
        print(f"written: {options.write}/benchmarks.md, benchmarks.png and benchmarks.svg")


if __name__ == "__main__":
    main()
