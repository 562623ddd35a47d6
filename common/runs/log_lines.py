"""The log of a run: its transitions and what its processors logged, as lines."""

from collections.abc import Iterator
from heapq import merge

from common.domain.state import Change
from common.ports.logs import LogLine, RunLogs, severities_from
from common.ports.store import RunStore


def log_lines(
    store: RunStore, logs: RunLogs, run_id: str, *, step_id: str | None = None, severity: str | None = None
) -> Iterator[LogLine]:
    """Yield the run's transitions and what its processors logged, in the order of their times.

    ``severity`` leaves out the less severe.
    """
    transitions = (change_line(change) for change in store.changes(run_id))
    wanted = [
        line for line in transitions if step_id in (None, line.step_id) and line.severity in severities_from(severity)
    ]
    wanted.sort(key=lambda line: line.at)
    return merge(wanted, logs.read(run_id, step_id=step_id, severity=severity), key=lambda line: line.at)


def change_line(change: Change) -> LogLine:
    """Return a transition as a log line."""
    subject = f"step {change.step_id}" if change.step_id else "run"
    moved = change.after if change.before in ("", change.after) else f"{change.before} → {change.after}"
    severity = "ERROR" if change.after == "failed" else "INFO"
    return LogLine(change.at, severity, f"{subject} {moved}: {change.reason}", change.step_id, change.attempt)
