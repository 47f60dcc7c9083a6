"""The audit file: nothing is lost at an orderly end, and what cannot be written down is refused and told."""

import logging
import os
import stat
import threading
from pathlib import Path

import pytest
from audit_calls import lines, program, record, until

from apitokenproxy.audit import JsonLines
from apitokenproxy.errors import AuditUnavailable, ConfigurationError

ENDS = {
    "by itself": "",
    "sys.exit": "sys.exit(3)",
    "an exception": "raise ValueError('unhandled')",
    "close": "sink.close()",
    "closed twice": "sink.close(); sink.close()",
}


@pytest.mark.long
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_five_thousand_records_are_there_after_the_end(end: str, tmp_path: Path) -> None:
    """However the program ends, if it ends in order."""
    path = tmp_path / "audit.jsonl"
    program(f"for number in range(5000): write(number)\n{end}", path)
    assert [line["request_id"] for line in lines(path)] == [str(number) for number in range(5000)]


def test_records_of_many_threads_are_whole_lines(tmp_path: Path) -> None:
    """None is lost, none doubled, none torn."""
    path = tmp_path / "audit.jsonl"
    sink = JsonLines(path)

    def write(thread: int) -> None:
        for number in range(200):
            sink.reserve()
            sink.write(record(request_id=f"{thread}/{number}", path="/x" * 200))

    threads = [threading.Thread(target=write, args=[number]) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sink.close()
    expected = {f"{thread}/{number}" for thread in range(16) for number in range(200)}
    written = [line["request_id"] for line in lines(path)]
    assert (len(written), set(written)) == (3200, expected)


def test_a_forked_child_writes_its_own_and_nothing_twice(tmp_path: Path) -> None:
    """A server forks its workers after the proxy was built, and perhaps while records wait."""
    path = tmp_path / "audit.jsonl"
    done = program(
        """
        for number in range(100): write(f"parent {number}")
        child = os.fork()
        if child == 0:
            for number in range(100): write(f"child {number}")
            sys.exit()
        os.waitpid(child, 0)
        """,
        path,
    )
    assert done.stderr == ""
    expected = {f"{who} {number}" for who in ("parent", "child") for number in range(100)}
    written = [line["request_id"] for line in lines(path)]
    assert (len(written), set(written)) == (200, expected)


def test_a_file_that_was_moved_away_is_made_anew(tmp_path: Path) -> None:
    """A rotation of logs needs no signal."""
    path = tmp_path / "audit.jsonl"
    sink = JsonLines(path)
    for name in ("one", "two"):
        sink.reserve()
        sink.write(record(request_id=name))
        until(lambda: path.exists() and path.read_text().endswith("\n"))
        path.rename(tmp_path / name)
    sink.close()
    assert [lines(tmp_path / name)[0]["request_id"] for name in ("one", "two")] == ["one", "two"]


def test_after_closing_a_later_request_is_written_all_the_same(tmp_path: Path) -> None:
    """A proxy may be used again after it was closed."""
    path = tmp_path / "audit.jsonl"
    sink = JsonLines(path)
    for name in ("before", "after"):
        sink.reserve()
        sink.write(record(request_id=name))
        sink.close()
    assert [line["request_id"] for line in lines(path)] == ["before", "after"]


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    """Whatever the umask says."""
    path = tmp_path / "audit.jsonl"
    umask = os.umask(0)
    try:
        JsonLines(path).close()
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


# --- full disks -----------------------------------------------------------------------------


def test_while_the_disk_is_full_requests_are_refused_and_afterwards_it_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What was taken over is kept and written later, in order; the refused are counted in an `audit_gap`."""
    good, path = tmp_path / "good", tmp_path / "audit.jsonl"
    path.symlink_to("/dev/full")
    sink = JsonLines(path)
    for name in ("one", "two"):
        sink.reserve()
        sink.write(record(request_id=name))
    until(lambda: sink._failing)
    for _ in range(5):
        with pytest.raises(AuditUnavailable, match="records cannot be written"):
            sink.reserve()
    assert [entry.levelno for entry in caplog.records] == [logging.ERROR]
    assert "No space left on device; requests are refused until they can" in caplog.text
    path.unlink()
    path.symlink_to(good)
    until(lambda: not sink._failing)
    sink.reserve()
    sink.write(record(request_id="three"))
    sink.close()
    written = [line.get("request_id") or (line["event"], line["refused"]) for line in lines(good)]
    assert sorted(map(str, written)) == sorted(["one", "two", "('audit_gap', 5)", "three"])


def test_a_disk_that_fills_up_in_a_line_leaves_no_torn_line(tmp_path: Path) -> None:
    """A short write is continued where it stopped, when there is room again."""
    path = tmp_path / "audit.jsonl"
    done = program(
        """
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, unlimited[1]))
        for number in range(10): write(number)
        while not sink._failing: time.sleep(0.01)
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        while sink._failing: time.sleep(0.01)
        """,
        path,
    )
    assert "File too large; requests are refused until they can" in done.stderr
    assert [line["request_id"] for line in lines(path)] == [str(number) for number in range(10)]


@pytest.mark.long
def test_records_that_could_not_be_written_by_the_end_are_counted(tmp_path: Path) -> None:
    """The loss is told; the program ends all the same."""
    path = tmp_path / "audit.jsonl"
    path.symlink_to("/dev/full")
    done = program("write(1); write(2)", path)
    assert done.returncode == 0
    assert "2 audit records were lost: they could not be written before the end" in done.stderr


def test_no_more_records_wait_than_may(tmp_path: Path) -> None:
    """A place is held from `reserve` on, so that the record always fits."""
    sink = JsonLines(tmp_path / "audit.jsonl", max_pending=3)
    for _ in range(3):
        sink.reserve()
    with pytest.raises(AuditUnavailable, match="too many records are waiting"):
        sink.reserve()
    sink.write(record())
    until((tmp_path / "audit.jsonl").read_text)
    until(lambda: sink._in_flight == 2)
    sink.reserve()
    sink.close()


# --- places that cannot be written ----------------------------------------------------------


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    """Told when the proxy is built, not at the first request."""
    places = {tmp_path / "missing" / "audit.jsonl": "No such file or directory", tmp_path: "Is a directory"}
    for place, reason in places.items():
        with pytest.raises(ConfigurationError) as refusal:
            JsonLines(place)
        assert str(refusal.value) == (
            f"audit file {place} cannot be written: {reason}; name a file in a directory that exists and is writable"
        )
