"""The spool of one attempt: nothing reaches BigQuery before the last row has been checked.

A value that can't be converted is treated by its column's ``policy``:

- ``freeze``: its row is bad. It goes to the file of bad rows; more of them than ``max_bad_rows`` fail the step.
- ``discard_value``: the value becomes NULL and is counted. In a REQUIRED column that can't be, so the row is bad.
- ``discard_row``: its row goes to the file of bad rows, but does not count against ``max_bad_rows``.

A column that the contract does not have is treated by the table's ``unknown_columns``:

- ``freeze``: the step fails, and the error names the column and the nearest known one.
- ``discard_value``: the column is left out; its values are counted.
- ``discard_row``: rows with a value in it go to the file of bad rows, uncounted as above.
- ``evolve``: it becomes a NULLABLE column, typed by its first values (a column without values is not added), and the
  result names it. Later values must be of that type, as if its policy were ``freeze``.

A day outside the run's, a row of another organisation and a lineage field other than these two fail the step whatever
the policies say: they are not typing mistakes, and leaving such rows out would lose costs silently.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.domain.model import DEFAULT_WRITE, WriteSpec
from common.platform.errors import DriftError, PermanentError
from common.tables.contract import DATA_DATE, Column, Table
from common.writes.bad_rows import BadRow, row_text, shown
from common.writes.drift import Drift
from common.writes.spool.hashing import hash_text
from common.writes.spool.unknown import LINEAGE_NAMES, inferred, refusal, told_type, why_not_added
from common.writes.spool.values import type_name

if TYPE_CHECKING:
    import pyarrow as pa

    from common.writes.batch import Batch
    from common.writes.spool.columns import Converted
    from common.writes.spool.rows import Rows

ORG = "x_org_slug"
TOLD_ROWS = 3
"""Bad rows that an error message shows."""


@dataclass(frozen=True, slots=True)
class SpoolResult:
    """What was spooled.

    ``rows`` counts the good rows and ``content_hash`` is theirs (``hashing.py``); ``bad_rows`` counts the file of bad
    rows. By column, ``rounded`` counts values that were rounded half-even, ``discarded`` those that became NULL or were
    left out with their column. ``added`` are columns that the file has but not the contract. ``drift`` is how rows and
    contract differ (``drift.py``); ``bytes`` is the size of the good rows' file.
    """

    rows: int
    content_hash: str
    rounded: Mapping[str, int] = field(default_factory=dict)
    bad_rows: int = 0
    discarded: Mapping[str, int] = field(default_factory=dict)
    added: tuple[Column, ...] = ()
    drift: Mapping[str, Any] = field(default_factory=dict)
    bytes: int = 0


class Spool:
    """Writes the good rows of one attempt to ``path``, and the bad ones to ``bad_path`` in the same folder.

    ``decimal_digits`` are the warehouse's precision and scale, ``org_slug`` is the rows' organisation. Raises
    PermanentError for rows that do not fit (DriftError, with the drift, if they differ from the contract),
    TransientError if a file can't be written.
    """

    def __init__(
        self,
        path: Path,
        table: Table,
        first_day: date,
        last_day: date,
        decimal_digits: tuple[int, int],
        *,
        write: WriteSpec = DEFAULT_WRITE,
        org_slug: str = "",
    ) -> None:
        import pyarrow as pa

        from common.writes.spool.columns import Converter
        from common.writes.spool.fast_hash import table_hash
        from common.writes.spool.files import BadFile, RowFile
        from common.writes.spool.rows import stretches

        columns = (*table.columns, Column(name=DATA_DATE, type="DATE", mode="REQUIRED"))
        self._columns = {column.name: column for column in columns}
        self._table, self._write, self._org = table, write, org_slug
        self._first_day, self._last_day = first_day, last_day
        self._arrow, self._stretches, self._hash_of = pa, stretches, table_hash
        self._converter = Converter(decimal_digits)
        self._schema = pa.schema([self._field(column) for column in columns])
        self.bad_path = path.with_suffix(".bad.parquet")
        self._file, self._bad_file = RowFile(path, self._schema), BadFile(self.bad_path)
        self._seen = self._rows = self._hash = self._counted = 0
        self._told: list[str] = []
        self._rounded: dict[str, int] = {}
        self._discarded: dict[str, int] = {}
        self._added: dict[str, Column] = {}
        self._brought: set[str] = set()
        self._tables = False
        self._drift = Drift(table.table)

    def write(self, batch: "Batch") -> None:
        """Check these rows and write them."""
        for bad in batch.bad:
            self._keep_bad(bad, counts=True)
        self._refuse_too_many()
        for rows in self._stretches(batch.rows):
            self._take(rows)
            self._seen += len(rows)

    def close(self) -> SpoolResult:
        """Finish the files and return what is in them."""
        self._bad_file.close()
        size = self._file.close()
        self._note_missing()
        return SpoolResult(
            self._rows,
            hash_text(self._hash),
            dict(self._rounded),
            self._bad_file.rows,
            dict(self._discarded),
            tuple(self._added.values()),
            self._drift.as_json(),
            size,
        )

    def _take(self, rows: "Rows") -> None:
        """Write a slice of rows: as converted if all are good, else converted again without the bad ones."""
        self._refuse_strangers(rows)
        out = self._unknown(rows)
        columns = self._converted(rows)
        self._note_retyped(rows, columns)
        self._refuse_other_days(rows, columns[DATA_DATE])
        refused = self._refused(columns)
        if out or refused:
            self._part(rows, out, refused)
            rows = rows.positions([n for n in range(len(rows)) if n not in out and n not in refused])
            columns = self._converted(rows)
        for name, column in columns.items():
            _count(self._rounded, name, column.rounded)
            _count(self._discarded, name, len(column.discarded))
        if len(rows):
            table = self._arrow.Table.from_arrays([c.array for c in columns.values()], schema=self._schema)
            hashed = {name: c.array if c.narrow is None else c.narrow for name, c in columns.items()}
            kinds = {name: column.type for name, column in self._columns.items()}
            self._hash += self._hash_of(self._arrow.table(hashed), kinds)
            self._file.write(table)
            self._rows += len(rows)

    def _converted(self, rows: "Rows") -> dict[str, "Converted"]:
        return {name: rows.converted(self._converter, column) for name, column in self._columns.items()}

    def _refused(self, columns: Mapping[str, "Converted"]) -> dict[int, tuple[Column, str]]:
        """Return, by position of the bad rows, the first column at fault and why."""
        refused: dict[int, tuple[Column, str]] = {}
        for name, converted in columns.items():
            for position, why in converted.refused.items():
                if position not in refused or refused[position][0].policy == "discard_row":
                    refused[position] = self._columns[name], why  # a policy that counts the row wins
        return refused

    def _part(self, rows: "Rows", out: Mapping[int, str], refused: Mapping[int, tuple[Column, str]]) -> None:
        """Write the bad rows to their file. Raises DriftError if there are more than ``max_bad_rows``."""
        for position in sorted(out.keys() | refused.keys()):
            column, why = refused.get(position, (None, ""))
            name = column.name if column else out[position]
            reason = why or "the table has no such column"
            bad = self._bad(rows, position, name, reason)
            self._keep_bad(bad, counts=column is not None and column.policy != "discard_row")
        self._refuse_too_many()

    def _bad(self, rows: "Rows", position: int, column: str, why: str) -> BadRow:
        row = rows.row(position)
        reason = f"{why} (got {shown(row.get(column))})"
        return BadRow(reason, f"Row {self._seen + position + 1}", row_text(row), column)

    def _keep_bad(self, bad: BadRow, *, counts: bool) -> None:
        self._bad_file.write(bad)
        if counts:
            self._counted += 1
            if len(self._told) < TOLD_ROWS:
                self._told.append(str(bad))

    def _refuse_too_many(self) -> None:
        most = self._write.max_bad_rows
        if self._counted <= most:
            return
        first = " ".join(self._told)
        if self._counted > 1:
            first = (
                f"{first} {self._counted} rows so far can't be written, max_bad_rows allows {most}: nothing is. "
                "Mend the source, or set the column's policy in the contract."
            )
        raise self._drifted(first)

    def _unknown(self, rows: "Rows") -> dict[int, str]:
        """Apply ``unknown_columns``; return the positions of rows to leave out, with the column at fault."""
        out: dict[int, str] = {}
        frozen: list[Any] = []
        self._brought.update(self._columns.keys() & set(rows.names))
        self._tables |= rows.tell_columns
        for name in sorted((name for name in rows.names if name not in self._columns and name != ORG), key=str):
            policy = "freeze" if name in LINEAGE_NAMES else self._table.unknown_columns
            values = rows.values(name)
            filled = [position for position, value in enumerate(values) if value is not None]
            if filled or policy == "freeze":
                self._drift.add(str(name), told_type(values), policy, (values[n] for n in filled))
            match policy:
                case "freeze":
                    frozen.append(name)
                case "discard_value":
                    _count(self._discarded, str(name), len(filled))
                case "discard_row":
                    out |= {position: str(name) for position in filled}
                case "evolve" if filled:
                    self._evolve(name, values)
        if frozen:
            row = next(n for n in range(len(rows)) if frozen[0] in rows.row(n))
            raise self._drifted(f"Row {self._seen + row + 1}: {refusal(frozen[0], self._columns)}")
        return out

    def _drifted(self, message: str) -> DriftError:
        self._note_missing()
        return DriftError(message, self._drift.as_json())

    def _evolve(self, name: Any, values: Sequence[Any]) -> None:
        if why := why_not_added(name, self._columns, len(self._added)):
            raise self._drifted(f"From row {self._seen + 1} on: column {shown(name)} can't be added: {why}.")
        kind = inferred(values)
        assert kind is not None
        column = Column(name=name, type=kind)
        self._added[name] = self._columns[name] = column
        field = self._field(column)
        self._schema = self._schema.append(field)
        self._file.extend(field)

    def _field(self, column: Column) -> "pa.Field":
        return self._arrow.field(column.name, self._converter.types[column.type], column.mode == "NULLABLE")

    def _refuse_strangers(self, rows: "Rows") -> None:
        if ORG not in rows.names:
            return
        for position, value in enumerate(rows.values(ORG)):
            if value is not None and value != self._org:  # the value is not shown: it may name another customer
                raise PermanentError(
                    f"Row {self._seen + position + 1}, column {ORG}: the row is of another organisation than the run. "
                    "Leave the column out, or give each organisation its own rows."
                )

    def _refuse_other_days(self, rows: "Rows", days: "Converted") -> None:
        stored = set(days.array.unique().to_pylist()) - {None}
        wrong = {day for day in stored if not self._first_day <= day <= self._last_day}
        if not wrong:
            return
        position = next(n for n, day in enumerate(days.array.to_pylist()) if day in wrong)
        first, last = min(self._first_day, *wrong), max(self._last_day, *wrong)
        raise PermanentError(
            f"Row {self._seen + position + 1}, column {DATA_DATE}: outside the run's dates "
            f"{self._first_day}..{self._last_day}; run with --start-date {first} --end-date {last} "
            f"(got {shown(rows.values(DATA_DATE)[position])})."
        )

    def _note_retyped(self, rows: "Rows", columns: Mapping[str, "Converted"]) -> None:
        for name, converted in columns.items():
            if not (converted.refused or converted.discarded) or name not in rows.names:
                continue
            values, expected = rows.values(name), self._columns[name].type
            by_type: dict[str, list[Any]] = {}
            for position in (*converted.refused, *converted.discarded):
                by_type.setdefault(type_name(values[position]), []).append(values[position])
            for found, odd in by_type.items():
                if found not in ("NoneType", expected):
                    self._drift.retype(name, expected, found, odd, len(odd))

    def _note_missing(self) -> None:
        """Record the columns that no row had: for dicts, which may leave out NULLs, only REQUIRED ones."""
        if self._brought:
            self._drift.miss(
                name
                for name, column in self._columns.items()
                if name not in self._brought and (self._tables or column.mode == "REQUIRED")
            )


def _count(counts: dict[str, int], name: str, more: int) -> None:
    if more:
        counts[name] = counts.get(name, 0) + more
