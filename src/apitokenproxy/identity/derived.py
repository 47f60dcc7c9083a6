"""Derived tokens: `atp_<id of the parent>.<head>.<caveat>...<signature>`, signed, never stored.

    part       what
    head       base64url of a JSON object, written by the proxy: which key signed, whose generation it
               came from, an id of its own, limits of its own
    caveat     base64url of a JSON object that takes something away; as many as there are
    signature  base64url of HMAC-SHA256 over the caveat before it, keyed with the signature before that;
               the first is over `atp_<id>.<head>` and keyed with the proxy's signing key

So whoever holds a token can append caveats, without asking anybody, and nobody can take one off:
the signature before it is not known any more (Birgisson et al., "Macaroons", NDSS 2014).

Rules:
1. What is signed are the characters as they stand, and signatures are compared as they stand: no two
   texts are the same token.
2. Nothing of a token is believed before its signature is verified, but the name of its parent.
"""

import base64
import json
import re
from collections.abc import Mapping
from hmac import compare_digest, digest
from typing import Any

from attrs import field, frozen

from apitokenproxy.errors import ConfigurationError, Unauthenticated
from apitokenproxy.identity.caveats import MOST_VALUES, Caveat, made_caveat, read_caveats, strict_json
from apitokenproxy.identity.format import is_id
from apitokenproxy.messages import TOKEN_PREFIX, Hidden, HiddenText

LONGEST = 4096
"""Bytes."""
MOST_CAVEATS = 32

DERIVE = "tokens:derive"
"""The scope with which the holder of a client token may derive others from it. No derived token has it."""

DERIVED_REGEX = (
    TOKEN_PREFIX.decode() + r"[0-9A-Za-z]{12}\.[0-9A-Za-z_-]{16,}(?:\.[0-9A-Za-z_-]+){0,32}\.[0-9A-Za-z_-]{43}"
)
"""For secret scanners: matches every derived token."""

_FORM = re.compile(rb"(atp_([0-9A-Za-z]{12})\.([0-9A-Za-z_-]{16,}))((?:\.[0-9A-Za-z_-]+){0,32})\.([0-9A-Za-z_-]{43})")
_HEAD = {"key", "id", "generation", "limits"}
_TERMS = frozenset({"rate", "burst", "quota", "concurrency"})

Terms = tuple[tuple[str, str | int], ...]
"""What limits a token has of its own, as `(("burst", 5), ("rate", "10/minute"))`."""


@frozen
class Head:
    """What the proxy said of a derived token. `generation` is 0 when no secret of the parent was used for it."""

    key: str
    id: str
    generation: int = 0
    limits: Terms = ()


@frozen
class Derived:
    """A derived token taken apart. `parts` is what is signed: the head with what is before it, then each caveat."""

    parent: str
    head: Head
    parts: tuple[bytes, ...] = field(repr=False)
    signature: bytes = field(repr=False)

    def is_signed_with(self, key: bytes) -> bool:
        """Tell whether it was signed with that key and has only ever been narrowed."""
        return compare_digest(_text(_chained(key, *self.parts)), self.signature)

    def caveats(self) -> tuple[Caveat, ...]:
        """Return its caveats, once its signature is verified. Raises Unauthenticated."""
        try:
            return read_caveats(map(_bytes, self.parts[1:]))
        except ValueError:
            raise Unauthenticated(f"a caveat of a token derived from {self.parent} is not understood") from None


def is_derived(token: bytes) -> bool:
    """Tell whether what begins like a token of ours is a derived one, if it is one at all."""
    return token[16:17] == b"."


def take_apart(token: bytes) -> Derived:
    """Take a token apart. Raises Unauthenticated for what has not the form of one."""
    found = _FORM.fullmatch(token) if len(token) <= LONGEST else None
    if found is None:
        raise Unauthenticated("what begins like a derived token is not one (length or form)")
    signed, parent, head, caveats, signature = found.groups()
    try:
        read = _read_head(strict_json(_bytes(head)))
    except ValueError:
        raise Unauthenticated(f"the head of a token derived from {parent.decode()} is not understood") from None
    return Derived(parent.decode(), read, (signed, *caveats.split(b".")[1:]), signature)


def made(key: bytes, parent: str, head: Head, terms: Mapping[str, Any]) -> HiddenText:
    """Return a new derived token with one caveat of these terms. Raises ConfigurationError."""
    stated: dict[str, Any] = {"key": head.key, "id": head.id, "generation": head.generation}
    if head.limits:
        stated["limits"] = dict(head.limits)
    signed = TOKEN_PREFIX + parent.encode() + b"." + _text(_json(stated))
    return _with_caveat(Hidden(signed), _chained(key, signed), terms)


def narrowed(token: HiddenText, terms: Mapping[str, Any]) -> HiddenText:
    """Return a derived token with one more caveat. Raises ConfigurationError."""
    try:
        derived = take_apart(token.encode())
    except (Unauthenticated, UnicodeError):
        raise ConfigurationError(
            "only a derived token can be narrowed without the proxy: it has dots in it; "
            "derive one from the client token first"
        ) from None
    return _with_caveat(Hidden(b".".join(derived.parts)), Hidden(_bytes(derived.signature)), terms)


def _with_caveat(before: Hidden, signature: Hidden, terms: Mapping[str, Any]) -> HiddenText:
    if not terms:
        raise ConfigurationError("nothing is named by which the token would be narrowed")
    made_caveat(terms)
    caveat = _text(_json(terms))
    text = HiddenText(b".".join((before, caveat, _text(_chained(signature, caveat)))).decode())
    try:
        take_apart(text.encode()).caveats()
    except Unauthenticated:
        raise ConfigurationError(
            f"the token is full: at most {MOST_CAVEATS} caveats, {MOST_VALUES} values in them, {LONGEST} bytes in all"
        ) from None
    return text


def _chained(key: bytes, *parts: bytes) -> Hidden:
    for part in parts:
        key = digest(key, part, "sha256")
    return Hidden(key)


def _read_head(stated: Any) -> Head:
    if not isinstance(stated, dict) or not _HEAD >= set(stated) >= _HEAD - {"limits"}:
        raise ValueError("not a head")
    key, identifier, generation = stated["key"], stated["id"], stated["generation"]
    if not (isinstance(key, str) and isinstance(identifier, str) and is_id(identifier)):
        raise ValueError("not the ids of a key and a token")
    if type(generation) is not int or generation < 0:
        raise ValueError("not a generation")
    return Head(key, identifier, generation, _terms(stated.get("limits", {})))


def _terms(stated: Any) -> Terms:
    known = isinstance(stated, dict) and _TERMS.issuperset(stated)
    if not known or not all(type(value) in (str, int) for value in stated.values()):
        raise ValueError("not the terms of limits")
    return tuple(sorted(stated.items()))


def _json(stated: Mapping[str, Any]) -> bytes:
    return json.dumps(stated, separators=(",", ":")).encode("ascii")


def _text(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def _bytes(text: bytes) -> bytes:
    return base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
