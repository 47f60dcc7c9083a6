"""`apitokenproxy serve`: the proxy by itself, from one file."""

import os
import signal
import socket
import sys

import click
import uvicorn

from apitokenproxy.cli.options import config_option, examples
from apitokenproxy.errors import ConfigurationError
from apitokenproxy.proxy import Proxy
from apitokenproxy.served import CONFIG_VARIABLE, TOKEN_ENDPOINT, settings_of


@click.command(
    epilog=examples(
        "apitokenproxy serve",
        "apitokenproxy serve -c production.toml --host 0.0.0.0 --port 80",
        "apitokenproxy serve --workers 4",
    )
)
@config_option
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="The port to listen on.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64), help="How many processes.")
def serve(config: str, host: str, port: int, workers: int) -> None:
    """Run the proxy by itself, until it is stopped.

    GET /healthz answers "ok". What requests need is checked before the first one is taken.
    """
    problems = Proxy.problems_in(config, spare=False)
    if problems:
        raise ConfigurationError("\n".join(problems))
    settings = settings_of(config)
    listener = _listen(host, port)
    names = [upstream.name for upstream in settings["upstreams"]]
    at = f"http://{_address(listener)}{settings['prefix'].rstrip('/')}"
    through = ", ".join(f"{upstream.name} ({upstream.forwarder} forwarder)" for upstream in settings["upstreams"])
    click.echo(f"apitokenproxy serves {through} at {at}/<upstream>/", err=True)
    click.echo(f'try: curl -H "Authorization: Bearer $TOKEN" {at}/{names[0]}/', err=True)
    if settings.get("signing_keys"):
        click.echo(f"tokens are derived at http://{_address(listener)}{TOKEN_ENDPOINT}", err=True)
    if workers > 1 and settings["limits"]:
        click.echo(f"note: limits are counted in each of the {workers} workers by itself", err=True)
    os.environ[CONFIG_VARIABLE] = config
    options = uvicorn.Config(
        "apitokenproxy.served:app",
        factory=True,
        workers=workers,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # whom to believe is trusted_proxies' to say
        timeout_graceful_shutdown=10,
    )
    server = uvicorn.Server(options)

    def end(*_: object) -> None:
        # uvicorn ends what runs and gives the signal back. Before it runs there is nothing to end, and an
        # exception would be lost if the signal came while Python was in the middle of a callback.
        if server.started:
            sys.exit(0)
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    with listener:
        if workers == 1:
            server.run(sockets=[listener])
        else:
            from uvicorn.supervisors import Multiprocess  # noqa: PLC0415 - not needed by one worker

            Multiprocess(options, sockets=[listener]).run()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1024)
    except (OSError, UnicodeError, TypeError) as error:  # the last two: no name at all
        listener.close()
        reason = getattr(error, "strerror", None) or "this is not a name of a host"
        raise ConfigurationError(
            f"cannot listen on {host} port {port}: {reason}; choose another with --host and --port"
        ) from None
    listener.set_inheritable(True)
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
