"""Deriving: short-lived tokens that can do less than the client token they come from.

Rules:
1. Nothing is kept. What was derived is told by its signature, and ends with its parent.
2. The end stands in every derived token, and is never later than its parent's.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from apitokenproxy._colour import SYNC, run
from apitokenproxy.errors import ConfigurationError, TokenConflict
from apitokenproxy.identity.awaitable import awaitable
from apitokenproxy.identity.derived import Head, made
from apitokenproxy.identity.format import new_id
from apitokenproxy.identity.narrowing import end_after, terms_of
from apitokenproxy.identity.signing import SigningKeys
from apitokenproxy.identity.terms import checked_id, checked_scopes
from apitokenproxy.identity.told import DerivedToken, told
from apitokenproxy.interfaces import TokenStore

DEFAULT_LIFETIME: Final = timedelta(hours=1)


class Deriving:
    """The part of a TokenAuthority that derives tokens."""

    def __init__(
        self, store: TokenStore, keys: SigningKeys, check_limits: Callable[[Mapping[str, str | int]], object]
    ) -> None:
        self._store = store
        self._keys = keys
        self._check_limits = check_limits

    def derive(
        self,
        token_id: str,
        *,
        expires_in: timedelta = DEFAULT_LIFETIME,
        scopes: Iterable[str] | None = None,
        rules: Iterable[str] | None = None,
        upstreams: Iterable[str] | None = None,
        methods: Iterable[str] | None = None,
        paths: Iterable[str] | None = None,
        addresses: Iterable[str] | None = None,
        rate: str | None = None,
        burst: int | None = None,
        quota: str | None = None,
        concurrency: int | None = None,
        generation: int = 0,
    ) -> DerivedToken:
        """Make a short-lived token that can do less than this one, signed and kept nowhere.

        What it may do is narrowed as `narrow` says. `rate` (with `burst`), `quota` and `concurrency` are
        limits of its own, written as those of a `Limit`; what limits its parent counts it too. It ends
        with its parent, and with `generation` of the parent where one is named. Raises ConfigurationError,
        SecretUnavailable when the signing key cannot be had.
        """
        stored = self._store.find(checked_id(token_id))
        state = told(token_id, stored)
        if stored is None or state.state != "active":
            raise TokenConflict(f"client token {token_id} is {state.state}, so nothing can be derived from it")
        if scopes is not None and (missing := checked_scopes(scopes) - stored.scopes):
            raise ConfigurationError(f"client token {token_id} has no scope {', '.join(sorted(missing))}")
        limits = {"rate": rate, "burst": burst, "quota": quota, "concurrency": concurrency}
        own = {name: value for name, value in limits.items() if value is not None}
        self._check_limits(own)
        terms = terms_of(
            scopes=scopes, rules=rules, upstreams=upstreams, methods=methods, paths=paths, addresses=addresses
        )
        end = end_after(expires_in)
        terms["expires"] = end if stored.expires is None else min(end, int(stored.expires.timestamp()))
        self._keys.must_be_named()
        key, material = run(self._keys.bind(SYNC).newest())
        head = Head(key, new_id(), generation, tuple(sorted(own.items())))
        token = made(material, stored.id, head, terms)
        return DerivedToken(str(token), head.id, stored.id, datetime.fromtimestamp(terms["expires"], UTC))

    aderive = awaitable(derive)
