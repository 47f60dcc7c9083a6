"""One file of encrypted secrets, each sealed (see `sealing.py`) for one tenant, name and version.

Rules:
1. Tenant, name and version are associated data: what is moved to another place in the file does not open there.
   An older copy of the whole file does; keep it where only the operator writes.
2. The file is replaced in one step, is readable by its owner alone, and has one writer at a time.
3. Of each secret the two newest versions are kept, so that both are live while one is rotated.
"""

import contextlib
import fcntl
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from attrs import frozen

from apitokenproxy.errors import ConfigurationError, SecretUnavailable
from apitokenproxy.messages import Secret
from apitokenproxy.sealing import MasterKey
from apitokenproxy.secrets.reading import read_file, why_not

MAX_BYTES = 16 << 20
KEPT_VERSIONS = 2

_FORMAT = "apitokenproxy-sealed-1"

_NAME = re.compile(r"[\w.@-]+", re.ASCII)

Sealed = dict[str, Any]


@frozen
class Place:
    """Where in the file a secret is. An empty tenant: it belongs to none of them. Raises ConfigurationError."""

    tenant: str
    name: str

    def __attrs_post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or (self.tenant and not _NAME.fullmatch(self.tenant)):
            raise ConfigurationError("sealed: a tenant and a name are of letters, digits and . _ @ -")

    def associated(self, version: int) -> bytes:
        """Return what is authenticated with the material."""
        return json.dumps([_FORMAT, self.tenant, self.name, version]).encode()

    def __str__(self) -> str:
        """Show it as a reference does."""
        return f"{self.tenant}/{self.name}" if self.tenant else self.name


def opened(key: MasterKey, place: Place, written: Sealed) -> bytes:
    """Return the material of one version. Raises SecretUnavailable."""
    try:
        return key.open(place.associated(written["version"]), written["sealed"])
    except (LookupError, TypeError, ValueError):
        raise SecretUnavailable(f"sealed: {place} does not open: it was changed, or moved from elsewhere") from None


def _sealed(key: MasterKey, place: Place, version: int, material: bytes) -> Sealed:
    return {"version": version, "key": key.id, "sealed": key.seal(place.associated(version), material)}


class SealedFile:
    """The file at `path`. It need not exist before something is sealed into it."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)

    def versions(self, place: Place) -> list[Sealed]:
        """Return what is kept in a place, the newest first. Raises SecretUnavailable."""
        return self._read().get(str(place), [])

    def put(self, place: Place, material: str | bytes, key: MasterKey) -> int:
        """Seal a new version and return its number. Raises ValueError for what cannot be a secret."""
        raw = Secret(material).reveal()
        with self._changed() as held:
            versions = held.get(str(place), [])
            number = 1 + max((each["version"] for each in versions), default=0)
            held[str(place)] = [_sealed(key, place, number, raw), *versions][:KEPT_VERSIONS]
        return number

    def remove(self, place: Place) -> bool:
        """Take a secret away, all versions of it; False when there is none."""
        with self._changed() as held:
            return held.pop(str(place), None) is not None

    def reseal(self, old: MasterKey, new: MasterKey) -> int:
        """Seal everything anew under another master key, all or nothing; return how many versions that were.

        Until every process has the new key they need both: see `SealedProvider`.
        """
        count = 0
        with self._changed() as held:
            for written, versions in held.items():
                tenant, _, name = written.rpartition("/")
                place = Place(tenant, name)
                for index, each in enumerate(versions):
                    if each["key"] != new.id:
                        versions[index] = _sealed(new, place, each["version"], opened(old, place, each))
                        count += 1
        return count

    # --- the file itself --------------------------------------------------------------------

    def _read(self) -> dict[str, list[Sealed]]:
        try:
            raw = read_file(self._path, MAX_BYTES)
        except (OSError, ValueError) as error:
            raise SecretUnavailable(f"sealed: {self._path} cannot be read: {why_not(error)}") from None
        try:
            document = json.loads(raw) if len(raw) <= MAX_BYTES else None
        except (ValueError, RecursionError):
            document = None
        if not _is_ours(document):
            raise SecretUnavailable(f"sealed: {self._path} is not a file of sealed secrets, or is damaged")
        return document["secrets"]  # type: ignore[no-any-return]

    @contextlib.contextmanager
    def _changed(self) -> Iterator[dict[str, list[Sealed]]]:
        """Give what is held; write it down unless the body raises. One at a time."""
        lock = self._path.with_name(f"{self._path.name}.lock")
        with open(lock, "ab", opener=_for_its_owner) as waiting:
            fcntl.flock(waiting, fcntl.LOCK_EX)
            held = self._read() if self._path.exists() else {}
            yield held
            self._write({"format": _FORMAT, "secrets": held})

    def _write(self, document: Mapping[str, Any]) -> None:
        new = self._path.with_name(f"{self._path.name}.{secrets.token_hex(8)}.new")
        try:
            with open(new, "xb", opener=_for_its_owner) as file:
                file.write(json.dumps(document, indent=1, sort_keys=True).encode())
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
        finally:
            new.unlink(missing_ok=True)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _for_its_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _is_ours(document: Any) -> TypeGuard[dict[str, Any]]:
    return (
        isinstance(document, dict)
        and document.get("format") == _FORMAT
        and isinstance(document.get("secrets"), dict)
        and all(
            isinstance(versions, list) and versions and all(_is_sealed(each) for each in versions)
            for versions in document["secrets"].values()
        )
    )


def _is_sealed(each: Any) -> bool:
    return (
        isinstance(each, dict)
        and type(each.get("version")) is int
        and isinstance(each.get("key"), str)
        and isinstance(each.get("sealed"), str)
    )
