"""What an audit record says, and that nobody can make it say something else."""

import json
import logging

import pytest
from attrs import fields
from audit_calls import RECORD, record

from apitokenproxy.audit import LogOnly
from apitokenproxy.audit.record import to_json
from apitokenproxy.messages import AuditRecord


def test_every_field_is_there_in_its_units() -> None:
    """Times in UTC to the millisecond, durations in seconds to the microsecond, sizes in bytes."""
    written = json.loads(to_json(RECORD))
    assert list(written) == [field.name for field in fields(AuditRecord)]
    assert (written["time"], written["seconds"]) == ("2026-09-21T14:13:20.123Z", 0.012346)
    assert (written["status"], written["sent"], written["bytes_in"], written["bytes_out"]) == (200, True, 1, 2)


NASTY = {
    "newline": 'x\n{"status": 200}',
    "carriage return": "x\rx",
    "escape": "\x1b[2J",
    "nul": "\0",
    "line separator": "\u2028\u2029\x85",
    "right-to-left": "\u202e",
    "surrogate": "\udc80",
    "quote": '"}',
    "delete": "\x7f",
}


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
@pytest.mark.parametrize("name", ["path", "method", "tenant", "subject", "peer", "reason", "upstream"])
def test_a_value_cannot_end_the_line_or_hide_in_it(name: str, text: str) -> None:
    """One record is one line of visible ASCII, and reads back as it was."""
    line = to_json(record(**{name: text}))
    assert json.loads(line)[name] == text
    assert line.isascii()
    assert all(" " <= letter < "\x7f" or letter == "\x7f" for letter in line)
    assert "\n" not in line


@pytest.mark.parametrize("name", ["path", "tenant", "reason"])
def test_a_long_value_is_cut(name: str) -> None:
    """A megabyte in a path does not fill the disk."""
    assert json.loads(to_json(record(**{name: "x" * 1_000_000})))[name] == "x" * 512


@pytest.mark.parametrize("name", ["path", "tenant", "subject", "reason", "method"])
def test_a_client_token_is_cut_out_wherever_it_stands(name: str) -> None:
    """Should one get that far."""
    token = "atp_haM1m1Q7aSD9_cOFsedcB8WtIyrbmL8ExBjf99CDWa7qXE1YqeZM"
    assert json.loads(to_json(record(**{name: f"/a/{token}/b"})))[name] == "/a/atp_***/b"
    assert "cOFs" not in to_json(record(**{name: "x" * 500 + token}))


def test_without_a_file_records_go_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """To `apitokenproxy.audit`, one line each, at INFO; where nobody listens it costs nothing."""
    sink = LogOnly()
    with caplog.at_level(logging.INFO, logger="apitokenproxy.audit"):
        for number in range(3):
            sink.reserve()
            sink.write(record(request_id=str(number)))
        sink.close()
    told = [(entry.name, entry.levelname, json.loads(entry.getMessage())["request_id"]) for entry in caplog.records]
    assert told == [("apitokenproxy.audit", "INFO", str(number)) for number in range(3)]
