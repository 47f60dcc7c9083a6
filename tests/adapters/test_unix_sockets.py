"""Whoever calls over a Unix socket has no address, and can be a trusted proxy all the same."""

import asyncio
import threading
from pathlib import Path

import httpx
import pytest
import uvicorn

from apitokenproxy import Bearer, Proxy, Rule, Upstream
from apitokenproxy.testing import MemoryAudit
from loopback import wait_until


@pytest.mark.parametrize(("trusted", "peer"), [(["unix:"], "198.51.100.7"), (["0.0.0.0/0", "::/0"], "")])
def test_a_proxy_before_a_unix_socket_is_believed_when_it_is_named(
    trusted: list[str], peer: str, tmp_path: Path
) -> None:
    """Networks do not name it, however wide they are; `unix:` does."""
    audit = MemoryAudit()
    proxy = Proxy(
        upstreams=[Upstream("api", "https://api.example.com", credential=Bearer("env:DEMO_KEY"))],
        rules=[Rule("all", effect="allow")],
        trusted_proxies=trusted,
        audit=audit,
    )
    path = str(tmp_path / "s")
    server = uvicorn.Server(uvicorn.Config(proxy.asgi, uds=path, log_level="critical", proxy_headers=False))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started)
        with httpx.Client(transport=httpx.HTTPTransport(uds=path)) as client:
            answer = client.get("http://proxy/api/x", headers={"X-Forwarded-For": "6.6.6.6, 198.51.100.7"})
        assert answer.status_code == 401
        assert [record.peer for record in audit.records] == [peer]
    finally:
        server.should_exit = True
        thread.join(10)
        proxy.close()
