"""What the bytes of an answer mean: one way or none, however they arrive, and what h11 and httptools say."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from readings import PARTIAL, REFUSED, WHOLE, Reading, of_h11, of_httptools, ours

from apitokenproxy.errors import BadFraming, BadHeader
from apitokenproxy.forwarders.http1 import MAX_FIELDS, MAX_HEAD, Answer, Malformed, RequestBody, request_head
from apitokenproxy.messages import Hidden, Origin, Outbound

LINE = b"HTTP/1.1 200 OK\r\n"
TWO = b"Content-Length: 2\r\n\r\nok"
CODED = b"Transfer-Encoding: chunked\r\n\r\n"
CHUNKS = b"2\r\nok\r\n0\r\n\r\n"
OK, ONCE = Reading(WHOLE, 200, b"ok", reusable=True), Reading(WHOLE, 200, b"ok")
EMPTY = Reading(WHOLE, 200, b"", reusable=True)
NO, MORE = Reading(REFUSED), Reading(PARTIAL)

UNDERSTOOD = {
    "length": (LINE + TWO, OK),
    "length without a blank": (LINE + b"Content-Length:2\r\n\r\nok", OK),
    "length among blanks, in lower case": (LINE + b"content-length:  2 \t\r\n\r\nok", OK),
    "length with a zero before it": (LINE + b"Content-Length: 02\r\n\r\nok", OK),
    "length zero": (LINE + b"Content-Length: 0\r\n\r\n", EMPTY),
    "a byte too many": (LINE + TWO + b"!", ONCE),
    "a second answer": (LINE + TWO + LINE + TWO, ONCE),
    "a byte too few": (LINE + b"Content-Length: 3\r\n\r\nok", MORE),
    "chunked": (LINE + CODED + CHUNKS, OK),
    "chunked in upper case": (LINE + b"Transfer-Encoding: CHUNKED\r\n\r\n" + CHUNKS, OK),
    "chunked, then a byte too many": (LINE + CODED + CHUNKS + b"!", ONCE),
    "chunk with an extension": (LINE + CODED + b"2;a=b\r\nok\r\n0\r\n\r\n", OK),
    "chunk with zeros": (LINE + CODED + b"00000002\r\nok\r\n0\r\n\r\n", OK),
    "several chunks": (LINE + CODED + b"1\r\no\r\n1\r\nk\r\n0\r\n\r\n", OK),
    "trailers": (LINE + CODED + b"2\r\nok\r\n0\r\nX: y\r\nZ: \r\n\r\n", OK),
    "no last chunk": (LINE + CODED + b"2\r\nok\r\n", MORE),
    "no end of trailers": (LINE + CODED + b"2\r\nok\r\n0\r\n", MORE),
    "a length in the trailers": (LINE + CODED + b"2\r\nok\r\n0\r\nContent-Length: 5\r\n\r\n", OK),
    "until it closes": (LINE + b"\r\nok", MORE),
    "close": (LINE + b"Connection: close\r\n" + TWO, ONCE),
    "close among others": (LINE + b"Connection: x, Close\r\n" + TWO, ONCE),
    "close, then chunked": (LINE + b"Connection: close\r\n" + CODED + CHUNKS, ONCE),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n" + TWO, ONCE),
    "HTTP/1.0 that keeps alive": (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + TWO, ONCE),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", Reading(WHOLE, 204, b"", reusable=True)),
    "204 with a body": (b"HTTP/1.1 204 No Content\r\n" + TWO, Reading(WHOLE, 204, b"")),
    "304 with a length": (b"HTTP/1.1 304 Fine\r\nContent-Length: 2\r\n\r\n", Reading(WHOLE, 304, b"")),
    "304": (b"HTTP/1.1 304 Fine\r\n\r\n", Reading(WHOLE, 304, b"", reusable=True)),
    "204 with no length": (b"HTTP/1.1 204 Fine\r\nContent-Length: 0\r\n\r\n", Reading(WHOLE, 204, b"", reusable=True)),
    "204 with a length": (b"HTTP/1.1 204 Fine\r\nContent-Length: 2\r\n\r\n", Reading(WHOLE, 204, b"")),
    "204, chunked": (b"HTTP/1.1 204 Fine\r\n" + CODED + b"\r\n", Reading(WHOLE, 204, b"")),
    "100 before it": (b"HTTP/1.1 100 Continue\r\n\r\n" + LINE + TWO, OK),
    "103 before it": (b"HTTP/1.1 103 Hints\r\nLink: </x>\r\n\r\n" + LINE + TWO, OK),
    "100 with a length before it": (b"HTTP/1.1 100 Continue\r\nContent-Length: 2\r\n\r\n" + LINE + TWO, OK),
    "no reason": (b"HTTP/1.1 200\r\n" + TWO, OK),
    "an empty reason": (b"HTTP/1.1 200 \r\n" + TWO, OK),
    "a reason beyond ASCII": (b"HTTP/1.1 200 \xe4\r\n" + TWO, OK),
    "a value beyond ASCII": (LINE + b"X: a\xffb\r\n" + TWO, OK),
    "a value with a tab": (LINE + b"X: a\tb\r\n" + TWO, OK),
    "an empty value": (LINE + b"X:\r\n" + TWO, OK),
    "a value of blanks": (LINE + b"X: \t \r\n" + TWO, OK),
}
REFUSALS = {
    "two lengths": LINE + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "one length twice": LINE + b"Content-Length: 2\r\n" + TWO,
    "a list of lengths": LINE + b"Content-Length: 2, 2\r\n\r\nok",
    "a signed length": LINE + b"Content-Length: +2\r\n\r\nok",
    "a hexadecimal length": LINE + b"Content-Length: 0x2\r\n\r\nok",
    "a negative length": LINE + b"Content-Length: -2\r\n\r\nok",
    "an empty length": LINE + b"Content-Length: \r\n\r\nok",
    "a length with a gap": LINE + b"Content-Length: 2 2\r\n\r\nok",
    "an endless length": LINE + b"Content-Length: " + b"9" * 30 + b"\r\n\r\nok",
    "a blank before the colon": LINE + b"Content-Length : 2\r\n\r\nok",
    "a blank before the name": LINE + b" Content-Length: 2\r\n\r\nok",
    "length and coding": LINE + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n" + CHUNKS,
    "gzip, chunked": LINE + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNKS,
    "chunked, chunked": LINE + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + CHUNKS,
    "chunked twice": LINE + b"Transfer-Encoding: chunked\r\n" + CODED + CHUNKS,
    "identity": LINE + b"Transfer-Encoding: identity\r\n\r\nok",
    "an unknown coding": LINE + b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNKS,
    "a tab after chunked": LINE + b"Transfer-Encoding: chunked\t\r\n\r\n" + CHUNKS,
    "chunked in HTTP/1.0": b"HTTP/1.0 200 OK\r\n" + CODED + CHUNKS,
    "a blank before a chunk's extension": LINE + CODED + b"2 ;a=b\r\nok\r\n0\r\n\r\n",
    "a blank after a chunk's length": LINE + CODED + b"2 \r\nok\r\n0\r\n\r\n",
    "a bare newline after a chunk's length": LINE + CODED + b"2\nok\r\n0\r\n\r\n",
    "a bare newline after a chunk": LINE + CODED + b"2\r\nok\n0\r\n\r\n",
    "a chunk that goes on": LINE + CODED + b"2\r\nokXX0\r\n\r\n",
    "0x before a chunk's length": LINE + CODED + b"0x2\r\nok\r\n0\r\n\r\n",
    "a signed chunk": LINE + CODED + b"+2\r\nok\r\n0\r\n\r\n",
    "an endless chunk": LINE + CODED + b"f" * 18 + b"\r\nok\r\n0\r\n\r\n",
    "a newline in a chunk's extension": LINE + CODED + b'2;a="\n"\r\nok\r\n0\r\n\r\n',
    "a null in a chunk's extension": LINE + CODED + b"2;a\x00b\r\nok\r\n0\r\n\r\n",
    "an endless extension": LINE + CODED + b"2;" + b"a" * 2000 + b"\r\nok\r\n0\r\n\r\n",
    "a chunk without a length": LINE + CODED + b"\r\nok\r\n0\r\n\r\n",
    "a trailer that is no field": LINE + CODED + b"0\r\nX y\r\n\r\n",
    "a trailer with a bare newline": LINE + CODED + b"0\r\nX: y\nZ: z\r\n\r\n",
    "trailers without end": LINE + CODED + b"0\r\n" + b"X: y\r\n" * 2000,
    "101": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "two blanks before the status": b"HTTP/1.1  200 OK\r\n" + TWO,
    "a status of two digits": b"HTTP/1.1 20 OK\r\n" + TWO,
    "a status of four digits": b"HTTP/1.1 2000 OK\r\n" + TWO,
    "a status above 599": b"HTTP/1.1 600 OK\r\n" + TWO,
    "a status below 100": b"HTTP/1.1 099 OK\r\n" + TWO,
    "HTTP/1.2": b"HTTP/1.2 200 OK\r\n" + TWO,
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\n" + TWO,
    "HTTP/1.10": b"HTTP/1.10 200 OK\r\n" + TWO,
    "http in lower case": b"http/1.1 200 OK\r\n" + TWO,
    "another protocol": b"ICY 200 OK\r\n" + TWO,
    "a null in the reason": b"HTTP/1.1 200 O\x00K\r\n" + TWO,
    "an empty line before it": b"\r\nHTTP/1.1 200 OK\r\n" + TWO,
    "bare newlines": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "a folded value": LINE + b"X: a\r\n b\r\n" + TWO,
    "a bare newline between fields": LINE + b"X: a\nY: b\r\n" + TWO,
    "a bare return in a value": LINE + b"X: a\rb\r\n" + TWO,
    "a null in a value": LINE + b"X: a\x00b\r\n" + TWO,
    "a control character in a value": LINE + b"X: a\x01b\r\n" + TWO,
    "a delete in a value": LINE + b"X: a\x7fb\r\n" + TWO,
    "a blank in a name": LINE + b"X a: b\r\n" + TWO,
    "an empty name": LINE + b": b\r\n" + TWO,
    "no colon": LINE + b"X\r\n" + TWO,
    "a name beyond ASCII": LINE + b"X\xe4: b\r\n" + TWO,
    "a bracket in a name": LINE + b"X(a): b\r\n" + TWO,
    "a head without end": LINE + b"X: " + b"x" * MAX_HEAD,
    "a head that is too long": LINE + b"X: " + b"x" * MAX_HEAD + b"\r\n" + TWO,
}
CORPUS = {**UNDERSTOOD, **{name: (raw, NO) for name, raw in REFUSALS.items()}}

H11_DIFFERS = {
    "one length twice": "takes it as one (RFC 9110, section 8.6, allows both)",
    "a list of lengths": "takes it as one (RFC 9110, section 8.6, allows both)",
    "length and coding": "lets the coding win; this is how answers are split",
    "chunked in HTTP/1.0": "reads it; RFC 9112, section 6.1, calls the framing faulty",
    "a tab after chunked": "strips it (RFC 9110, section 5.5, asks for that)",
    "304 with a length": "keeps it, though its body may come after all",
    "204 with a length": "keeps it, though its body may come after all",
    "a blank after a chunk's length": "skips it",
    "an endless chunk": "waits for 2**72 bytes",
    "a null in a chunk's extension": "skips extensions unread",
    "an endless extension": "skips extensions unread",
    "trailers without end": "bounds them with the head's 64 KiB",
    "a status above 599": "passes it on",
    "HTTP/1.2": "reads every version 1.1 and above as 1.1",
    "HTTP/2.0": "reads every version 1.1 and above as 1.1",
    "bare newlines": "takes them for line ends (RFC 9112, section 2.2, allows it)",
    "a bare newline between fields": "takes it for a line end (RFC 9112, section 2.2, allows it)",
    "a trailer with a bare newline": "takes it for a line end",
    "a folded value": "unfolds it (RFC 9112, section 5.2, allows both)",
    "a control character in a value": "passes it on",
    "a delete in a value": "passes it on",
    "a head that is too long": "bounds a head only while it is incomplete",
}
HTTPTOOLS_DIFFERS = {
    "304 with a length": "keeps it, though its body may come after all",
    "204 with a length": "keeps it, though its body may come after all",
    "204, chunked": "keeps it, though its body may come after all",
    "HTTP/1.0 that keeps alive": "keeps it; we never keep what speaks 1.0",
    "a length in the trailers": "refuses it; we drop trailers unread",
    "gzip, chunked": "reads the chunks and leaves the gzip to its caller",
    "chunked, chunked": "reads it as one coding",
    "chunked twice": "reads it as one coding",
    "identity": "reads until the connection closes",
    "an unknown coding": "reads until the connection closes",
    "a tab after chunked": "reads until the connection closes",
    "chunked in HTTP/1.0": "reads it; RFC 9112, section 6.1, calls the framing faulty",
    "an endless extension": "bounds nothing",
    "trailers without end": "bounds nothing",
    "a status above 599": "passes it on",
    "a status below 100": "takes it for an interim answer",
    "HTTP/2.0": "reads it, and does not keep the connection",
    "a null in the reason": "passes it on",
    "an empty line before it": "skips it",
    "a head without end": "bounds nothing",
    "a head that is too long": "bounds nothing",
}


@pytest.mark.parametrize("name", CORPUS)
def test_an_answer_is_understood_one_way_or_refused(name: str) -> None:
    """What is whole, what is not yet, and what never can be."""
    raw, expected = CORPUS[name]
    assert ours(raw) == expected


@pytest.mark.parametrize("name", CORPUS)
def test_it_does_not_matter_in_which_pieces_the_bytes_arrive(name: str) -> None:
    """Byte by byte, and cut once at every place, the meaning is the same."""
    raw, expected = CORPUS[name]
    short = raw if len(raw) < 5000 else raw[:5000]
    if short == raw:
        assert ours(raw, cuts=tuple(range(len(raw)))) == expected
        for cut in range(len(raw)):
            assert (cut, expected) == (cut, ours(raw, cuts=(cut,)))


@pytest.mark.parametrize("name", CORPUS)
def test_h11_and_httptools_agree_or_the_difference_is_written_down(name: str) -> None:
    """Where they differ, ours is the reading that cannot be used to smuggle: it refuses, or does not reuse."""
    raw, expected = CORPUS[name]
    for other, differs in ((of_h11(raw), H11_DIFFERS), (of_httptools(raw), HTTPTOOLS_DIFFERS)):
        assert (other != expected) == (name in differs), (name, other)
        if name in differs and name != "a length in the trailers":
            assert expected.verdict == REFUSED or not expected.reusable


@pytest.mark.parametrize("name", UNDERSTOOD)
def test_an_answer_to_head_has_no_body(name: str) -> None:
    """Whatever its length says; bytes after it are surplus."""
    raw, _ = UNDERSTOOD[name]
    head, _, _ = raw.rpartition(b"\r\n\r\n") if b"chunked" not in raw.lower() else raw.partition(b"\r\n\r\n")
    answer = Answer(b"HEAD")
    assert answer.read_head(head + b"\r\n\r\n")
    assert (answer.complete, answer.first) == (True, b"")
    assert ours(head + b"\r\n\r\n!", b"HEAD").reusable is False


def test_what_is_read_until_it_closes_is_whole_then_and_nothing_else_is() -> None:
    """An answer with a length or with chunks that ends early is cut off."""
    assert ours(LINE + b"\r\nok", closed=True) == ONCE
    for raw in (
        LINE,
        LINE + b"Content-Length: 3\r\n\r\nok",
        LINE + CODED + b"2\r\nok\r\n",
        b"HTTP/1.1 100 Fine\r\n\r\n",
    ):
        assert ours(raw, closed=True) == NO


def test_the_number_of_fields_and_of_interim_answers_is_bounded() -> None:
    """One more is refused."""
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    assert ours(LINE + b"X: y\r\n" * (MAX_FIELDS - 1) + TWO) == OK
    assert ours(LINE + b"X: y\r\n" * MAX_FIELDS + TWO) == NO
    assert ours(interim * 16 + LINE + TWO) == OK
    assert ours(interim * 17 + LINE + TWO) == NO


def test_headers_come_back_in_order_case_and_repetition() -> None:
    """Blanks around a value are not part of it (RFC 9112, section 5.1)."""
    answer = Answer(b"GET")
    answer.read_head(LINE + b"X-b:1\r\nx-A: 2 \t\r\nX-b: \t3 4\r\nE:\r\n" + TWO)
    assert answer.headers == [(b"X-b", b"1"), (b"x-A", b"2"), (b"X-b", b"3 4"), (b"E", b""), (b"Content-Length", b"2")]


def test_a_large_chunk_is_passed_on_as_it_comes() -> None:
    """No chunk is kept until it is whole, and no byte of it is copied twice."""
    answer = Answer(b"GET")
    assert answer.read_head(LINE + CODED + b"100000\r\n")
    piece = b"x" * 65536
    assert answer.read_body(piece) is piece


MUTATED = [raw for raw, reading in UNDERSTOOD.values() if reading.verdict == WHOLE]


def mutations(seed: int, count: int) -> list[bytes]:
    """Return valid answers with a byte changed, put in, taken out, or a piece of another put in."""
    dice = random.Random(seed)  # noqa: S311 - not for secrets
    grist = b"\r\n\t :;,0123456789abcdefxX\x00\x7f\xff"
    made = []
    for _ in range(count):
        raw = bytearray(dice.choice(MUTATED))
        for _ in range(dice.choice([1, 1, 1, 2, 3])):
            at = dice.randrange(len(raw) + 1)
            kind = dice.randrange(4)
            if kind == 0 and at < len(raw):
                raw[at] = dice.choice(grist)
            elif kind == 1:
                raw.insert(at, dice.choice(grist))
            elif kind == 2:
                del raw[at : at + dice.choice([1, 1, 2, 5])]
            else:
                other = dice.choice(MUTATED)
                start = dice.randrange(len(other))
                raw[at:at] = other[start : start + dice.randrange(12)]
        made.append(bytes(raw))
    return made


@pytest.mark.parametrize("seed", range(10))
def test_ten_thousand_mutations_are_read_as_others_read_them_or_refused(seed: int) -> None:
    """When we would go on with the connection, whoever else understands the bytes has seen the same end of the answer.

    That is what keeps one request's bytes out of another's answer.
    """
    understood = 0
    for raw in mutations(seed, 1000):
        reading = ours(raw)
        if reading.reusable:
            understood += 1
            for other in (of_h11(raw), of_httptools(raw)):
                assert other.verdict == REFUSED or other == reading, raw
    assert 50 < understood < 500  # the mutations are neither all broken nor all harmless


@given(st.lists(st.binary(max_size=40), max_size=8), st.data())
@settings(max_examples=300)
def test_chunks_come_back_whatever_their_cut(chunks: list[bytes], data: st.DataObject) -> None:
    """The body is what the chunks held, and the connection may be used again."""
    raw = LINE + CODED + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks if chunk) + b"0\r\n\r\n"
    cuts = data.draw(st.sets(st.integers(0, len(raw)), max_size=10))
    assert ours(raw, cuts=tuple(cuts)) == Reading(WHOLE, 200, b"".join(chunks), reusable=True)


# --- a request as bytes ---------------------------------------------------------------------


def outbound(method: bytes = b"GET", target: bytes = b"/x", length: int | None = 0, **fields: bytes) -> Outbound:
    headers = [(b"Host", b"h"), *((name.encode(), value) for name, value in fields.items())]
    return Outbound(Origin("http", "h", 80), method, Hidden(target), headers, None, length)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (outbound(), b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"),
        (outbound(b"POST"), b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"),
        (outbound(b"DELETE"), b"DELETE /x HTTP/1.1\r\nHost: h\r\n\r\n"),
        (outbound(b"PUT", length=5), b"PUT /x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n"),
        (
            outbound(b"PUT", length=None, A=b""),
            b"PUT /x HTTP/1.1\r\nHost: h\r\nA: \r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
    ],
)
def test_a_head_is_written_with_framing_of_our_own(request_: Outbound, expected: bytes) -> None:
    """Host first, headers as they are, then the length or the coding."""
    assert request_head(request_) == expected


@pytest.mark.parametrize(
    "request_",
    [outbound(A=b"1\r\nB: 2"), outbound(A=b"1\n2"), outbound(A=b"1\r2"), outbound(A=b"\0"), outbound(target=b"/a b")],
)
def test_what_would_read_as_another_request_is_not_written(request_: Outbound) -> None:
    """The last look before the wire, should the guard ever have missed it."""
    with pytest.raises(BadHeader):
        request_head(request_)


def test_a_body_is_as_long_as_was_stated_or_not_sent() -> None:
    """Chunks are framed; an empty one would end the body, so it is left out."""
    stated, unstated = RequestBody(3), RequestBody(None)
    assert (stated.frame(b"ab"), stated.frame(b"c"), stated.end()) == (b"ab", b"c", b"")
    assert (unstated.frame(b"x" * 16), unstated.frame(b""), unstated.end()) == (
        b"10\r\n" + b"x" * 16 + b"\r\n",
        b"",
        b"0\r\n\r\n",
    )
    with pytest.raises(BadFraming):
        RequestBody(3).frame(b"abcd")
    with pytest.raises(BadFraming):
        RequestBody(3).end()


def test_no_refusal_quotes_the_answer() -> None:
    """What an upstream sends may hold the credential; errors go to logs."""
    for raw in REFUSALS.values():
        with pytest.raises(Malformed) as caught:
            _read(raw.replace(b"ok", b"s3cr3t").replace(b"X", b"s3cr3t"))
        assert "s3cr3t" not in f"{caught.value!r}"


def _read(raw: bytes) -> None:
    answer = Answer(b"GET")
    if answer.read_head(raw):
        answer.read_body(b"")
    if not answer.close():
        raise Malformed
