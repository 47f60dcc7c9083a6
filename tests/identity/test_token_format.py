"""What a client token looks like."""

import re
import zlib

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from apitokenproxy.identity.format import SCAN_REGEX, TOKEN_LENGTH, digest, id_in, is_id, mint
from apitokenproxy.messages import TOKEN_PREFIX, Hidden

BASE62 = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def test_a_minted_token_has_the_published_form() -> None:
    """Prefix, id, underscore, secret and checksum have the lengths that the documentation states."""
    identifier, token = mint()
    assert re.fullmatch(r"atp_([0-9A-Za-z]{12})_[0-9A-Za-z]{33}[0-9A-Za-z]{6}", token)[1] == identifier
    assert len(token) == TOKEN_LENGTH
    assert token.encode().startswith(TOKEN_PREFIX)


def test_the_checksum_is_the_crc32_of_everything_before_it() -> None:
    """A scanner in any language can verify a token: CRC-32 as six base62 digits, most significant first."""
    token = mint()[1].encode()
    value = 0
    for letter in token[-6:]:
        value = value * 62 + BASE62.index(letter)
    assert value == zlib.crc32(token[:-6])


def test_a_known_token_keeps_verifying() -> None:
    """The format never changes under tokens that were handed out."""
    assert id_in(b"atp_0123456789AB_0123456789ABCDEFGHIJKLMNOPQRSTUVW3pP1zH") == "0123456789AB"


def test_an_id_keeps_while_its_secret_changes() -> None:
    """A new generation of a token has the same id and another secret."""
    identifier, first = mint()
    again, second = mint(identifier)
    assert (again, id_in(second.encode())) == (identifier, identifier)
    assert first != second


def test_minted_tokens_do_not_repeat() -> None:
    """Ids and secrets come from the operating system's random source."""
    minted = [mint() for _ in range(500)]
    assert len({identifier for identifier, _ in minted}) == 500
    assert len({token[17:50] for _, token in minted}) == 500


@given(before=st.text(), after=st.text())
def test_the_scan_regex_finds_every_minted_token_in_any_text(before: str, after: str) -> None:
    """Minting, scanning and reading a token agree, whatever stands around it."""
    identifier, token = mint()
    found = [match.encode() for match in re.findall(SCAN_REGEX, before + token + after)]
    assert identifier in [id_in(match) for match in found]


@given(data=st.data())
def test_no_mutation_of_a_token_verifies(data: st.DataObject) -> None:
    """Any changed byte is seen by the checksum; any other length by the length."""
    token = mint()[1].encode()
    position = data.draw(st.integers(0, len(token) - 1))
    byte = data.draw(st.integers(0, 255))
    assume(byte != token[position])
    assert id_in(token[:position] + bytes([byte]) + token[position + 1 :]) is None
    assert id_in(token[:position]) is None
    assert id_in(token[:position] + bytes([byte]) + token[position:]) is None


@given(st.binary(max_size=80) | st.binary(min_size=56, max_size=56))
def test_random_bytes_are_no_token(garbage: bytes) -> None:
    """What was never issued has no id, and looking at it raises nothing."""
    assert id_in(garbage) is None
    assert id_in(TOKEN_PREFIX + garbage) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda token: token + b"\n",
        lambda token: b" " + token,
        lambda token: token.swapcase(),
        lambda token: token.upper(),
        lambda token: token.replace(b"_", b"-"),
        lambda token: token * 4000,
        lambda _: b"",
        lambda token: token[:50] + "\N{FULLWIDTH DIGIT ZERO}".encode() * 2,
    ],
)
def test_a_token_in_other_clothes_is_no_token(change) -> None:
    """Nothing is trimmed, folded or repaired."""
    assert id_in(change(mint()[1].encode())) is None


def test_the_digest_is_sha256_of_the_whole_token() -> None:
    """Stores keep it; a digest is no token itself, so it cannot be presented in a token's place."""
    token = mint()[1].encode()
    assert digest(Hidden(token)) == digest(token)
    assert digest(b"abc").hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert id_in(digest(token).hex().encode()) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0123456789AB", True), ("0123456789A", False), ("0123456789AB\n", False), ("0123456789A-", False), ("", False)],
)
def test_only_twelve_letters_and_digits_are_an_id(text: str, expected: bool) -> None:
    """An id can stand in a URL, a log and a shell without quoting."""
    assert is_id(text) is expected
