"""`apitokenproxy tokens`: hand tokens out, look at them, take them back."""

import json
import sys
from datetime import timedelta
from typing import Any, NoReturn

import click

from apitokenproxy.cli.options import config_option, examples
from apitokenproxy.config import read_config
from apitokenproxy.durations import parse_duration
from apitokenproxy.errors import ConfigurationError, TokenNotFound
from apitokenproxy.proxy import Proxy


@click.group(
    epilog=examples(
        "TOKEN=$(apitokenproxy tokens issue --tenant acme)",
        "apitokenproxy tokens list",
        "apitokenproxy tokens revoke ID",
    )
)
def tokens() -> None:
    """Hand out client tokens, look at them, take them back."""


def _proxy(config: str) -> Proxy:
    settings = read_config(config)
    if settings["store"] == "memory:":
        raise ConfigurationError(
            f"{config}: proxy.store: is memory:, which ends with the process that issued the token; use sqlite:///FILE"
        )
    # Nothing is forwarded, so nothing is recorded: an audit file made here could have the wrong owner.
    return Proxy(**settings | {"audit": None})


def _attributes(_context: click.Context, _parameter: click.Parameter, pairs: tuple[str, ...]) -> dict[str, str]:
    attributes = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{pair!r} is not like org=octocat")
        attributes[key] = value
    return attributes


def _lifetime(_context: click.Context, _parameter: click.Parameter, text: str | None) -> timedelta | None:
    try:
        lifetime = None if text is None else parse_duration(text)
    except ConfigurationError as error:
        raise click.BadParameter(str(error)) from None
    if lifetime == timedelta():
        raise click.BadParameter(f"{text!r} is no time at all")
    return lifetime


@tokens.command(
    epilog=examples(
        "TOKEN=$(apitokenproxy tokens issue --tenant acme)",
        "apitokenproxy tokens issue --tenant acme --subject ci --scope github:read --expires-in 30d",
        "apitokenproxy tokens issue --tenant acme --attr org=octocat --json",
    )
)
@config_option
@click.option("--tenant", required=True, help="Whom it is for: a customer, a team.")
@click.option("--subject", default="", help="Which user or program of the tenant.")
@click.option("--scope", "scopes", multiple=True, help="A scope it carries; may be repeated.")
@click.option(
    "--attr", "attributes", multiple=True, callback=_attributes, metavar="K=V", help="An attribute; may be repeated."
)
@click.option(
    "--expires-in",
    callback=_lifetime,
    metavar="TIME",
    help="How long it is good for, as 12h or 30d. Left out: for ever.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def issue(
    config: str,
    tenant: str,
    subject: str,
    scopes: tuple[str, ...],
    attributes: dict[str, str],
    expires_in: timedelta | None,
    as_json: bool,
) -> None:
    """Issue a token. It is shown this once: alone on stdout, its details on stderr."""
    if sys.stdout is None:
        raise ConfigurationError("stdout is closed, so nobody could read the token; no token was issued")
    proxy = _proxy(config)
    issued = proxy.tokens.issue(
        tenant=tenant, subject=subject, scopes=scopes, attributes=attributes, expires_in=expires_in
    )
    info = proxy.tokens.get(issued.id)
    proxy.close()
    if as_json:
        click.echo(json.dumps({"token": issued.token, **_as_json(info)}))
        return
    click.echo(f"id {issued.id}, tenant {tenant}, {_until(info)}", err=True)
    click.echo('use it where the API key goes, for example: curl -H "Authorization: Bearer $TOKEN" ...', err=True)
    click.echo(issued.token)


@tokens.command("list", epilog=examples("apitokenproxy tokens list", "apitokenproxy tokens list --tenant acme --json"))
@config_option
@click.option("--tenant", help="Only this tenant's.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON, one token a line.")
def list_(config: str, tenant: str | None, as_json: bool) -> None:
    """List tokens, oldest first."""
    proxy = _proxy(config)
    found = proxy.tokens.list(tenant=tenant)
    proxy.close()
    if as_json:
        for info in found:
            click.echo(json.dumps(_as_json(info)))
        return
    rows = [("ID", "STATE", "TENANT", "SUBJECT", "SCOPES", "CREATED", "EXPIRES")]
    rows += [
        (
            info.id,
            info.state,
            info.tenant,
            info.subject or "-",
            " ".join(sorted(info.scopes)) or "-",
            f"{info.created:%Y-%m-%d %H:%M}",
            f"{info.expires:%Y-%m-%d %H:%M}" if info.expires else "never",
        )
        for info in found
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@tokens.command(epilog=examples("apitokenproxy tokens show Ab12Cd34Ef56"))
@config_option
@click.argument("token_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def show(config: str, token_id: str, as_json: bool) -> None:
    """Show a token by its id."""
    proxy = _proxy(config)
    try:
        info = proxy.tokens.get(token_id)
    except TokenNotFound:
        _no_such(token_id)
    finally:
        proxy.close()
    values = _as_json(info)
    if as_json:
        click.echo(json.dumps(values))
        return
    for key, value in values.items():
        shown = " ".join(value) if isinstance(value, list) else value
        if isinstance(value, dict):
            shown = " ".join(f"{name}={item}" for name, item in value.items())
        click.echo(f"{key:<10}  {'-' if shown in (None, '') else shown}")


@tokens.command(epilog=examples("apitokenproxy tokens revoke Ab12Cd34Ef56"))
@config_option
@click.argument("token_id", metavar="ID")
def revoke(config: str, token_id: str) -> None:
    """Revoke a token by its id. Running proxies refuse it within `revocation_bound`."""
    proxy = _proxy(config)
    try:
        info = proxy.tokens.revoke(token_id)
    except TokenNotFound:
        _no_such(token_id)
    finally:
        proxy.close()
    click.echo(f"{info.id} of {info.tenant} is revoked")


def _no_such(token_id: str) -> NoReturn:
    shown = f"{token_id[:8]}…" if token_id.startswith("atp_") else token_id
    hint = "; that is a token, not its id" if token_id.startswith("atp_") else ""
    click.secho(
        f"error: there is no token with the id {shown}{hint}; see: apitokenproxy tokens list", fg="red", err=True
    )
    sys.exit(1)


def _until(info: Any) -> str:
    return f"expires {info.expires:%Y-%m-%d %H:%M} UTC" if info.expires else "does not expire"


def _as_json(info: Any) -> dict[str, Any]:
    return {
        "id": info.id,
        "state": info.state,
        "tenant": info.tenant,
        "subject": info.subject,
        "scopes": sorted(info.scopes),
        "attributes": dict(info.attributes),
        "created": info.created.isoformat(),
        "expires": info.expires.isoformat() if info.expires else None,
        "revoked": info.revoked.isoformat() if info.revoked else None,
    }
