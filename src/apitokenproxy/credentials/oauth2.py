"""OAuth 2.0 client credentials (RFC 6749, section 4.4): an access token, fetched ahead and used until it ends.

Rules:
1. A token is fetched once however many ask, renewed in the background before it ends, and never used after.
2. One that cannot be had refuses the request: nothing is forwarded without it.
3. What the token endpoint says is never told, for it may repeat the client's secret; its status is. Nor is it
   logged: of an answer that is no HTTP, httpcore logs what it is instead, and that may be the token.
"""

import json
import math
import time
from collections.abc import Awaitable, Callable
from functools import partial
from hashlib import sha256
from typing import Any, ClassVar, Literal
from urllib.parse import quote, urlsplit

import httpx
from attrs import Factory, field, frozen

from apitokenproxy.errors import ConfigurationError, SecretUnavailable
from apitokenproxy.interfaces import SecretReader
from apitokenproxy.loading import Loaded, Loads
from apitokenproxy.messages import Caller, Credential, Hidden, Secret
from apitokenproxy.quiet import quiet

DEFAULT_LIFETIME = 300.0
"""Seconds that a token is used which does not say how long it lasts."""
_LEEWAY = 10.0
_TIMEOUT = 10.0
_LARGEST = 64 * 1024
_PASSING = (429, 500, 502, 503, 504)


@frozen
class OAuth2ClientCredentials:
    """`Authorization: Bearer` with a token that `token_url` gives to `client_id` and its `secret`.

    `scope`, `audience` and `resource` go into the request when they are set. The client says who it is by
    `auth`: `basic` (RFC 6749, section 2.3.1) or `post`, in the form. `allow_private` permits plain http.

    Raises ConfigurationError.
    """

    token_url: str
    client_id: str
    secret: str = field(repr=False)
    scope: str = field(default="", kw_only=True)
    audience: str = field(default="", kw_only=True)
    resource: str = field(default="", kw_only=True)
    auth: Literal["basic", "post"] = field(default="basic", kw_only=True)
    allow_private: bool = field(default=False, kw_only=True)

    _tokens: Loads[Credential] = field(
        init=False,
        repr=False,
        eq=False,
        default=Factory(
            lambda self: Loads(f"the token endpoint {self.token_url}", SecretUnavailable, timeout=2 * _TIMEOUT),
            takes_self=True,
        ),
    )

    place: ClassVar[str] = "header Authorization"

    def __attrs_post_init__(self) -> None:
        parts = urlsplit(self.token_url)
        if parts.scheme not in ({"https", "http"} if self.allow_private else {"https"}) or not parts.hostname:
            raise ConfigurationError(f"credential oauth2: token_url {self.token_url!r} must be an https URL")
        if not self.client_id:
            raise ConfigurationError("credential oauth2: client_id is empty")
        if self.auth not in {"basic", "post"}:
            raise ConfigurationError(f"credential oauth2: auth is {self.auth!r}; it must be basic or post")

    def bind(self, secrets: SecretReader) -> Callable[[Caller], Awaitable[Credential]]:
        """Return the function that makes the credential for a caller."""
        read, colour = secrets.reader(self.secret), secrets.colour
        fetch: Callable[[Secret], Awaitable[Loaded[Credential]]] = colour.lift_apart(self._fetch, Loaded)

        async def obtain(caller: Caller) -> Credential:
            secret = await read(caller)
            key = sha256(secret.reveal()).hexdigest()
            return self._tokens.kept(key) or await self._tokens.get(key, partial(fetch, secret), colour)

        return obtain

    def expire(self) -> None:
        """Have tokens fetched anew, but for those that were fetched a moment ago: the API refused one."""
        self._tokens.expire()

    def _fetch(self, secret: Secret) -> Loaded[Credential]:
        """Ask for a token. Raises SecretUnavailable."""
        material = secret.reveal().decode("latin-1")
        form = {"grant_type": "client_credentials", "scope": self.scope, "audience": self.audience}
        form = {name: value for name, value in (form | {"resource": self.resource}).items() if value}
        headers = {"accept": "application/json"}
        if self.auth == "post":
            form |= {"client_id": self.client_id, "client_secret": material}
        else:
            pair = httpx.BasicAuth(quote(self.client_id, safe=""), quote(material, safe=""))
            headers["authorization"] = next(pair.auth_flow(httpx.Request("POST", self.token_url))).headers[
                "authorization"
            ]
        said = self._ask(form, headers)
        token, lasts = said.get("access_token"), said.get("expires_in", DEFAULT_LIFETIME)
        if not isinstance(token, str) or not token or str(said.get("token_type", "bearer")).lower() != "bearer":
            raise SecretUnavailable(f"{self.token_url} gave no bearer token")
        if isinstance(lasts, str) and lasts.isdecimal():
            lasts = int(lasts)  # some say it so
        if type(lasts) not in (int, float) or not math.isfinite(lasts) or lasts <= 0:
            raise SecretUnavailable(f"{self.token_url} gave a token that does not say how long it lasts")
        left = max(1.0, lasts - _LEEWAY)
        version = f"{secret.version}+{sha256(token.encode()).hexdigest()[:8]}"
        value = Hidden(b"Bearer " + token.encode("ascii", "strict"))
        return Loaded(Credential(headers=((b"Authorization", value),), version=version), left, left)

    def _ask(self, form: dict[str, str], headers: dict[str, str]) -> dict[str, Any]:
        body, end = b"", time.monotonic() + _TIMEOUT
        try:
            with (
                quiet("httpcore"),
                httpx.Client(trust_env=False, timeout=_TIMEOUT) as client,
                client.stream("POST", self.token_url, data=form, headers=headers) as answer,
            ):
                for chunk in answer.iter_bytes():
                    body += chunk
                    if time.monotonic() > end:
                        raise httpx.ReadTimeout("")
                    if len(body) > _LARGEST:
                        raise SecretUnavailable(f"{self.token_url} answers with more than 64 KiB")
                status = answer.status_code
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise SecretUnavailable(f"{self.token_url} cannot be asked: {type(error).__name__}", outage=True) from None
        if status != httpx.codes.OK:
            passing = status in _PASSING
            raise SecretUnavailable(f"{self.token_url} gives no token: status {status}", outage=passing)
        try:
            said = json.loads(body)
        except (RecursionError, ValueError):
            said = None
        if not isinstance(said, dict):
            raise SecretUnavailable(f"{self.token_url} does not answer with a JSON object", outage=True)
        return said
