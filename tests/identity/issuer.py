"""An issuer of JWTs on loopback: its metadata, its keys, and what it signs."""

import json
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from attrs import Factory, define
from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey, RSAKey

Key = RSAKey | ECKey | OKPKey


def rsa(kid: str | None = "one", bits: int = 2048, **more: str) -> RSAKey:
    parameters = {"kid": kid, **more} if kid else more
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a short one is meant
        return RSAKey.generate_key(bits, parameters)


@define
class Issuer:
    """A running server. `asked` holds the paths that were asked for; `broken` is answered instead, if set."""

    url: str = ""
    keys: list[Any] = Factory(list)
    metadata: dict[str, Any] = Factory(dict)
    asked: list[str] = Factory(list)
    broken: tuple[int, bytes] | None = None
    pause: float = 0.0

    @property
    def jwks(self) -> str:
        return f"{self.url}/keys"

    def answer(self, path: str) -> tuple[int, bytes]:
        self.asked.append(path)
        time.sleep(self.pause)
        if self.broken is not None:
            return self.broken
        if path == "/.well-known/openid-configuration":
            return 200, json.dumps({"issuer": self.url, "jwks_uri": self.jwks} | self.metadata).encode()
        if path == "/keys":
            keys = [key if isinstance(key, dict | str) else key.as_dict(private=False) for key in self.keys]
            return 200, json.dumps({"keys": keys}).encode()
        return 404, b""

    def sign(self, key: Key, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """Return a token that is good for five minutes, with claims of its own; None takes one away."""
        said = {"iss": self.url, "aud": "proxy", "exp": int(time.time()) + 300, "sub": "ada", "org": "acme"} | claims
        alg = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}[key.key_type]
        head = {"alg": alg} | ({"kid": key.kid} if key.kid else {}) | (header or {})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # EdDSA is what issuers say
            left = {name: value for name, value in said.items() if value is not None}
            return jwt.encode(head, left, key, [head["alg"]])


@contextmanager
def running_issuer() -> Iterator[Issuer]:
    issuer = Issuer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = issuer.answer(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        issuer.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield issuer
        finally:
            server.shutdown()
            thread.join()
