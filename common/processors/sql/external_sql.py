"""The SELECT over somebody else's table. What is part of its text was checked; every value is a parameter."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from common.platform.errors import PermanentError, nearest
from common.ports.google import SourceField, SourceTable
from common.tables.contract import DATA_DATE, Column

DAYS = {"DATE": "DATE", "TIMESTAMP": "TIMESTAMP", "DATETIME": "DATETIME"}


@dataclass(frozen=True, slots=True)
class Select:
    """A SELECT and its parameters."""

    sql: str
    params: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ExternalTable:
    """The table, which column holds a row's day, and which of the rows are wanted.

    ``equal`` are values by path, ``unequal`` those that leave a row out (one without a value stays), ``labels`` values
    by key of the repeated field ``label_path``. ``lead_days``: how many days a row's partition may lie before its own
    day, because partitions have days of another zone.
    """

    table_id: str
    table: SourceTable
    day_path: str
    equal: Mapping[str, Sequence[str]]
    unequal: Mapping[str, Sequence[str]]
    label_path: str
    labels: Mapping[str, Sequence[str]]
    lead_days: int = 1

    def rows(self, columns: Sequence[tuple[Column, str | None]], first: date, last: date) -> Select:
        """Select columns by path (None: the table has no such field) of the days ``first`` to ``last``."""
        params: dict[str, Any] = {"first": first, "last": last}
        wanted = [f"{_day(self.day_path, self.field(self.day_path))} AS `{DATA_DATE}`"]
        wanted += [f"{self._value(column, path)} AS `{column.name}`" for column, path in columns]
        where = self._days() + self._filters(params) + self._partitions(params)
        return Select(_select(wanted, self.table_id, where), params)

    def changed_days(self, export_path: str, earliest: date, first: date, last: date) -> Select:
        """Count rows by day: of ``first`` to ``last`` all, of the days since ``earliest`` what came since ``first``."""
        params: dict[str, Any] = {"earliest": earliest, "first": first, "last": last}
        day, exported = (_day(path, self.field(path)) for path in (self.day_path, export_path))
        where = [f"{day} BETWEEN @earliest AND @last", f"({day} >= @first OR {exported} >= @first)"]
        where += self._filters(params) + self._partitions(params)
        select = _select([f"{day} AS day", "COUNT(*) AS n"], self.table_id, where)
        return Select(f"{select}\nGROUP BY day ORDER BY day", params)

    def field(self, path: str) -> SourceField:
        """Return the field of a path, or raise PermanentError that names the nearest one."""
        field = self.table.fields.get(path)
        if field is None:
            raise PermanentError(
                f"The table {self.table_id} has no field {path!r}.{nearest(path, self.table.fields)} "
                "Is it the export that the step's config is for?"
            )
        return field

    def _value(self, column: Column, path: str | None) -> str:
        if path is None:
            return f"CAST(NULL AS {'STRING' if column.type == 'JSON' else column.type})"
        field, name = self.field(path), _quoted(path)
        if column.type == "JSON":
            return f"TO_JSON_STRING({name})"
        if field.repeated or field.kind in ("RECORD", "STRUCT"):
            raise PermanentError(
                f"The field {path!r} of {self.table_id} is a list or a record: column {column.name!r} must be JSON."
            )
        if column.type == "BIGNUMERIC":
            # Money comes as FLOAT64. Its text is its shortest decimal form; cast directly, it brings its binary tail.
            return f"CAST(CAST({name} AS STRING) AS BIGNUMERIC)"
        return f"CAST({name} AS {column.type})"

    def _days(self) -> list[str]:
        """Bounds in the column's own type, so that BigQuery can leave out partitions and blocks."""
        kind, name = DAYS.get(self.field(self.day_path).kind), _quoted(self.day_path)
        if kind is None:
            raise PermanentError(f"day_column: {self.day_path!r} of {self.table_id} is no date or time.")
        if kind == "DATE":
            return [f"{name} BETWEEN @first AND @last"]
        return [f"{name} >= {kind}(@first)", f"{name} < {kind}(DATE_ADD(@last, INTERVAL 1 DAY))"]

    def _partitions(self, params: dict[str, Any]) -> list[str]:
        """Only partitions in which such rows can be: those since the first day, with no end, because rows come late."""
        name = self.table.partition
        if not name or name == self.day_path:
            return []
        params["lead"] = self.lead_days
        from_day = "DATE_SUB(@first, INTERVAL @lead DAY)"
        kind = "DATE" if name == "_PARTITIONDATE" else DAYS.get(self.field(name).kind, "DATE")
        value = name if name == "_PARTITIONDATE" else _quoted(name)
        return [f"{value} >= {from_day}" if kind == "DATE" else f"{value} >= {kind}({from_day})"]

    def _filters(self, params: dict[str, Any]) -> list[str]:
        conditions = []
        for number, (path, values) in enumerate(self.equal.items()):
            names = _params(params, f"e{number}", values)
            self.field(path)
            conditions.append(f"CAST({_quoted(path)} AS STRING) IN ({names})")
        for number, (path, values) in enumerate(self.unequal.items()):
            names = _params(params, f"u{number}", values)
            self.field(path)
            conditions.append(f"COALESCE(CAST({_quoted(path)} AS STRING) NOT IN ({names}), TRUE)")
        for number, (key, values) in enumerate(self.labels.items()):
            self.field(self.label_path)
            params[f"k{number}"] = key
            names = _params(params, f"l{number}", values)
            given = f"UNNEST({_quoted(self.label_path)}) AS l WHERE l.key = @k{number} AND l.value IN ({names})"
            conditions.append(f"EXISTS(SELECT 1 FROM {given})")  # noqa: S608 - checked names, values as parameters
        return conditions


def _select(wanted: Sequence[str], table_id: str, where: Sequence[str]) -> str:
    return f"SELECT\n  {',\n  '.join(wanted)}\nFROM `{table_id}`\nWHERE {'\n  AND '.join(where)}"


def _params(params: dict[str, Any], prefix: str, values: Sequence[str]) -> str:
    names = [f"{prefix}_{n}" for n in range(len(values))]
    params.update(zip(names, values, strict=True))
    return ", ".join(f"@{name}" for name in names)


def _day(path: str, field: SourceField) -> str:
    return _quoted(path) if field.kind == "DATE" else f"DATE({_quoted(path)})"


def _quoted(path: str) -> str:
    return ".".join(f"`{part}`" for part in path.split("."))
