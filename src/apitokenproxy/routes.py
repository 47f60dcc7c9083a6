"""Routes: the ways to all upstreams, wired once for each colour."""

from collections.abc import Mapping
from functools import cached_property

from attrs import define

from apitokenproxy._colour import ASYNC, SYNC, Colour
from apitokenproxy.credentials.several import bind_all, unreadable
from apitokenproxy.forwarders.all import Forwarders
from apitokenproxy.rotation.records import VersionRecords
from apitokenproxy.rotation.versions import Versions
from apitokenproxy.route import Route
from apitokenproxy.secrets.cache import Secrets
from apitokenproxy.upstream import Upstream


@define(slots=False)
class Routes:
    """One route for each upstream. Built when a colour is first asked for: then every part is there."""

    upstreams: Mapping[str, Upstream]
    secrets: Secrets
    forwarders: Forwarders
    records: VersionRecords

    def bind(self, colour: Colour) -> Mapping[str, Route]:
        """Return the routes of a colour by their upstreams' names. Raises ConfigurationError."""
        return self._asynchronous if colour is ASYNC else self._synchronous

    @cached_property
    def _asynchronous(self) -> Mapping[str, Route]:
        return {name: self._route(upstream, ASYNC) for name, upstream in self.upstreams.items()}

    @cached_property
    def _synchronous(self) -> Mapping[str, Route]:
        return {name: self._route(upstream, SYNC) for name, upstream in self.upstreams.items()}

    def _route(self, upstream: Upstream, colour: Colour) -> Route:
        secrets = self.secrets.bind(colour)
        versions = Versions(
            upstream.name,
            self.records.bind(colour),
            colour,
            current=bind_all(upstream.credential, secrets, colour),
            candidate=bind_all(upstream.candidate, secrets, colour) if upstream.candidate else None,
            previous=bind_all(upstream.previous, secrets, colour) if upstream.previous else None,
            rotation=upstream.rotation,
        )
        return Route(
            upstream=upstream,
            versions=versions,
            obtain=versions.obtain,
            forward=self.forwarders.bind(upstream.name, colour),
        )

    async def missing_secrets(self, *, spare: bool) -> list[str]:
        """Try to read every secret that does not depend on the caller; return a sentence for each that fails.

        `spare`: those of candidates and previous versions too, without which requests are served all the same.
        """
        secrets, problems = self.secrets.bind(ASYNC), []
        for name, upstream in self.upstreams.items():
            for key in ("credential", "previous", "candidate") if spare else ("credential",):
                problems += [
                    f"upstreams.{name}.{key}: {problem}"
                    for problem in await unreadable(getattr(upstream, key), secrets)
                ]
        return problems
