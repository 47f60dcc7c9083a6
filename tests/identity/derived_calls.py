"""What the tests of derived tokens share: an authority that can derive, and a proxy's judgement of what it derived."""

import base64
import json
import time
from hmac import digest
from typing import Any

from identity_calls import Hand, authenticate

from apitokenproxy import Caller, Grant
from apitokenproxy._colour import SYNC, run
from apitokenproxy.identity.authority import TokenAuthority
from apitokenproxy.identity.client_tokens import ClientTokens
from apitokenproxy.identity.signing import SigningKeys
from apitokenproxy.identity.verified import Verified
from apitokenproxy.limits.limit import own_limits
from apitokenproxy.messages import Hidden, Presented
from apitokenproxy.secrets.cache import Secrets
from apitokenproxy.testing import FixedSecrets

KEYS = {"new": "n" * 32, "old": "o" * 32, "short": "s" * 31}


def signing(*names: str, keys: dict[str, str] | None = None) -> SigningKeys:
    """Return the signing keys of these names, newest first."""
    secrets = Secrets({"fixed": FixedSecrets(**(KEYS if keys is None else keys))})
    return SigningKeys([f"fixed:{name}" for name in names], secrets.bind)


class World:
    """A token authority and an authenticator over one store, whose clocks are set by hand."""

    def __init__(self, store: Any, colour: str = "sync", *, keys: SigningKeys | None = None) -> None:
        self.store = store
        self.colour = colour
        self.timer, self.clock = Hand(100.0), Hand(time.time())
        self.keys = keys or signing("new", "old")
        verified = Verified(bound=1.0, timer=self.timer)
        self.tokens = TokenAuthority(store, verified, self.keys, own_limits)
        self.part = ClientTokens(store, verified, self.clock, keys=self.keys)

    def caller(self, token: str, address: str = "192.0.2.1") -> Caller | None:
        return authenticate(self.part, self.colour, Presented("bearer", Hidden(token.encode()), address))

    def signing_key(self) -> tuple[str, bytes]:
        return run(self.keys.bind(SYNC).newest())

    def excludes(self, token: str, grant: Grant) -> str:
        caller = self.caller(token)
        assert caller is not None
        return caller.excludes(Grant(caller, grant.operation, grant.rule))


def pass_by(world: World, seconds: float) -> None:
    world.timer.now += seconds
    world.clock.now += seconds


def signed(world: World, caveat: bytes, head: dict[str, Any]) -> str:
    """Return a token that is signed as it should be, whatever it says."""
    key, material = world.signing_key()
    said = _text(json.dumps({"key": key, "id": "0" * 12, "generation": 0} | head).encode())
    start = f"atp_{world.tokens.issue(tenant='acme').id}.{said}"
    signature = digest(digest(material, start.encode(), "sha256"), _text(caveat).encode(), "sha256")
    return f"{start}.{_text(caveat)}.{_text(signature)}"


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
