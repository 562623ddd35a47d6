"""Audit rows: append-only, newest first, each organisation's apart, in the log too."""

import io
import json
from typing import Any

import pytest

from common.access.audit import Audit
from common.platform import logs
from common.platform.errors import RequestError, TransientError
from tests.fakes import FakeClock
from tests.memory_records import MemoryRecords


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def records() -> MemoryRecords:
    return MemoryRecords()


@pytest.fixture
def audit(records: MemoryRecords, clock: FakeClock) -> Audit:
    return Audit(records, clock)


@pytest.fixture
def log() -> Any:
    stream = io.StringIO()
    logs.configure("pipeline-ops-test", stream)
    yield stream
    logs.logger.handlers.clear()


def test_a_row_says_who_did_what_to_what_when_and_how_it_ended(audit: Audit, clock: FakeClock) -> None:
    audit.record("acme", who="key:k1", action="run.cancel", target="run_1", outcome="ok", details={"why": "dates"})
    (row,) = audit.list("acme").rows
    assert (row.at, row.who, row.action, row.target, row.outcome) == (clock(), "key:k1", "run.cancel", "run_1", "ok")
    assert row.org_slug == "acme" and row.details == {"why": "dates"}
    assert audit.list("globex").rows == ()


def test_rows_come_newest_first_a_page_at_a_time_and_a_page_never_shifts(audit: Audit, clock: FakeClock) -> None:
    for number in range(5):
        audit.record("acme", who="x", action="a", target=str(number))
        clock.tick(0.000001)
    first = audit.list("acme", limit=2)
    audit.record("acme", who="x", action="a", target="new")
    second = audit.list("acme", limit=2, cursor=first.next_cursor)
    third = audit.list("acme", limit=2, cursor=second.next_cursor)
    told = ["".join(row.target for row in page.rows) for page in (first, second, third)]
    assert told == ["43", "21", "0"] and third.next_cursor is None


def test_acts_of_one_moment_are_all_kept(audit: Audit) -> None:
    for number in range(20):
        audit.record("acme", who="x", action="a", target=str(number))
    assert len({row.target for row in audit.list("acme", limit=200).rows}) == 20


@pytest.mark.parametrize("cursor", ["", "x", "../keys", "0" * 16, "a" * 1000])
def test_a_cursor_of_somebody_elses_making_is_refused(audit: Audit, cursor: str) -> None:
    with pytest.raises(RequestError, match="cursor"):
        audit.list("acme", cursor=cursor)


def test_each_row_is_a_log_line_of_severity_notice(audit: Audit, log: io.StringIO) -> None:
    audit.record("acme", who="key:k1", action="key.create", target="k2", details={"message": "x", "severity": "y"})
    line = json.loads(log.getvalue())
    assert (line["severity"], line["log"], line["org"], line["who"]) == ("NOTICE", "audit", "acme", "key:k1")
    assert line["message"] == "key.create k2 by key:k1: ok" and json.loads(line["details"])["severity"] == "y"


def test_a_row_that_the_store_can_not_take_is_in_the_log_and_stops_nothing(
    audit: Audit, records: MemoryRecords, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_given: Any, **_more: Any) -> None:
        raise TransientError("disk full")

    monkeypatch.setattr(records, "put", full)
    audit.record("acme", who="x", action="a", target="t")
    row, error = (json.loads(line) for line in log.getvalue().splitlines())
    assert row["action"] == "a" and error["severity"] == "ERROR" and "this log only" in error["message"]


def test_details_are_bounded(audit: Audit) -> None:
    audit.record("acme", who="x", action="a", target="t", details={"why": "x" * 10_000})
    assert len(audit.list("acme").rows[0].details["why"]) == 500
