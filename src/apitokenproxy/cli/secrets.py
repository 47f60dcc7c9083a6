"""`apitokenproxy secrets`: look at the versions of upstreams' secrets, prove, promote and take them back."""

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import click
from attrs import asdict

from apitokenproxy.cli import sealing
from apitokenproxy.cli.options import config_option, examples
from apitokenproxy.cli.token_options import opened_proxy, person
from apitokenproxy.cli.token_tables import iso, minute, print_table
from apitokenproxy.rotation.authority import VersionInfo
from apitokenproxy.rotation.versions import MOST_OK

_upstream = click.argument("upstream")
_as_json = click.option("--json", "as_json", is_flag=True, help="Print as JSON, one version a line.")


def _caller_options(command: Callable[..., Any]) -> Callable[..., Any]:
    subject = click.option("--subject", default="", help="Whose, where references hold {subject}.")
    return click.option("--tenant", default="", help="Whose, where references hold {tenant}.")(subject(command))


@click.group(
    "secrets",
    epilog=examples(
        "apitokenproxy secrets status",
        "apitokenproxy secrets probe github",
        "apitokenproxy secrets promote github",
        "apitokenproxy secrets rollback github",
        "apitokenproxy secrets seal acme/github < token",
    ),
)
def secrets() -> None:
    """Look at the versions of upstreams' secrets; prove, promote and take back candidates; seal secrets in a file.

    Secrets are read as the proxy reads them, so run this with its environment. What is changed holds for all its
    processes within a second. A version is named by an id that tells nothing about the secret.
    """


@secrets.command(epilog=examples("apitokenproxy secrets status", "apitokenproxy secrets status github --tenant acme"))
@config_option
@click.argument("upstream", required=False)
@_caller_options
@_as_json
def status(config: str, upstream: str | None, tenant: str, subject: str, as_json: bool) -> None:
    """Show which versions there are, which one is live, and how far a candidate has come."""
    with opened_proxy(config) as proxy:
        found = proxy.versions.status(upstream, tenant=tenant, subject=subject)
        wanted = {name: one.rotation.successes for name, one in proxy.upstreams.items()}
    if as_json:
        _print_json(found)
        return
    rows = [("UPSTREAM", "ROLE", "VERSION", "STATE", "SINCE", "BY")]
    rows += [
        (
            one.upstream,
            one.role,
            one.version or "-",
            _state(one, wanted[one.upstream]),
            minute(one.since),
            one.by or "-",
        )
        for one in found
    ]
    print_table(rows)


@secrets.command(
    epilog=examples("apitokenproxy secrets probe github", "apitokenproxy secrets probe github --path /user")
)
@config_option
@_upstream
@click.option(
    "--path", default="", metavar="/PATH", help="What to GET. Left out: the probe of the upstream's rotation."
)
@_caller_options
@_as_json
def probe(config: str, upstream: str, path: str, tenant: str, subject: str, as_json: bool) -> None:
    """Send one request with each version and show what the upstream answers.

    It counts for the candidate as any other request does: it may be promoted or rolled back by it. One that was
    rolled back and is accepted now begins anew. Exit code 1 when the candidate, or where there is none the current
    version, is not accepted.
    """
    with opened_proxy(config) as proxy:
        found = proxy.versions.probe(upstream, path, tenant=tenant, subject=subject)
        wanted = proxy.upstreams[upstream].rotation.successes
    if as_json:
        _print_json(found)
        _end(found)
    rows = [("UPSTREAM", "ROLE", "VERSION", "ANSWER", "STATE")]
    rows += [(one.upstream, one.role, one.version or "-", str(one.status or "-"), _state(one, wanted)) for one in found]
    print_table(rows)
    _end(found)


@secrets.command(epilog=examples("apitokenproxy secrets promote github"))
@config_option
@_upstream
@_caller_options
def promote(config: str, upstream: str, tenant: str, subject: str) -> None:
    """Make the candidate the live version, whatever is known of it.

    Without a candidate, the current one that was rolled back.
    """
    with opened_proxy(config) as proxy:
        info = proxy.versions.promote(upstream, tenant=tenant, subject=subject, by=person())
    click.echo(
        f"{upstream}: version {info.version} is live; take it back with: apitokenproxy secrets rollback {upstream}"
    )


@secrets.command(epilog=examples("apitokenproxy secrets rollback github"))
@config_option
@_upstream
@_caller_options
def rollback(config: str, upstream: str, tenant: str, subject: str) -> None:
    """Take the candidate back, promoted or not; where there is none, the current version for the previous one."""
    with opened_proxy(config) as proxy:
        info = proxy.versions.roll_back(upstream, tenant=tenant, subject=subject, by=person())
        live = [
            one for one in proxy.versions.status(upstream, tenant=tenant, subject=subject) if one.standing == "live"
        ]
    now = f"; version {live[0].version} is live" if live else ""
    click.echo(f"{upstream}: version {info.version} was rolled back{now}")


for command in sealing.COMMANDS:
    secrets.add_command(command)


def _end(found: Sequence[VersionInfo]) -> NoReturn:
    sys.exit(0 if found[0].status is not None and found[0].status <= MOST_OK else 1)


def _state(info: VersionInfo, successes: int) -> str:
    if info.standing == "missing":
        return f"cannot be had: {info.problem}"
    return f"proving, {info.accepted} of {successes}" if info.standing == "proving" else info.standing


def _print_json(found: Sequence[VersionInfo]) -> None:
    for one in found:
        click.echo(json.dumps({**asdict(one), "since": iso(one.since)}))
