"""`sealed:NAME` and `sealed:TENANT/NAME`: a secret in an encrypted file, under a master key that is kept elsewhere."""

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from apitokenproxy.errors import ConfigurationError, SecretMissing, SecretUnavailable
from apitokenproxy.messages import Secret
from apitokenproxy.sealing import MasterKey
from apitokenproxy.secrets.builtin import Plain, built_in_providers
from apitokenproxy.secrets.sealed_file import Place, Sealed, SealedFile, opened

_REFERENCE = re.compile(r"(?:(?P<tenant>[\w.@-]+)/)?(?P<name>[\w.@-]+)(?P<previous>#previous)?", re.ASCII)
_KEYS_FROM = ("env", "file", "exec", "kms")


class SealedProvider:
    """Reads the file at `path`; `masters` are secret references to its key, or to the new and the old one.

    `#previous` after a name is the version before the newest. Left out, path and keys are those of the
    environment: APITOKENPROXY_SEALED_FILE, APITOKENPROXY_SEALED_KEY and APITOKENPROXY_SEALED_OLD_KEY.
    `providers` read the keys (`env:`, `file:`, `exec:` and `kms:` when left out); each is used for as long as its
    provider's `ttl` says. Raises ConfigurationError.
    """

    ttl = 1.0

    def __init__(
        self,
        path: str | None = None,
        masters: Sequence[str] = (),
        *,
        providers: Mapping[str, Plain] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        environ = os.environ
        path = path or environ.get("APITOKENPROXY_SEALED_FILE", "")
        named = [environ.get(f"APITOKENPROXY_SEALED_{name}", "") for name in ("KEY", "OLD_KEY")]
        self._masters = [master for master in masters or named if master]
        if not path or not self._masters:
            raise ConfigurationError(
                "sealed: set APITOKENPROXY_SEALED_FILE to the file and APITOKENPROXY_SEALED_KEY to a secret reference "
                "to its master key, as file:/run/secrets/master-key"
            )
        built_in: Mapping[str, Any] = built_in_providers()
        self._providers = providers or {scheme: built_in[scheme] for scheme in _KEYS_FROM}
        self._clock = clock
        self._keys: dict[str, tuple[MasterKey, float]] = {}
        for master in self._masters:
            if master.partition(":")[0] not in self._providers or not master.partition(":")[2]:
                raise ConfigurationError(
                    "sealed: the master key is named by a secret reference, as file:/run/secrets/master-key, "
                    f"not written out; schemes: {', '.join(sorted(self._providers))}"
                )
            prepare = getattr(self._providers[master.partition(":")[0]], "prepare", None)
            if prepare is not None:
                prepare()  # what is missing is told when the proxy is mounted
        self._file = SealedFile(path)

    def fetch(self, reference: str) -> Secret:
        """Return the secret; its version is its number in the file. Raises SecretUnavailable."""
        found = _REFERENCE.fullmatch(reference)
        if found is None:
            raise SecretUnavailable("sealed: a reference is NAME or TENANT/NAME, with #previous or without")
        place = Place(found["tenant"] or "", found["name"])
        versions = sorted(self._file.versions(place), key=_number, reverse=True)
        if len(versions) <= bool(found["previous"]):
            what = "no version before the newest" if versions else "nothing"
            raise SecretMissing(f"sealed: there is {what} at {place}; seal it first")
        written = versions[bool(found["previous"])]
        material = opened(self._key(written["key"], place), place, written)
        try:
            return Secret(material, version=f"sealed/{written['version']}")
        except ValueError:
            raise SecretUnavailable(f"sealed: {place} is no secret; seal it again") from None

    def seal(self, reference: str, material: str | bytes) -> int:
        """Seal a new version of NAME or TENANT/NAME under the (new) master key and return its number.

        Raises ConfigurationError, SecretUnavailable, OSError.
        """
        found = _REFERENCE.fullmatch(reference)
        if found is None or found["previous"]:
            raise ConfigurationError("sealed: a secret is named NAME or TENANT/NAME, of letters, digits and . _ @ -")
        if not material:
            raise ConfigurationError("sealed: there is nothing to seal; write the secret to stdin")
        place = Place(found["tenant"] or "", found["name"])
        return self._file.put(place, material, self._fetched(self._masters[0]))

    def reseal(self) -> int:
        """Seal everything under the new master key that is still under the old one; return how many versions.

        Raises ConfigurationError, SecretUnavailable, OSError.
        """
        if len(self._masters) <= 1:
            raise ConfigurationError(
                "sealed: set APITOKENPROXY_SEALED_OLD_KEY to the old master key's reference, beside the new one's"
            )
        new, old = map(self._fetched, self._masters[:2])
        return self._file.reseal(old, new)

    def _key(self, identifier: str, place: Place) -> MasterKey:
        for key, until in list(self._keys.values()):
            if key.id == identifier and self._clock() < until:
                return key
        for master in self._masters:
            key = self._fetched(master)
            if key.id == identifier:
                return key
        raise SecretUnavailable(f"sealed: {place} is sealed under another master key; name that, or seal it again")

    def _fetched(self, master: str) -> MasterKey:
        scheme, _, rest = master.partition(":")
        provider, now = self._providers[scheme], self._clock()
        try:
            key = MasterKey(provider.fetch(rest))
        except (ConfigurationError, SecretMissing) as error:  # it is the key that is missing, not the secret
            raise SecretUnavailable(str(error)) from None
        self._keys[master] = key, now + provider.ttl
        return key


def _number(written: Sealed) -> int:
    return int(written["version"])
