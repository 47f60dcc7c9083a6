"""`sealed:`: an encrypted file, what it withstands, and its master key's change."""

import base64
import json
import os
import stat
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path

import pytest
from secret_calls import MATERIAL, Hand

from apitokenproxy import ConfigurationError, SecretMissing, SecretUnavailable
from apitokenproxy.interfaces import SecretProvider
from apitokenproxy.messages import Secret
from apitokenproxy.sealing import MasterKey, new_master_key
from apitokenproxy.secrets.sealed import SealedProvider
from apitokenproxy.secrets.sealed_file import Place, SealedFile
from apitokenproxy.testing import SecretProviderConformance

GITHUB = Place("acme", "github")


def key_file(folder: Path, name: str = "master") -> tuple[MasterKey, str]:
    """Return a new master key, and the reference to it."""
    written = new_master_key()
    (folder / name).write_text(f"{written}\n")
    return MasterKey(Secret(written)), f"file:{folder / name}"


class TestSealed(SecretProviderConformance):
    """A file of this machine."""

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.path = tmp_path / "sealed.json"
        self.key, self.master = key_file(tmp_path)

    def make(self) -> SecretProvider:
        return SealedProvider(str(self.path), [self.master])

    def own_secrets(self) -> Sequence[str]:
        return [Path(self.master.removeprefix("file:")).read_text().strip()]

    def put(self, name: str, material: str) -> str:
        SealedFile(self.path).put(Place("acme", name), material, self.key)
        return f"acme/{name}"

    def missing(self) -> Sequence[str]:
        self.put("there", "x")
        malformed = ["", "/", "a/b/c", "acme/", "/there", "../there", "a b", "acme/there#", "acme/there#1", "there\n"]
        return ["acme/nothing", "other/there", "there", "acme/there#previous", *malformed]

    def absent(self) -> Sequence[str]:
        self.put("there", "x")
        return ["acme/nothing", "other/there", "there", "acme/there#previous"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sealed.json"


def refused(provider: SealedProvider, reference: str = "acme/github") -> str:
    with pytest.raises(SecretUnavailable) as refusal:
        provider.fetch(reference)
    assert MATERIAL not in refusal.value.detail
    return refusal.value.detail


def test_two_versions_are_live(path: Path, tmp_path: Path) -> None:
    """The newest, and the one before it; older ones are gone from the file."""
    key, master = key_file(tmp_path)
    file, provider = SealedFile(path), SealedProvider(str(path), [master])
    assert [file.put(GITHUB, material, key) for material in ("one", "two", "three")] == [1, 2, 3]
    got = [provider.fetch(reference) for reference in ("acme/github", "acme/github#previous")]
    assert [(secret.reveal(), secret.version) for secret in got] == [(b"three", "sealed/3"), (b"two", "sealed/2")]
    assert len(file.versions(GITHUB)) == 2
    assert file.remove(GITHUB)
    assert not file.remove(GITHUB)
    assert refused(provider) == "sealed: there is nothing at acme/github; seal it first"


def test_nothing_in_the_file_can_be_read_and_only_its_owner_has_it(path: Path, tmp_path: Path) -> None:
    """The same material is sealed in another way each time, and no file is left over."""
    key, _ = key_file(tmp_path)
    file = SealedFile(path)
    before = os.umask(0)
    try:
        for _ in range(2):
            file.put(GITHUB, MATERIAL, key)
    finally:
        os.umask(before)
    assert MATERIAL not in path.read_text()
    first, second = file.versions(GITHUB)
    assert first["sealed"] != second["sealed"]
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir() if file.name != "master"}
    assert modes == {"sealed.json": 0o600, "sealed.json.lock": 0o600}


def test_what_was_moved_does_not_open(path: Path, tmp_path: Path) -> None:
    """To another tenant, another name, another version: whoever can write the file still cannot swap secrets."""
    key, master = key_file(tmp_path)
    file, provider = SealedFile(path), SealedProvider(str(path), [master])
    file.put(GITHUB, MATERIAL, key)
    written = json.loads(path.read_text())
    [version] = written["secrets"]["acme/github"]
    for place, moved in {
        "other/github": version,
        "acme/gitlab": version,
        "github": version,
        "acme/github": {**version, "version": 2},
        "acme/changed": {**version, "sealed": version["sealed"][:-4] + "AAA="},
        "acme/cut": {**version, "sealed": version["sealed"][:8]},
        "acme/none": {**version, "sealed": "%"},
    }.items():
        path.write_text(json.dumps({**written, "secrets": {place: [moved]}}))
        assert refused(provider, place) == f"sealed: {place} does not open: it was changed, or moved from elsewhere"
    path.write_text(json.dumps(written))
    assert provider.fetch("acme/github").reveal() == MATERIAL.encode()


def test_everything_is_sealed_anew_under_another_key(path: Path, tmp_path: Path) -> None:
    """A process that knows both goes on before and after; with the old one alone it does not open any more."""
    old, old_master = key_file(tmp_path, "old")
    new, new_master = key_file(tmp_path, "new")
    file = SealedFile(path)
    for material in ("one", "two"):
        file.put(GITHUB, material, old)
    file.put(Place("", "shared"), "three", old)
    both, only_old, only_new = (
        SealedProvider(str(path), masters) for masters in ([new_master, old_master], [old_master], [new_master])
    )
    references = ["acme/github", "acme/github#previous", "shared"]

    def read(provider: SealedProvider) -> list[tuple[bytes, str]]:
        return [(each.reveal(), each.version) for each in map(provider.fetch, references)]

    before = read(both)
    assert refused(only_new).startswith("sealed: acme/github is sealed under another master key")
    assert (file.reseal(old, new), file.reseal(old, new)) == (3, 0)
    assert (read(both), read(only_new)) == (before, before)
    assert refused(only_old).startswith("sealed: acme/github is sealed under another master key")


def test_a_change_of_key_is_all_or_nothing(path: Path, tmp_path: Path) -> None:
    """With one secret that does not open, the file stays as it was."""
    old, _ = key_file(tmp_path, "old")
    new, _ = key_file(tmp_path, "new")
    file = SealedFile(path)
    file.put(GITHUB, "one", old)
    file.put(Place("", "another"), "two", MasterKey(Secret(new_master_key())))
    before = path.read_bytes()
    with pytest.raises(SecretUnavailable, match="another does not open"):
        file.reseal(old, new)
    assert path.read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["new", "old", "sealed.json", "sealed.json.lock"]


def test_writers_take_turns(path: Path, tmp_path: Path) -> None:
    """Of twenty at once none is lost."""
    key, master = key_file(tmp_path)
    threads = [
        threading.Thread(target=SealedFile(path).put, args=(Place("t", f"n{number}"), f"m{number}", key))
        for number in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    provider = SealedProvider(str(path), [master])
    assert [provider.fetch(f"t/n{number}").reveal() for number in range(20)] == [b"m%d" % n for n in range(20)]


@pytest.mark.parametrize(
    "written",
    ["", "{}", "[]", "null", '{"format": "apitokenproxy-sealed-1"}', "[" * 100_000, '{"format": 2, "secrets": {}}']
    + [
        f'{{"format": "apitokenproxy-sealed-1", "secrets": {{"acme/github": {versions}}}}}'
        for versions in ("[]", "{}", "[5]", '[{"version": "1", "key": "", "sealed": ""}]', '[{"version": 1}]')
    ],
)
def test_a_file_that_is_damaged_is_refused(path: Path, tmp_path: Path, written: str) -> None:
    """Whatever stands in it; and it is not written over."""
    key, master = key_file(tmp_path)
    path.write_text(written)
    assert refused(SealedProvider(str(path), [master])).endswith("is not a file of sealed secrets, or is damaged")
    with pytest.raises(SecretUnavailable):
        SealedFile(path).put(GITHUB, "x", key)
    assert path.read_text() == written


@pytest.mark.parametrize("written", ["", "short", "A" * 43, "A" * 64, f"{'A' * 43}=x", "ä" * 43])
def test_a_master_key_is_32_bytes(path: Path, tmp_path: Path, written: str) -> None:
    """Anything else is refused and not shown."""
    key, master = key_file(tmp_path)
    SealedFile(path).put(GITHUB, MATERIAL, key)
    (tmp_path / "master").write_text(written)
    told = refused(SealedProvider(str(path), [master]))
    assert told.startswith(("sealed: the master key is not 32 bytes in base64", "secret file"))
    assert not written or written not in told


def test_a_master_key_of_another_length_is_not_shown_by_an_error_report() -> None:
    """Not even with local variables: it may be the key of another program."""
    with pytest.raises(ConfigurationError) as refused:
        MasterKey(Secret(base64.b64encode(b"0123456789" + b"ABCDEF")))
    told = "".join(traceback.TracebackException.from_exception(refused.value, capture_locals=True).format())
    assert "raw = Hidden(***)" in told
    assert "0123456789ABCDEF" not in told


def test_what_cannot_be_a_secret_is_not_sealed(path: Path, tmp_path: Path) -> None:
    """The file is not made for it."""
    key, _ = key_file(tmp_path)
    with pytest.raises(ValueError, match="must not be empty"):
        SealedFile(path).put(GITHUB, "", key)
    assert not path.exists()


def test_only_the_file_says_that_there_is_none(path: Path, tmp_path: Path) -> None:
    """That the file or its key is missing says nothing about the secret."""
    key, master = key_file(tmp_path)
    provider, kinds = SealedProvider(str(path), [master]), []

    def refusal() -> type:
        with pytest.raises(SecretUnavailable) as refused:
            provider.fetch("acme/github")
        return refused.type

    kinds.append(refusal())
    SealedFile(path).put(Place("acme", "other"), MATERIAL, key)
    kinds.append(refusal())
    SealedFile(path).put(GITHUB, MATERIAL, key)
    (tmp_path / "master").unlink()
    kinds.append(refusal())
    assert kinds == [SecretUnavailable, SecretMissing, SecretUnavailable]


@pytest.mark.parametrize("place", [("a", "b/c"), ("a/b", "c"), ("", ""), ("", "a/b"), ("..", "a#b"), ("a b", "c")])
def test_a_place_is_of_plain_names(place: tuple[str, str]) -> None:
    """No two places are written alike, and each can be named by a reference."""
    with pytest.raises(ConfigurationError, match="sealed: a tenant and a name are"):
        Place(*place)


@pytest.mark.parametrize("masters", [[], ["A" * 43 + "="], ["nowhere:x"], ["file:"]])
def test_a_master_key_that_is_not_named_is_told(
    path: Path, masters: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the key itself stands where its reference belongs: without it in the text."""
    monkeypatch.delenv("APITOKENPROXY_SEALED_KEY", raising=False)
    with pytest.raises(ConfigurationError, match=r"^sealed: ") as told:
        SealedProvider(str(path), masters)
    assert "AAAA" not in str(told.value)


class Keys:
    """Gives master keys by name, and counts how often."""

    ttl = 60.0

    def __init__(self, **keys: str | bytes) -> None:
        self.keys = keys
        self.asked: list[str] = []

    def fetch(self, reference: str) -> Secret:
        self.asked.append(reference)
        return Secret(self.keys[reference])


def test_a_master_key_is_kept_for_as_long_as_its_provider_says(path: Path) -> None:
    """It is asked for at once when a secret is sealed under another one."""
    old, new = new_master_key(), new_master_key()
    keys, clock, file = Keys(new=old, old=old), Hand(), SealedFile(path)
    provider = SealedProvider(str(path), ["keys:new", "keys:old"], providers={"keys": keys}, clock=clock)
    file.put(GITHUB, MATERIAL, MasterKey(Secret(old)))
    for clock.now in (0.0, 59.0, 60.0, 61.0):
        assert provider.fetch("acme/github").reveal() == MATERIAL.encode()
    assert keys.asked == ["new", "new"]
    keys.keys["new"] = new
    file.reseal(MasterKey(Secret(old)), MasterKey(Secret(new)))
    file.put(Place("", "other"), MATERIAL, MasterKey(Secret(old)))
    for reference in ("acme/github", "other", "acme/github", "other"):
        assert provider.fetch(reference).reveal() == MATERIAL.encode()
    assert keys.asked == ["new", "new", "new", "new", "old"]


def test_a_master_key_may_be_of_any_bytes(path: Path) -> None:
    """As KMS makes it; 32 characters that somebody typed are none."""
    keys = Keys(raw=bytes(range(224, 256)))
    SealedFile(path).put(GITHUB, MATERIAL, MasterKey(keys.fetch("raw")))
    provider = SealedProvider(str(path), ["keys:raw"], providers={"keys": keys})
    assert provider.fetch("acme/github").reveal() == MATERIAL.encode()
    with pytest.raises(ConfigurationError, match="the master key is not 32 bytes in base64"):
        MasterKey(Secret("correct horse battery staple 123"))


def test_the_environment_says_which_file_and_key(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """During a change of key, the old one too."""
    old, old_master = key_file(tmp_path, "old")
    _, new_master = key_file(tmp_path, "new")
    SealedFile(path).put(GITHUB, MATERIAL, old)
    monkeypatch.setenv("APITOKENPROXY_SEALED_FILE", str(path))
    monkeypatch.setenv("APITOKENPROXY_SEALED_KEY", new_master)
    monkeypatch.setenv("APITOKENPROXY_SEALED_OLD_KEY", old_master)
    assert SealedProvider().fetch("acme/github").reveal() == MATERIAL.encode()
