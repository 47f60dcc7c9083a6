"""Attributes of a caller: what JSON can hold, checked on the way in and read-only on the way out."""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from apitokenproxy.errors import ConfigurationError

_MAX_LENGTH = 8192


def checked(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a copy of `attributes`, to which a way through JSON and back made no difference.

    Raises ConfigurationError for what JSON would change or refuse, as keys that are not text,
    tuples, dates or NaN, and for more than 8,192 characters of JSON.
    """
    if attributes is None:
        return {}
    try:
        text = json.dumps(dict(attributes), allow_nan=False)
        copy: dict[str, Any] = json.loads(text)
        same = copy == attributes
    except (TypeError, ValueError, RecursionError):
        same = False
        text, copy = "", {}
    if not same:
        raise ConfigurationError(
            "attributes must be what JSON can hold: text keys; values of text, numbers, booleans, None, lists and dicts"
        )
    if len(text) > _MAX_LENGTH:
        raise ConfigurationError(f"attributes take {len(text)} characters as JSON; at most {_MAX_LENGTH} are kept")
    return copy


def read_only(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a view that nobody can change, all the way down: lists become tuples.

    One caller serves many requests, and no part may change what the next one sees.
    """
    return MappingProxyType({name: _frozen(value) for name, value in attributes.items()})


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return read_only(value)
    if isinstance(value, list):
        return tuple(map(_frozen, value))
    return value
