"""A token endpoint on loopback, what it was asked, and keys to sign and to verify with."""

import asyncio
import json
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl

from attrs import Factory, define, frozen
from credential_calls import ACME
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from apitokenproxy import Caller, Credential
from apitokenproxy._colour import ASYNC, SYNC, run
from apitokenproxy.interfaces import CredentialKind
from apitokenproxy.secrets.cache import Secrets
from apitokenproxy.testing import FixedSecrets

Key = RSAKey | ECKey | OKPKey

RSA = RSAKey.generate_key(2048)
OTHER_RSA = RSAKey.generate_key(2048)
EC = ECKey.generate_key("P-256")
ED25519 = OKPKey.generate_key("Ed25519")


def pem(key: Key) -> str:
    """Return a private key as its owner keeps it: several lines of text."""
    return key.as_pem(private=True).decode()


class _Registry(JWSRegistry):
    def get_alg(self, name: str) -> Any:
        return self.algorithms[name]  # EdDSA without a word about it


def verified(token: str, key: Key, *algorithms: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Return header and claims of a token, if this key signed it by one of these algorithms."""
    try:
        found = jwt.decode(token, key, registry=_Registry(algorithms=algorithms))
    except (JoseError, ValueError):
        return None
    return (found.header, found.claims) if found.header["alg"] in algorithms else None


@frozen
class Asked:
    """One request as the endpoint saw it."""

    path: str
    headers: Any
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        pairs = parse_qsl(self.body.decode(), strict_parsing=True)
        assert len(dict(pairs)) == len(pairs), "a parameter was sent twice"
        return dict(pairs)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def authorization(self) -> str:
        return self.headers.get("Authorization", "")


@define
class Endpoint:
    """A running endpoint. `judge` says what it answers, unless that is set by `status` and `answer`."""

    url: str = ""
    asked: list[Asked] = Factory(list)
    status: int = 200
    answer: Any = None
    lasts: float = 3600
    judge: Callable[[Asked], tuple[int, Any]] | None = None
    pause: threading.Event | None = None

    @property
    def base(self) -> str:
        return self.url.removesuffix("/token")

    def say(self, asked: Asked) -> tuple[int, bytes]:
        status, answer = self.status, self.answer
        if answer is None and status == 200:
            status, answer = self.judge(asked) if self.judge else (200, self.token())
        return status, answer if isinstance(answer, bytes) else json.dumps(answer).encode()

    def token(self, **more: Any) -> dict[str, Any]:
        """Return an answer with a token, numbered, and what it says more."""
        token = f"token-{len(self.asked)}-{'x' * 20}"
        return {"access_token": token, "token_type": "Bearer", "expires_in": self.lasts} | more


@contextmanager
def running_endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked = Asked(self.path, self.headers, body)
            endpoint.asked.append(asked)
            status, said = endpoint.say(asked)
            if endpoint.pause is not None:
                endpoint.pause.wait(10)
            self.send_response(status)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        endpoint.url = f"http://127.0.0.1:{server.server_address[1]}/token"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield endpoint
        finally:
            server.shutdown()
            thread.join()


def obtained(
    one: CredentialKind, colour: str, times: int = 1, caller: Caller = ACME, **material: str
) -> list[Credential]:
    """Bind a kind in one colour, and make its credential that often at the same time."""
    secrets = Secrets({"fixed": FixedSecrets(**material)})
    if colour == "sync":
        obtain = one.bind(secrets.bind(SYNC))
        with ThreadPoolExecutor(min(times, 32)) as pool:
            return list(pool.map(lambda _: run(obtain(caller)), range(times)))  # type: ignore[arg-type]

    async def ask() -> list[Credential]:
        obtain = one.bind(secrets.bind(ASYNC))
        return await asyncio.gather(*(obtain(caller) for _ in range(times)))

    return asyncio.run(ask())


def bearer(credential: Credential) -> str:
    """Return the token that a credential puts on."""
    [(name, value)] = credential.headers
    assert name == b"Authorization"
    return bytes(value).decode().removeprefix("Bearer ")


def reported(error: BaseException) -> str:
    """Return what an error report with local variables shows of this package's own frames."""
    report = traceback.TracebackException.from_exception(error, capture_locals=True)
    ours = [frame for frame in report.stack if "/apitokenproxy/" in frame.filename]
    assert ours, "nothing was raised by this package"
    report.stack = traceback.StackSummary.from_list(ours)
    return "".join(report.format(chain=False))
