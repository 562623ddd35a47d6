"""What every store of run logs promises. One suite, run on each adapter of the port."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from common.adapters.google import firestore_logs
from common.adapters.google.firestore_logs import FirestoreLogs
from common.adapters.sql import run_logs
from common.adapters.sql.run_logs import SqlLogs
from common.adapters.sql.sqlite.database import Database
from common.platform.errors import RequestError
from common.ports.logs import LogLine, RunLogs

T0 = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "firestore", "postgres"])
def logs(request: pytest.FixtureRequest, tmp_path: Path) -> RunLogs:
    if request.param == "sqlite":
        return SqlLogs(Database(tmp_path / "store.db"))
    if request.param == "postgres":
        return SqlLogs(request.getfixturevalue("postgres"))
    host = request.getfixturevalue("google_emulators").firestore_host
    return FirestoreLogs(request.getfixturevalue("google_project"), host)


def line(number: int, severity: str = "INFO", step_id: str = "a") -> LogLine:
    return LogLine(T0 + timedelta(microseconds=number), severity, f"line {number}: Käse ☃", step_id, 2)


def test_lines_come_back_whole_and_in_the_order_they_were_kept(logs: RunLogs) -> None:
    kept = [line(number) for number in (3, 1, 2)]
    for one in kept:
        logs.append("run_1", one)
    logs.append("run_2", line(4))
    assert list(logs.read("run_1")) == kept


@pytest.mark.parametrize(
    ("text", "kept"), [("a\0b", "a\ufffdb"), ("half \ud83d of a character", "half ? of a character")]
)
def test_a_line_that_can_not_be_stored_is_stored_with_a_mark(logs: RunLogs, text: str, kept: str) -> None:
    logs.append("run_1", LogLine(T0, "INFO", text))
    assert [line.message for line in logs.read("run_1")] == [kept]


def test_lines_are_found_by_step_and_by_the_least_severity(logs: RunLogs) -> None:
    kept = [line(1), line(2, "WARNING"), line(3, "ERROR", "b"), line(4, step_id="b")]
    for one in kept:
        logs.append("run_1", one)
    assert list(logs.read("run_1", step_id="b")) == kept[2:]
    assert list(logs.read("run_1", severity="WARNING")) == kept[1:3]
    assert list(logs.read("run_1", severity="ERROR")) == kept[2:3]
    assert list(logs.read("run_1", step_id="b", severity="DEBUG")) == kept[2:]


def test_reading_goes_on_after_a_lines_place(logs: RunLogs) -> None:
    kept = [line(number, "WARNING" if number % 2 else "INFO") for number in range(6)]
    for one in kept[:4]:
        logs.append("run_1", one)
    second = list(logs.read("run_1"))[1]
    last = list(logs.read("run_1"))[-1]
    assert list(logs.read("run_1", after=second.place)) == kept[2:4]
    assert list(logs.read("run_1", after=second.place, severity="WARNING")) == kept[3:4]
    assert list(logs.read("run_1", after=last.place)) == []
    for one in kept[4:]:
        logs.append("run_1", one)
    assert list(logs.read("run_1", after=last.place)) == kept[4:]


@pytest.mark.parametrize("place", ["x", "-1", "1.5", "9" * 30, "a/b", "²"])
def test_a_place_that_no_line_can_have_is_refused(logs: RunLogs, place: str) -> None:
    with pytest.raises(RequestError, match="place"):
        logs.read("run_1", after=place)


def test_a_run_that_logged_nothing_has_no_lines(logs: RunLogs) -> None:
    assert list(logs.read("run_1")) == []


def test_many_lines_come_page_by_page(logs: RunLogs, monkeypatch: pytest.MonkeyPatch) -> None:
    for adapter in (firestore_logs, run_logs):
        monkeypatch.setattr(adapter, "PAGE", 3)
    kept = [line(number) for number in range(6)]
    for one in kept:
        logs.append("run_1", one)
    assert list(logs.read("run_1")) == kept


def test_lines_of_a_reader_that_takes_its_time_lock_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An open cursor would keep the write-ahead log from being taken into the file."""
    monkeypatch.setattr(run_logs, "PAGE", 3)
    database = Database(tmp_path / "store.db")
    logs = SqlLogs(database)
    for number in range(9):
        logs.append("run_1", line(number))
    reading = logs.read("run_1")
    next(reading)
    logs.append("run_1", line(9))
    blocked = Database(tmp_path / "store.db").connection().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    assert blocked == 0
    assert len(list(reading)) == 9
