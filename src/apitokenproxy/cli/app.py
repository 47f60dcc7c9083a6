"""The command group, and what all commands share."""

import sys
from typing import Any

import click

from apitokenproxy.cli.check import check
from apitokenproxy.cli.demo import demo
from apitokenproxy.cli.serve import serve
from apitokenproxy.cli.tokens import tokens
from apitokenproxy.errors import ApitokenproxyError, ProxyError


class _Group(click.Group):
    """Turns our errors into one sentence on stderr and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ProxyError as error:
            _fail(error.detail or error.title)
        except ApitokenproxyError as error:
            _fail(str(error))
        except BrokenPipeError:
            sys.stderr.close()  # nobody reads any more; say nothing about it
            sys.exit(1)


def _fail(text: str) -> None:
    for line in text.splitlines():
        click.secho(f"error: {line}", fg="red", err=True)
    sys.exit(1)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="apitokenproxy")
def app() -> None:
    r"""Give out tokens, keep the API keys.

    \b
    Examples:
      apitokenproxy demo                          see it work, in one process, in seconds
      apitokenproxy check                         is the configuration right?
      apitokenproxy serve                         run by itself from apitokenproxy.toml
      apitokenproxy tokens issue --tenant acme    hand out a token
    """


app.add_command(demo)
app.add_command(serve)
app.add_command(check)
app.add_command(tokens)
