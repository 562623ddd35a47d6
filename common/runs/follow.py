"""A run's log as it grows: the lines since a place, and whether more can come."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from heapq import merge
from itertools import takewhile
from typing import Self

from common.platform.errors import RequestError
from common.ports.logs import LogLine, severities_from
from common.runs.engine import Engine
from common.runs.log_lines import change_line

PLACE = re.compile(r"(0|[1-9][0-9]{0,8})\.([0-9a-f-]{0,40})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Place:
    """How much of a log has been read: a number of transitions, and the lines up to the store's place ``line``."""

    changes: int = 0
    line: str = ""

    @classmethod
    def read(cls, text: str) -> Self:
        """Parse what ``str`` of a place returned. Raises RequestError."""
        match = PLACE.fullmatch(text)
        if match is None:
            raise RequestError("Last-Event-ID: not from this API. Leave it out to start at the first line.")
        return cls(int(match[1]), match[2])

    def __str__(self) -> str:
        return f"{self.changes}.{self.line}"


class Following:
    """Reads a run's log repeatedly, each time only the new lines.

    Where lines may arrive late (``RunLogs.settles_s``), a line is held back until none can arrive before it.
    """

    def __init__(
        self,
        engine: Engine,
        run_id: str,
        place: Place,
        *,
        step_id: str | None = None,
        severity: str | None = None,
    ) -> None:
        self._engine, self._run_id, self.place = engine, run_id, place
        self._step_id, self._severities = step_id, severities_from(severity)
        self._settles = timedelta(seconds=engine.logs.settles_s)
        # Refuses an invalid place now: once the stream has begun, its status code can't change.
        engine.logs.read(run_id, after=place.line)
        self.ended_as: str | None = None

    def news(self) -> Iterator[tuple[Place, LogLine]]:
        """Yield each new line with the place after it. ``ended_as`` is set once these were the last ones."""
        now = self._engine.now()
        run = self._engine.store.load(self._run_id, ())
        # Checked before the lines are read, so that all that was logged before the end is among them.
        is_over = run.ended_at is not None and run.ended_at + self._settles <= now
        until = None if is_over or not self._settles else now - self._settles
        for index, line in merge(self._changes(until), self._lines(until), key=lambda entry: entry[1].at):
            changes = self.place.changes if index is None else index + 1
            self.place = replace(self.place, changes=changes, line=line.place or self.place.line)
            if self._wants(line):
                yield self.place, line
        if is_over:
            self.ended_as = run.status

    def _wants(self, line: LogLine) -> bool:
        return self._step_id in (None, line.step_id) and line.severity in self._severities

    def _changes(self, until: datetime | None) -> Iterator[tuple[int | None, LogLine]]:
        changes = enumerate(self._engine.store.changes(self._run_id))
        new = ((index, change_line(change)) for index, change in changes if index >= self.place.changes)
        return takewhile(lambda entry: until is None or entry[1].at <= until, new)

    def _lines(self, until: datetime | None) -> Iterator[tuple[int | None, LogLine]]:
        # Unfiltered: the place moves only past lines that were read, so a filter would scan the others each time.
        new = ((None, line) for line in self._engine.logs.read(self._run_id, after=self.place.line))
        return takewhile(lambda entry: until is None or entry[1].at <= until, new)
