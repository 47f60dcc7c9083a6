"""The schemes that every proxy knows. Those that need an extra are imported when a reference names them."""

from collections.abc import Callable
from typing import Protocol

from apitokenproxy.errors import ConfigurationError, SecretUnavailable
from apitokenproxy.interfaces import SecretProvider
from apitokenproxy.messages import Secret
from apitokenproxy.secrets.env import EnvProvider
from apitokenproxy.secrets.exec import ExecProvider
from apitokenproxy.secrets.file import FileProvider


class Plain(Protocol):
    """A provider that is written as `def`, and says how long what it returns is good."""

    ttl: float

    def fetch(self, reference: str) -> Secret:
        """Do what a SecretProvider does."""


class OnDemand:
    """A provider that is made when the first reference names its scheme.

    `make` imports and makes it; `extra` is what it needs installed.
    """

    def __init__(self, scheme: str, extra: str, make: Callable[[], Plain]) -> None:
        self._scheme = scheme
        self._extra = extra
        self._make = make
        self._made: Plain | None = None

    @property
    def ttl(self) -> float:
        """That of the provider, in seconds."""
        return self._provider().ttl

    def prepare(self) -> None:
        """Make the provider. Raises ConfigurationError for a missing extra or what the provider finds missing."""
        self._provider()

    def fetch(self, reference: str) -> Secret:
        """Return what the provider returns. Raises SecretUnavailable."""
        try:
            provider = self._provider()
        except ConfigurationError as error:
            raise SecretUnavailable(str(error)) from None
        return provider.fetch(reference)

    def _provider(self) -> Plain:
        if self._made is None:
            try:
                self._made = self._make()
            except ImportError as error:
                raise ConfigurationError(
                    f"secret references {self._scheme}:… need {error.name or 'a package'}, which is not installed; "
                    f"run: pip install 'apitokenproxy[{self._extra}]'"
                ) from None
        return self._made


def built_in_providers() -> dict[str, SecretProvider]:
    """Return a provider for each scheme. Nothing is imported, opened or read yet."""
    return {
        "env": EnvProvider(),
        "file": FileProvider(),
        "exec": ExecProvider(),
        "vault": OnDemand("vault", "vault", _vault),
        "aws": OnDemand("aws", "aws", _aws),
        "ssm": OnDemand("ssm", "aws", _ssm),
        "kms": OnDemand("kms", "aws", _kms),
        "sealed": OnDemand("sealed", "sealed", _sealed),
        "keyring": OnDemand("keyring", "keyring", _keyring),
        "gcp": OnDemand("gcp", "gcp", _gcp),
        "azure": OnDemand("azure", "azure", _azure),
    }


def _vault() -> Plain:
    from apitokenproxy.secrets.vault import VaultProvider  # noqa: PLC0415 - needs the extra

    return VaultProvider()


def _aws() -> Plain:
    from apitokenproxy.secrets.aws import AwsSecretsProvider  # noqa: PLC0415 - needs the extra

    return AwsSecretsProvider()


def _ssm() -> Plain:
    from apitokenproxy.secrets.ssm import AwsParametersProvider  # noqa: PLC0415 - needs the extra

    return AwsParametersProvider()


def _kms() -> Plain:
    from apitokenproxy.secrets.kms import AwsKmsProvider  # noqa: PLC0415 - needs the extra

    return AwsKmsProvider()


def _sealed() -> Plain:
    from apitokenproxy.secrets.sealed import SealedProvider  # noqa: PLC0415 - needs the extra

    return SealedProvider()


def _keyring() -> Plain:
    from apitokenproxy.secrets.keyring import KeyringProvider  # noqa: PLC0415 - needs the extra

    return KeyringProvider()


def _gcp() -> Plain:
    from apitokenproxy.secrets.gcp import GcpSecretsProvider  # noqa: PLC0415 - needs the extra

    return GcpSecretsProvider()


def _azure() -> Plain:
    from apitokenproxy.secrets.azure import AzureSecretsProvider  # noqa: PLC0415 - needs the extra

    return AzureSecretsProvider()
