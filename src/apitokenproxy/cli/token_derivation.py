"""The commands that make lesser tokens: `derive` from a client token, `narrow` from a derived one."""

import json
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import click

from apitokenproxy.cli.options import config_option, examples
from apitokenproxy.cli.token_options import hand_out, id_argument, lifetime, opened, token_from_stdin
from apitokenproxy.cli.token_tables import iso, minute
from apitokenproxy.errors import ConfigurationError
from apitokenproxy.identity.narrowing import narrow as narrowed

_LESS = {
    "--upstream": ("upstreams", "An upstream that it may use; may be repeated, as all of these."),
    "--method": ("methods", "A method that it may use, as GET."),
    "--path": ("paths", "A path below the upstream's name; all that is below it may be used."),
    "--address": ("addresses", "An address or network from which it may be used."),
    "--rule": ("rules", "The id of a rule by which it may be used."),
    "--scope": ("scopes", "A scope that is kept; none named: all of them."),
}


def _less(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that take something away."""
    for option, (name, text) in reversed(_LESS.items()):
        command = click.option(option, name, multiple=True, help=text)(command)
    return command


def _given(lists: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    return {name: values for name, values in lists.items() if values}


@click.command(
    epilog=examples(
        "TOKEN=$(apitokenproxy tokens derive Ab12Cd34Ef56 --expires-in 15m --upstream github --method GET)",
        "apitokenproxy tokens derive Ab12Cd34Ef56 --path /repos/acme --rate 10/minute --json",
    )
)
@config_option
@id_argument
@_less
@click.option("--rate", help="A rate of its own, as 10/minute.")
@click.option("--burst", type=click.IntRange(1), help="How many of that rate may come at once.")
@click.option("--quota", help="A quota of its own, as 1000/day.")
@click.option("--concurrency", type=click.IntRange(1), help="How many requests may run at a time.")
@click.option("--expires-in", callback=lifetime, metavar="TIME", default="1h", help="How long it lasts; 1h.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def derive(
    config: str,
    token_id: str,
    rate: str | None,
    burst: int | None,
    quota: str | None,
    concurrency: int | None,
    expires_in: timedelta,
    as_json: bool,
    **less: tuple[str, ...],
) -> None:
    """Make a short-lived token that can do less than a client token. It is kept nowhere.

    It needs signing_keys in the configuration. The token is shown alone on stdout, its details on stderr.
    """
    if sys.stdout is None:
        raise ConfigurationError("stdout is closed, so nobody could read the token; nothing was derived")
    with opened(config, token_id) as authority:
        made = authority.derive(
            token_id,
            expires_in=expires_in,
            rate=rate,
            burst=burst,
            quota=quota,
            concurrency=concurrency,
            **_given(less),
        )
    otherwise = f"{made.id}, derived from {made.parent}, is kept nowhere and ends by itself; derive another"
    if as_json:
        values = {"token": made.token, "id": made.id, "parent": made.parent, "expires": iso(made.expires)}
        hand_out(json.dumps(values), otherwise)
        return
    click.echo(f"id {made.id}, derived from {made.parent}, ends {minute(made.expires)} UTC", err=True)
    hand_out(made.token, otherwise)


@click.command(
    epilog=examples(
        "apitokenproxy tokens narrow --method GET --path /repos/acme/site < token.txt",
        "apitokenproxy tokens narrow --expires-in 5m --address 192.0.2.7 < token.txt",
    )
)
@_less
@click.option("--expires-in", callback=lifetime, metavar="TIME", help="How long it lasts from now, if not less.")
def narrow(expires_in: timedelta | None, **less: tuple[str, ...]) -> None:
    """Make a lesser token of a derived one, which is read from stdin. Nobody is asked, and no file is read."""
    click.echo(narrowed(token_from_stdin(), expires_in=expires_in, **_given(less)))
