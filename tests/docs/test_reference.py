"""The tables of the documentation and the code say the same."""

import inspect
import re
import tomllib
from typing import Any

import pytest
from attrs import NOTHING, fields, frozen
from blocks import ROOT

import apitokenproxy
from apitokenproxy import (
    Basic,
    Bearer,
    BodyField,
    ConfigurationError,
    Cookie,
    GitHubApp,
    GoogleServiceAccount,
    Header,
    HmacSignature,
    JwtBearer,
    Limit,
    OAuth2ClientCredentials,
    OAuth2RefreshToken,
    OAuth2TokenExchange,
    Proxy,
    Query,
    Rotation,
    Rule,
    Timeouts,
    Upstream,
    config,
)
from apitokenproxy.audit.writer import MAX_PENDING
from apitokenproxy.credentials.sigv4 import SigV4
from apitokenproxy.durations import parse_duration
from apitokenproxy.errors import all_errors
from apitokenproxy.forwarders.wire import MAX_POOLS
from apitokenproxy.identity.jwt import JwtIdentity
from apitokenproxy.identity.verified import Verified
from apitokenproxy.limits.memory import MemoryLimiter
from apitokenproxy.messages import AuditRecord
from apitokenproxy.secrets.aws import AwsSecretsProvider
from apitokenproxy.secrets.azure import AzureSecretsProvider
from apitokenproxy.secrets.builtin import built_in_providers
from apitokenproxy.secrets.cache import MAX_REFERENCES
from apitokenproxy.secrets.env import EnvProvider
from apitokenproxy.secrets.exec import ExecProvider
from apitokenproxy.secrets.file import FileProvider
from apitokenproxy.secrets.gcp import GcpSecretsProvider
from apitokenproxy.secrets.keyring import KeyringProvider
from apitokenproxy.secrets.kms import AwsKmsProvider
from apitokenproxy.secrets.sealed import SealedProvider
from apitokenproxy.secrets.ssm import AwsParametersProvider
from apitokenproxy.secrets.vault import VaultProvider
from apitokenproxy.testing import MemoryAudit

CONFIGURATION = ROOT / "docs" / "configuration.md"
CONCEPTS = ROOT / "docs" / "concepts.md"
SECRETS = ROOT / "docs" / "secrets.md"

NOT_IN_A_FILE = {
    "Proxy": {"self", "upstreams", "rules", "limits", "identity", "secret_providers"},
    "Upstream": {"name", "transport"},
    "JwtIdentity": {"self", "clock", "timer"},
    "HmacSignature": {"clock"},
    "OAuth2ClientCredentials": {"clock"},
    "OAuth2RefreshToken": {"clock"},
    "OAuth2TokenExchange": {"clock"},
    "JwtBearer": {"clock"},
    "GitHubApp": {"clock"},
    "GoogleServiceAccount": {"clock"},
    "SigV4": {"clock"},
}
"""What is written otherwise in a file (tables of their own, the table's name) or only in Python."""


@frozen
class Key:
    """One row of a table of keys. `default` is a Python value; REQUIRED and None as such."""

    name: str
    default: Any


REQUIRED = "required"

IN_A_FILE = {"Proxy": {"store": Key("store", config.DEFAULT_STORE)}, "Limit": {"id": Key("name", REQUIRED)}}
"""Where a file has another default, or another name, than Python."""


def rows(text: str, marker: str) -> list[list[str]]:
    """Return the cells of the table below a marker, without its head."""
    _, found, after = text.partition(f"<!-- {marker} -->\n")
    assert found, f"there is no table marked {marker}"
    lines = after.strip().split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def documented(name: str) -> list[Key]:
    """Return the keys that the reference lists for a class."""
    return [Key(row[0].strip("`"), _default(row[2])) for row in rows(CONFIGURATION.read_text(), f"keys: {name}")]


def _default(cell: str) -> Any:
    if cell == REQUIRED:
        return REQUIRED
    if not cell.startswith("`"):
        return None
    value = tomllib.loads(f"value = {cell.strip('`')}")["value"]
    try:
        return parse_duration(value)
    except (ConfigurationError, TypeError):  # any other kind of value
        return value


def accepted(cls: type) -> list[Key]:
    """Return the keys that a class takes, in its own order."""
    ignored = NOT_IN_A_FILE.get(cls.__name__, set())
    if cls in {Proxy, JwtIdentity}:
        parameters = inspect.signature(cls.__init__).parameters.values()
        found = [(p.name, NOTHING if p.default is p.empty else p.default) for p in parameters]
    else:
        found = [(field.name, field.default) for field in fields(cls) if field.init]
    written = IN_A_FILE.get(cls.__name__, {})
    return [written.get(name, Key(name, _plain(default))) for name, default in found if name not in ignored]


def _plain(default: Any) -> Any:
    """Return a default as a file would write it."""
    if default is NOTHING:
        return REQUIRED
    if isinstance(default, Timeouts | Rotation):
        return None  # a table of its own
    return list(default) if isinstance(default, tuple) else default


CREDENTIALS = [
    Bearer,
    Basic,
    Header,
    Query,
    Cookie,
    BodyField,
    HmacSignature,
    OAuth2ClientCredentials,
    OAuth2RefreshToken,
    OAuth2TokenExchange,
    JwtBearer,
    GitHubApp,
    GoogleServiceAccount,
    SigV4,
]


@pytest.mark.parametrize("cls", [Proxy, JwtIdentity, Upstream, Timeouts, Rotation, *CREDENTIALS, Rule, Limit])
def test_every_key_is_in_the_reference_with_its_default(cls: type) -> None:
    """The reference lists exactly the keys that the code takes, in the same order, with the same defaults."""
    assert documented(cls.__name__) == accepted(cls)


def test_every_credential_kind_is_in_the_reference() -> None:
    """Each public class of the package that is bound to a secret has a table of keys."""
    kinds = {name for name in apitokenproxy.__all__ if hasattr(getattr(apitokenproxy, name), "bind")}
    # SigV4 needs an extra, and HttpxAuth is made of Python objects.
    assert kinds - {"HttpxAuth"} == {cls.__name__ for cls in CREDENTIALS} - {"SigV4"}
    assert all(documented(name) for name in kinds - {"HttpxAuth"})


def test_every_error_code_is_in_the_table() -> None:
    """The table of codes is errors.py: every status, code and title, in order, and no other."""
    table = [tuple(row) for row in rows(CONCEPTS.read_text(), "table: errors.all_errors()")]
    errors = sorted({(str(error.status), f"`{error.code}`", error.title) for error in all_errors()})
    assert table == errors


def test_every_field_of_the_audit_record_is_explained() -> None:
    """The table of the audit record names its fields, in their order."""
    names = [
        name for row in rows(CONCEPTS.read_text(), "fields: AuditRecord") for name in re.findall(r"`(\w+)`", row[0])
    ]
    assert names == [field.name for field in fields(AuditRecord)]


def test_every_provider_is_in_the_table_with_its_ttl() -> None:
    """The table of references has the built-in schemes, each with how long its secrets are kept."""
    table = {row[0].strip("`").partition(":")[0]: row[2] for row in rows(SECRETS.read_text(), "table: providers")}
    classes = {
        "env": EnvProvider,
        "file": FileProvider,
        "exec": ExecProvider,
        "vault": VaultProvider,
        "aws": AwsSecretsProvider,
        "ssm": AwsParametersProvider,
        "kms": AwsKmsProvider,
        "sealed": SealedProvider,
        "keyring": KeyringProvider,
        "gcp": GcpSecretsProvider,
        "azure": AzureSecretsProvider,
    }
    ttls = {scheme: cls.ttl for scheme, cls in classes.items()}
    assert list(built_in_providers()) == list(classes)
    assert {scheme: kept.split(" s")[0] for scheme, kept in table.items()} == {k: f"{v:g}" for k, v in ttls.items()}


def test_figures_in_the_text_are_those_of_the_code() -> None:
    """Bounds that the pages name are the code's own."""
    concepts, architecture = CONCEPTS.read_text(), (ROOT / "docs" / "architecture.md").read_text()
    assert f"at most {_default_of(MemoryLimiter, 'max_keys'):,} keys" in concepts
    assert f"limit keys ({_default_of(MemoryLimiter, 'max_keys'):,} each)" in architecture
    assert f"{MAX_PENDING:,} waiting" in concepts
    assert f"audit records in memory ({MAX_PENDING:,})" in architecture
    assert f"verified tokens ({_default_of(Verified, 'maxsize'):,};" in architecture
    assert f"secrets ({MAX_REFERENCES:,} references a scheme)" in architecture
    assert f"tenants with connections of their own ({MAX_POOLS} for an upstream)" in architecture
    assert f"Of {MAX_POOLS} tenants connections are kept" in (ROOT / "docs" / "credentials.md").read_text()
    assert f"`Timeouts(read={Timeouts().read:g})`" in CONFIGURATION.read_text()


def _default_of(cls: type, parameter: str) -> Any:
    return inspect.signature(cls).parameters[parameter].default


def test_the_changelog_knows_the_version() -> None:
    """The version in pyproject.toml has a section of its own, or is what [Unreleased] becomes."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert f"## [{version}]" in changelog or f"What becomes {version}:" in changelog


def test_every_public_name_is_used_in_the_documentation() -> None:
    """Whoever reads all pages has met every public name."""
    pages = "\n".join(page.read_text() for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
    pages += "\n".join(example.read_text() for example in (ROOT / "examples").glob("*.py"))
    assert [name for name in apitokenproxy.__all__ if not re.search(rf"\b{name}\b", pages)] == []


def test_fakes_are_named_in_the_documentation() -> None:
    """The public fakes are named where their users look for them."""
    text = (ROOT / "docs" / "secrets.md").read_text()
    fakes = [
        name
        for name, value in vars(apitokenproxy.testing).items()
        if inspect.isclass(value) and value.__module__ == MemoryAudit.__module__
    ]
    assert [name for name in fakes if f"`{name}`" not in text] == []
