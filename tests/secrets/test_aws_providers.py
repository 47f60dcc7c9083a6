"""`aws:` and `ssm:`, against moto's server, which stands in for AWS; and places that are away."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer
from places import away, standing_in
from secret_calls import MATERIAL

from apitokenproxy import SecretUnavailable
from apitokenproxy.interfaces import SecretProvider
from apitokenproxy.secrets.aws import AwsSecretsProvider
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
    with pytest.raises(SecretUnavailable, match="no region is known; set AWS_REGION"):
        AwsSecretsProvider(endpoint="http://127.0.0.1:1").fetch("x")
