"""What is the operator's to mend is told to the log."""

import pytest
from attrs import evolve
from audit_calls import RECORD

from apitokenproxy.audit.complaints import INTERVAL, Complaints

REASON = "environment variable GITHUB_TOKEN is not set"


class Hand:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_one_line_a_minute_for_each_upstream_and_code(caplog: pytest.LogCaptureFixture) -> None:
    """With the reason, and how many requests it stands for."""
    timer = Hand()
    complaints = Complaints(timer)
    record = evolve(RECORD, status=503, code="secret_unavailable", reason=REASON)
    complaints.tell([record, record, record, evolve(record, upstream="other"), evolve(record, code="pool_timeout")])
    timer.now = INTERVAL
    complaints.tell([record])
    assert caplog.messages == [
        f"upstream api: secret_unavailable: {REASON}",
        f"upstream other: secret_unavailable: {REASON}",
        f"upstream api: pool_timeout: {REASON}",
        f"upstream api: secret_unavailable: {REASON} (3 requests)",
    ]


def test_a_caller_without_a_secret_is_the_operators_to_set_up(caplog: pytest.LogCaptureFixture) -> None:
    """Though the client is told 403."""
    Complaints().tell([evolve(RECORD, status=403, code="no_secret_for_caller", reason="no file for acme")])
    assert caplog.messages == ["upstream api: no_secret_for_caller: no file for acme"]


def test_what_a_client_did_wrong_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    """Nor what the upstream itself answered."""
    complaints = Complaints()
    complaints.tell([RECORD, evolve(RECORD, status=401, code="unauthenticated"), evolve(RECORD, status=500, code="")])
    assert caplog.messages == []


def test_what_is_remembered_is_bounded() -> None:
    """However many upstreams there are."""
    complaints = Complaints()
    complaints.tell(evolve(RECORD, upstream=str(number), status=502, code="x") for number in range(3000))
    assert len(complaints._told) <= 1000
