"""What the commands about tokens share: their options, the open store, and who runs them."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NoReturn

import click

from apitokenproxy.cli.options import give_up_output, printable
from apitokenproxy.config import read_config
from apitokenproxy.durations import parse_duration
from apitokenproxy.errors import ConfigurationError, TokenConflict, TokenNotFound
from apitokenproxy.identity.authority import TokenAuthority
from apitokenproxy.identity.stores import is_there, name_of
from apitokenproxy.proxy import Proxy

_LONGEST_STDIN = 8192
_LONGEST_NAME = 200

id_argument = click.argument("token_id", metavar="ID")


def attributes(_context: click.Context, _parameter: click.Parameter, pairs: tuple[str, ...]) -> dict[str, str]:
    """Read K=V pairs."""
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{pair!r} is not like org=octocat")
        found[key] = value
    return found


def duration(_context: click.Context, _parameter: click.Parameter, text: str | None) -> timedelta | None:
    """Read a duration, which may be 0s."""
    try:
        return None if text is None else parse_duration(text)
    except ConfigurationError as error:
        raise click.BadParameter(str(error)) from None


def lifetime(context: click.Context, parameter: click.Parameter, text: str | None) -> timedelta | None:
    """Read a duration that is some time."""
    found = duration(context, parameter, text)
    if found == timedelta():
        raise click.BadParameter(f"{text!r} is no time at all")
    return found


def _proxy(config: str, *, create: bool) -> Proxy:
    settings = read_config(config)
    if settings["store"] == "memory:":
        raise ConfigurationError(
            f"{config}: proxy.store: is memory:, which ends with its process and is nobody else's; use sqlite:///FILE"
        )
    if not create and not is_there(settings["store"]):
        raise ConfigurationError(
            f"{config}: proxy.store: there is no store {name_of(settings['store'])} yet; "
            "name the one that the proxy uses, or issue a token first"
        )
    # Nothing is forwarded, so nothing is recorded: an audit file made here could have the wrong owner.
    return Proxy(**settings | {"audit": None})


@contextmanager
def opened_proxy(config: str, *, create: bool = False) -> Iterator[Proxy]:
    """Yield the configured proxy, which records nothing."""
    proxy = _proxy(config, create=create)
    try:
        yield proxy
    finally:
        proxy.close()


@contextmanager
def opened(config: str, token_id: str | None = None, *, create: bool = False) -> Iterator[TokenAuthority]:
    """Yield the authority over the configured store; what it refuses becomes one sentence and exit 1.

    A store that is not there is made with `create` alone: an empty one would say that there are no tokens.
    """
    try:
        with opened_proxy(config, create=create) as proxy:
            yield proxy.tokens
    except TokenNotFound:
        if token_id is None:
            raise
        _no_such(token_id)
    except TokenConflict as error:
        click.secho(f"error: {error}", fg="red", err=True)
        sys.exit(1)


def hand_out(text: str, otherwise: str) -> None:
    """Print what holds a token. Raises ConfigurationError, which says what to do, when nobody can have read it."""
    try:
        click.echo(text)
    except OSError as error:
        give_up_output()
        raise ConfigurationError(f"the token cannot be printed ({error.strerror}); {otherwise}") from None


def token_from_stdin() -> str:
    """Return the token that stands on stdin: in the arguments of a command everybody could read it.

    What is no text is no token either, whatever it is then found to be.
    """
    return sys.stdin.buffer.read(_LONGEST_STDIN).decode(errors="replace").strip() if sys.stdin else ""


def _no_such(token_id: str) -> NoReturn:
    shown = f"{token_id[:8]}…" if token_id.startswith("atp_") else token_id
    hint = "; that is a token, not its id" if token_id.startswith("atp_") else ""
    click.secho(
        f"error: there is no token with the id {shown}{hint}; see: apitokenproxy tokens list", fg="red", err=True
    )
    sys.exit(1)


def person() -> str:
    """Return who runs the command, for the token's events: the account of the process, not what a variable says."""
    try:
        import pwd  # noqa: PLC0415 - not on every system

        user = os.getuid()
    except (ImportError, AttributeError):
        return "command line"
    try:
        name = printable(pwd.getpwuid(user).pw_name)[:_LONGEST_NAME].strip()
    except KeyError:  # no name for this number, as in some containers
        name = ""
    return f"{name or f'user {user}'} (command line)"
