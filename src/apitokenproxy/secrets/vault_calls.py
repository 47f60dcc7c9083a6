"""How the `vault` provider calls Vault by hvac, and what is told when that goes wrong.

Rules:
1. A connection belongs to one fetch. Nothing is followed and no proxy is asked: what is sent holds a token.
2. No answer is read for longer than the timeout, nor beyond MAX_BYTES.
3. Vault's answers are not quoted, nor does urllib3 log what it cannot read of one. Their texts name what is
   refused, but so do ours.
"""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

import hvac
import requests
from attrs import frozen
from hvac.exceptions import Forbidden, InvalidPath, VaultError
from urllib3.exceptions import HTTPError

from apitokenproxy.errors import SecretUnavailable
from apitokenproxy.quiet import quiet

MAX_BYTES = 1 << 20

_NOT_FOUND = 404
_NOBODY_THERE = frozenset({412, 429, 472, 473, 500, 501, 502, 503, 504})
"""Answers of a Vault that is sealed, behind, too busy or away (Vault HTTP API, "Status codes")."""


class Unlike(Exception):
    """An answer that is not of the form that Vault's documentation gives it."""


class _Session(requests.Session):
    def __init__(self, seconds: float, ca: str | None) -> None:
        super().__init__()
        self._seconds = seconds
        self.trust_env = False
        self.verify = ca or True
        self.status = 0
        self.says_missing = False

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        end = time.monotonic() + self._seconds
        response = super().send(request, **{**options, "stream": True})
        self.status = response.status_code
        content = b""
        while chunk := response.raw.read1(MAX_BYTES, decode_content=True):
            content += chunk
            if len(content) > MAX_BYTES or time.monotonic() > end:
                response.close()
                raise requests.exceptions.ReadTimeout
        self.says_missing = self.status == _NOT_FOUND and _is_object(content)
        if response.ok:
            content.decode()  # else requests would put other characters in the place of what is no UTF-8
        response._content = content  # noqa: SLF001 - what `stream=False` would have read without bound
        return response


@frozen
class VaultServer:
    """Where Vault is. `ca` is a PEM file, `timeout` in seconds."""

    url: str
    namespace: str | None
    ca: str | None
    timeout: float

    @contextlib.contextmanager
    def client(self, path: str) -> Iterator[Any]:
        """Give an hvac.Client without a token. What fails in the body raises SecretUnavailable, naming `path`."""
        with quiet("urllib3"), _Session(self.timeout, self.ca) as session:
            client = hvac.Client(
                self.url, namespace=self.namespace, session=session, timeout=self.timeout, allow_redirects=False
            )
            client.token = None  # hvac takes one from the environment
            try:
                yield client
            except Forbidden:
                raise SecretUnavailable(
                    f"vault: the proxy may not read {path}, or its login is not accepted; grant its policy read on it"
                ) from None
            except VaultError:
                raise SecretUnavailable(
                    f"vault: {self.url} answers {session.status} when asked for {path}",
                    outage=session.status in _NOBODY_THERE,
                ) from None
            except (requests.exceptions.RequestException, HTTPError, OSError) as error:
                raise SecretUnavailable(
                    f"vault: {self.url} does not answer ({type(error).__name__}); see that it runs and can be reached",
                    outage=True,
                ) from None
            except (Unlike, AttributeError, LookupError, RecursionError, TypeError, ValueError):
                raise SecretUnavailable(f"vault: {self.url} does not answer as Vault does for {path}") from None


def _is_object(content: bytes) -> bool:
    """Tell whether an answer may be Vault's, and not that of something on the way to it."""
    try:
        return isinstance(json.loads(content), dict)
    except (RecursionError, ValueError):
        return False


def part(answer: Any, name: str) -> Mapping[str, Any]:
    """Return one object of an answer. Raises InvalidPath for no answer, Unlike for one without such an object."""
    if answer is None:
        raise InvalidPath
    found = answer.get(name) if isinstance(answer, Mapping) else None
    if not isinstance(found, Mapping):
        raise Unlike
    return found
