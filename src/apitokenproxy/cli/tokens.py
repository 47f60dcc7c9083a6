"""`apitokenproxy tokens`: hand tokens out and look at them. What changes them is in `token_changes`."""

import json
import sys
from datetime import timedelta

import click

from apitokenproxy.cli import token_changes, token_derivation
from apitokenproxy.cli.options import config_option, examples, printable
from apitokenproxy.cli.token_options import attributes, hand_out, id_argument, lifetime, opened, person
from apitokenproxy.cli.token_tables import as_json as in_json
from apitokenproxy.cli.token_tables import details, event_as_json, minute, print_table, retiring, until
from apitokenproxy.errors import ConfigurationError


@click.group(
    epilog=examples(
        "TOKEN=$(apitokenproxy tokens issue --tenant acme)",
        "apitokenproxy tokens list",
        "apitokenproxy tokens rotate ID",
        "apitokenproxy tokens derive ID --expires-in 15m",
        "apitokenproxy tokens revoke ID",
    )
)
def tokens() -> None:
    """Hand out client tokens, look at them, replace them, derive lesser ones, take them back."""


for command in (*token_changes.COMMANDS, token_derivation.derive, token_derivation.narrow):
    tokens.add_command(command)


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
    "--attr", "attributes", multiple=True, callback=attributes, metavar="K=V", help="An attribute; may be repeated."
)
@click.option(
    "--expires-in",
    callback=lifetime,
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
    with opened(config, create=True) as authority:
        issued = authority.issue(
            tenant=tenant, subject=subject, scopes=scopes, attributes=attributes, expires_in=expires_in, by=person()
        )
        info = authority.get(issued.id)
    otherwise = f"run: apitokenproxy tokens revoke {issued.id}, and issue another"
    if as_json:
        hand_out(json.dumps({"token": issued.token, **in_json(info)}), otherwise)
        return
    click.echo(f"id {issued.id}, tenant {tenant}, {until(info)}", err=True)
    click.echo('use it where the API key goes, for example: curl -H "Authorization: Bearer $TOKEN" ...', err=True)
    hand_out(issued.token, otherwise)


@tokens.command("list", epilog=examples("apitokenproxy tokens list", "apitokenproxy tokens list --tenant acme --json"))
@config_option
@click.option("--tenant", help="Only this tenant's.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON, one token a line.")
def list_(config: str, tenant: str | None, as_json: bool) -> None:
    """List tokens, oldest first, and which of them are still used in an old generation."""
    with opened(config) as authority:
        found = authority.list(tenant=tenant)
    if as_json:
        for info in found:
            click.echo(json.dumps(in_json(info)))
        return
    rows = [("ID", "STATE", "TENANT", "SUBJECT", "SCOPES", "CREATED", "EXPIRES", "LAST USED", "OLD GENERATION")]
    rows += [
        (
            info.id,
            info.state,
            info.tenant,
            info.subject or "-",
            " ".join(sorted(info.scopes)) or "-",
            minute(info.created),
            minute(info.expires, "never"),
            minute(info.last_used),
            retiring(info),
        )
        for info in found
    ]
    print_table(rows)


@tokens.command(epilog=examples("apitokenproxy tokens show Ab12Cd34Ef56"))
@config_option
@id_argument
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def show(config: str, token_id: str, as_json: bool) -> None:
    """Show a token by its id: what it says, its generations, and what was done to it."""
    with opened(config, token_id) as authority:
        info = authority.get(token_id)
        events = authority.events(token_id)
    values = in_json(info)
    if as_json:
        click.echo(json.dumps({**values, "events": list(map(event_as_json, events))}))
        return
    for key, value in values.items():
        if key == "generations":
            continue
        shown = " ".join(value) if isinstance(value, list) else value
        if isinstance(value, dict):
            shown = " ".join(f"{name}={item}" for name, item in value.items())
        click.echo(f"{key:<10}  {'-' if shown in (None, '') else printable(str(shown))}")
    click.echo()
    rows = [("GENERATION", "STATE", "CREATED", "FIRST USED", "LAST USED", "USES", "ENDS")]
    rows += [
        (
            str(one.number),
            one.state,
            minute(one.created),
            minute(one.first_used),
            minute(one.last_used),
            str(one.uses),
            minute(one.ends),
        )
        for one in info.generations
    ]
    print_table(rows)
    click.echo()
    print_table(
        [("WHEN", "WHAT", "BY", "DETAILS")]
        + [(minute(one.at), one.action, one.actor or "-", details(one.details)) for one in events]
    )
