"""Compares what runs' receipts say that they wrote (``Ledger``) with the stored rows (``compare``). No I/O.

Each commit stamps its rows with one ``x_ingested_at``, so run id and stamp identify the attempt that wrote a row. What
a later commit does to earlier rows depends on the table's mode (docs/decisions/0009): it replaces those of the same
``places``, except that a merge replaces only some of them and an append none.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Literal, NamedTuple

from common.domain.graph import map_of, work_order
from common.domain.model import PreviewEnd, Run, Step

PROMOTE_WITHIN = timedelta(minutes=10)
"""A promotion that takes longer is refused, so its rows are stamped within this time."""

TABLE_NAME = re.compile(r"[a-z][a-z0-9_]{0,127}")

SNAPSHOT, MERGE, APPEND = "truncate_partition", "merge", "append_once"
NEVER = datetime.max.replace(tzinfo=UTC)
Kind = Literal["missing", "doubled", "stale attempt", "foreign", "content", "replaced", "not hashed", "kept"]
NOTES = frozenset({"replaced", "not hashed", "kept"})


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding about the rows of one step of one run. ``day`` is None if the receipt covers several days."""

    kind: Kind
    run_id: str
    step_id: str
    table: str
    day: date | None
    expected: int
    found: int
    text: str

    @property
    def is_wrong(self) -> bool:
        """Whether it needs action; the other kinds are notes."""
        return self.kind not in NOTES


class Key(NamedTuple):
    """Whose rows a commit replaces, on the days that it covers."""

    table: str
    pipeline_id: str
    credential_id: str


@dataclass(frozen=True, slots=True)
class Write:
    """A step's write to one table, from its receipt; ``rows`` is None if the step may have written without a receipt.

    ``at`` is the stamp of its commit, ``ended_at`` when the step's end was recorded.
    """

    run_id: str
    step_id: str
    key: Key
    first_day: date
    last_day: date
    at: datetime
    ended_at: datetime
    rows: int | None = None
    content_hash: str = ""
    mode: str = "replace_key"

    @property
    def places(self) -> Iterable[date]:
        """The days that its commit replaces: days of data, or for a snapshot the day of ingestion."""
        if self.mode == SNAPSHOT:
            return (self.at.date(),)
        return (self.first_day + timedelta(days=n) for n in range((self.last_day - self.first_day).days + 1))


@dataclass(frozen=True, slots=True)
class Rows:
    """The stored rows of one day from one commit, counted."""

    key: Key
    run_id: str
    day: date
    ingested_at: datetime
    count: int
    hash_total: int = 0
    """The sum of the hashes of these rows, as BigQuery computed it."""


@dataclass
class Ledger:
    """The writes of an organisation's runs, from the run store. ``table_id`` returns a table name's full id."""

    org: str
    table_id: Callable[[str], str]
    runs: dict[str, Run] = field(default_factory=dict)
    writes: list[Write] = field(default_factory=list)
    kept: list[Finding] = field(default_factory=list)

    def add(self, run: Run) -> None:
        """Add a run's writes, once."""
        if run.run_id not in self.runs:
            self.runs[run.run_id] = run
            for step in run.steps.values():
                if step.status.is_terminal and not step.items:  # a map's own receipt is the sum of its items'
                    self._add_step(run, step)

    def _add_step(self, run: Run, step: Step) -> None:
        receipt, asked = step.receipt, run.request.requested_at
        if run.request.preview and run.preview_end is not PreviewEnd.PROMOTED:
            return  # its rows are in shadow tables, which expire
        if receipt.ingested_at and receipt.ingested_at < asked:
            text = f"It was kept from an earlier run: `main.py verify {run.request.rerun_of}` checks it."
            self.kept.append(Finding("kept", run.run_id, step.step_id, receipt.table, None, 0, 0, text))
            return
        order = work_order(run, step)
        name = str(order.specs[0].config.get("destination_table", ""))
        if not receipt.table and not TABLE_NAME.fullmatch(name):
            return
        key = Key(receipt.table or self.table_id(name), run.pipeline_id, run.credential_id)
        rows = receipt.rows if receipt.ingested_at else None
        mode = receipt.mode or order.specs[0].write.mode
        days = order.request.start_date, order.request.end_date
        times = receipt.ingested_at or asked, step.ended_at or asked
        if run.request.preview and receipt.ingested_at:  # promoted after its steps had ended
            times = receipt.ingested_at, receipt.ingested_at + PROMOTE_WITHIN
        self.writes.append(Write(run.run_id, step.step_id, key, *days, *times, rows, receipt.content_hash, mode))


def compare(
    ledger: Ledger, rows: Iterable[Rows], checked: Iterable[Write], hash_of: Callable[[Write], str]
) -> list[Finding]:
    """Compare rows with receipts: each row must belong to a receipt, and each ``checked`` write must have its rows."""
    return list(dict.fromkeys(_Comparison(ledger, rows).findings(checked, hash_of)))


class _Comparison:
    def __init__(self, ledger: Ledger, rows: Iterable[Rows]) -> None:
        self._ledger = ledger
        self._covering: dict[tuple[Key, date], list[Write]] = defaultdict(list)
        self._count: dict[tuple[Write, date], int] = defaultdict(int)
        self._mode: dict[str, str] = {}
        self._strays: list[Rows] = []
        for write in ledger.writes:
            self._mode.setdefault(write.key.table, write.mode)
            for place in write.places if write.rows is not None else ():
                self._covering[write.key, place].append(write)
        for counted in rows:
            self._sort_in(counted)

    def _sort_in(self, rows: Rows) -> None:
        place = self._place(rows)
        covering = self._covering[rows.key, place]
        write = next((w for w in covering if (w.run_id, w.at) == (rows.run_id, rows.ingested_at)), None)
        run = self._ledger.runs.get(rows.run_id)
        if write is None and run and not run.status.is_terminal:
            # The step has committed but its result is not recorded yet: its rows are right, and replaced earlier ones.
            mode, stamps = self._mode.get(rows.key.table, ""), (rows.ingested_at, NEVER)
            write = Write(rows.run_id, "", rows.key, rows.day, rows.day, *stamps, rows.count, mode=mode)
            covering.append(write)
        if write is None:
            self._strays.append(rows)
        else:
            self._count[write, place] += rows.count

    def _place(self, rows: Rows) -> date:
        return rows.ingested_at.date() if self._mode.get(rows.key.table) == SNAPSHOT else rows.day

    def findings(self, checked: Iterable[Write], hash_of: Callable[[Write], str]) -> Iterator[Finding]:
        for rows in self._strays:
            yield self._stray(rows)
        for (write, day), count in self._count.items():
            over = [w for w in self._covering[write.key, day] if self._is_over(w, write, day)]
            if over and write.mode != MERGE:
                by = max(over, key=_at)
                done = "appended the same day" if write.mode == APPEND else "replaced them"
                text = f"{count} rows are still there though {_name(by)} has {done}. {self._rerun(by)}"
                yield _finding("doubled", write, day, 0, count, text)
        for write in checked:
            if write.rows is not None:
                yield from self._check(write, write.rows, hash_of)

    def _is_over(self, other: Write, write: Write, day: date) -> bool:
        """Whether ``other`` must have replaced the rows of ``write``: it surely came later, or left rows of its own.

        Between a commit's stamp and its recorded end, only the rows show which of two commits came last.
        """
        return other.at > write.ended_at or (other.at > write.at and (other, day) in self._count)

    def _check(self, write: Write, rows: int, hash_of: Callable[[Write], str]) -> Iterator[Finding]:
        replaced = {day: by for day in write.places if (by := self._replaced_by(write, day))}
        merged = write.mode == MERGE
        there = sum(self._count.get((write, day), 0) for day in write.places if merged or day not in replaced)
        day = write.first_day if write.first_day == write.last_day else None
        again = self._rerun(write)
        if there > rows:
            yield _finding("doubled", write, day, rows, there, f"{there} rows, its receipt says {rows}. {again}")
        elif replaced and not (merged and there == rows):  # a later merge may have replaced none of these rows
            names = ", ".join(dict.fromkeys(_name(by) for by in replaced.values()))
            text = f"{names} has replaced {'rows of ' if merged else ''}{_days(replaced)}."
            yield _finding("replaced", write, day, 0, there, text)
        elif there < rows:
            yield _finding("missing", write, day, rows, there, f"{rows - there} of {rows} rows are missing. {again}")
        elif there and not write.content_hash:
            text = "All rows are there. Their values were not hashed: a procedure made them in the warehouse."
            yield _finding("not hashed", write, day, rows, there, text)
        elif there and (now := hash_of(write)) != write.content_hash:
            text = f"Values have changed: their hash is {now[:12]}…, the receipt's {write.content_hash[:12]}…. {again}"
            yield _finding("content", write, day, rows, there, text)

    def _replaced_by(self, write: Write, day: date) -> Write | None:
        """Return the write that replaced this one on that day, if there is one.

        Overlapping commits may have landed in any order: the stored rows show which was last.
        """
        gone = (write, day) not in self._count
        others = [
            other
            for other in self._covering[write.key, day]
            if other is not write and (other.at > write.ended_at or (gone and other.ended_at > write.at))
        ]
        return max(others, key=_at, default=None)

    def _stray(self, rows: Rows) -> Finding:
        """Return the finding for rows that belong to no receipt."""
        place = (rows.run_id, "", rows.key.table, rows.day, 0, rows.count)
        owner = max(self._covering[rows.key, self._place(rows)], key=_at, default=None)
        mine = [
            write
            for write in self._ledger.writes
            if (write.run_id, write.key) == (rows.run_id, rows.key) and write.first_day <= rows.day <= write.last_day
        ]
        if rows.run_id not in self._ledger.runs:
            text = f"{rows.count} rows of a run that {self._ledger.org} does not have: find out who wrote them."
            return Finding("foreign", *place, f"{text} {self._rerun(owner)}")
        step_id = mine[0].step_id if len(mine) == 1 else ""
        at = rows.ingested_at.isoformat()
        text = f"{rows.count} rows of {at}: no receipt tells of that attempt, it must not have committed."
        again = self._rerun(owner or next(iter(mine), None))
        return replace(Finding("stale attempt", *place, f"{text} {again}"), step_id=step_id)

    def _rerun(self, write: Write | None) -> str:
        if write is None:
            return "No run has a receipt for that day: run the pipeline for it, or delete them."
        if not write.step_id:
            return f"Wait for the end of {write.run_id}, then verify again."
        if write.mode == APPEND:
            return f"To replace: delete these days' rows there and in {write.key.table}__commits, then run them again."
        step_id = (map_of(write.step_id) or (write.step_id,))[0]
        return f"To replace: `main.py rerun {self._ledger.org} {write.run_id} --step {step_id} --reason verify`."


def _finding(kind: Kind, write: Write, day: date | None, expected: int, found: int, text: str) -> Finding:
    return Finding(kind, write.run_id, write.step_id, write.key.table, day, expected, found, text)


def _name(write: Write) -> str:
    return f"{write.run_id} {write.step_id}".strip()


def _at(write: Write) -> datetime:
    return write.at


def _days(days: Iterable[date]) -> str:
    every = sorted(days)
    return f"{every[0]}" if len(every) == 1 else f"{len(every)} days of {every[0]}..{every[-1]}"
