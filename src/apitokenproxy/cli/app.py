"""The command group, and how commands end.

Rules:
1. What goes wrong is told on stderr, one sentence a line, and never as a traceback: exit code 1.
2. An interrupted command says nothing: exit code 130. Nor does one whose output nobody reads.
"""

import os
import sys
from typing import Any

import click

from apitokenproxy.cli.check import check
from apitokenproxy.cli.demo import demo
from apitokenproxy.cli.options import examples, give_up_output, printable
from apitokenproxy.cli.secrets import secrets
from apitokenproxy.cli.serve import serve
from apitokenproxy.cli.tokens import tokens
from apitokenproxy.errors import ApitokenproxyError, ProxyError, fault

INTERRUPTED = 130


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        if os.environ.get("NO_COLOR"):
            ctx.color = False
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
            raise  # click ends these well
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)
        except ProxyError as error:
            _fail(error.detail or error.title)
        except ApitokenproxyError as error:
            _fail(str(error))
        except OSError as error:
            give_up_output()
            _fail(f"{error.filename or 'what was printed'} cannot be written or read: {error.strerror or error}")
        except Exception as error:  # noqa: BLE001 - its text could hold anything
            _fail(f"this is a fault of apitokenproxy: {fault(error).detail}")


def _fail(text: str) -> None:
    for line in text.splitlines():
        click.secho(f"error: {printable(line)}", fg="red", err=True)
    sys.exit(1)


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples(
        "apitokenproxy demo                          see it work, in one process, in seconds",
        "apitokenproxy check                         is the configuration right?",
        "apitokenproxy serve                         run by itself from apitokenproxy.toml",
        "apitokenproxy tokens issue --tenant acme    hand out a token",
        "apitokenproxy secrets status                which versions of secrets are in use?",
    ),
)
@click.version_option(package_name="apitokenproxy")
def app() -> None:
    """Give out tokens, keep the API keys."""


app.add_command(demo)
app.add_command(serve)
app.add_command(check)
app.add_command(tokens)
app.add_command(secrets)
