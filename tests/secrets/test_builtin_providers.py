"""The schemes that need an extra: imported when they are named, and told when they cannot be."""

import asyncio
import subprocess
import sys

import httpx
import pytest

from apitokenproxy import Bearer, ConfigurationError, Proxy, Rule, Upstream
from apitokenproxy.secrets.builtin import OnDemand, built_in_providers
from apitokenproxy.testing import FixedSecrets, MemoryAudit

ON_DEMAND = sorted(name for name, provider in built_in_providers().items() if isinstance(provider, OnDemand))

WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in CORE | set(sys.stdlib_module_names):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

CORE = {"attr", "attrs", "httpcore", "httpx", "anyio", "certifi", "h11", "idna", "sniffio", "typing_extensions"} | {
    "apitokenproxy"
}
sys.meta_path.insert(0, Missing())
from apitokenproxy import Bearer, ConfigurationError, Proxy, Rule, Upstream

upstream = Upstream("api", "https://api.example.com", credential=Bearer(f"{sys.argv[1]}:a/b#c"))
proxy = Proxy(upstreams=[upstream], rules=[Rule("all", effect="allow")])
for mount in (lambda: proxy.asgi, lambda: proxy.wsgi, lambda: proxy.transport("atp_x")):
    try:
        mount()
    except ConfigurationError as error:
        print(error)
print(proxy.missing_secrets())
"""


@pytest.mark.long
@pytest.mark.parametrize("scheme", ON_DEMAND)
def test_a_missing_extra_is_named_when_the_proxy_is_mounted(scheme: str) -> None:
    """In one sentence that says what to run; with the core alone all else works."""
    done = subprocess.run([sys.executable, "-c", WITHOUT, scheme], capture_output=True, text=True, check=False)
    *told, missing = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert len(set(told)) == 1
    assert len(told) == 3
    assert told[0].startswith(f"secret references {scheme}:… need ")
    assert "which is not installed; run: pip install 'apitokenproxy[" in told[0]
    assert missing == repr([f"upstreams.api.credential: {told[0]}"])


def test_nothing_is_imported_that_no_reference_names() -> None:
    """A proxy that reads `env:` alone does not pay for the clients of secret managers."""
    program = """
import sys
from apitokenproxy import Bearer, Proxy, Rule, Upstream
upstream = Upstream("api", "https://api.example.com", credential=Bearer("env:HOME"))
Proxy(upstreams=[upstream], rules=[Rule("all", effect="allow")]).asgi
clients = {"azure", "boto3", "botocore", "cryptography", "google", "grpc", "hvac", "keyring", "requests"}
print(clients & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_provider_that_misses_something_is_told_when_the_proxy_is_mounted(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an address that the environment does not name."""
    monkeypatch.delenv("VAULT_ADDR", raising=False)
    upstream = Upstream("api", "https://api.example.com", credential=Bearer("vault:a/b#c"))
    proxy = Proxy(upstreams=[upstream], rules=[Rule("all", effect="allow")], audit=MemoryAudit())
    with pytest.raises(ConfigurationError, match="vault: set VAULT_ADDR to the server's address"):
        _ = proxy.asgi
    proxy.close()


def test_a_provider_of_your_own_replaces_one_of_these() -> None:
    """Then nothing of it is imported."""
    upstream = Upstream("api", "https://api.example.com", credential=Bearer("vault:x"))
    proxy = Proxy(
        upstreams=[upstream],
        rules=[Rule("all", effect="allow")],
        audit=MemoryAudit(),
        secret_providers={"vault": FixedSecrets(x="material")},
    )
    assert proxy.missing_secrets() == []
    proxy.close()


@pytest.mark.parametrize("colour", ["async", "sync"])
def test_a_request_carries_what_a_secret_manager_holds(
    colour: str, openbao: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named in an upstream's credential, with the tenant filled in; the audit record has Vault's version."""
    vault = httpx.Client(base_url=f"{openbao}/v1/", headers={"X-Vault-Token": "root"})
    with vault:
        vault.post("secret/data/keys/acme", json={"data": {"github": "ghp_real"}}).raise_for_status()
    monkeypatch.setenv("VAULT_ADDR", openbao)
    monkeypatch.setenv("VAULT_TOKEN", "root")
    sent, audit = [], MemoryAudit()

    def upstream(request: httpx.Request) -> httpx.Response:
        sent.append(request.headers["Authorization"])
        return httpx.Response(200)

    async def aupstream(request: httpx.Request) -> httpx.Response:
        return upstream(request)

    transport = httpx.MockTransport(upstream if colour == "sync" else aupstream)
    credential = Bearer("vault:secret/keys/{tenant}#github")
    proxy = Proxy(
        upstreams=[Upstream("api", "https://api.example.com", credential=credential, transport=transport)],
        rules=[Rule("all", effect="allow")],
        audit=audit,
    )

    def ask(tenant: str) -> int:
        token = proxy.tokens.issue(tenant=tenant).token
        if colour == "sync":
            with httpx.Client(transport=proxy.transport(token)) as client:
                return client.get("http://proxy/api/x").status_code

        async def get() -> int:
            async with httpx.AsyncClient(transport=proxy.async_transport(token)) as client:
                return (await client.get("http://proxy/api/x")).status_code

        return asyncio.run(get())

    assert [ask(tenant) for tenant in ("acme", "acme", "other")] == [200, 200, 403]
    proxy.close()
    assert sent == ["Bearer ghp_real"] * 2
    versions = [(record.credential, record.reason) for record in audit.records]
    assert versions[0] == versions[1]
    assert versions[0][0].startswith("vault/")
    assert audit.records[2].code == "no_secret_for_caller"
    assert versions[2][1] == "vault: there is nothing at secret/keys/other; mend the reference or write it"
