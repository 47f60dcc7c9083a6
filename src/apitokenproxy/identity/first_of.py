"""FirstOf: several authenticators, asked in order."""

from collections.abc import Iterable
from types import NoneType
from typing import Any, Protocol

from apitokenproxy._colour import Colour
from apitokenproxy.errors import ConfigurationError
from apitokenproxy.messages import Caller, Presented, Request


class BoundAuthenticator(Protocol):
    """An authenticator in the colour of the pipeline."""

    async def authenticate(self, presented: Presented | None, request: Request, /) -> Caller | None:
        """Return the caller, or None for what it does not know; raise to refuse."""


class FirstOf:
    """The first authenticator that returns a caller or raises decides; None from all is None.

    A part with `bind` is bound; any other Authenticator is lifted. Raises ConfigurationError when
    there is none.
    """

    def __init__(self, authenticators: Iterable[Any]) -> None:
        self._authenticators = tuple(authenticators)
        if not self._authenticators:
            raise ConfigurationError("no authenticator is named, so nobody could call; name at least one")

    def bind(self, colour: Colour) -> BoundAuthenticator:
        """Return the authenticators in one colour: one alone as it is, at no cost."""
        bound = tuple(_bind(part, colour) for part in self._authenticators)
        return bound[0] if len(bound) == 1 else BoundFirstOf(bound)


class BoundFirstOf:
    """FirstOf in one colour."""

    __slots__ = ("_authenticators",)

    def __init__(self, authenticators: tuple[BoundAuthenticator, ...]) -> None:
        self._authenticators = authenticators

    async def authenticate(self, presented: Presented | None, request: Request) -> Caller | None:
        """Ask one after the other."""
        for authenticator in self._authenticators:
            caller = await authenticator.authenticate(presented, request)
            if caller is not None:
                return caller
        return None


class _Lifted:
    __slots__ = ("authenticate",)

    def __init__(self, authenticate: Any) -> None:
        self.authenticate = authenticate


def _bind(part: Any, colour: Colour) -> BoundAuthenticator:
    if hasattr(part, "bind"):
        bound: BoundAuthenticator = part.bind(colour)
        return bound
    return _Lifted(colour.lift(part.authenticate, (Caller, NoneType)))
