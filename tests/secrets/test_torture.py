"""Torture: each call to a place fails in turn, in every way, and comes to one end: a clear refusal.

Nothing of the secret, of what the proxy logs in with or of what came instead of the secret is shown anywhere; and
when the place works again, the next request is served.
"""

import asyncio
import base64
import json
import logging
import os
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from azure.core.credentials import AccessTokenInfo
from azure.keyvault.secrets._shared import http_challenge_cache
from google.auth.credentials import AnonymousCredentials
from google.cloud.secretmanager_v1 import SecretManagerServiceClient
from google.cloud.secretmanager_v1.services.secret_manager_service.transports import SecretManagerServiceRestTransport
from places import away, closed_port
from secret_calls import COLOURS, MATERIAL
from torture import GARBAGE, WAYS, Good, Hostile, http, mutations, serving

from apitokenproxy import Bearer, OAuth2ClientCredentials, Proxy, Rule, Upstream
from apitokenproxy.credentials import access_token, tokens
from apitokenproxy.messages import Secret
from apitokenproxy.sealing import MasterKey, new_master_key
from apitokenproxy.secrets.aws import AwsSecretsProvider
from apitokenproxy.secrets.azure import AzureClients, AzureSecretsProvider
from apitokenproxy.secrets.exec import ExecProvider
from apitokenproxy.secrets.file import FileProvider
from apitokenproxy.secrets.gcp import GcpSecretsProvider
from apitokenproxy.secrets.kms import AwsKmsProvider
from apitokenproxy.secrets.sealed import SealedProvider
from apitokenproxy.secrets.sealed_file import Place, SealedFile
from apitokenproxy.secrets.ssm import AwsParametersProvider
from apitokenproxy.secrets.vault import VaultProvider
from apitokenproxy.secrets.vault_login import VaultAppRole, VaultToken
from apitokenproxy.testing import FixedSecrets, MemoryAudit
from leaks.forms import assert_clean

__all__ = ["away"]

TIMEOUT = 1.0
KEY = "aws-key/4be0c7a1935d82f6aws-key"
TOKEN = "t0ken.6f3a18c9d2e7b054.t0ken"
LOGIN = "l0gin-secret-c05e9b37a1d4f286"
HIDDEN = {"material": MATERIAL, "garbage": GARBAGE, "key": KEY, "token": TOKEN, "login": LOGIN}
REFUSED = {"secret_unavailable", "secret_missing"}


class World:
    """A proxy in one colour whose one credential comes from a place, and all that it writes down."""

    def __init__(self, colour: str, credential: Any, log: pytest.LogCaptureFixture, **providers: Any) -> None:
        self.colour = colour
        self.sent: list[str] = []
        self.audit = MemoryAudit()
        self._log = log
        self._asked = [credential, *providers.values()]
        transport = httpx.MockTransport(self._answer if colour == "sync" else self._aanswer)
        self.proxy = Proxy(
            upstreams=[Upstream("api", "https://api.example.com", credential=credential, transport=transport)],
            rules=[Rule("all", effect="allow")],
            audit=self.audit,
            secret_providers=providers,
        )
        self._token = self.proxy.tokens.issue(tenant="acme").token

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request.headers["Authorization"])
        return httpx.Response(200)

    async def _aanswer(self, request: httpx.Request) -> httpx.Response:
        return self._answer(request)

    def forget(self, call: str) -> None:
        """Have this call made again: what logs in, and what is asked for and kept for longer than a moment."""
        for each in self._asked:
            if isinstance(each, VaultProvider):
                each._begin_anew()
            elif isinstance(each, OAuth2ClientCredentials):
                each._tokens._kept.clear()
                each._tokens._failed.clear()
            elif isinstance(each, AzureSecretsProvider) and call == "challenge":
                each._made.clear()
                http_challenge_cache.clear()

    def ask(self) -> str:
        """Ask once, and return the code of the refusal; empty when it was served with the right secret."""
        self.sent.clear()
        self.audit.records.clear()
        self._log.clear()
        if self.colour == "sync":
            with httpx.Client(transport=self.proxy.transport(self._token)) as client:
                answer = client.get("http://proxy/api/x")
        else:
            answer = asyncio.run(self._aask())
        [record] = self.audit.records
        logged = "\n".join(f"{self._log.handler.format(each)} {vars(each)!r}" for each in self._log.records)
        outputs = {"answer": answer.text, "headers": str(answer.headers), "audit": repr(record), "log": logged}
        assert_clean(HIDDEN, {name: text.encode() for name, text in outputs.items()})
        if answer.status_code == 200:
            assert self.sent == [f"Bearer {MATERIAL}"]
            return ""
        assert (answer.status_code, answer.headers["X-Proxy-Error"], self.sent) == (503, record.code, [])
        assert record.reason.isprintable()
        assert len(record.reason) < 300
        assert "raised" not in record.reason  # it is said what went wrong, and not only in which exception it ended
        return record.code

    async def _aask(self) -> httpx.Response:
        async with httpx.AsyncClient(transport=self.proxy.async_transport(self._token)) as client:
            return await client.get("http://proxy/api/x")


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """Return what holds all that any logger is told."""
    monkeypatch.setattr(logging.getLogger("google"), "propagate", True)
    for name in [*logging.root.manager.loggerDict, ""]:
        caplog.set_level(1, name)
    return caplog


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ACCESS_KEY_ID": "AKIATEST", "SECRET_ACCESS_KEY": KEY, "DEFAULT_REGION": "eu-west-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setitem(access_token.ask_for_token.__kwdefaults__, "seconds", TIMEOUT)
    monkeypatch.setattr(tokens, "SECONDS", TIMEOUT)
    monkeypatch.setattr(tokens, "_LONGEST_PAUSE", 0.0)


# --- the places -----------------------------------------------------------------------------


def called(**targets: str) -> Callable[[str, str, dict[str, str]], str]:
    """Return what names a request by what its target or its X-Amz-Target ends with."""

    def name_of(_method: str, target: str, fields: dict[str, str]) -> str:
        path = fields.get("x-amz-target", target.partition("?")[0])
        return next((name for name, end in targets.items() if path.endswith(end)), "")

    return name_of


def vault(login: Any, first: dict[str, Good]) -> tuple[Hostile, Callable[[str], Any]]:
    mount = {"path": "secret/", "type": "kv", "options": {"version": "2"}}
    calls = first | {"mount": Good({"data": mount})}
    calls |= {"read": Good({"data": {"data": {"key": MATERIAL}, "metadata": {"version": 3}}})}
    targets = {"login": "/login", "look": "/lookup-self", "mount": "/mounts/secret/app", "read": "/data/app"}
    hostile = Hostile(called(**targets), calls)
    return hostile, lambda url: VaultProvider(url, login=login, timeout=TIMEOUT)


def vault_by_role() -> tuple[Hostile, Callable[[str], Any]]:
    auth = {"client_token": TOKEN, "lease_duration": 3600, "renewable": True}
    return vault(VaultAppRole("a-role", LOGIN), {"login": Good({"auth": auth})})


def vault_by_token() -> tuple[Hostile, Callable[[str], Any]]:
    return vault(VaultToken(TOKEN), {"look": Good({"data": {"ttl": 3600, "renewable": True}})})


def vault_leased() -> tuple[Hostile, Callable[[str], Any]]:
    hostile, make = vault_by_role()
    hostile.calls["mount"] = Good({"data": {"path": "secret/", "type": "database"}})
    lease = {"lease_id": "secret/data/app/1f2e3d4c", "lease_duration": 600, "renewable": True}
    hostile.calls["read"] = Good({"data": {"key": MATERIAL}, **lease})
    hostile.name_of = called(login="/login", mount="/mounts/secret/data/app", read="/v1/secret/data/app")
    return hostile, make


def aws() -> tuple[Hostile, Callable[[str], Any]]:
    said = {"ARN": "arn:x", "Name": "app", "VersionId": "v-1", "SecretString": MATERIAL}
    hostile = Hostile(called(get="GetSecretValue"), {"get": Good(said)})
    return hostile, lambda url: AwsSecretsProvider(endpoint=url, timeout=TIMEOUT)


def ssm() -> tuple[Hostile, Callable[[str], Any]]:
    said = {"Parameter": {"Name": "/app", "Type": "SecureString", "Value": MATERIAL, "Version": 3}}
    hostile = Hostile(called(get="GetParameter"), {"get": Good(said)})
    return hostile, lambda url: AwsParametersProvider(endpoint=url, timeout=TIMEOUT)


def kms() -> tuple[Hostile, Callable[[str], Any]]:
    said = {"KeyId": "arn:x", "Plaintext": base64.b64encode(MATERIAL.encode()).decode()}
    hostile = Hostile(called(decrypt="Decrypt"), {"decrypt": Good(said)})
    return hostile, lambda url: AwsKmsProvider(endpoint=url, timeout=TIMEOUT)


def gcp() -> tuple[Hostile, Callable[[str], Any]]:
    said = {
        "name": "projects/1/secrets/app/versions/3",
        "payload": {"data": base64.b64encode(MATERIAL.encode()).decode()},
    }

    def connect(url: str) -> SecretManagerServiceClient:
        scheme, _, host = url.partition("://")
        transport = SecretManagerServiceRestTransport(host=host, credentials=AnonymousCredentials(), url_scheme=scheme)
        return SecretManagerServiceClient(transport=transport)

    hostile = Hostile(called(access=":access"), {"access": Good(said)})
    return hostile, lambda url: GcpSecretsProvider(connect=partial(connect, url), timeout=TIMEOUT)


class _Credential:
    def get_token_info(self, *_scopes: str, **_options: Any) -> AccessTokenInfo:
        return AccessTokenInfo(TOKEN, 2**31)


def azure(ca: str) -> tuple[Hostile, Callable[[str], Any]]:
    challenge = 'Bearer authorization="https://login.microsoftonline.com/a", resource="https://vault.azure.net"'
    said = {
        "value": MATERIAL,
        "id": f"https://team.vault.azure.net/secrets/app/{3:032x}",
        "attributes": {"enabled": True},
    }

    def name_of(_method: str, _target: str, fields: dict[str, str]) -> str:
        return "get" if "authorization" in fields else "challenge"

    calls = {"challenge": Good({}, 401, (("WWW-Authenticate", challenge),)), "get": Good(said)}

    def make(url: str) -> AzureSecretsProvider:
        options = {"connection_verify": ca, "verify_challenge_resource": False}
        clients = AzureClients(url=url, credential=_Credential, options=options)
        return AzureSecretsProvider(clients=clients, timeout=TIMEOUT)

    return Hostile(name_of, calls), make


PLACES: dict[str, tuple[Any, str, list[str]]] = {
    "vault by role": (vault_by_role, "secret/app#key", ["login", "mount", "read"]),
    "vault by token": (vault_by_token, "secret/app#key", ["look"]),
    "vault, leased": (vault_leased, "secret/data/app#key", ["mount", "read"]),
    "aws": (aws, "app", ["get"]),
    "ssm": (ssm, "/app", ["get"]),
    "kms": (kms, "{file}", ["decrypt"]),
    "gcp": (gcp, "my-project/app", ["access"]),
    "azure": (azure, "team/app", ["challenge", "get"]),
}
EVERY_CALL = [(place, call) for place, (_, _, calls) in PLACES.items() for call in calls] + [("oauth2", "token")]
IN_COLOURS = [("sync", *each) for each in EVERY_CALL] + [
    ("async", *each) for each in EVERY_CALL if each[0] in {"vault by role", "aws", "oauth2"}
]
"""A provider works in a thread in either colour; one that is called in several steps is shown in both."""


_WHOLE = {"shorter than it says": ""}  # botocore does not count; JSON that is whole is
BETTER = {
    # What such a call is asked for is not needed to serve the request, or is there in spite of all.
    ("aws", "get"): _WHOLE,
    ("ssm", "get"): _WHOLE,
    ("kms", "decrypt"): _WHOLE,
    ("vault by token", "look"): {"403 and the secret": "", "a deep secret": "", "invalid UTF-8": ""},
}
"""Where the right secret is sent all the same."""


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ssl.SSLContext]:
    """Return the file of an authority, and the context of a server that it vouches for."""
    authority, file = trustme.CA(), tmp_path_factory.mktemp("trust") / "ca.pem"
    file.write_bytes(authority.cert_pem.bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return str(file), context


@contextmanager
def running(
    place: str, colour: str, log: pytest.LogCaptureFixture, trust: tuple[str, ssl.SSLContext], url: str | None = None
) -> Iterator[tuple[Hostile, World]]:
    """Run a place and a proxy that asks it, or `url`, anew for each request."""
    if place == "oauth2":
        hostile = Hostile(called(token="/token"), {})
        hostile.calls["token"] = Good({"access_token": MATERIAL, "token_type": "Bearer", "expires_in": 10.1})
    elif place == "azure":
        hostile, make = azure(trust[0])
    else:
        hostile, make = PLACES[place][0]()
    with serving(hostile, trust[1] if place == "azure" else None):
        if place == "oauth2":
            asked = f"{url or hostile.url}/token"
            credential = OAuth2ClientCredentials(asked, "a-client", "fixed:login", allow_private=True)
            world = World(colour, credential, log, fixed=FixedSecrets(login=LOGIN))
        else:
            provider = make(url or hostile.url)
            provider.ttl = 0.0
            reference = PLACES[place][1].replace("{file}", trust[0])  # any file will do
            world = World(colour, Bearer(f"place:{reference}"), log, place=provider)
        yield hostile, world
        world.proxy.close()


# --- what comes over the network ------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize(("colour", "place", "call"), IN_COLOURS)
def test_whatever_a_call_comes_back_with_the_request_is_refused(
    colour: str, place: str, call: str, log: pytest.LogCaptureFixture, trust: tuple[str, ssl.SSLContext]
) -> None:
    """In each way, with a code that says so; the next request after it is served."""
    with running(place, colour, log, trust) as (hostile, world):
        told = {}
        for name, way in WAYS.items():
            world.forget(call)
            hostile.spoil(call, way)
            told[name] = world.ask(), world.audit.records[0].reason
            hostile.recover()
            assert world.ask() == "", (name, told[name])
        expected = dict.fromkeys(WAYS, "secret_unavailable") | BETTER.get((place, call), {})
        assert {name: what for name, what in told.items() if what[0] != expected[name]} == {}
        assert call in hostile.asked


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("place", [*PLACES, "oauth2"])
def test_where_nobody_listens_the_request_is_refused(
    colour: str, place: str, log: pytest.LogCaptureFixture, trust: tuple[str, ssl.SSLContext]
) -> None:
    """And it is known for an outage."""
    scheme = "https" if place == "azure" else "http"
    with running(place, colour, log, trust, f"{scheme}://127.0.0.1:{closed_port()}") as (_, world):
        assert world.ask() == "secret_unavailable"


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("place", ["vault by token", "oauth2"])
def test_an_answer_that_comes_a_byte_at_a_time_is_given_up(
    colour: str, place: str, log: pytest.LogCaptureFixture, trust: tuple[str, ssl.SSLContext], away: list[str]
) -> None:
    """In its time, so that it holds no place: else nothing could be asked for again before it ended."""
    _, _, slow, _ = away
    with running(place, colour, log, trust, slow) as (_, world):
        assert world.ask() == "secret_unavailable"
        assert re.search("ReadTimeout|it took too long", world.audit.records[0].reason)


@pytest.mark.long
@pytest.mark.parametrize(("place", "call"), EVERY_CALL)
def test_an_answer_of_other_types_is_refused_or_changes_nothing(
    place: str, call: str, log: pytest.LogCaptureFixture, trust: tuple[str, ssl.SSLContext]
) -> None:
    """Each part of the right answer in turn is left out, and is each other thing that JSON can hold."""
    with running(place, "sync", log, trust) as (hostile, world):
        good = hostile.calls[call]
        for said in mutations(good.said):
            world.forget(call)
            body = json.dumps(said).encode()
            hostile.spoil(call, lambda _, body=body: http(good.status, body, *good.fields))  # type: ignore[misc]
            assert world.ask() in {"", *REFUSED}, said
        hostile.recover()
        world.forget(call)
        assert world.ask() == ""


FORBIDDEN = [
    "\n",
    f"{MATERIAL}\n",
    f"a\r\nX-Admin: {MATERIAL}",
    f"\x00{MATERIAL}",
    f"{MATERIAL}\x7f",
    f"\x1b[2J{MATERIAL}",
]


@pytest.mark.long
@pytest.mark.parametrize("place", [*PLACES, "oauth2"])
@pytest.mark.parametrize("colour", COLOURS)
def test_a_secret_that_cannot_be_sent_is_refused(
    colour: str, place: str, log: pytest.LogCaptureFixture, trust: tuple[str, ssl.SSLContext]
) -> None:
    """It would end the header in which it stands; nothing of it is shown."""
    with running(place, colour, log, trust) as (hostile, world):
        *_, call = hostile.calls
        good = hostile.calls[call].body
        for material in FORBIDDEN:
            world.forget(call)
            body = good.replace(MATERIAL.encode(), json.dumps(material).encode()[1:-1])
            body = body.replace(base64.b64encode(MATERIAL.encode()), base64.b64encode(material.encode()))
            assert body != good
            hostile.spoil(call, lambda _, body=body: http(200, body))  # type: ignore[misc]
            assert world.ask() == "secret_unavailable", material
            hostile.recover()
            world.forget(call)
            assert world.ask() == ""


# --- what is on this machine ----------------------------------------------------------------

PROGRAMS = {
    "fails": "echo {material}; echo {garbage} >&2; exit 3",
    "is killed": "echo {material}; kill -9 $$",
    "prints nothing": "echo {garbage} >&2",
    "prints a newline": "echo",
    "prints two lines": "echo {material}; echo {material}",
    "prints control characters": "printf '{material}\\000\\033'",
    "prints too much": "while echo {garbage}; do :; done",
    "hangs": "exec sleep 60",
    "prints and hangs": "echo {material}; exec sleep 60",
    "closes its output and hangs": "echo {material}; exec >&-; exec sleep 60",
    "leaves a child behind": "sleep 60 & echo {material}",
    "is no program": None,
    "is not there": None,
}


@pytest.mark.long
@pytest.mark.parametrize("colour", COLOURS)
def test_whatever_a_program_does_the_request_is_refused(
    colour: str, log: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """And when it prints the secret again, the next one is served."""
    program = tmp_path / "program"
    provider = ExecProvider(TIMEOUT)
    provider.ttl = 0.0
    world = World(colour, Bearer(f"program:{program} an-argument"), log, program=provider)

    def write(script: str | None) -> None:
        program.unlink(missing_ok=True)
        program.write_text(f"#!/bin/sh\n{script.format(material=MATERIAL, garbage=GARBAGE)}\n" if script else GARBAGE)
        program.chmod(0o700)

    for name, script in PROGRAMS.items():
        write(script)
        if name == "is not there":
            program.unlink()
        assert world.ask() == "secret_unavailable", name
        write("echo {material}")
        assert world.ask() == "", name
    world.proxy.close()


def _content(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def _long(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(64 << 20)


def _link(path: Path) -> None:
    path.symlink_to(path)


ON_DISK: dict[str, Callable[[Path], object]] = {
    "empty": _content(b""),
    "a page": _content(f"<html>\n{GARBAGE}\n".encode()),
    "random bytes": _content(bytes(range(256)) + GARBAGE.encode()),
    "two lines": _content(f"{MATERIAL}\n{GARBAGE}".encode()),
    "too large": _content(GARBAGE.encode() * (1 << 20)),
    "of nothing but NUL": _long,
    "deep lists": _content(b"[" * 200_000),
    "invalid UTF-8": _content(b'{"\xff": "%b\n"}' % GARBAGE.encode()),
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a link to itself": _link,
}


def swapped(path: Path, make: Callable[[Path], object]) -> None:
    """Put something else in a file's place."""
    path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
    make(path)


@pytest.mark.parametrize("colour", COLOURS)
def test_whatever_stands_in_a_files_place_the_request_is_refused(
    colour: str, log: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """And when the secret is there again, the next one is served."""
    provider, path = FileProvider(), tmp_path / "key"
    provider.ttl = 0.0
    world = World(colour, Bearer(f"place:{path}"), log, place=provider)
    for name, make in ON_DISK.items():
        swapped(path, make)
        assert world.ask() == "secret_unavailable", name
        swapped(path, _content(MATERIAL.encode()))
        assert world.ask() == "", name
    path.unlink()
    assert world.ask() == "secret_missing"
    world.proxy.close()


@pytest.mark.parametrize("colour", COLOURS)
def test_whatever_stands_in_place_of_a_login_nobody_waits_for_it(
    colour: str, log: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """The file of a Vault token: what cannot be one is refused, and what could be is Vault's to judge."""
    path, (hostile, _) = tmp_path / "token", vault_by_token()
    with serving(hostile):
        provider = VaultProvider(hostile.url, login=VaultToken(file=str(path)), timeout=TIMEOUT)
        provider.ttl = 0.0
        world = World(colour, Bearer("place:secret/app#key"), log, place=provider)
        for name, make in ON_DISK.items():
            swapped(path, make)
            world.forget("look")
            assert world.ask() in {"", "secret_unavailable"}, name
            swapped(path, _content(TOKEN.encode()))
            world.forget("look")
            assert world.ask() == "", name
        path.unlink()
        world.forget("look")
        assert world.ask() == "secret_unavailable"
        world.proxy.close()


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("spoiled", ["sealed", "master"])
def test_whatever_stands_in_place_of_sealed_secrets_or_their_key_the_request_is_refused(
    colour: str, spoiled: str, log: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """The file of secrets and that of its master key, each as any other file, and cut short anywhere."""
    written = new_master_key()
    (tmp_path / "master").write_text(written)
    SealedFile(tmp_path / "sealed").put(Place("acme", "api"), MATERIAL, MasterKey(Secret(written)))
    keys, path = FileProvider(), tmp_path / spoiled
    keys.ttl = 0.0
    provider = SealedProvider(str(tmp_path / "sealed"), [f"file:{tmp_path / 'master'}"], providers={"file": keys})
    provider.ttl = 0.0
    world, good = World(colour, Bearer("place:acme/api"), log, place=provider), path.read_bytes()
    cut = {f"cut to {length}": _content(good[:length]) for length in range(1, len(good) - 2, 7)}
    for name, make in [*ON_DISK.items(), *cut.items()]:
        swapped(path, make)
        assert world.ask() == "secret_unavailable", name
        swapped(path, _content(good))
        assert world.ask() == "", name
    world.proxy.close()


@pytest.mark.parametrize("colour", COLOURS)
def test_sealed_secrets_of_other_types_are_refused_or_change_nothing(
    colour: str, log: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Each part of the file in turn is left out, and is each other thing that JSON can hold."""
    written, path = new_master_key(), tmp_path / "sealed"
    (tmp_path / "master").write_text(written)
    SealedFile(path).put(Place("acme", "api"), MATERIAL, MasterKey(Secret(written)))
    provider = SealedProvider(str(path), [f"file:{tmp_path / 'master'}"])
    provider.ttl = 0.0
    world = World(colour, Bearer("place:acme/api"), log, place=provider)
    for said in mutations(json.loads(path.read_text())):
        path.write_text(json.dumps(said))
        assert world.ask() in {"", *REFUSED}, said
    world.proxy.close()
