"""`gcp:`, against a stand-in for Secret Manager's HTTP API (REST reference, projects.secrets.versions.access)."""

import base64
import json
import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pytest
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import DefaultCredentialsError
from google.cloud.secretmanager_v1 import SecretManagerServiceClient
from google.cloud.secretmanager_v1.services.secret_manager_service.transports import SecretManagerServiceRestTransport
from places import Asked, StandIn, away, standing_in
from secret_calls import MATERIAL

from apitokenproxy import SecretUnavailable
from apitokenproxy.interfaces import SecretProvider
from apitokenproxy.secrets.gcp import GcpSecretsProvider
from apitokenproxy.testing import SecretProviderConformance

__all__ = ["away"]

_PATH = re.compile(r"/v1/projects/(?P<project>[^/]+)/secrets/(?P<name>[^/]+)/versions/(?P<version>[^/:]+):access\?.*")


class Manager:
    """Secrets by name, each with its versions; a version that is None was destroyed."""

    def __init__(self) -> None:
        self.held: dict[str, list[bytes | None]] = {}

    def put(self, name: str, material: bytes | None) -> str:
        self.held.setdefault(name, []).append(material)
        return f"my-project/{name}"

    def answer(self, asked: Asked) -> tuple[Any, ...]:
        found = _PATH.fullmatch(asked.path)
        if asked.method != "GET" or found is None or found["project"] != "my-project":
            return _error(403, "PERMISSION_DENIED")
        versions = self.held.get(found["name"], [])
        number = len(versions) if found["version"] == "latest" else int(found["version"])
        if not 0 < number <= len(versions):
            return _error(404, "NOT_FOUND")
        material = versions[number - 1]
        if material is None:
            return _error(400, "FAILED_PRECONDITION")
        name = f"projects/123456/secrets/{found['name']}/versions/{number}"
        return 200, {"name": name, "payload": {"data": base64.b64encode(material).decode()}}


def _error(code: int, status: str) -> tuple[int, Any]:
    return code, {"error": {"code": code, "message": f"about {MATERIAL}", "status": status}}


def connect(url: str) -> SecretManagerServiceClient:
    """Return the client, pointed at a stand-in."""
    scheme, _, host = url.partition("://")
    transport = SecretManagerServiceRestTransport(host=host, credentials=AnonymousCredentials(), url_scheme=scheme)
    return SecretManagerServiceClient(transport=transport)


def provider_at(url: str, timeout: float = 5.0) -> GcpSecretsProvider:
    return GcpSecretsProvider(connect=partial(connect, url), timeout=timeout)


@pytest.fixture
def manager() -> Manager:
    return Manager()


@pytest.fixture
def google(manager: Manager) -> Iterator[StandIn]:
    with standing_in(manager.answer) as stand_in:
        yield stand_in


class TestGcp(SecretProviderConformance):
    """Google Cloud Secret Manager."""

    @pytest.fixture(autouse=True)
    def _place(self, google: StandIn, manager: Manager, away: list[str]) -> None:
        self.google, self.manager = google, manager
        closed, silent, _slow, broken = away
        self.places = closed, silent, broken

    def make(self) -> SecretProvider:
        return provider_at(self.google.url)

    def put(self, name: str, material: str) -> str:
        return self.manager.put(name, json.dumps({"key": material}).encode()) + "#key"

    def missing(self) -> Sequence[str]:
        there = self.put("there", "x")
        self.manager.put("gone", None)
        malformed = ["", "a", "p/", "/n", "p/n/x", "p/n?x", "P/n", "p/n#k@", "p/n#k@1/2", "p/../n", "p/n\n"]
        return [
            "my-project/nothing",
            f"{there}@7",
            f"{there}x",
            "other-project/there",
            "my-project/gone",
            *malformed,
        ]

    def absent(self) -> Sequence[str]:
        there = self.put("there", "x")
        return ["my-project/nothing", f"{there}@7", f"{there}x"]

    def garbage(self) -> Sequence[str]:
        text = self.manager.put("text", MATERIAL.encode())
        number = self.manager.put("number", b'{"key": 5}')
        return [f"{text}#key", f"{number}#key", self.manager.put("large", MATERIAL.encode() * 3000)]

    def away(self) -> Sequence[tuple[SecretProvider, str]]:
        return [(provider_at(url, 0.3), "my-project/x") for url in self.places]


def test_a_version_is_picked_and_named(google: StandIn, manager: Manager) -> None:
    """The newest when left out; the version is Google's own number, also of a secret without keys."""
    for material in (b"one", b"two"):
        manager.put("v", material)
    provider = provider_at(google.url)
    got = [provider.fetch(f"my-project/v{version}") for version in ("", "#@1", "#@latest")]
    assert [(secret.reveal(), secret.version) for secret in got] == [
        (b"two", "gcp/2"),
        (b"one", "gcp/1"),
        (b"two", "gcp/2"),
    ]


@pytest.mark.parametrize(("status", "outage"), [(400, False), (403, False), (429, True), (500, True), (503, True)])
def test_what_google_refuses_is_told(status: int, outage: bool) -> None:
    """By its status, not by its text; asked once."""
    with standing_in(lambda _: _error(status, "ANY")) as stand_in:
        with pytest.raises(SecretUnavailable) as refused:
            provider_at(stand_in.url).fetch("p/n")
        assert len(stand_in.asked) == 1
    assert (refused.value.outage, MATERIAL in refused.value.detail) == (outage, False)
    assert refused.value.detail.endswith(f"({status})")


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"{}", b'{"payload": {"data": 5}}', b'{"payload": []}', b'{"payload": {"data": "%%"}}'],
)
def test_what_does_not_answer_as_google_is_refused(body: bytes) -> None:
    """Nothing that is not a secret is taken for one."""
    with standing_in(lambda _: (200, body)) as stand_in, pytest.raises(SecretUnavailable) as refused:
        provider_at(stand_in.url).fetch("p/n")
    assert refused.value.detail.startswith("gcp: p/n ")


def test_credentials_that_are_not_accepted_are_told() -> None:
    """Google's client tries to renew them; these cannot be."""
    with standing_in(lambda _: _error(401, "UNAUTHENTICATED")) as stand_in, pytest.raises(SecretUnavailable) as refused:
        provider_at(stand_in.url).fetch("p/n")
    assert not refused.value.outage
    assert "there are no good credentials for Google" in refused.value.detail


def test_what_the_environment_lacks_is_told() -> None:
    """No credentials are no outage."""

    def nobody() -> Any:
        raise DefaultCredentialsError(MATERIAL)

    with pytest.raises(SecretUnavailable, match="there are no good credentials for Google") as refused:
        GcpSecretsProvider(connect=nobody).fetch("p/n")
    assert (refused.value.outage, MATERIAL in refused.value.detail) == (False, False)
