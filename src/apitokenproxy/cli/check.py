"""`apitokenproxy check`: every problem of a configuration at once."""

import sys
from collections.abc import Sized

import click

from apitokenproxy.cli.options import config_option, examples
from apitokenproxy.config import read_config
from apitokenproxy.identity.stores import name_of
from apitokenproxy.proxy import Proxy


@click.command(epilog=examples("apitokenproxy check", "apitokenproxy check -c production.toml"))
@config_option
def check(config: str) -> None:
    """Report every problem of a configuration, with its path.

    Tries the store, the audit file and the secrets as well. Exit code 1 when there is a problem.
    """
    problems = Proxy.problems_in(config)
    for problem in problems:
        click.secho(f"error: {problem}", fg="red", err=True)
    if problems:
        sys.exit(1)
    read = read_config(config)
    names = ", ".join(f"{upstream.name} ({upstream.forwarder} forwarder)" for upstream in read["upstreams"])
    click.echo(
        f"{config}: ok: upstreams {names}; {_number(read['rules'], 'rule')}, {_number(read['limits'], 'limit')}; "
        f"store {name_of(read['store'])}; audit {read.get('audit', 'to the log only')}"
    )


def _number(things: Sized, name: str) -> str:
    return f"{len(things)} {name}" if len(things) == 1 else f"{len(things)} {name}s"
