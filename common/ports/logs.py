"""The log lines of runs, kept for people. ``tests/contract`` holds every adapter to these promises."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

SEVERITIES = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
"""Those of Cloud Logging that lines have, from the least to the most severe."""


def severities_from(least: str | None) -> tuple[str, ...]:
    """Return this severity and all that are more severe; all of them for None."""
    return SEVERITIES if least is None else SEVERITIES[SEVERITIES.index(least) :]


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a run's log. ``severity`` is one of ``SEVERITIES``; ``place`` is where its store keeps it."""

    at: datetime
    severity: str
    message: str
    step_id: str = ""
    attempt: int = 0
    place: str = field(default="", compare=False)


class RunLogs(Protocol):
    """The log lines of runs, kept for people; the same lines go to standard output as JSON."""

    settles_s: float
    """For so many seconds after a line was stored, another may still be stored before it."""

    def append(self, run_id: str, line: LogLine) -> None:
        """Store one line."""

    def read(
        self, run_id: str, *, step_id: str | None = None, severity: str | None = None, after: str = ""
    ) -> Iterator[LogLine]:
        """Yield the run's lines in order, with a page of them in memory at a time; nothing is locked meanwhile.

        ``severity`` leaves out the less severe. ``after`` is the ``place`` of a line: only what follows it is
        yielded. Raises RequestError if no line can have that place.
        """
