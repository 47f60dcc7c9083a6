"""VersionAuthority: looks at the versions of upstreams' secrets, promotes them and takes them back, for people.

A change takes effect in this process at once and in the others within a second.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Literal, Protocol

from attrs import evolve, frozen

from apitokenproxy._colour import ASYNC, SYNC, Colour, run
from apitokenproxy.errors import ConfigurationError, ProxyError
from apitokenproxy.messages import Caller, Credential
from apitokenproxy.rotation.records import Change
from apitokenproxy.rotation.terms import Rotation, promoted, refused, rolled_back, seen_accepted
from apitokenproxy.rotation.versions import MOST_OK, REFUSED, Source, Versions

Role = Literal["candidate", "current", "previous"]


@frozen
class VersionInfo:
    """What may be told of one version of an upstream's credential.

    `standing` is `live` (what requests begin with), `proving`, `promoted`, `failing`, `rolled back` or
    `ready` (nothing speaks against it), or `missing`, and `problem` says why. `since` is when it came to that, if
    that is known. `accepted` and `refused` count answers to it while it was a candidate. `status` is what the
    upstream answered to a probe, None without one.
    """

    upstream: str
    role: Role
    version: str
    standing: str
    since: datetime | None = None
    accepted: int = 0
    refused: int = 0
    by: str = ""
    problem: str = ""
    status: int | None = None


class Rotating(Protocol):
    """What is needed of the way to an upstream."""

    @property
    def versions(self) -> Versions:
        """Its versions."""

    async def probe(self, caller: Caller, credential: Credential, path: str = "") -> int:
        """Send a probe and return the answer's status."""


class VersionAuthority:
    """The versions of all upstreams. `tenant` and `subject` stand for a caller where references hold them.

    Methods raise ConfigurationError for what is not there, SecretUnavailable and StoreUnavailable. Each has a
    twin with an `a` before its name, to be awaited.
    """

    def __init__(self, routes: Callable[[Colour], Mapping[str, Rotating]]) -> None:
        self._routes = routes

    def status(self, upstream: str | None = None, *, tenant: str = "", subject: str = "") -> list[VersionInfo]:
        """Return what is known of the versions of all upstreams, or of one."""
        return run(self._status(SYNC, upstream, Caller(tenant, subject)))

    async def astatus(self, upstream: str | None = None, *, tenant: str = "", subject: str = "") -> list[VersionInfo]:
        """Do what `status` does."""
        return await self._status(ASYNC, upstream, Caller(tenant, subject))

    def promote(self, upstream: str, *, tenant: str = "", subject: str = "", by: str = "") -> VersionInfo:
        """Make the candidate the live version, whatever is known of it. `by` says who did it.

        Without a candidate, the current one that was rolled back.
        """
        return run(self._promote(SYNC, upstream, Caller(tenant, subject), by))

    async def apromote(self, upstream: str, *, tenant: str = "", subject: str = "", by: str = "") -> VersionInfo:
        """Do what `promote` does."""
        return await self._promote(ASYNC, upstream, Caller(tenant, subject), by)

    def roll_back(self, upstream: str, *, tenant: str = "", subject: str = "", by: str = "") -> VersionInfo:
        """Take the candidate back, promoted or not; where there is none, the current version for the previous one."""
        return run(self._roll_back(SYNC, upstream, Caller(tenant, subject), by))

    async def aroll_back(self, upstream: str, *, tenant: str = "", subject: str = "", by: str = "") -> VersionInfo:
        """Do what `roll_back` does."""
        return await self._roll_back(ASYNC, upstream, Caller(tenant, subject), by)

    def probe(self, upstream: str, path: str = "", *, tenant: str = "", subject: str = "") -> list[VersionInfo]:
        """Send a GET of `path`, or of the rotation's `probe`, with each version. It counts, as for any request."""
        return run(self._probe(SYNC, upstream, path, Caller(tenant, subject)))

    async def aprobe(self, upstream: str, path: str = "", *, tenant: str = "", subject: str = "") -> list[VersionInfo]:
        """Do what `probe` does."""
        return await self._probe(ASYNC, upstream, path, Caller(tenant, subject))

    # --- in either colour ---------------------------------------------------------------------

    async def _status(self, colour: Colour, upstream: str | None, caller: Caller) -> list[VersionInfo]:
        routes = self._routes(colour)
        names = list(routes) if upstream is None else [upstream]
        return [info for name in names for info in await _infos(_route(routes, name).versions, caller)]

    async def _promote(self, colour: Colour, upstream: str, caller: Caller, by: str) -> VersionInfo:
        versions = _route(self._routes(colour), upstream).versions
        role: Role = "candidate" if versions.candidate is not None else "current"
        source = versions.candidate or versions.current
        credential = await source.obtain(caller)
        if versions.candidate is None and not versions.record(await versions.known(), credential).rolled_back:
            raise ConfigurationError(f"upstream {upstream} has no candidate; name one in the configuration")
        await versions.change(credential, partial(promoted, by=by))
        return await _info(versions, caller, role, source)

    async def _roll_back(self, colour: Colour, upstream: str, caller: Caller, by: str) -> VersionInfo:
        versions = _route(self._routes(colour), upstream).versions
        candidate = None if versions.candidate is None else await versions.candidate.had(caller)
        if versions.candidate and candidate:
            if versions.record(await versions.known(), candidate).rolled_back:
                raise ConfigurationError(
                    f"the candidate of upstream {upstream} was rolled back already; "
                    "to take the current version back too, take the candidate out of the configuration"
                )
            await versions.change(candidate, partial(rolled_back, by=by))
            return await _info(versions, caller, "candidate", versions.candidate)
        if versions.previous is None:
            raise ConfigurationError(
                f"upstream {upstream} has no candidate or previous version; nothing was rolled back"
            )
        await versions.previous.obtain(caller)
        await versions.change(await versions.current.obtain(caller), partial(rolled_back, by=by))
        return await _info(versions, caller, "current", versions.current)

    async def _probe(self, colour: Colour, upstream: str, path: str, caller: Caller) -> list[VersionInfo]:
        route = _route(self._routes(colour), upstream)
        versions = route.versions
        if path:
            Rotation(probe=path)  # says what is wrong with it
        elif not versions.rotation.probe:
            raise ConfigurationError(f"upstream {upstream} has no probe in its rotation; name a path such as /v1/me")
        answers: dict[Role, int] = {}
        for role, source in _roles(versions):
            credential = await source.had(caller)
            if credential is not None:
                answers[role] = await route.probe(caller, credential, path)
        verdict = _verdict(answers, versions.rotation)
        if verdict is not None and versions.candidate is not None:
            await versions.change(await versions.candidate.obtain(caller), verdict)
        return [evolve(info, status=answers.get(info.role)) for info in await _infos(versions, caller)]


def _verdict(answers: Mapping[Role, int], rotation: Rotation) -> Change | None:
    """Return what the answers to a probe say of the candidate, if anything."""
    candidate = answers.get("candidate", 0)
    if 0 < candidate <= MOST_OK:
        return partial(seen_accepted, rotation=rotation)
    if candidate in REFUSED and 0 < answers.get("current", 0) <= MOST_OK:
        return partial(refused, rotation=rotation)
    return None


def _route(routes: Mapping[str, Rotating], upstream: str) -> Rotating:
    if upstream not in routes:
        raise ConfigurationError(f"there is no upstream {upstream}; there are: {', '.join(routes)}")
    return routes[upstream]


def _roles(versions: Versions) -> list[tuple[Role, Source]]:
    roles: list[tuple[Role, Source | None]] = [
        ("candidate", versions.candidate),
        ("current", versions.current),
        ("previous", versions.previous),
    ]
    return [(role, source) for role, source in roles if source is not None]


async def _infos(versions: Versions, caller: Caller) -> list[VersionInfo]:
    return [await _info(versions, caller, role, source) for role, source in _roles(versions)]


async def _info(versions: Versions, caller: Caller, role: Role, source: Source) -> VersionInfo:
    try:
        credential = await source.obtain(caller)
    except ProxyError as error:
        return VersionInfo(versions.upstream, role, "", "missing", problem=error.detail or error.title)
    record = versions.record(await versions.known(), credential)
    standing: str = record.standing(versions.now())
    live = await Source(versions.obtain, source.expire).had(caller)
    if live is not None and live.version == credential.version:
        standing = "live"
    elif role != "candidate" and standing in {"proving", "promoted"}:
        standing = "ready"
    since = record.rolled_back or record.promoted or record.first_accepted
    return VersionInfo(
        versions.upstream,
        role,
        credential.version,
        standing,
        datetime.fromtimestamp(since, UTC) if since else None,
        record.accepted,
        record.refused,
        record.by,
    )
