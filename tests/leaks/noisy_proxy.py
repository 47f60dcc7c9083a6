"""A proxy that says all it can: run as `noisy_proxy.py SERVER PORT FOLDER`, every logger at its lowest level.

Log records go to stderr as JSON lines with the logger's name, so that a server's own words can be told apart.
"""

import json
import logging
import sys
from pathlib import Path
from typing import Any

import uvicorn
import waitress

from apitokenproxy import Basic, Bearer, Header, Limit, Proxy, Query, Rule, Upstream, nonblocking
from apitokenproxy.messages import Caller, Denial, Grant, Operation, Secret
from apitokenproxy.policy.rules import Rules


class JsonLines(logging.Formatter):
    """One record a line: who, what, and the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        traceback = self.formatException(record.exc_info) if record.exc_info else ""
        extra = {name: repr(value) for name, value in record.__dict__.items() if name not in {"msg", "args"}}
        return json.dumps({"name": record.name, "message": record.getMessage(), "traceback": traceback, "extra": extra})


class TalkativePolicy:
    """A policy engine with a bug: below /bug it raises an exception that quotes all that it was given."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    @nonblocking
    def decide(self, caller: Caller, operation: Operation) -> Grant | Denial:
        """Decide, or fail with everything in the text."""
        if operation.path.startswith(b"/bug"):
            raise RuntimeError(f"cannot decide {caller!r} {operation!r} {operation.request.headers!r}")
        return self._rules.decide(caller, operation)


class TalkativeProvider:
    """A secret provider with a bug: its exceptions quote the secret."""

    ttl = 0.0

    def __init__(self, material: str) -> None:
        self._material = material

    @nonblocking
    def fetch(self, reference: str) -> Secret:
        """Fail in one of several ways."""
        if reference == "raises":
            raise ConnectionError(f"the vault said {self._material}")
        if reference == "chained":
            try:
                json.loads(self._material)
            except ValueError as error:
                raise LookupError(f"while parsing {self._material}") from error
        if reference == "newline":
            return Secret(f"{self._material}\n{self._material}")
        return self._material  # type: ignore[return-value]


def make(folder: Path, upstream: str, dead: str, audit: str | None) -> Proxy:
    """Wire one upstream for each thing that can go wrong."""

    def to(name: str, credential: Any, url: str = upstream) -> Upstream:
        return Upstream(name, url, credential=credential, allow_private=True)

    upstreams = {
        upstream.name: upstream
        for upstream in [
            to("bearer", Bearer("env:REAL_BEARER")),
            to("basic", Basic("env:REAL_BASIC", username="user")),
            to("query", Query("key", "env:REAL_QUERY")),
            to("header", Header("X-Real", "file:" + str(folder / "kept" / "header.key"))),
            to("down", Bearer("env:REAL_BEARER"), dead),
            to("down-query", Query("key", "env:REAL_QUERY"), dead),
            to("bad-file", Bearer("file:" + str(folder / "kept" / "two-lines.key"))),
            to("no-file", Bearer("file:" + str(folder / "kept" / "missing.key"))),
            to("bad-exec", Bearer("exec:" + str(folder / "kept" / "fails.sh"))),
            to("odd-exec", Bearer("exec:" + str(folder / "kept" / "two-lines.sh"))),
            *[to(f"bug-{kind}", Bearer(f"talk:{kind}")) for kind in ("raises", "chained", "newline", "type")],
        ]
    }
    rules = [Rule("all", effect="allow"), Rule("no-admin", effect="deny", path="/admin/**")]
    return Proxy(
        upstreams=upstreams.values(),
        rules=TalkativePolicy(Rules(rules, upstreams=upstreams)),
        limits=[Limit("per-token", per=["token"], rate="200/minute", burst=200)],
        store=f"sqlite:///{folder / 'tokens.db'}",
        audit=audit,
        secret_providers={"talk": TalkativeProvider((folder / "kept" / "talk.key").read_text())},
    )


def main(server: str, port: int, folder: Path, upstream: str, dead: str) -> None:
    """Serve until the process is ended."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=1, handlers=[handler])
    for name in ("sqlalchemy.engine", "sqlalchemy.pool", "httpcore", "httpx", "h11", "asyncio", "waitress"):
        logging.getLogger(name).setLevel(1)
    # The audit records go to a file under one server and to the log under the other.
    proxy = make(folder, upstream, dead, str(folder / "audit.jsonl") if server != "uvicorn-httptools" else None)
    if server == "waitress":
        waitress.serve(proxy.wsgi, host="127.0.0.1", port=port, threads=4, expose_tracebacks=True)
    else:
        http = server.removeprefix("uvicorn-")
        uvicorn.run(proxy.asgi, host="127.0.0.1", port=port, http=http, log_level="trace", log_config=None)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], sys.argv[5])
