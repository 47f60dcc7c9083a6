"""`vault:`, against a real OpenBao (whose API is Vault's), a real PostgreSQL for leases, and places that are away."""

import json
import ssl
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import trustme
from places import StandIn, away, standing_in
from secret_calls import MATERIAL, Hand, revealed

from apitokenproxy import ConfigurationError, SecretUnavailable
from apitokenproxy.interfaces import SecretProvider
from apitokenproxy.secrets.cache import Secrets
from apitokenproxy.secrets.vault import VaultProvider
from apitokenproxy.secrets.vault_login import VaultAppRole, VaultKubernetes, VaultToken
from apitokenproxy.testing import SecretProviderConformance
from loopback import wait_until

__all__ = ["away"]


class Bao:
    """What an operator does with OpenBao's API, as root."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(base_url=f"{url}/v1/", headers={"X-Vault-Token": "root"}, timeout=30)

    def close(self) -> None:
        self._client.close()

    def do(self, method: str, path: str, body: Any = None) -> Any:
        answer = self._client.request(method, path, json=body)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def mount(self, path: str, kind: str = "kv", **options: str) -> None:
        mounts = self.do("GET", "sys/mounts")
        if f"{path}/" not in mounts:
            self.do("POST", f"sys/mounts/{path}", {"type": kind, "options": options})
        if options.get("version") == "2":  # it refuses for a moment, while it makes itself ready
            wait_until(lambda: self._client.post(f"{path}/data/ready", json={"data": {}}).is_success)

    def auth(self, kind: str) -> None:
        if f"{kind}/" not in self.do("GET", "sys/auth"):
            self.do("POST", f"sys/auth/{kind}", {"type": kind})

    def policy(self, name: str, *paths: str) -> None:
        rules = "\n".join(f'path "{path}" {{ capabilities = ["read"] }}' for path in paths)
        self.do("PUT", f"sys/policies/acl/{name}", {"policy": rules})

    def token(self, *policies: str, **terms: Any) -> str:
        made = self.do("POST", "auth/token/create", {"policies": list(policies), **terms})
        return str(made["auth"]["client_token"])


@pytest.fixture
def bao(openbao: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bao]:
    for name in ("VAULT_ADDR", "VAULT_TOKEN", "VAULT_TOKEN_FILE", "VAULT_ROLE_ID", "VAULT_K8S_ROLE"):
        monkeypatch.delenv(name, raising=False)
    bao = Bao(openbao)
    bao.mount("kv1", version="1")
    bao.mount("team/kv2", version="2")
    bao.policy("app", "kv1/*", "team/kv2/data/*", "database/creds/*")
    yield bao
    bao.close()


class _OnBao(SecretProviderConformance):
    mount: str

    @pytest.fixture(autouse=True)
    def _place(self, bao: Bao, away: list[str]) -> None:
        self.bao = bao
        self.token = bao.token("app")
        self.places = away

    def make(self) -> SecretProvider:
        return VaultProvider(self.bao.url, login=VaultToken(self.token))

    def own_secrets(self) -> Sequence[str]:
        return [self.token]

    def write(self, name: str, **data: Any) -> str:
        raise NotImplementedError

    def put(self, name: str, material: str) -> str:
        return f"{self.write(name, key=material, other='else')}#key"

    def missing(self) -> Sequence[str]:
        path = self.write("there", key="x")
        malformed = [
            "",
            "#",
            "a",
            "a#b",
            "a/b",
            "a/b#",
            "/a/b#c",
            "a//b#c",
            "a/../b#c",
            "a/b?x=1#c",
            "a/b%2fc#d",
            "a/b#c\n",
        ]
        return [f"{self.mount}/nothing#key", f"{path}#other", "nowhere/at/all#key", *malformed]

    def absent(self) -> Sequence[str]:
        path = self.write("there", key="x")
        return [f"{self.mount}/nothing#key", f"{path}#other"]

    def garbage(self) -> Sequence[str]:
        values = {"empty": "", "number": 5, "object": {"a": MATERIAL}, "list": [MATERIAL]}
        path = self.write("garbage", **values)
        self.write("large", key=MATERIAL * 40_000)
        return [f"{path}#{key}" for key in values]

    def away(self) -> Sequence[tuple[SecretProvider, str]]:
        login = VaultToken(self.token)
        return [(VaultProvider(url, login=login, timeout=0.3), f"{self.mount}/x#key") for url in self.places]


class TestKv1(_OnBao):
    """KV version 1, which has no versions."""

    mount = "kv1"

    def write(self, name: str, **data: Any) -> str:
        self.bao.do("PUT", f"kv1/app/{name}", data)
        return f"kv1/app/{name}"


class TestKv2(_OnBao):
    """KV version 2, at a mount of two segments."""

    mount = "team/kv2"

    def write(self, name: str, **data: Any) -> str:
        self.bao.do("POST", f"team/kv2/data/app/{name}", {"data": data})
        return f"team/kv2/app/{name}"


def refused(provider: VaultProvider, reference: str) -> SecretUnavailable:
    with pytest.raises(SecretUnavailable) as refusal:
        provider.fetch(reference)
    return refusal.value


def test_the_version_is_vaults_own(bao: Bao) -> None:
    """Audit records name it as Vault does."""
    provider = VaultProvider(bao.url, login=VaultToken("root"))
    bao.do("DELETE", "team/kv2/metadata/v")
    versions = []
    for material in ("a", "b"):
        bao.do("POST", "team/kv2/data/v", {"data": {"key": material}})
        versions.append(provider.fetch("team/kv2/v#key").version)
    assert versions == ["vault/1", "vault/2"]


def test_a_deleted_version_is_gone(bao: Bao) -> None:
    """Vault answers 404 with its metadata; undeleted, it is back."""
    provider = VaultProvider(bao.url, login=VaultToken("root"))
    bao.do("DELETE", "team/kv2/metadata/d")
    bao.do("POST", "team/kv2/data/d", {"data": {"key": MATERIAL}})
    bao.do("DELETE", "team/kv2/data/d")
    assert refused(provider, "team/kv2/d#key").detail.startswith("vault: there is nothing at team/kv2/d;")
    bao.do("POST", "team/kv2/undelete/d", {"versions": [1]})
    assert provider.fetch("team/kv2/d#key").reveal() == MATERIAL.encode()


def test_what_the_policy_does_not_allow_is_refused(bao: Bao) -> None:
    """And nothing stands in for it."""
    bao.do("PUT", "kv1/app/x", {"key": MATERIAL})
    refusal = refused(VaultProvider(bao.url, login=VaultToken(bao.token("default"))), "kv1/app/x#key")
    assert (refusal.outage, refusal.detail) == (
        False,
        "vault: the proxy may not read kv1/app/x, or its login is not accepted; grant its policy read on it",
    )


def test_a_token_that_may_not_ask_about_itself_reads(bao: Bao) -> None:
    """Without the policy `default` it cannot learn how long it lives."""
    bao.do("PUT", "kv1/app/x", {"key": MATERIAL})
    provider = VaultProvider(bao.url, login=VaultToken(bao.token("app", no_default_policy=True)))
    assert provider.fetch("kv1/app/x#key").reveal() == MATERIAL.encode()


def test_a_mount_that_is_made_anew_is_of_another_kind(bao: Bao) -> None:
    """The provider had learned that it was KV 2."""
    provider = VaultProvider(bao.url, login=VaultToken("root"))
    bao.mount("anew", version="2")
    bao.do("POST", "anew/data/x", {"data": {"key": "two"}})
    assert provider.fetch("anew/x#key").reveal() == b"two"
    bao.do("DELETE", "sys/mounts/anew")
    bao.mount("anew", version="1")
    bao.do("PUT", "anew/x", {"key": "one"})
    refused(provider, "anew/x#key")
    assert provider.fetch("anew/x#key").reveal() == b"one"
    bao.do("DELETE", "sys/mounts/anew")


# --- logging in -----------------------------------------------------------------------------


def app_role(bao: Bao, **terms: Any) -> tuple[str, str]:
    bao.auth("approle")
    bao.do("POST", "auth/approle/role/proxy", {"token_policies": "app", **terms})
    role = bao.do("GET", "auth/approle/role/proxy/role-id")["data"]["role_id"]
    secret = bao.do("POST", "auth/approle/role/proxy/secret-id", {})["data"]["secret_id"]
    return str(role), str(secret)


def test_an_app_role_logs_in(bao: Bao, tmp_path: Path) -> None:
    """With its secret id given or in a file; a wrong one is told without it."""
    bao.do("PUT", "kv1/app/x", {"key": MATERIAL})
    role, secret = app_role(bao)
    (tmp_path / "id").write_text(f"{secret}\n")
    for login in (VaultAppRole(role, secret), VaultAppRole(role, secret_id_file=str(tmp_path / "id"))):
        assert secret not in repr(login)
        assert VaultProvider(bao.url, login=login).fetch("kv1/app/x#key").reveal() == MATERIAL.encode()
    wrong = "5e3f7a90-0000-0000-0000-000000000000"
    refusal = refused(VaultProvider(bao.url, login=VaultAppRole(role, wrong)), "kv1/app/x#key")
    assert (refusal.outage, wrong in refusal.detail) == (False, False)
    gone = VaultProvider(bao.url, login=VaultAppRole(role, secret_id_file=str(tmp_path / "none")))
    assert "cannot be read: No such file" in refused(gone, "kv1/app/x#key").detail


def test_one_login_serves_many_fetches(bao: Bao) -> None:
    """A secret id that may be used once is enough, also when many threads begin at once."""
    bao.do("PUT", "kv1/app/x", {"key": MATERIAL})
    role, secret = app_role(bao, secret_id_num_uses=1)
    provider = VaultProvider(bao.url, login=VaultAppRole(role, secret))
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(provider.fetch, ["kv1/app/x#key"] * 8))
    assert [secret.reveal() for secret in got] == [MATERIAL.encode()] * 8
    app_role(bao, secret_id_num_uses=0)


def test_a_token_is_renewed_and_obtained_anew(bao: Bao) -> None:
    """At two thirds of its life; when Vault gives it no more time, by a new login; when it was revoked, too."""
    bao.do("PUT", "kv1/app/x", {"key": MATERIAL})
    role, secret = app_role(bao, token_ttl="90s", token_max_ttl="150s")
    clock = Hand(1000.0)
    provider = VaultProvider(bao.url, login=VaultAppRole(role, secret), clock=clock)
    tokens = []

    def fetch_at(moment: float) -> None:
        clock.now = moment
        assert provider.fetch("kv1/app/x#key").reveal() == MATERIAL.encode()
        assert provider._token is not None
        tokens.append(provider._token.value)

    fetch_at(1000.0)
    fetch_at(1059.0)
    fetch_at(1061.0)  # renewed: the same, until 1151
    assert provider._token is not None
    assert provider._token.until == 1151.0
    fetch_at(1152.0)  # it is over: obtained anew
    bao.do("POST", "auth/token/revoke", {"token": tokens[-1]})
    fetch_at(1160.0)
    assert [tokens.index(token) for token in tokens] == [0, 0, 0, 3, 4]
    app_role(bao, token_ttl="0", token_max_ttl="0")


def test_a_token_that_was_refused_a_moment_ago_is_not_obtained_anew(bao: Bao) -> None:
    """A policy that allows nothing must not make a login of every request."""
    role, secret = app_role(bao)
    provider = VaultProvider(bao.url, login=VaultAppRole(role, secret))
    for _ in range(3):
        refused(provider, "team/kv2x/no#key")
    first = provider._token
    refused(provider, "team/kv2x/no#key")
    assert provider._token is first


def test_an_agents_token_file_is_read_again(bao: Bao, tmp_path: Path) -> None:
    """When the token in it is refused, the agent has written another."""
    bao.do("PUT", "kv1/app/x", {"key": MATERIAL})
    file, clock = tmp_path / "token", Hand()
    first = bao.token("app")
    file.write_text(first)
    provider = VaultProvider(bao.url, login=VaultToken(file=str(file)), clock=clock)
    provider.fetch("kv1/app/x#key")
    bao.do("POST", "auth/token/revoke", {"token": first})
    file.write_text(bao.token("app"))
    clock.now = 60.0
    assert provider.fetch("kv1/app/x#key").reveal() == MATERIAL.encode()


@pytest.fixture
def kubernetes(tmp_path: Path) -> Iterator[StandIn]:
    """Stand in for the Kubernetes API, where OpenBao asks whose token it was given (TokenReview, over TLS)."""
    authority = trustme.CA()
    (tmp_path / "ca.pem").write_bytes(authority.cert_pem.bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    def review(asked: Any) -> tuple[int, Any]:
        token = json.loads(asked.body)["spec"]["token"]
        user = {"username": "system:serviceaccount:apps:proxy", "uid": "1", "groups": []}
        status = {"authenticated": True, "user": user} if token == JWT else {"authenticated": False}
        return 201, {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status}

    with standing_in(review, context) as stand_in:
        yield stand_in


JWT = (
    "eyJhbGciOiJSUzI1NiIsImtpZCI6IngifQ.eyJpc3MiOiJrdWJlcm5ldGVzL3NlcnZpY2VhY2NvdW50Iiwia3ViZXJuZXRlcy5pby9zZXJ2aWNlYWNj"
    "b3VudC9uYW1lc3BhY2UiOiJhcHBzIiwia3ViZXJuZXRlcy5pby9zZXJ2aWNlYWNjb3VudC9zZXJ2aWNlLWFjY291bnQubmFtZSI6InByb3h5Iiwia3Vi"
    "ZXJuZXRlcy5pby9zZXJ2aWNlYWNjb3VudC9zZXJ2aWNlLWFjY291bnQudWlkIjoiMSJ9.c2lnbmF0dXJl"
)
"""The token of service account `proxy` in namespace `apps`; only the stand-in takes its signature for one."""


def test_a_service_account_logs_in(bao: Bao, kubernetes: StandIn, tmp_path: Path) -> None:
    """Kubernetes says whose token it is, OpenBao what that one may read; the token is read anew at each login."""
    bao.do("PUT", "kv1/app/x", {"key": MATERIAL})
    bao.auth("kubernetes")
    config = {
        "kubernetes_host": kubernetes.url,
        "kubernetes_ca_cert": (tmp_path / "ca.pem").read_text(),
        "token_reviewer_jwt": JWT,
        "disable_iss_validation": True,
    }
    bao.do("POST", "auth/kubernetes/config", config)
    role = {
        "bound_service_account_names": "proxy",
        "bound_service_account_namespaces": "apps",
        "token_policies": "app",
    }
    bao.do("POST", "auth/kubernetes/role/proxy", role)
    file = tmp_path / "jwt"
    file.write_text(JWT)
    provider = VaultProvider(bao.url, login=VaultKubernetes("proxy", jwt_file=str(file)))
    assert provider.fetch("kv1/app/x#key").reveal() == MATERIAL.encode()
    file.write_text("not.a.token")
    assert (
        JWT not in refused(VaultProvider(bao.url, login=VaultKubernetes("proxy", jwt_file=str(file))), "kv1/x#k").detail
    )


# --- leases ---------------------------------------------------------------------------------


@pytest.fixture
def database(bao: Bao, new_postgres: Callable[[], str]) -> Iterator[Callable[..., None]]:
    """Let OpenBao make users in a real PostgreSQL; return what sets for how long."""
    url = new_postgres()
    parsed = urlsplit(url)
    bao.mount("database", "database")
    bao.do(
        "POST",
        "database/config/pg",
        {
            "plugin_name": "postgresql-database-plugin",
            "allowed_roles": "*",
            "connection_url": url,
            "verify_connection": True,
        },
    )

    def role(seconds: int, most: int) -> None:
        statements = ["CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"]
        terms = {"db_name": "pg", "creation_statements": statements, "default_ttl": seconds, "max_ttl": most}
        bao.do("POST", "database/roles/app", terms)

    assert parsed.path
    yield role
    bao.do("PUT", "sys/leases/revoke-force/database/creds", {})
    bao.do("DELETE", "database/config/pg")


def test_a_database_user_is_leased_once(bao: Bao, database: Callable[..., None]) -> None:
    """User name and password are of one lease; it is renewed while Vault allows, then made anew; never past its end."""
    database(90, 150)
    clock = Hand(1000.0)
    provider = VaultProvider(bao.url, login=VaultToken(bao.token("app")), clock=clock)
    name, password = (provider.fetch(f"database/creds/app#{key}") for key in ("username", "password"))
    assert name.version == password.version
    assert (name.good_for, password.good_for) == (90.0, 90.0)
    seen = []
    for clock.now in (1059.0, 1061.0, 1120.0):
        secret = provider.fetch("database/creds/app#username")
        seen.append((secret.reveal() == name.reveal(), secret.good_for))
    assert seen == [(True, 31.0), (True, 90.0), (True, 31.0)]
    lease = provider._leases["database/creds/app"]
    bao.do("PUT", "sys/leases/revoke", {"lease_id": lease.id})
    clock.now = 1130.0
    renewed = provider.fetch("database/creds/app#username")
    assert (renewed.reveal() == name.reveal(), renewed.good_for) == (False, 90.0)
    assert renewed.version != name.version


def test_a_forbidden_path_does_not_end_the_token(bao: Bao, database: Callable[..., None]) -> None:
    """However often a tenant asks for it, nobody logs in anew and the others' leases stay."""
    database(60, 120)
    role, secret = app_role(bao)
    clock = Hand(1000.0)
    provider = VaultProvider(bao.url, login=VaultAppRole(role, secret), clock=clock)
    names, tokens = set(), set()
    for clock.now in (1000.0, 1006.0, 1012.0):
        names.add(provider.fetch("database/creds/app#username").reveal())
        assert refused(provider, "team/kv2x/no#key").detail.startswith("vault: the proxy may not read")
        assert provider._token is not None
        tokens.add(provider._token.value)
    assert (len(names), len(tokens)) == (1, 1)


def test_user_name_and_password_are_of_one_lease_also_when_asked_for_at_once(
    bao: Bao, database: Callable[..., None]
) -> None:
    """Of the leases that were made meanwhile, one is used by all; the others are given back or end by themselves."""
    database(90, 150)
    provider = VaultProvider(bao.url, login=VaultToken(bao.token("app")))
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(provider.fetch, ["database/creds/app#username", "database/creds/app#password"] * 4))
    assert len({secret.version for secret in got}) == 1
    assert [len({secret.reveal() for secret in got[first::2]}) for first in (0, 1)] == [1, 1]


def test_what_has_no_time_left_is_leased_anew(bao: Bao, database: Callable[..., None]) -> None:
    """Its longest life is nearly over, so Vault renews it for a moment only."""
    database(90, 95)
    clock = Hand(1000.0)
    provider = VaultProvider(bao.url, login=VaultToken(bao.token("app")), clock=clock)
    name = provider.fetch("database/creds/app#username")
    lease = provider._leases["database/creds/app"]
    lease.seconds = 300.0  # as if it had been asked for with more
    clock.now = 1089.0
    assert provider.fetch("database/creds/app#username").reveal() != name.reveal()


def test_the_cache_keeps_a_lease_no_longer_than_it_lasts(bao: Bao, database: Callable[..., None]) -> None:
    """Whatever the provider's time to live is."""
    database(20, 20)
    clock = Hand(1000.0)
    provider = VaultProvider(bao.url, login=VaultToken(bao.token("app")), clock=clock)
    secrets = Secrets({"vault": provider}, clock=clock)
    names = []
    for clock.now in (1000.0, 1012.0, 1020.0):
        names.append(revealed(secrets, "sync", "vault:database/creds/app#username"))
        if clock.now == 1012.0:
            bao.do("PUT", "sys/leases/revoke", {"lease_id": provider._leases["database/creds/app"].id})
    assert (names[0] == names[1], names[1] == names[2]) == (True, False)


# --- what is wrong --------------------------------------------------------------------------

STRANGE: dict[str, tuple[int, Any, bool]] = {
    "no JSON": (200, b"<html>", False),
    "empty": (200, b"", False),
    "a list": (200, [], False),
    "no data": (200, {"data": None}, False),
    "data of another kind": (200, {"data": {"path": 5, "type": "kv"}}, False),
    "a redirect": (307, {}, False),
    "sealed": (503, {"errors": ["Vault is sealed"]}, True),
    "a standby that knows nothing": (473, {}, True),
    "too many requests": (429, {"errors": ["quota"]}, True),
    "a bad request": (400, {"errors": [MATERIAL]}, False),
    "far too much": (200, b'{"data": "' + b"x" * 2_000_000 + b'"}', True),
}


@pytest.mark.parametrize("strange", STRANGE)
def test_what_does_not_answer_as_vault_is_refused(strange: str) -> None:
    """One sentence, without what it said."""
    status, body, outage = STRANGE[strange]

    def answers(asked: Any) -> tuple[int, Any]:
        if asked.path.endswith("lookup-self"):
            return 200, {"data": {"ttl": 0}}
        return status, body

    with standing_in(answers) as stand_in:
        refusal = refused(VaultProvider(stand_in.url, login=VaultToken("t0ken")), "kv/x#key")
        assert {asked.headers["x-vault-token"] for asked in stand_in.asked} == {"t0ken"}
    assert (refusal.outage, MATERIAL in refusal.detail) == (outage, False)
    assert refusal.detail.startswith("vault: ")


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({}, "vault: set VAULT_ADDR to the server's address, as https://vault.example.com:8200"),
        ({"VAULT_ADDR": "vault:8200"}, "vault: set VAULT_ADDR to the server's address"),
        ({"VAULT_ADDR": "http://127.0.0.1:1"}, "vault: nothing says who the proxy is; set VAULT_TOKEN"),
    ],
)
def test_what_the_environment_lacks_is_told(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], told: str
) -> None:
    """When the provider is made."""
    for name in ("VAULT_ADDR", "VAULT_TOKEN", "VAULT_TOKEN_FILE", "VAULT_ROLE_ID", "VAULT_K8S_ROLE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as refusal:
        VaultProvider()
    assert str(refusal.value).startswith(told)


def test_the_environment_says_where_and_who(bao: Bao, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Vault's own tools have it; a token is shown to nobody else, whatever proxies the environment names."""
    bao.do("PUT", "kv1/app/x", {"key": MATERIAL})
    monkeypatch.setenv("VAULT_ADDR", bao.url)
    monkeypatch.setenv("VAULT_TOKEN", bao.token("app"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert VaultProvider().fetch("kv1/app/x#key").reveal() == MATERIAL.encode()
