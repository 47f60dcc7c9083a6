"""Narrowing a derived token, without asking anybody: whoever holds one can make a lesser one of it."""

import time
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from apitokenproxy.errors import ConfigurationError
from apitokenproxy.identity.derived import narrowed
from apitokenproxy.messages import HiddenText


def narrow(
    token: str,
    *,
    upstreams: Iterable[str] | None = None,
    methods: Iterable[str] | None = None,
    paths: Iterable[str] | None = None,
    addresses: Iterable[str] | None = None,
    scopes: Iterable[str] | None = None,
    rules: Iterable[str] | None = None,
    expires_in: timedelta | None = None,
) -> str:
    """Return a token that is good for less than `token`, a derived one. What is left out stays as it was.

    `upstreams`, `methods` and `rules` (their ids) list what may be used; `paths` are prefixes below the
    upstream's name, ending where a segment ends; `addresses` are those, or the networks, of clients;
    `scopes` are those that are kept; `expires_in` counts from now, by this machine's clock. Nothing can
    widen a token: what it could not do before, it still cannot. Raises ConfigurationError.
    """
    token = HiddenText(token)
    terms = terms_of(upstreams=upstreams, methods=methods, paths=paths, addresses=addresses, scopes=scopes, rules=rules)
    if expires_in is not None:
        terms["expires"] = end_after(expires_in)
    return str(narrowed(token, terms))


def terms_of(**lists: Iterable[str] | None) -> dict[str, Any]:
    """Return the terms of a caveat, as JSON holds them. Raises ConfigurationError."""
    terms = {}
    for name, values in lists.items():
        if isinstance(values, str):
            raise ConfigurationError(f"{name} must be a list, as [{values!r}]")
        if values is not None:
            terms[name] = sorted(set(values))
    return terms


def end_after(expires_in: timedelta) -> int:
    """Return the end, in whole seconds since the epoch. Raises ConfigurationError."""
    if not isinstance(expires_in, timedelta) or expires_in < timedelta(seconds=1):
        raise ConfigurationError("expires_in must be a timedelta of a second or more, as timedelta(hours=1)")
    return int(time.time() + expires_in.total_seconds())
