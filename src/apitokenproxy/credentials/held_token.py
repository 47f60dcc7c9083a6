"""What processes share of a refresh token: the newest one, the access token that came with it, and who is asking.

All of it is sealed, for the name of the state that holds it.
"""

import json
from hashlib import sha256
from typing import Any, Protocol

import attrs
from attrs import evolve, field, frozen

from apitokenproxy.errors import SecretUnavailable
from apitokenproxy.interfaces import StateStore
from apitokenproxy.messages import HiddenText

AHEAD = 0.8
"""The part of an access token's life after which it is renewed."""


class Key(Protocol):
    """What seals: a `MasterKey`, which is imported by whoever has one, for it needs an extra."""

    id: str

    def seal(self, place: bytes, material: bytes) -> str:
        """Return the material as it is written, for one place."""

    def open(self, place: bytes, written: str) -> bytes:
        """Return the material. Raises ValueError when the key is not this one, or anything was changed."""


@frozen
class Held:
    """One state. Times are in seconds since 1970, so the clocks of machines that share a store must agree.

    The access token, which may be none, is for `scope` and is used from `since` to `until`. `holder` may ask for
    another one until `lease`, and nobody before `pause`, after `failures` attempts in a row that failed, the last
    with `why`: `outage`: nobody answered; `refused`: the refresh token is good no more.
    """

    refresh: str = field(repr=False, converter=HiddenText)
    access: str = field(default="", repr=False, converter=HiddenText)
    scope: str = ""
    since: float = 0.0
    until: float = 0.0
    holder: str = ""
    lease: float = 0.0
    pause: float = 0.0
    failures: int = 0
    why: str = ""
    outage: bool = False
    refused: bool = False

    @property
    def renew(self) -> float:
        """When the access token is renewed."""
        return self.since + AHEAD * (self.until - self.since)

    def leased(self, holder: str, lease: float) -> "Held":
        """Return the same with a lease."""
        return evolve(self, holder=holder, lease=lease)

    def failed(self, pause: float, error: SecretUnavailable, *, refused: bool) -> "Held":
        """Return the same without the lease, after an attempt that failed."""
        return evolve(
            self,
            holder="",
            lease=0.0,
            pause=pause,
            failures=self.failures + 1,
            why=error.detail,
            outage=error.outage,
            refused=refused,
        )


@frozen
class Place:
    """Where the state of one refresh token is: its name in a store, and the key that seals it.

    `seed` is the first refresh token, of which alone the name is made: whatever is configured anew, one that is
    spent is not used again. `scope` is what access tokens are asked for here; `what` is whose they are, in messages.
    """

    states: StateStore
    key: Key
    seed: str = field(repr=False, converter=HiddenText)
    scope: str
    what: str
    name: str = field(init=False)

    @name.default
    def _name(self) -> str:
        return f"oauth2/{sha256(b'apitokenproxy-refresh-token' + self.seed.encode()).hexdigest()}"

    def read(self) -> tuple[Held, int]:
        """Return what is held and its number; the seed and 0 where nothing is yet.

        Raises SecretUnavailable for what does not open, and StoreUnavailable.
        """
        state = self.states.state(self.name)
        return (Held(self.seed), 0) if state is None else (self._opened(state.value), state.number)

    def write(self, held: Held, number: int) -> bool:
        """Write in the place of what was read with `number`; False when somebody else did. Raises StoreUnavailable."""
        sealed = self.key.seal(self.name.encode(), json.dumps(attrs.asdict(held)).encode())
        return self.states.write_state(self.name, json.dumps({"key": self.key.id, "sealed": sealed}).encode(), number)

    def _opened(self, value: bytes) -> Held:
        try:
            written: dict[str, Any] = json.loads(value)
            if written["key"] != self.key.id:
                raise SecretUnavailable(f"{self.what}: its tokens are sealed under another master key; name that one")
            return Held(**json.loads(self.key.open(self.name.encode(), written["sealed"])))
        except (LookupError, RecursionError, TypeError, ValueError):
            raise SecretUnavailable(
                f"{self.what}: what is stored of its tokens is damaged; authorise anew, or restore the store"
            ) from None
