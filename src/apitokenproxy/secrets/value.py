"""What a secret manager holds under a name: the secret itself, or a JSON object with the secret under a key."""

import json
from typing import Any

from apitokenproxy.errors import SecretMissing, SecretUnavailable
from apitokenproxy.messages import Secret

MAX_BYTES = 65536


def secret_in(held: str | bytes, key: str, *, place: str, version: str) -> Secret:
    """Return what is held, or with a key the text under it.

    Raises SecretUnavailable, which names `place` and shows nothing of what is held; SecretMissing when it is an
    object without that key.
    """
    if len(held) > MAX_BYTES:
        raise SecretUnavailable(f"{place} is larger than 64 KiB; it must hold the secret alone, or a JSON object")
    material: Any = held
    if key:
        place = f"{place}#{key}"
        material = _under(held, key, place)
    try:
        return Secret(material, version=version)
    except ValueError:
        raise SecretUnavailable(f"{place} is empty, or text that UTF-8 cannot write; write it again") from None


def _under(held: str | bytes, key: str, place: str) -> str:
    try:
        found = json.loads(held)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise SecretUnavailable(f"{place} cannot be had: what is held there is not a JSON object; leave out #{key}")
    if key not in found:
        raise SecretMissing(f"{place} cannot be had: there is no such key")
    value = found[key]
    if not isinstance(value, str):
        raise SecretUnavailable(f"{place} cannot be had: what is under that key is not text")
    return value
