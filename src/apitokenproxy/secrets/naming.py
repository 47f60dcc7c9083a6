"""What versions of secrets are called: alike in all processes that share a store, telling nothing of the material.

The name is an HMAC under a key that is made once and kept in the store, so that whoever reads a name alone
cannot try out what the material may be.
"""

import hmac
import secrets

from apitokenproxy.errors import StoreUnavailable
from apitokenproxy.interfaces import StateStore

KEY = "fingerprint-key"
"""The state that holds the key."""
_KEY_BYTES = 32
_DIGITS = 12


class Fingerprints:
    """Names material. Without a store, and while it cannot be asked for the key, names are of this process alone."""

    def __init__(self, states: StateStore | None) -> None:
        self._states = states
        self._own = secrets.token_bytes(_KEY_BYTES)
        self._key = self._own if states is None else b""

    def known(self, material: bytes) -> str:
        """Return the fingerprint of material, empty while the key is not here. Never waits."""
        return _fingerprint(self._key, material) if self._key else ""

    def of(self, material: bytes) -> str:
        """Return the fingerprint of material. May ask the store."""
        try:
            if not self._key and self._states is not None:
                self._key = _shared_key(self._states, self._own)
        except StoreUnavailable:
            return _fingerprint(self._own, material)
        return _fingerprint(self._key, material)


def _shared_key(states: StateStore, own: bytes) -> bytes:
    """Return the key in the store; put `own` there if there is none, or one that is damaged and could be guessed."""
    state = states.state(KEY)
    if state is None or len(state.value) < _KEY_BYTES:
        states.write_state(KEY, own, 0 if state is None else state.number)  # or another process was first
        state = states.state(KEY)
    return own if state is None or len(state.value) < _KEY_BYTES else state.value


def _fingerprint(key: bytes, material: bytes) -> str:
    return hmac.digest(key, material, "sha256").hex()[:_DIGITS]
