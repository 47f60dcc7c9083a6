"""With every logger at its lowest level, providers' packages log nothing secret; the host's own use of them is logged.

keyring logs nothing of a call.
"""

import base64
import logging
import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import boto3
import pytest
import trustme
from azure.core.credentials import AccessTokenInfo
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.cloud.secretmanager_v1 import SecretManagerServiceClient
from google.cloud.secretmanager_v1.services.secret_manager_service.transports import SecretManagerServiceRestTransport
from google.oauth2 import service_account
from places import Asked, standing_in
from secret_calls import MATERIAL

from apitokenproxy import SecretUnavailable
from apitokenproxy.interfaces import SecretProvider
from apitokenproxy.secrets.aws import AwsSecretsProvider
from apitokenproxy.secrets.azure import AzureClients, AzureSecretsProvider
from apitokenproxy.secrets.gcp import GcpSecretsProvider
from apitokenproxy.secrets.ssm import AwsParametersProvider
from apitokenproxy.secrets.vault import VaultProvider
from apitokenproxy.secrets.vault_login import VaultAppRole
from leaks.forms import assert_clean, find

KEY, SESSION = "aws-key/4be0c7a1935d82f6aws-key", "aws-session/9d21f5c8e07b346aaws"
TOKEN = "t0ken.6f3a18c9d2e7b054.t0ken"
LOGIN = "approle-secret-id-c05e9b37a1d4f286"
SECRETS = {"material": MATERIAL, "key": KEY, "session token": SESSION, "token": TOKEN, "secret id": LOGIN}


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[[], bytes]:
    """Return a function that returns all that was logged: text, what it was made of, and what was put beside it."""
    monkeypatch.setattr(logging.getLogger("google"), "propagate", True)
    for name in [*logging.root.manager.loggerDict, ""]:
        caplog.set_level(1, name)
    return lambda: "\n".join(f"{caplog.handler.format(each)} {vars(each)!r}" for each in caplog.records).encode()


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"ACCESS_KEY_ID": "AKIATEST", "SECRET_ACCESS_KEY": KEY, "SESSION_TOKEN": SESSION}
    for name, value in (environment | {"DEFAULT_REGION": "eu-central-1"}).items():
        monkeypatch.setenv(f"AWS_{name}", value)


def told(provider: SecretProvider, reference: str) -> bytes:
    """Return the secret, or why there is none."""
    try:
        return provider.fetch(reference).reveal()  # type: ignore[union-attr]
    except SecretUnavailable as refused:
        return refused.detail.encode()


# --- AWS ------------------------------------------------------------------------------------

HELD = {"SecretString": MATERIAL, "VersionId": "1", "Parameter": {"Value": MATERIAL, "Version": 1}}


@pytest.mark.parametrize(
    ("status", "said", "expected"),
    [(200, HELD, MATERIAL), (400, {"__type": "Odd", "message": MATERIAL}, "x cannot be read: AWS refuses it (Odd)")],
)
@pytest.mark.parametrize("provider", [AwsSecretsProvider, AwsParametersProvider])
def test_boto3_logs_neither_secrets_nor_session_tokens(
    provider: Any, status: int, said: Any, expected: str, logged: Callable[[], bytes]
) -> None:
    """Also when AWS refuses."""
    with standing_in(lambda _: (status, said)) as stand_in:
        got = told(provider(endpoint=stand_in.url), "x")
        assert {asked.headers["x-amz-security-token"] for asked in stand_in.asked} == {SESSION}
    assert got.endswith(expected.encode())
    assert_clean(SECRETS, {"log": logged()})


def test_the_hosts_own_use_of_boto3_is_logged(logged: Callable[[], bytes], caplog: pytest.LogCaptureFixture) -> None:
    """In another thread while a call of ours runs, and in the same one after it; with the secrets of the host."""

    def answer(_: Asked) -> tuple[int, Any]:
        logging.getLogger("botocore.endpoint").debug("the host's own call, meanwhile")
        return 200, HELD

    with standing_in(answer) as stand_in:
        AwsSecretsProvider(endpoint=stand_in.url).fetch("x")
        assert [record.getMessage() for record in caplog.records] == ["the host's own call, meanwhile"]
        client = boto3.session.Session().client("secretsmanager", endpoint_url=stand_in.url)
        client.get_secret_value(SecretId="x")
        client.close()
    assert {leak.name for leak in find(SECRETS, logged())} == {"material", "session token"}


def test_warnings_of_a_call_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """They tell the operator what is wrong."""
    logger = logging.getLogger("botocore.endpoint")
    with standing_in(lambda _: (200, HELD)) as stand_in:
        provider = AwsSecretsProvider(endpoint=stand_in.url)
        events = provider._calls._client.get().meta.events
        events.register("before-send", lambda **_: logger.warning("slow"))
        provider.fetch("x")
    assert [record.getMessage() for record in caplog.records] == ["slow"]


# --- the others -----------------------------------------------------------------------------


def test_google_logs_nothing_that_a_service_account_signed(logged: Callable[[], bytes]) -> None:
    """For an hour that is as good as its key."""
    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )

    def answer(asked: Asked) -> tuple[int, Any]:
        if asked.path == "/token":
            return 200, {"access_token": TOKEN, "expires_in": 3600}
        data = base64.b64encode(MATERIAL.encode()).decode()
        return 200, {"name": "projects/1/secrets/n/versions/1", "payload": {"data": data}}

    def connect(url: str) -> SecretManagerServiceClient:
        info = {"client_email": "proxy@example.com", "token_uri": f"{url}/token", "private_key": key.decode()}
        account = service_account.Credentials.from_service_account_info(info, scopes=["any"])
        scheme, _, host = url.partition("://")
        transport = SecretManagerServiceRestTransport(host=host, credentials=account, url_scheme=scheme)
        return SecretManagerServiceClient(transport=transport)

    with standing_in(answer) as stand_in:
        assert told(GcpSecretsProvider(connect=partial(connect, stand_in.url)), "p/n") == MATERIAL.encode()
        first, second = stand_in.asked
    [signed] = parse_qs(first.body.decode())["assertion"]
    assert second.headers["authorization"] == f"Bearer {TOKEN}"
    assert_clean(SECRETS | {"assertion": signed}, {"log": logged()})


class _Credential:
    def get_token_info(self, *_scopes: str, **_options: Any) -> AccessTokenInfo:
        return AccessTokenInfo(TOKEN, 2**31)


def test_azure_logs_neither_secrets_nor_tokens(logged: Callable[[], bytes], tmp_path: Path) -> None:
    """Also with `logging_enable`, which has it log bodies and headers."""
    authority = trustme.CA()
    (tmp_path / "ca.pem").write_bytes(authority.cert_pem.bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    challenge = 'Bearer authorization="https://login.microsoftonline.com/a", resource="https://vault.azure.net"'

    def answer(asked: Asked) -> tuple[Any, ...]:
        if "authorization" not in asked.headers:
            return 401, {}, ("WWW-Authenticate", challenge)
        return 200, {"value": MATERIAL, "id": "https://team.vault.azure.net/secrets/n/1"}

    options = {"connection_verify": str(tmp_path / "ca.pem"), "verify_challenge_resource": False}
    with standing_in(answer, context) as stand_in:
        for more in ({}, {"logging_enable": True}):
            clients = AzureClients(url=stand_in.url, credential=_Credential, options=options | more)
            assert told(AzureSecretsProvider(clients=clients), "team/n") == MATERIAL.encode()
    assert_clean(SECRETS, {"log": logged()})


def test_vault_logs_neither_secrets_nor_logins(logged: Callable[[], bytes]) -> None:
    """Nor anything else below a warning: what is wrong is told by the proxy itself."""

    def answer(asked: Asked) -> tuple[int, Any]:
        if asked.path.endswith("/login"):
            return 200, {"auth": {"client_token": TOKEN, "lease_duration": 3600, "renewable": True}}
        return 200, {"data": {"path": "kv/", "type": "kv", "key": MATERIAL}}

    with standing_in(answer) as stand_in:
        provider = VaultProvider(stand_in.url, login=VaultAppRole("a-role", LOGIN))
        assert told(provider, "kv/x#key") == MATERIAL.encode()
    assert logged() == b""
