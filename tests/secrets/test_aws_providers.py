"""`aws:`, `ssm:` and `kms:`, against moto's server, which stands in for AWS; and places that are away."""

import base64
import json
import os
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer
from places import away, standing_in
from secret_calls import MATERIAL, Hand

from apitokenproxy import Secret, SecretUnavailable
from apitokenproxy.interfaces import SecretProvider
from apitokenproxy.sealing import MasterKey, new_master_key
from apitokenproxy.secrets.aws import AwsSecretsProvider
from apitokenproxy.secrets.kms import AwsKmsProvider
from apitokenproxy.secrets.sealed import SealedProvider
from apitokenproxy.secrets.sealed_file import Place, SealedFile
from apitokenproxy.secrets.ssm import AwsParametersProvider
from apitokenproxy.testing import SecretProviderConformance

__all__ = ["away"]

KEY_ID, KEY = "AKIATESTTESTTESTTEST", "testtesttesttesttesttesttesttesttesttest"


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    """Return the address of moto's server, on a port of its own."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def manager(moto: str) -> Iterator[Any]:
    client = boto3.client("secretsmanager", endpoint_url=moto)
    yield client
    client.close()


@pytest.fixture
def kms(moto: str) -> Iterator[Any]:
    client = boto3.client("kms", endpoint_url=moto)
    yield client
    client.close()


@pytest.fixture
def store(moto: str) -> Iterator[Any]:
    client = boto3.client("ssm", endpoint_url=moto)
    yield client
    client.close()


class TestSecretsManager(SecretProviderConformance):
    """AWS Secrets Manager."""

    @pytest.fixture(autouse=True)
    def _place(self, moto: str, manager: Any, away: list[str]) -> None:
        self.url, self.manager = moto, manager
        closed, silent, _slow, broken = away
        self.places = closed, silent, broken

    def make(self) -> SecretProvider:
        return AwsSecretsProvider(endpoint=self.url)

    def own_secrets(self) -> Sequence[str]:
        return [KEY]

    def hold(self, name: str, **held: Any) -> str:
        try:
            self.manager.create_secret(Name=f"app/{name}", **held)
        except self.manager.exceptions.ResourceExistsException:
            self.manager.put_secret_value(SecretId=f"app/{name}", **held)
        return f"app/{name}"

    def put(self, name: str, material: str) -> str:
        return self.hold(name, SecretString=json.dumps({"key": material})) + "#key"

    def missing(self) -> Sequence[str]:
        name = self.hold("there", SecretString='{"key": "x"}')
        malformed = ["", "#", "a b", "a#b#c", "a@\n", "a#b@", "a#b@c d"]
        return ["app/nothing", "app/nothing#key", f"{name}#other", f"{name}#key@NOSUCHSTAGE", *malformed]

    def absent(self) -> Sequence[str]:
        name = self.hold("there", SecretString='{"key": "x"}')
        return ["app/nothing", "app/nothing#key", f"{name}#other", f"{name}#key@NOSUCHSTAGE"]

    def garbage(self) -> Sequence[str]:
        values = {"empty": "", "surrogate": "\ud800", "number": 5, "object": {"key": MATERIAL}}
        name = self.hold("garbage", SecretString=json.dumps(values))
        text = self.hold("text", SecretString=f"{MATERIAL}\n")
        large = self.hold("large", SecretString=json.dumps({"key": "x", "pad": MATERIAL * 3000}))
        return [*(f"{name}#{key}" for key in values), f"{text}#key", f"{large}#key"]

    def away(self) -> Sequence[tuple[SecretProvider, str]]:
        return [(AwsSecretsProvider(endpoint=url, timeout=0.3), "app/x#key") for url in self.places]


@pytest.mark.long
class TestParameterStore(SecretProviderConformance):
    """AWS Systems Manager Parameter Store."""

    @pytest.fixture(autouse=True)
    def _place(self, moto: str, store: Any, away: list[str]) -> None:
        self.url, self.store = moto, store
        closed, silent, _slow, broken = away
        self.places = closed, silent, broken

    def make(self) -> SecretProvider:
        return AwsParametersProvider(endpoint=self.url)

    def own_secrets(self) -> Sequence[str]:
        return [KEY]

    def put(self, name: str, material: str) -> str:
        self.store.put_parameter(Name=f"/app/{name}", Value=material, Type="SecureString", Overwrite=True)
        return f"/app/{name}"

    def missing(self) -> Sequence[str]:
        return ["/app/nothing", self.put("there", "{}") + "#other", "", "a b", "a#", "a\n"]

    def absent(self) -> Sequence[str]:
        return ["/app/nothing", self.put("there", "{}") + "#other", self.put("once", "x") + ":7"]

    def garbage(self) -> Sequence[str]:
        return [self.put("text", MATERIAL) + "#key", self.put("number", json.dumps({"key": [MATERIAL]})) + "#key"]

    def away(self) -> Sequence[tuple[SecretProvider, str]]:
        return [(AwsParametersProvider(endpoint=url, timeout=0.3), "/app/x") for url in self.places]


class TestKms(SecretProviderConformance):
    """AWS Key Management Service."""

    @pytest.fixture(autouse=True)
    def _place(self, moto: str, kms: Any, away: list[str], tmp_path: Path) -> None:
        self.url, self.kms, self.folder = moto, kms, tmp_path
        self.key = kms.create_key()["KeyMetadata"]["KeyId"]
        closed, silent, _slow, broken = away
        self.places = closed, silent, broken

    def make(self) -> SecretProvider:
        return AwsKmsProvider(endpoint=self.url)

    def own_secrets(self) -> Sequence[str]:
        return [KEY]

    def put(self, name: str, material: str) -> str:
        encrypted = self.kms.encrypt(KeyId=self.key, Plaintext=material.encode())["CiphertextBlob"]
        return self.write(name, base64.b64encode(encrypted) + b"\n")

    def write(self, name: str, content: bytes) -> str:
        (self.folder / name).write_bytes(content)
        return str(self.folder / name)

    def missing(self) -> Sequence[str]:
        return [str(self.folder / "nothing"), "", "#", "a\n", "a#", "a\0b", str(self.folder)]

    def absent(self) -> Sequence[str]:
        return [str(self.folder / "nothing"), f"{self.folder}/no/folder"]

    def garbage(self) -> Sequence[str]:
        os.mkfifo(self.folder / "pipe")
        other = self.kms.create_key()["KeyMetadata"]["KeyId"]
        contents = {"empty": b"", "large": MATERIAL.encode() * 1000, "text": MATERIAL.encode(), "base64": b"AAAA"}
        return [
            *(self.write(name, content) for name, content in contents.items()),
            str(self.folder / "pipe"),
            f"{self.put('mine', MATERIAL)}#{other}",
        ]

    def away(self) -> Sequence[tuple[SecretProvider, str]]:
        file = self.put("any", MATERIAL)
        return [(AwsKmsProvider(endpoint=url, timeout=0.3), file) for url in self.places]


@pytest.mark.parametrize("written", ["as it is", "base64", "base64 in lines"])
def test_a_ciphertext_is_read_as_it_is_written(moto: str, kms: Any, tmp_path: Path, written: str) -> None:
    """By a program, by AWS's command line, by base64; the version tells it from others. The key may be pinned."""
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    kms.create_alias(AliasName=f"alias/{written.replace(' ', '-')}", TargetKeyId=key)
    encrypted = kms.encrypt(KeyId=key, Plaintext=MATERIAL.encode())["CiphertextBlob"]
    forms = {"as it is": bytes, "base64": base64.b64encode, "base64 in lines": base64.encodebytes}
    (tmp_path / "x").write_bytes(forms[written](encrypted))
    provider = AwsKmsProvider(endpoint=moto)
    for pinned in ("", f"#{key}", f"#alias/{written.replace(' ', '-')}"):
        secret = provider.fetch(f"{tmp_path}/x{pinned}")
        assert (secret.reveal(), secret.version) == (MATERIAL.encode(), f"kms/{sha256(encrypted).hexdigest()[:8]}")


def test_sealed_secrets_open_with_a_key_that_kms_made(moto: str, kms: Any, tmp_path: Path) -> None:
    """Whose bytes nobody has seen; KMS is asked once for as long as its answer may be kept."""
    identifier = kms.create_key()["KeyMetadata"]["KeyId"]
    made = kms.generate_data_key_without_plaintext(KeyId=identifier, KeySpec="AES_256")["CiphertextBlob"]
    (tmp_path / "master").write_bytes(base64.b64encode(made))
    provider, clock = Counted(moto), Hand()
    reference = f"{tmp_path / 'master'}#{identifier}"
    file = SealedFile(tmp_path / "sealed")
    file.put(Place("acme", "api"), MATERIAL, MasterKey(provider.fetch(reference)))
    sealed = SealedProvider(str(tmp_path / "sealed"), [f"kms:{reference}"], providers={"kms": provider}, clock=clock)
    for clock.now in (0.0, 1.0, 299.0):
        assert sealed.fetch("acme/api").reveal() == MATERIAL.encode()
    assert provider.asked == 2
    clock.now = 300.0
    assert sealed.fetch("acme/api").reveal() == MATERIAL.encode()
    assert provider.asked == 3
    (tmp_path / "master").unlink()
    assert sealed.fetch("acme/api").reveal() == MATERIAL.encode()
    clock.now = 600.0
    with pytest.raises(SecretUnavailable, match=r"kms: .*/master cannot be read: No such file") as refused:
        sealed.fetch("acme/api")
    assert refused.type is SecretUnavailable  # the sealed secret is there


@pytest.mark.parametrize(
    ("code", "status", "told", "outage"),
    [
        ("DisabledException", 409, "its key in KMS is disabled", False),
        ("InvalidCiphertextException", 400, "it is no ciphertext of KMS, or was changed", False),
        ("IncorrectKeyException", 400, "it was encrypted under another key", False),
        ("NotFoundException", 400, "its key in KMS is not there; see region", False),
        ("KMSInvalidStateException", 409, "its key in KMS is not enabled", False),
        ("KeyUnavailableException", 500, "AWS refuses it", True),
        ("DependencyTimeoutException", 503, "AWS refuses it", True),
        ("KMSInternalException", 500, "AWS refuses it", True),
    ],
)
def test_what_kms_refuses_is_told(tmp_path: Path, code: str, status: int, told: str, outage: bool) -> None:
    """By its code; none of them says that there is no such secret."""
    (tmp_path / "x").write_bytes(b"\x01ciphertext")
    with (
        standing_in(lambda _: (status, {"__type": code, "message": MATERIAL})) as stand_in,
        pytest.raises(SecretUnavailable) as refused,
    ):
        AwsKmsProvider(endpoint=stand_in.url).fetch(str(tmp_path / "x"))
    assert refused.value.detail == f"kms: {tmp_path}/x cannot be read: {told} ({code})"
    assert (refused.type, refused.value.outage) == (SecretUnavailable, outage)


class Counted(AwsKmsProvider):
    """Counts how often it was asked."""

    asked = 0

    def __init__(self, url: str) -> None:
        super().__init__(endpoint=url)

    def fetch(self, reference: str) -> Secret:
        self.asked += 1
        return super().fetch(reference)


def test_the_environment_may_name_a_key_in_kms(
    moto: str, kms: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `sealed:` is used: in a proxy, with nothing given in Python."""
    identifier, written = kms.create_key()["KeyMetadata"]["KeyId"], new_master_key()
    encrypted = kms.encrypt(KeyId=identifier, Plaintext=written.encode())["CiphertextBlob"]
    (tmp_path / "master").write_bytes(encrypted)
    SealedFile(tmp_path / "sealed").put(Place("acme", "api"), MATERIAL, MasterKey(Secret(written)))
    monkeypatch.setenv("APITOKENPROXY_SEALED_FILE", str(tmp_path / "sealed"))
    monkeypatch.setenv("APITOKENPROXY_SEALED_KEY", f"kms:{tmp_path / 'master'}")
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
    assert SealedProvider().fetch("acme/api").reveal() == MATERIAL.encode()


def test_two_versions_are_live_while_one_is_rotated(moto: str, manager: Any) -> None:
    """The stage picks: pending, current, previous. The version is AWS's own."""
    provider = AwsSecretsProvider(endpoint=moto)
    first = manager.create_secret(Name="rotated", SecretString="old")["VersionId"]
    second = manager.put_secret_value(SecretId="rotated", SecretString="new", VersionStages=["AWSPENDING"])["VersionId"]

    def live(*stages: str) -> list[tuple[bytes, str]]:
        secrets = [provider.fetch(f"rotated{stage}") for stage in stages]
        return [(secret.reveal(), secret.version) for secret in secrets]

    assert live("", "#@AWSCURRENT", "#@AWSPENDING") == [
        (b"old", f"aws/{first}"),
        (b"old", f"aws/{first}"),
        (b"new", f"aws/{second}"),
    ]
    manager.update_secret_version_stage(
        SecretId="rotated", VersionStage="AWSCURRENT", MoveToVersionId=second, RemoveFromVersionId=first
    )
    assert live("", "#@AWSPREVIOUS") == [(b"new", f"aws/{second}"), (b"old", f"aws/{first}")]


def test_a_secret_may_be_named_by_its_arn_and_be_binary(moto: str, manager: Any) -> None:
    """Without a key the bytes themselves are the secret."""
    arn = manager.create_secret(Name="binary", SecretBinary=b"\xff\xfe")["ARN"]
    assert AwsSecretsProvider(endpoint=moto).fetch(arn).reveal() == b"\xff\xfe"


def test_a_deleted_secret_is_gone(moto: str, manager: Any) -> None:
    """It is marked for deletion, which is an answer and no outage."""
    manager.create_secret(Name="deleted", SecretString=MATERIAL)
    manager.delete_secret(SecretId="deleted")
    with pytest.raises(SecretUnavailable, match="aws: deleted cannot be read: it is marked for deletion") as refused:
        AwsSecretsProvider(endpoint=moto).fetch("deleted")
    assert not refused.value.outage


def test_parameters_have_versions_and_labels(moto: str, store: Any) -> None:
    """As the store writes them."""
    for value in ("one", "two"):
        store.put_parameter(Name="/v/key", Value=value, Type="SecureString", Overwrite=True)
    store.label_parameter_version(Name="/v/key", ParameterVersion=1, Labels=["before"])
    provider = AwsParametersProvider(endpoint=moto)
    got = [provider.fetch(reference) for reference in ("/v/key", "/v/key:1", "/v/key:before")]
    assert [(secret.reveal(), secret.version) for secret in got] == [
        (b"two", "ssm/2"),
        (b"one", "ssm/1"),
        (b"one", "ssm/1"),
    ]


ANSWERS = {
    "denied": (400, "AccessDeniedException", False, "the proxy may not read it; grant its role that"),
    "throttled": (400, "ThrottlingException", True, "AWS refuses it (ThrottlingException)"),
    "internal": (500, "InternalServiceError", True, "AWS refuses it (InternalServiceError)"),
    "wrong credentials": (400, "UnrecognizedClientException", False, "the credentials are not accepted"),
    "its key is gone": (400, "DecryptionFailure", False, "AWS refuses it (DecryptionFailure)"),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_what_aws_refuses_is_told(answer: str) -> None:
    """By its code, not by its text."""
    status, code, outage, told = ANSWERS[answer]
    with standing_in(lambda _: (status, {"__type": code, "message": MATERIAL})) as stand_in:
        with pytest.raises(SecretUnavailable) as refused:
            AwsSecretsProvider(endpoint=stand_in.url).fetch("x")
        assert len(stand_in.asked) == 1
    assert (refused.value.outage, MATERIAL in refused.value.detail) == (outage, False)
    assert refused.value.detail.startswith(f"aws: x cannot be read: {told}")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"SecretString": {}, "Parameter": {"Value": {}}}'])
@pytest.mark.parametrize("provider", [AwsSecretsProvider, AwsParametersProvider])
def test_what_does_not_answer_as_aws_is_refused(provider: Any, body: bytes) -> None:
    """Nothing that is not a secret is taken for one."""
    with standing_in(lambda _: (200, body)) as stand_in, pytest.raises(SecretUnavailable) as refused:
        provider(endpoint=stand_in.url).fetch("x")
    assert refused.value.detail.partition(": x ")[0] in {"aws", "ssm"}


def test_what_the_environment_lacks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A region, or credentials."""
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(SecretUnavailable, match="there are no credentials for AWS"):
        AwsSecretsProvider(endpoint="http://127.0.0.1:1").fetch("x")
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(SecretUnavailable, match="no region is known; set AWS_DEFAULT_REGION"):
        AwsSecretsProvider(endpoint="http://127.0.0.1:1").fetch("x")
