"""The commands that change tokens, and the one that finds them in files."""

import json
import sys
from datetime import timedelta
from typing import Any, BinaryIO

import click

from apitokenproxy.cli.options import config_option, examples, printable
from apitokenproxy.cli.token_options import (
    attributes,
    duration,
    hand_out,
    id_argument,
    lifetime,
    opened,
    person,
    token_from_stdin,
)
from apitokenproxy.cli.token_tables import iso, minute
from apitokenproxy.errors import ConfigurationError, TokenNotFound
from apitokenproxy.identity.scanning import found_in


@click.command(
    epilog=examples(
        "TOKEN=$(apitokenproxy tokens rotate Ab12Cd34Ef56)",
        "apitokenproxy tokens rotate Ab12Cd34Ef56 --overlap 30d --complete-when-idle 48h --at-most 60d",
        "apitokenproxy tokens rotate Ab12Cd34Ef56 --overlap 0s",
    )
)
@config_option
@id_argument
@click.option(
    "--overlap", callback=duration, metavar="TIME", default="7d", help="How long the old secret lives on; 7d."
)
@click.option(
    "--complete-when-idle",
    callback=duration,
    metavar="TIME",
    help="End the old secret when nobody has used it for that long, be it earlier or later than the overlap.",
)
@click.option("--at-most", callback=duration, metavar="TIME", help="When the old secret ends in any case.")
@click.option("--key", help="Makes the command safe to repeat: with the same key nothing is done twice.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def rotate(
    config: str,
    token_id: str,
    overlap: timedelta,
    complete_when_idle: timedelta | None,
    at_most: timedelta | None,
    key: str | None,
    as_json: bool,
) -> None:
    """Make a new secret for a token; the id stays. The new token is shown this once, alone on stdout."""
    if sys.stdout is None:
        raise ConfigurationError("stdout is closed, so nobody could read the token; nothing was rotated")
    with opened(config, token_id) as authority:
        made = authority.rotate(
            token_id,
            overlap=overlap,
            complete_when_idle=complete_when_idle,
            at_most=at_most,
            key=key,
            by=person(),
        )
    back = f"run: apitokenproxy tokens undo {made.id}, and rotate again" if overlap else "rotate again"
    otherwise = f"generation {made.generation} of {made.id} is made; {back}{', with another key' if key else ''}"
    if as_json:
        values = {"id": made.id, "generation": made.generation, "old_ends": iso(made.old_ends)}
        hand_out(json.dumps({"token": made.token, **values}), otherwise)
    elif made.token is None:
        click.echo(
            f"generation {made.generation} of {made.id} was made with this key before; its token was shown then",
            err=True,
        )
        click.echo(f"if it was lost, run: apitokenproxy tokens undo {made.id}, and rotate with another key", err=True)
    else:
        click.echo(
            f"generation {made.generation} of {made.id}; the old secret ends {minute(made.old_ends)} UTC", err=True
        )
        hand_out(made.token, otherwise)


@click.command(epilog=examples("apitokenproxy tokens undo Ab12Cd34Ef56"))
@config_option
@id_argument
def undo(config: str, token_id: str) -> None:
    """Take a rotation back while its overlap lasts: the new secret ends at once, the old one lives on."""
    with opened(config, token_id) as authority:
        authority.undo(token_id, by=person())
    click.echo(f"the last rotation of {token_id} is undone")


@click.command(
    epilog=examples(
        "apitokenproxy tokens revoke Ab12Cd34Ef56",
        "apitokenproxy tokens revoke --tenant acme",
        "apitokenproxy tokens revoke --token-stdin < leaked.txt",
    )
)
@config_option
@click.argument("token_id", metavar="[ID]", required=False)
@click.option("--tenant", help="Every token of this tenant.")
@click.option("--subject", help="Only those of this subject of the tenant.")
@click.option("--token-stdin", is_flag=True, help="The token whose string comes on stdin.")
def revoke(config: str, token_id: str | None, tenant: str | None, subject: str | None, token_stdin: bool) -> None:
    """End tokens for good: by id, by tenant, or by a token found in a leak.

    Running proxies refuse them within `revocation_bound`.
    """
    if sum((token_id is not None, tenant is not None, token_stdin)) != 1 or (subject is not None and tenant is None):
        raise click.UsageError("name one of: an ID, --tenant (perhaps with --subject), --token-stdin")
    with opened(config, token_id) as authority:
        if tenant is not None:
            ended = authority.revoke_all(tenant=tenant, subject=subject, by=person())
            if not ended:
                whose = tenant if subject is None else f"{subject} of {tenant}"
                raise ConfigurationError(
                    f"there is no token of {whose} to revoke; see: apitokenproxy tokens list --tenant {tenant}"
                )
            tokens, are = ("token", "is") if len(ended) == 1 else ("tokens", "are")
            click.echo(f"{len(ended)} {tokens} of {tenant} {are} revoked")
            return
        if token_id is not None:
            info = authority.revoke(token_id, by=person())
        else:
            try:
                info = authority.revoke_leaked(token_from_stdin(), by=person())
            except TokenNotFound as error:
                raise ConfigurationError(f"{error}; give the whole token and nothing else") from None
    click.echo(f"{info.id} of {printable(info.tenant)} is revoked")


@click.command(epilog=examples("apitokenproxy tokens suspend Ab12Cd34Ef56"))
@config_option
@id_argument
def suspend(config: str, token_id: str) -> None:
    """Refuse a token until it is resumed."""
    with opened(config, token_id) as authority:
        info = authority.suspend(token_id, by=person())
    click.echo(f"{info.id} of {printable(info.tenant)} is suspended")


@click.command(epilog=examples("apitokenproxy tokens resume Ab12Cd34Ef56"))
@config_option
@id_argument
def resume(config: str, token_id: str) -> None:
    """Accept a suspended token again."""
    with opened(config, token_id) as authority:
        info = authority.resume(token_id, by=person())
    click.echo(f"{info.id} of {printable(info.tenant)} is {info.state}")


@click.command(epilog=examples("apitokenproxy tokens delete Ab12Cd34Ef56"))
@config_option
@id_argument
def delete(config: str, token_id: str) -> None:
    """Remove a token from the store. What was done to it stays to be read."""
    with opened(config, token_id) as authority:
        authority.delete(token_id, by=person())
    click.echo(f"{token_id} is deleted")


@click.command(
    epilog=examples(
        "apitokenproxy tokens edit Ab12Cd34Ef56 --scope github:read --scope github:write",
        "apitokenproxy tokens edit Ab12Cd34Ef56 --expires-in 30d",
    )
)
@config_option
@id_argument
@click.option("--tenant", help="Whom it is for from now on.")
@click.option("--subject", help="Which user or program of the tenant.")
@click.option("--scope", "scopes", multiple=True, help="A scope, instead of those that it has; may be repeated.")
@click.option("--no-scopes", is_flag=True, help="Take all scopes away.")
@click.option(
    "--attr",
    "attributes",
    multiple=True,
    callback=attributes,
    metavar="K=V",
    help="An attribute, instead of those that it has; may be repeated.",
)
@click.option("--expires-in", callback=lifetime, metavar="TIME", help="How long it is good for from now, as 30d.")
@click.option("--never-expires", is_flag=True, help="Let it last.")
def edit(
    config: str,
    token_id: str,
    tenant: str | None,
    subject: str | None,
    scopes: tuple[str, ...],
    no_scopes: bool,
    attributes: dict[str, str],
    expires_in: timedelta | None,
    never_expires: bool,
) -> None:
    """Change what a token says of its holder. What is not named stays."""
    if (scopes and no_scopes) or (expires_in and never_expires):
        raise click.UsageError("name either new ones or none: --scope or --no-scopes, --expires-in or --never-expires")
    fields: dict[str, Any] = {"tenant": tenant, "subject": subject, "expires_in": expires_in}
    fields = {name: value for name, value in fields.items() if value is not None}
    if scopes or no_scopes:
        fields["scopes"] = scopes
    if attributes:
        fields["attributes"] = attributes
    if never_expires:
        fields["expires_in"] = None
    if not fields:
        raise click.UsageError("name what is to be changed, as --scope github:read")
    with opened(config, token_id) as authority:
        info = authority.edit(token_id, by=person(), **fields)
    click.echo(f"{info.id} of {printable(info.tenant)} is changed")


@click.command(epilog=examples("apitokenproxy tokens scan app.log .env", "apitokenproxy tokens scan - < build.log"))
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.File("rb"))
def scan(files: tuple[BinaryIO, ...]) -> None:
    """Find client tokens in files, by form and checksum, and derived ones. Exit 1 when there are any."""
    count = 0
    for file in files:
        for line, identifier, derived in found_in(file):
            count += 1
            what = (
                f"token {derived}, derived from {identifier}" if derived else f"a client token with the id {identifier}"
            )
            click.echo(f"{printable(file.name)}:{line}: {what}")
    if count:
        click.secho("revoke them: apitokenproxy tokens revoke ID", err=True)
        sys.exit(1)


COMMANDS = (rotate, undo, revoke, suspend, resume, delete, edit, scan)
