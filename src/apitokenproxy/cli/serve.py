"""`apitokenproxy serve`: the proxy by itself, from one file."""

import os
import socket

import click
import uvicorn

from apitokenproxy.cli.options import config_option
from apitokenproxy.config import read_config
from apitokenproxy.errors import ConfigurationError
from apitokenproxy.proxy import Proxy
from apitokenproxy.served import CONFIG_VARIABLE, DEFAULT_PREFIX


@click.command()
@config_option
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="The port to listen on.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64), help="How many processes.")
def serve(config: str, host: str, port: int, workers: int) -> None:
    r"""Run the proxy by itself, until it is stopped.

    GET /healthz answers "ok". Everything is checked before the first request is taken.

    \b
    Examples:
      apitokenproxy serve
      apitokenproxy serve -c production.toml --host 0.0.0.0 --port 80
      apitokenproxy serve --workers 4
    """
    problems = Proxy.problems_in(config)
    if problems:
        raise ConfigurationError("\n".join(problems))
    settings = read_config(config)
    listener = _listen(host, port)
    address, bound_port = listener.getsockname()[:2]
    prefix = settings.get("prefix") or DEFAULT_PREFIX
    names = [upstream.name for upstream in settings["upstreams"]]
    at = f"http://{address}:{bound_port}{prefix}"
    click.echo(f"apitokenproxy serves {', '.join(names)} at {at}/<upstream>/", err=True)
    click.echo(f'try: curl -H "Authorization: Bearer $TOKEN" {at}/{names[0]}/', err=True)
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
    if workers == 1:
        uvicorn.Server(options).run(sockets=[listener])
    else:
        from uvicorn.supervisors import Multiprocess  # noqa: PLC0415 - not needed by one worker

        Multiprocess(options, sockets=[listener]).run()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"cannot listen on {host} port {port}: {error.strerror or error}; choose another with --host and --port"
        ) from None
    listener.listen(1024)
    listener.set_inheritable(True)
    return listener
