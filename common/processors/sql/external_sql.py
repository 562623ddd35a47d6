"""The SELECT over an external table. Names in its text are validated; every value is a parameter."""

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
    """A table, the field of its rows' day, and filters.

    ``equal`` are allowed values by path, ``unequal`` excluded values (rows without one are kept), ``labels`` allowed
    values by key of the repeated field ``label_path``. ``lead_days`` is how many days a row's partition may be before
    its day, because partitions may be days of another time zone.
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
        selected = [f"{_day(self.day_path, self.field(self.day_path))} AS `{DATA_DATE}`"]
        selected += [f"{self._value(column, path)} AS `{column.name}`" for column, path in columns]
        where = self._days() + self._filters(params) + self._partitions(params)
        return Select(_select(selected, self.table_id, where), params)

    def changed_days(self, export_path: str, earliest: date, first: date, last: date) -> Select:
        """Count rows by day: all of ``first`` to ``last``; from ``earliest`` on, those exported since ``first``."""
        params: dict[str, Any] = {"earliest": earliest, "first": first, "last": last}
        day, exported = (_day(path, self.field(path)) for path in (self.day_path, export_path))
        where = [f"{day} BETWEEN @earliest AND @last", f"({day} >= @first OR {exported} >= @first)"]
        where += self._filters(params) + self._partitions(params)
        select = _select([f"{day} AS day", "COUNT(*) AS n"], self.table_id, where)
        return Select(f"{select}\nGROUP BY day ORDER BY day", params)

    def field(self, path: str) -> SourceField:
        """Return the field of a path. Raises PermanentError that suggests the nearest one."""
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
            # Google's export has money as FLOAT64. Its text is the shortest decimal that reads back as the same float;
            # a direct cast would add the float's binary error.
            return f"CAST(CAST({name} AS STRING) AS BIGNUMERIC)"
        return f"CAST({name} AS {column.type})"

    def _days(self) -> list[str]:
        """Return bounds in the column's own type, so that BigQuery can prune partitions and blocks."""
        kind, name = DAYS.get(self.field(self.day_path).kind), _quoted(self.day_path)
        if kind is None:
            raise PermanentError(f"day_column: {self.day_path!r} of {self.table_id} is not a date or time.")
        if kind == "DATE":
            return [f"{name} BETWEEN @first AND @last"]
        return [f"{name} >= {kind}(@first)", f"{name} < {kind}(DATE_ADD(@last, INTERVAL 1 DAY))"]

    def _partitions(self, params: dict[str, Any]) -> list[str]:
        """Return the bound of partitions: from the first day on, without an end, because rows arrive late."""
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
            # NULL NOT IN (...) is NULL, which would drop the row.
            conditions.append(f"COALESCE(CAST({_quoted(path)} AS STRING) NOT IN ({names}), TRUE)")
        for number, (key, values) in enumerate(self.labels.items()):
            self.field(self.label_path)
            params[f"k{number}"] = key
            names = _params(params, f"l{number}", values)
            labels = f"UNNEST({_quoted(self.label_path)}) AS l WHERE l.key = @k{number} AND l.value IN ({names})"
            conditions.append(f"EXISTS(SELECT 1 FROM {labels})")  # noqa: S608 - checked names, values as parameters
        return conditions


def _select(selected: Sequence[str], table_id: str, where: Sequence[str]) -> str:
    return f"SELECT\n  {',\n  '.join(selected)}\nFROM `{table_id}`\nWHERE {'\n  AND '.join(where)}"


def _params(params: dict[str, Any], prefix: str, values: Sequence[str]) -> str:
    names = [f"{prefix}_{n}" for n in range(len(values))]
    params.update(zip(names, values, strict=True))
    return ", ".join(f"@{name}" for name in names)


def _day(path: str, field: SourceField) -> str:
    return _quoted(path) if field.kind == "DATE" else f"DATE({_quoted(path)})"


def _quoted(path: str) -> str:
    return ".".join(f"`{part}`" for part in path.split("."))
