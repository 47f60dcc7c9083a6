"""The search for secrets finds what it is meant to find; without this a clean scan says nothing."""

import base64
import json
import logging
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leaks.forms import find, forms

SECRET = "k3y-/+~ab.9ZqT_x7"
EVERY_FORM = {
    "raw": SECRET.encode(),
    "in a header": f"Authorization: Bearer {SECRET}\r\n".encode(),
    "hex": SECRET.encode().hex().encode(),
    "upper-case hex": SECRET.encode().hex().upper().encode(),
    "hex with neighbours": f"x{SECRET}y".encode().hex().encode(),
    "percent as a query would": quote(SECRET, safe="").encode(),
    "percent, every byte": "".join(f"%{byte:02X}" for byte in SECRET.encode()).encode(),
    "JSON": json.dumps(SECRET).encode(),
    "JSON, every character": "".join(f"\\u{ord(letter):04x}" for letter in SECRET).encode(),
    "repr, every byte": "".join(f"\\x{byte:02x}" for byte in SECRET.encode()).encode(),
    "base64": base64.b64encode(SECRET.encode()),
    "base64, URL alphabet": base64.urlsafe_b64encode(SECRET.encode()),
    "basic, as a user name": base64.b64encode(f"{SECRET}:".encode()),
    "basic, as a password": base64.b64encode(f"user:{SECRET}".encode()),
    "base64 in lines": base64.encodebytes(b"x" * 50 + SECRET.encode() + b"x" * 50),
    "reversed": SECRET[::-1].encode(),
}


@pytest.mark.parametrize("form", EVERY_FORM)
def test_each_form_is_found(form: str) -> None:
    """Alone and inside other text."""
    assert find({"key": SECRET}, EVERY_FORM[form]) != []
    assert find({"key": SECRET}, b"before " + EVERY_FORM[form] + b" after") != []


@settings(deadline=None)
@given(
    before=st.binary(max_size=9),
    after=st.binary(max_size=9),
    encode=st.sampled_from([base64.b64encode, base64.urlsafe_b64encode]),
)
def test_base64_is_found_whatever_stands_beside_it(before: bytes, after: bytes, encode) -> None:
    """Three alignments are all there are."""
    assert find({"key": SECRET}, encode(before + SECRET.encode() + after)) != []


def test_half_a_long_secret_is_found() -> None:
    """A log that cuts its lines does not hide a secret."""
    long = "0123456789abcdefghijklmnopqrstuv"
    assert [leak.form for leak in find({"key": long}, b"x 0123456789abcdef...")] == ["first half"]
    assert [leak.form for leak in find({"key": long}, b"...ghijklmnopqrstuv")] == ["second half"]


def test_what_is_not_there_is_not_found() -> None:
    """Neither in empty text nor in near misses."""
    near = [b"", SECRET[:-1].encode(), SECRET.encode().hex()[:-2].encode(), base64.b64encode(SECRET[1:].encode())]
    assert [find({"key": SECRET}, text) for text in near] == [[], [], [], []]


def test_a_leak_says_where_it_is() -> None:
    """The name, the form and the surroundings are told."""
    (leak,) = find({"the key": SECRET}, b"GET /?key=" + SECRET.encode())
    assert (leak.name, leak.form, leak.around) == ("the key", "raw", b"GET /?key=" + SECRET.encode())
    assert set(forms(SECRET)) >= {"raw", "hex", "percent", "base64 at 0", "base64 at 1", "base64 at 2"}


def test_the_search_sees_what_logging_writes(caplog: pytest.LogCaptureFixture) -> None:
    """A deliberate leak through a log record with bytes in it is found."""
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("x").debug("headers=%r", [(b"authorization", f"Bearer {SECRET}".encode())])
    assert [leak.form for leak in find({"key": SECRET}, caplog.text.encode())] == ["raw"]
