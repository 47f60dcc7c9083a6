"""OAuth 2.0 refresh tokens (RFC 6749, section 6): kept for life, rotated (RFC 9700, section 4.14), shared by processes.

Rules:
1. `shared_token.py` says who asks and what is stored; here the endpoint is asked and its answers are read.
2. A refresh token that is refused may have been replaced by whoever authorises: its reference is read again then.
"""

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import ClassVar

from attrs import Factory, field, frozen

from apitokenproxy.asking import Answer
from apitokenproxy.credentials.access_token import (
    REFRESH_TOKEN,
    access_token,
    ask_for_token,
    bearer,
    error_code,
    sendable,
)
from apitokenproxy.credentials.client_authentication import Auth, Client
from apitokenproxy.credentials.held_token import Key, Place
from apitokenproxy.credentials.naming import endpoint
from apitokenproxy.credentials.shared_token import PATIENCE, REQUEST, GrantRefused, Renewed, SharedTokens
from apitokenproxy.credentials.tokens import Tokens, made_of
from apitokenproxy.errors import ConfigurationError, SecretUnavailable
from apitokenproxy.interfaces import SecretReader, StateStore
from apitokenproxy.loading import Loaded
from apitokenproxy.messages import Caller, Credential, HiddenText, Secret

_KIND = "oauth2-refresh-token"


@frozen
class _Found:
    """What a credential is made of, as the references lead to it for a caller. Equal are the same secrets."""

    seed: Secret
    key: Secret
    secret: Secret | None

    @property
    def name(self) -> str:
        """What stands for all of it together."""
        return made_of([each for each in (self.seed, self.key, self.secret) if each is not None])


@frozen
class OAuth2RefreshToken:
    """`Authorization: Bearer` with an access token that `token_url` gives for a refresh token, as often as it takes.

    `refresh_token` is a reference to the first one, which a person's consent brought. The newest one and its access
    token are kept in the store of the proxy, for all processes, sealed under the master key that `key` is a reference
    to (`apitokenproxy.sealing.new_master_key`). `secret` is left out for a public client. `scope` asks for less than
    was granted. `auth`, `algorithm` and `key_id` are those of `OAuth2ClientCredentials`. `allow_private` permits
    plain http. `clock` is in seconds since 1970.

    Needs the extra `sealed`. Raises ConfigurationError.
    """

    token_url: str
    client_id: str
    refresh_token: str = field(repr=False, kw_only=True)
    key: str = field(repr=False, kw_only=True)
    secret: str = field(default="", repr=False, kw_only=True)
    scope: str = field(default="", kw_only=True)
    auth: Auth = field(default="basic", kw_only=True)
    algorithm: str = field(default="", kw_only=True)
    key_id: str = field(default="", kw_only=True)
    allow_private: bool = field(default=False, kw_only=True)
    clock: Callable[[], float] = field(default=time.time, kw_only=True, repr=False, eq=False)

    _client: Client = field(
        init=False,
        repr=False,
        eq=False,
        default=Factory(
            lambda self: Client(
                _KIND, self.token_url, self.client_id, self.auth, self.algorithm, self.key_id, self.clock
            ),
            takes_self=True,
        ),
    )
    _shared: SharedTokens = field(
        init=False, repr=False, eq=False, default=Factory(lambda self: SharedTokens(self.clock), takes_self=True)
    )
    _loads: Tokens = field(
        init=False,
        repr=False,
        eq=False,
        default=Factory(
            # Whether a token is fresh is known to the store, where it may have been for long.
            lambda self: Tokens(f"the token endpoint {self.token_url}", timeout=1.2 * PATIENCE, fresh=1.0),
            takes_self=True,
        ),
    )

    place: ClassVar[str] = "header Authorization"

    def __attrs_post_init__(self) -> None:
        endpoint(_KIND, "token_url", self.token_url, allow_private=self.allow_private)
        if self.auth == "private-key-jwt" and not self.secret:
            raise ConfigurationError(f"credential {_KIND}: auth private-key-jwt needs a secret, the private key")
        _master_key()  # what is missing is told now, not by the first request

    def bind(self, secrets: SecretReader) -> Callable[[Caller], Awaitable[Credential]]:
        """Return the function that makes the credential for a caller. Raises ConfigurationError."""
        states, colour = secrets.states, secrets.colour
        if states is None:
            raise ConfigurationError(f"credential {_KIND}: there is no store to keep refresh tokens in")
        read_seed, read_key = secrets.reader(self.refresh_token), secrets.reader(self.key, lines=True)
        read_secret = self._client.reader(secrets, self.secret) if self.secret else None
        current: Callable[..., Awaitable[Loaded[Credential]]] = colour.lift_apart(
            partial(self._current, states), Loaded
        )

        async def find(caller: Caller) -> _Found:
            seed, key = await read_seed(caller), await read_key(caller)
            return _Found(seed, key, await read_secret(caller) if read_secret else None)

        async def load(name: str, caller: Caller, found: _Found) -> Loaded[Credential]:
            why = ""
            for _ in range(2):
                try:
                    return await current(name, found)
                except GrantRefused as refused:
                    why = str(refused)
                secrets.expire(self.refresh_token, caller)
                again = await find(caller)
                if again.seed.reveal() == found.seed.reveal():
                    break
                found = again
            scheme = self.refresh_token.partition(":")[0]
            raise SecretUnavailable(f"{why}: authorise anew, and write the new refresh token to {scheme}:…")

        last: tuple[_Found, str] | None = None

        async def obtain(caller: Caller) -> Credential:
            nonlocal last
            found, before = await find(caller), last
            name = before[1] if before is not None and before[0] == found else found.name
            last = found, name
            return self._loads.kept(name) or await self._loads.get(
                name, partial(load, name, caller, found), colour, caller.tenant
            )

        return obtain

    def expire(self, refused: Credential) -> None:
        """Have the access token in a credential renewed, unless it is fresh: the API refused it."""
        self._shared.withdraw(refused.token.split(","))
        self._loads.refused(refused)

    def _current(self, states: StateStore, name: str, found: _Found) -> Loaded[Credential]:
        """Return the access token that all processes use. Waits. Raises SecretUnavailable and GrantRefused."""
        last = self._loads.last(name)
        seed = HiddenText(found.seed.reveal().decode("latin-1"))
        try:
            key = _master_key()(found.key)
        except ConfigurationError as error:
            raise SecretUnavailable(str(error)) from None
        place = Place(states, key, seed, self.scope, self.token_url)
        token = self._shared.get(place, partial(self._ask, found.secret), last.token if last else "")
        return Loaded(bearer(token.value, found.seed.version), token.ttl, token.at_most)

    def _ask(self, secret: Secret | None, refresh_token: str) -> Renewed:
        """Use a refresh token. Raises SecretUnavailable, and GrantRefused when it is good no more."""
        shown, headers = self._client.shown(secret)
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token, "scope": self.scope} | shown
        answer = ask_for_token(self.token_url, form, headers, seconds=REQUEST)
        if error_code(answer) == "invalid_grant":
            raise GrantRefused(f"{self.token_url} refuses the refresh token: status {answer.status}, invalid_grant")
        return self._renewed(answer)

    def _renewed(self, answer: Answer) -> Renewed:
        """Return what was given. A new refresh token is worth keeping also beside an access token that is none."""
        given = answer.ok and answer.said.get("refresh_token")
        refresh = sendable(self.token_url, answer, "refresh_token", REFRESH_TOKEN) if given else HiddenText()
        try:
            token = access_token(self.token_url, answer)
        except SecretUnavailable as error:
            if not refresh:
                raise
            return Renewed("", 0.0, refresh, error.detail)
        return Renewed(token.value, token.usable, refresh)


def _master_key() -> Callable[[Secret], Key]:
    """Return what makes a key of how it is written. Raises ConfigurationError."""
    try:
        from apitokenproxy.sealing import MasterKey  # noqa: PLC0415 - needs the extra `sealed`
    except ImportError:
        raise ConfigurationError(
            f"credential {_KIND} needs cryptography, which is not installed; run: pip install 'apitokenproxy[sealed]'"
        ) from None
    return MasterKey
