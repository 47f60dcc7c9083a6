"""Who is measured, what each needs, and how it is started."""

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from string import Template

from attrs import Factory, define, frozen

PEERS = Path(__file__).parent / "peers"
SKIPPED = "skipped"


@define
class Place:
    """The folder that everything lies in, and where the upstream listens."""

    home: Path
    http_port: int = 0
    https_port: int = 0
    events_port: int = 0
    https: bool = True

    @property
    def ca(self) -> Path:
        return self.home / "ca.pem"

    @property
    def upstream(self) -> str:
        return f"https://localhost:{self.https_port}" if self.https else f"http://localhost:{self.http_port}"

    def variables(self, port: int) -> dict[str, str]:
        return {
            "HOME": str(self.home),
            "PORT": str(port),
            "UPSTREAM": self.upstream,
            "UPSTREAM_PORT": str(self.https_port if self.https else self.http_port),
            "SCHEME": "https" if self.https else "http",
            "CA": str(self.ca),
            "HAPROXY_TLS": f"ssl verify required ca-file {self.ca} sni str(localhost)" if self.https else "",
            "CADDY_TLS": f"tls\n\t\t\ttls_trusted_ca_certs {self.ca}\n\t\t\ttls_server_name localhost"
            if self.https
            else "",
        }

    def filled(self, name: str, port: int) -> Path:
        """Write a configuration with its variables filled in, and return its path."""
        written = self.home / f"{port}-{name}"
        written.write_text(Template((PEERS / name).read_text()).substitute(self.variables(port)))
        return written

    def venv(self, packages: tuple[str, ...]) -> Path:
        """Return the folder of the programs of an environment with these packages; make it when it is missing."""
        if not packages:
            return Path(sys.executable).parent
        folder = self.home / "venvs" / packages[0].split("[")[0]
        done = folder / "complete"
        if not done.exists():
            print(f"  installing {', '.join(packages)}", flush=True)
            venv.create(folder, with_pip=True, clear=True)
            pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *packages]
            ran = subprocess.run(pip, capture_output=True, text=True, check=False)  # noqa: S603
            if ran.returncode:
                raise Missing(f"pip could not install {packages[0]}")
            done.touch()
        return folder / "bin"

    def node(self, packages: tuple[str, ...]) -> None:
        """Install packages of npm, when they are missing."""
        for tool in ("node", "npm"):
            program(tool, "nodejs")
        if not all((self.home / "node_modules" / package).exists() for package in packages):
            print(f"  installing {', '.join(packages)}", flush=True)
            ran = subprocess.run(  # noqa: S603
                ["npm", "install", "--silent", *packages],  # noqa: S607
                cwd=self.home,
                capture_output=True,
                check=False,
            )
            if ran.returncode:
                raise Missing(f"npm could not install {packages[0]}")


class Missing(Exception):
    """Something that cannot be had here; the text says what."""


def program(name: str, package: str) -> str:
    """Return the path of a program, from Debian when it is missing and this is root. Raises Missing."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        print(f"  installing {package}", flush=True)
        install = ["apt-get", "install", "-y", "--no-install-recommends", package]
        subprocess.run(install, capture_output=True, check=False)  # noqa: S603
        found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        raise Missing(f"{name} is not installed (Debian: apt-get install {package})")
    return found


@frozen
class Contender:
    """A program that does the same work. `start` returns its command line; it raises Missing."""

    name: str
    start: Callable[[Place, int], list[str]]
    path: str = "/json"
    headers: tuple[str, ...] = ("Authorization: Bearer client-token",)
    note: str = ""
    environment: dict[str, str] = Factory(dict)
    bodies: bool = True


def _uvicorn(app: str, *packages: str, extra: tuple[str, ...] = ()) -> Callable[[Place, int], list[str]]:
    def start(place: Place, port: int) -> list[str]:
        bin_ = place.venv(packages)
        return [
            *(str(bin_ / "python"), "-m", "uvicorn", app, "--app-dir", str(PEERS), "--port", str(port)),
            *("--log-level", "error", "--no-access-log", "--no-proxy-headers", *extra),
        ]

    return start


def _granian(app: str, interface: str) -> Callable[[Place, int], list[str]]:
    def start(place: Place, port: int) -> list[str]:
        granian = str(place.venv(()) / "granian")
        served = ["--interface", interface, "--port", str(port), "--workers", "1", "--no-access-log"]
        return [granian, *served, "--working-dir", str(PEERS), app]

    return start


def _gunicorn(app: str, *packages: str) -> Callable[[Place, int], list[str]]:
    def start(place: Place, port: int) -> list[str]:
        python = str(place.venv(packages) / "python")
        served = ["--bind", f"127.0.0.1:{port}", "--worker-class", "gthread", "--threads", "32"]
        quiet = ["--chdir", str(PEERS), "--log-level", "error", "--keep-alive", "60"]
        return [python, "-m", "gunicorn", app, *served, *quiet]

    return start


def _node(script: str, *packages: str) -> Callable[[Place, int], list[str]]:
    def start(place: Place, _port: int) -> list[str]:
        place.node(packages)
        copy = place.home / script
        copy.write_text((PEERS / script).read_text())
        return [program("node", "nodejs"), str(copy)]

    return start


def _nginx(place: Place, port: int) -> list[str]:
    return [program("nginx", "nginx-light"), "-p", str(place.home), "-c", str(place.filled("nginx.conf", port))]


def _haproxy(place: Place, port: int) -> list[str]:
    return [program("haproxy", "haproxy"), "-f", str(place.filled("haproxy.cfg", port))]


def _caddy(place: Place, port: int) -> list[str]:
    config = str(place.filled("Caddyfile", port))
    return [program("caddy", "caddy"), "run", "--adapter", "caddyfile", "--config", config]


def _apache(place: Place, port: int) -> list[str]:
    return [program("apache2", "apache2"), "-D", "FOREGROUND", "-f", str(place.filled("apache.conf", port))]


def _mitmproxy(place: Place, port: int) -> list[str]:
    mitmdump = str(place.venv(("mitmproxy",)) / "mitmdump")
    trust = f"ssl_verify_upstream_trusted_ca={place.ca}"
    listen = ["--mode", f"reverse:{place.upstream}", "--listen-host", "127.0.0.1", "--listen-port", str(port)]
    return [mitmdump, "-q", *listen, "--set", trust, "-s", str(PEERS / "mitmproxy_addon.py")]


def _litellm(place: Place, port: int) -> list[str]:
    litellm = str(place.venv(("litellm[proxy]",)) / "litellm")
    return [litellm, "--config", str(place.filled("litellm.yaml", port)), "--host", "127.0.0.1", "--port", str(port)]


def _portkey(place: Place, port: int) -> list[str]:
    place.node(("@portkey-ai/gateway",))
    server = place.home / "node_modules/@portkey-ai/gateway/build/start-server.js"
    return [program("node", "nodejs"), str(server), f"--port={port}", "--headless"]


OURS = "apitokenproxy (uvicorn)"
OURS_WSGI = "apitokenproxy (gunicorn)"
NAIVE = "naive httpx.AsyncClient"
_TOKEN = ("Authorization: Bearer $TOKEN",)
_PLAIN = ("httpx", "fastapi", "uvicorn[standard]", "flask", "gunicorn", "urllib3")

CONTENDERS = [
    Contender(OURS, _uvicorn("ours:asgi"), "/api/json", _TOKEN),
    Contender("apitokenproxy (granian)", _granian("ours:asgi", "asginl"), "/api/json", _TOKEN),
    Contender(OURS_WSGI, _gunicorn("ours:wsgi"), "/api/json", _TOKEN),
    Contender(NAIVE, _uvicorn("naive_httpx:app", *_PLAIN)),
    Contender(
        "fastapi-proxy-lib", _uvicorn("fastapi_proxy_lib_app:app", "fastapi-proxy-lib[standard]", "uvicorn[standard]")
    ),
    Contender("asgiproxy", _uvicorn("asgiproxy_app:app", "asgiproxy", "uvicorn[standard]")),
    Contender("litellm pass-through", _litellm, bodies=False),
    Contender("mitmproxy", _mitmproxy),
    Contender("django-revproxy (gunicorn)", _gunicorn("revproxy_app:application", "django-revproxy", "gunicorn")),
    Contender("flask + httpx.Client (gunicorn)", _gunicorn("wsgi_clients:with_httpx", *_PLAIN)),
    Contender("flask + urllib3 (gunicorn)", _gunicorn("wsgi_clients:with_urllib3", *_PLAIN)),
    Contender("node http-proxy", _node("node_http_proxy.mjs", "http-proxy")),
    Contender("fastify http-proxy", _node("fastify_proxy.mjs", "fastify", "@fastify/http-proxy")),
    Contender(
        "portkey gateway",
        _portkey,
        "/v1/json",
        (
            "Authorization: Bearer real-key",
            "x-portkey-provider: openai",
            "x-portkey-custom-host: $UPSTREAM",
        ),
        note="no token check, no injection",
        environment={"TRUSTED_CUSTOM_HOSTS": "localhost,127.0.0.1"},
        bodies=False,
    ),
    Contender("caddy", _caddy, environment={"GOMAXPROCS": "1"}),
    Contender("apache", _apache),
    Contender("haproxy", _haproxy),
    Contender("nginx", _nginx),
]
SHORT = (OURS, OURS_WSGI, NAIVE, "flask + urllib3 (gunicorn)", "nginx")
