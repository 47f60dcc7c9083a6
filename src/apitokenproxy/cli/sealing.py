"""`apitokenproxy secrets new-key, seal, reseal`: the encrypted file of `sealed:` references."""

import sys
from typing import Any

import click

from apitokenproxy.cli.options import examples
from apitokenproxy.errors import ConfigurationError

_LONGEST = 65536


@click.command("new-key", epilog=examples("apitokenproxy secrets new-key > master-key"))
def new_key() -> None:
    """Print a new master key. Keep it where the file is not: in a secret manager, or under AWS KMS."""
    _provider()
    from apitokenproxy.sealing import new_master_key  # noqa: PLC0415 - needs the extra `sealed`

    click.echo(new_master_key())


@click.command(
    epilog=examples(
        "apitokenproxy secrets seal acme/github < token",
        "apitokenproxy secrets seal stripe < key",
    )
)
@click.argument("name", metavar="[TENANT/]NAME")
def seal(name: str) -> None:
    """Seal what stands on stdin as a new version of a secret; the one before stays live as NAME#previous.

    APITOKENPROXY_SEALED_FILE names the file, APITOKENPROXY_SEALED_KEY the reference to its master key. One
    newline at the end is not part of the secret.
    """
    provider = _provider()()
    material = sys.stdin.buffer.read(_LONGEST + 1) if sys.stdin else b""
    if len(material) > _LONGEST:
        raise ConfigurationError("sealed: a secret has at most 64 KiB")
    version = provider.seal(name, material.removesuffix(b"\n").removesuffix(b"\r"))
    click.echo(f"sealed:{name} is version {version} now")


@click.command(epilog=examples("apitokenproxy secrets reseal"))
def reseal() -> None:
    """Seal everything anew that is still under the old master key, in one step.

    APITOKENPROXY_SEALED_KEY names the new key, APITOKENPROXY_SEALED_OLD_KEY the old one: give both to the running
    proxy first, and take the old one away afterwards.
    """
    count = _provider()().reseal()
    click.echo(f"{count} {'version is' if count == 1 else 'versions are'} sealed under the new master key")


def _provider() -> Any:
    try:
        from apitokenproxy.secrets.sealed import SealedProvider  # noqa: PLC0415 - needs the extra `sealed`
    except ImportError:
        raise ConfigurationError(
            "sealed: cryptography is not installed; run: pip install 'apitokenproxy[sealed]'"
        ) from None
    return SealedProvider


COMMANDS = (new_key, seal, reseal)
