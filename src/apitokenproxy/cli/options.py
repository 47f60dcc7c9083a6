"""Options that several commands take."""

import click

config_option = click.option(
    "-c",
    "--config",
    default="apitokenproxy.toml",
    show_default=True,
    metavar="FILE",
    help="The configuration file.",
)
