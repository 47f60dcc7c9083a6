"""`azure:`, against a stand-in for Key Vault's API over TLS (REST reference, Get Secret; its challenge for a token)."""

import json
import re
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import trustme
from azure.core.credentials import AccessToken, AccessTokenInfo
from azure.identity import CredentialUnavailableError
from places import Asked, StandIn, away, standing_in
from secret_calls import MATERIAL

from apitokenproxy import SecretUnavailable
from apitokenproxy.interfaces import SecretProvider
from apitokenproxy.secrets.azure import AzureClients, AzureSecretsProvider
from apitokenproxy.testing import SecretProviderConformance

__all__ = ["away"]

TOKEN = "eyJ0eXAi.Zm9yIGtleSB2YXVsdA.dGVzdA"
CHALLENGE = (
    "WWW-Authenticate",
    'Bearer authorization="https://login.microsoftonline.com/a-tenant", resource="https://vault.azure.net"',
)
_PATH = re.compile(r"/secrets/(?P<name>[^/]+)/(?P<version>[^/?]*)\?api-version=[\w.-]+")


class Credential:
    """Gives the token that the stand-in accepts, for Key Vault's scope alone; or raises."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    def get_token(self, *scopes: str, **_options: Any) -> AccessToken:
        return AccessToken(self.get_token_info(*scopes).token, 2**31)

    def get_token_info(self, *scopes: str, **_options: Any) -> AccessTokenInfo:
        if self._error is not None:
            raise self._error
        assert scopes == ("https://vault.azure.net/.default",)
        return AccessTokenInfo(TOKEN, 2**31)


class Vault:
    """Secrets by name, each with its versions; a version that is None is disabled."""

    def __init__(self) -> None:
        self.held: dict[str, list[str | None]] = {}

    def put(self, name: str, material: str | None) -> str:
        self.held.setdefault(name, []).append(material)
        return f"team/{name}"

    def answer(self, asked: Asked) -> tuple[Any, ...]:
        if asked.headers.get("authorization") != f"Bearer {TOKEN}":
            return 401, {"error": {"code": "Unauthorized", "message": MATERIAL}}, CHALLENGE
        found = _PATH.fullmatch(asked.path)
        if asked.method != "GET" or found is None:
            return _error(400, "BadParameter")
        versions = self.held.get(found["name"], [])
        number = int(found["version"], 16) if found["version"] else len(versions)
        if not 0 < number <= len(versions):
            return _error(404, "SecretNotFound")
        material = versions[number - 1]
        if material is None:
            return _error(403, "Forbidden")
        identifier = f"https://team.vault.azure.net/secrets/{found['name']}/{number:032x}"
        return 200, {"value": material, "id": identifier, "attributes": {"enabled": True}}


def _error(status: int, code: str) -> tuple[int, Any]:
    return status, {"error": {"code": code, "message": f"about {MATERIAL}"}}


@pytest.fixture
def trust(tmp_path: Path) -> tuple[str, ssl.SSLContext]:
    """Return the file of an authority, and the context of a server that it vouches for."""
    authority = trustme.CA()
    (tmp_path / "ca.pem").write_bytes(authority.cert_pem.bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return str(tmp_path / "ca.pem"), context


def provider_at(url: str, ca: str, *, timeout: float = 5.0, error: Exception | None = None) -> AzureSecretsProvider:
    options = {"connection_verify": ca, "verify_challenge_resource": False}
    clients = AzureClients(url=url, credential=lambda: Credential(error), options=options)
    return AzureSecretsProvider(clients=clients, timeout=timeout)


@pytest.fixture
def vault() -> Vault:
    return Vault()


@pytest.fixture
def azure(vault: Vault, trust: tuple[str, ssl.SSLContext]) -> Iterator[StandIn]:
    with standing_in(vault.answer, trust[1]) as stand_in:
        yield stand_in


class TestAzure(SecretProviderConformance):
    """Azure Key Vault."""

    @pytest.fixture(autouse=True)
    def _place(
        self, azure: StandIn, vault: Vault, trust: tuple[str, ssl.SSLContext], away: list[str]
    ) -> Iterator[None]:
        self.azure, self.vault, self.ca = azure, vault, trust[0]
        closed, silent, *_ = away
        with standing_in(lambda _: _error(503, "Busy"), trust[1]) as broken:
            self.places = [*(url.replace("http:", "https:") for url in (closed, silent)), broken.url]
            yield

    def make(self) -> SecretProvider:
        return provider_at(self.azure.url, self.ca)

    def own_secrets(self) -> Sequence[str]:
        return [TOKEN]

    def put(self, name: str, material: str) -> str:
        return self.vault.put(name, json.dumps({"key": material})) + "#key"

    def missing(self) -> Sequence[str]:
        there = self.put("there", "x")
        self.vault.put("disabled", None)
        malformed = ["", "a", "team/", "/n", "team/n/x", "team/n?x", "te.am/n", "team/n#k@", "team/n#k@XYZ", "team/n\n"]
        return ["team/nothing", f"{there}@7", f"{there}x", "team/disabled", *malformed]

    def absent(self) -> Sequence[str]:
        there = self.put("there", "x")
        return ["team/nothing", f"{there}@7", f"{there}x"]

    def garbage(self) -> Sequence[str]:
        text, number = self.vault.put("text", MATERIAL), self.vault.put("number", '{"key": 5}')
        return [f"{text}#key", f"{number}#key", self.vault.put("large", MATERIAL * 3000)]

    def away(self) -> Sequence[tuple[SecretProvider, str]]:
        return [(provider_at(url, self.ca, timeout=0.3), "team/x") for url in self.places]


def test_a_version_is_picked_and_named(azure: StandIn, vault: Vault, trust: tuple[str, ssl.SSLContext]) -> None:
    """The newest when left out; the version is Azure's own id."""
    for material in ("one", "two"):
        vault.put("v", material)
    provider = provider_at(azure.url, trust[0])
    got = [provider.fetch(f"team/v{version}") for version in ("", f"#@{1:032x}")]
    assert [(secret.reveal(), secret.version) for secret in got] == [
        (b"two", f"azure/{2:032x}"),
        (b"one", f"azure/{1:032x}"),
    ]


def test_each_vault_has_an_address_of_its_own() -> None:
    """Made of its name, which is letters, digits and hyphens."""
    clients = AzureClients(credential=Credential)
    with clients.connect("my-vault", 1.0) as client:
        assert client.vault_url == "https://my-vault.vault.azure.net"


ANSWERS = {400: False, 403: False, 404: False, 429: True, 500: True, 503: True}


@pytest.mark.parametrize(("status", "outage"), ANSWERS.items())
def test_what_azure_refuses_is_told(status: int, outage: bool, trust: tuple[str, ssl.SSLContext]) -> None:
    """By its status, not by its text; asked once, after the challenge."""

    def answer(asked: Asked) -> tuple[Any, ...]:
        return _error(status, "Any") if "authorization" in asked.headers else (401, {}, CHALLENGE)

    with standing_in(answer, trust[1]) as stand_in:
        with pytest.raises(SecretUnavailable) as refused:
            provider_at(stand_in.url, trust[0]).fetch("team/n")
        # Its package remembers challenges by host and port, and a port may have been another test's.
        assert len([one for one in stand_in.asked if "authorization" in one.headers]) == 1
    assert (refused.value.outage, MATERIAL in refused.value.detail) == (outage, False)
    assert refused.value.detail.endswith(f"({status})")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"value": null}', b'{"value": "x", "id": "nowhere"}'])
def test_what_does_not_answer_as_azure_is_refused(body: bytes, trust: tuple[str, ssl.SSLContext]) -> None:
    """Nothing that is not a secret is taken for one."""

    def answer(asked: Asked) -> tuple[Any, ...]:
        return (200, body) if "authorization" in asked.headers else (401, {}, CHALLENGE)

    with standing_in(answer, trust[1]) as stand_in, pytest.raises(SecretUnavailable) as refused:
        provider_at(stand_in.url, trust[0]).fetch("team/n")
    assert refused.value.detail.startswith("azure: team/n ")


def test_a_certificate_of_somebody_else_is_no_azure(trust: tuple[str, ssl.SSLContext], tmp_path: Path) -> None:
    """The token is not shown to it."""
    (tmp_path / "other.pem").write_bytes(trustme.CA().cert_pem.bytes())
    with standing_in(Vault().answer, trust[1]) as stand_in:
        with pytest.raises(SecretUnavailable, match="Azure does not answer") as refused:
            provider_at(stand_in.url, str(tmp_path / "other.pem")).fetch("team/n")
        assert stand_in.asked == []
    assert refused.value.outage


def test_what_the_environment_lacks_is_told(azure: StandIn, trust: tuple[str, ssl.SSLContext]) -> None:
    """No credentials are no outage."""
    provider = provider_at(azure.url, trust[0], error=CredentialUnavailableError(message=MATERIAL))
    with pytest.raises(SecretUnavailable, match="there are no good credentials for Azure") as refused:
        provider.fetch("team/n")
    assert (refused.value.outage, MATERIAL in refused.value.detail) == (False, False)
