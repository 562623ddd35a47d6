"""What a preview would change: compares the rows of its shadow table with the rows that they would replace.

Rows are identified by their day and the step's ``keys``, or without keys by all columns that are not numbers. Rows with
the same identity are one group, so that data without a key can be compared, too. A group on one side only is ``added``
or ``removed``; a group on both is ``changed`` if its number of rows, a sum of its numbers or (with ``keys``) another
column differs.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, Literal

from common.domain.model import WriteSpec
from common.tables.contract import DATA_DATE, Column, Table
from common.writes.spool.hashing import DECIMAL_TEXT

SAMPLES = 20
NUMBERS = ("BIGNUMERIC", "INT64")

Query = Callable[[str, Mapping[str, Any]], Iterator[dict[str, Any]]]
Kind = Literal["added", "changed", "removed"]


@dataclass(frozen=True, slots=True)
class ComparedRows:
    """The rows to compare: those of one composite key and these days."""

    org_slug: str
    pipeline_id: str
    credential_id: str
    days: tuple[date, ...]


@dataclass(frozen=True, slots=True)
class DayDiff:
    """Numbers of rows of one day. A changed group counts the rows of its larger side."""

    day: date
    added: int
    changed: int
    removed: int
    same: int


@dataclass(frozen=True, slots=True)
class MoneyDiff:
    """The sums of an amount in one currency, before and after."""

    column: str
    currency: str
    before: Decimal
    after: Decimal

    @property
    def change(self) -> Decimal:
        """What promoting the preview would add."""
        return self.after - self.before


@dataclass(frozen=True, slots=True)
class RowDiff:
    """One group that differs: its identity, and the number of rows and the sums of its numbers on both sides."""

    kind: Kind
    day: date
    identity: Mapping[str, Any]
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class TableDiff:
    """The differences in one table; ``samples`` are the groups whose money (without money: rows) differs most."""

    table: str
    days: tuple[DayDiff, ...]
    money: tuple[MoneyDiff, ...]
    samples: tuple[RowDiff, ...]


def table_diff(
    query: Query, target: str, shadow: str, table: Table, write: WriteSpec, scope: ComparedRows
) -> TableDiff:
    """Compare ``shadow`` with ``target``, except rows that a ``merge`` leaves alone. Raises what ``query`` raises."""
    sql = _Sql(target, shadow, table, write, scope.days)
    params = {"org": scope.org_slug, "pipeline": scope.pipeline_id, "credential": scope.credential_id}
    days = tuple(DayDiff(**row) for row in query(sql.days(), params))
    money = tuple(MoneyDiff(**row) for amount in sql.amounts for row in query(sql.money(amount), params))
    samples = tuple(sql.sample(row) for row in query(sql.samples(), params))
    return TableDiff(target, days, money, samples)


class _Sql:
    """The queries of one comparison. Names come from contracts and table ids, values are parameters or dates."""

    def __init__(self, target: str, shadow: str, table: Table, write: WriteSpec, days: Sequence[date]) -> None:
        keys, self._kinds = write.keys, {column.name: column.type for column in table.columns}
        where = WHERE.format(days=", ".join(f"DATE '{day.isoformat()}'" for day in days))
        self._after = self._before = where
        if write.mode == "merge":
            same = self._struct((DATA_DATE, *keys))
            self._before = f"{where} AND {same} IN (SELECT {same} FROM {_q(shadow)} {where})"  # noqa: S608
        self._target, self._shadow = target, shadow
        columns = {column.name: column for column in table.columns}
        self._numbers = [c.name for c in table.columns if c.type in NUMBERS and c.name not in keys]
        self._identity = list(keys) or [c.name for c in table.columns if c.type not in NUMBERS]
        seen = {*self._numbers, *self._identity}
        self._rest = [name for name in columns if name not in seen]
        self.amounts: list[Column] = [c for c in table.columns if c.currency]

    def days(self) -> str:
        return f"""{self._groups()}
SELECT day, SUM(IF(kind = 'added', n, 0)) AS added, SUM(IF(kind = 'changed', n, 0)) AS changed,
  SUM(IF(kind = 'removed', n, 0)) AS removed, SUM(IF(kind = 'same', n, 0)) AS same
FROM judged GROUP BY day ORDER BY day"""  # noqa: S608

    def samples(self) -> str:
        sizes = [
            f"ABS(IFNULL(a_{c.name}, 0) - IFNULL(b_{c.name}, 0)) DESC" for c in self.amounts if c.name in self._numbers
        ]
        return f"""{self._groups()}
SELECT * FROM judged WHERE kind != 'same'
ORDER BY {", ".join([*sizes, "n DESC", "day", "id"])} LIMIT {SAMPLES}"""  # noqa: S608

    def money(self, amount: Column) -> str:
        one = f"SELECT IFNULL({_q(amount.currency)}, '') AS currency"
        both = f"""
  {one}, {_q(amount.name)} AS b, NULL AS a FROM {_q(self._target)} {self._before}
  UNION ALL {one}, NULL AS b, {_q(amount.name)} AS a FROM {_q(self._shadow)} {self._after}"""
        return f"""SELECT '{amount.name}' AS `column`, currency,
  IFNULL(SUM(b), 0) AS `before`, IFNULL(SUM(a), 0) AS `after`
FROM ({both}) GROUP BY currency ORDER BY currency"""  # noqa: S608

    def sample(self, row: Mapping[str, Any]) -> RowDiff:
        """Return a group from a row of ``samples``."""

        def side(name: str) -> dict[str, Any] | None:
            if row[f"{name}_n"] is None:
                return None
            return {"rows": row[f"{name}_n"], **{number: row[f"{name}_{number}"] for number in self._numbers}}

        identity = {name: self._value(name, value) for name, value in json.loads(row["id"]).items()}
        return RowDiff(row["kind"], row["day"], identity, side("b"), side("a"))

    def _value(self, name: str, value: Any) -> Any:
        kind = self._kinds[name]
        return value if value is None or kind not in NUMBERS else Decimal(value) if kind == "BIGNUMERIC" else int(value)

    def _struct(self, names: Sequence[str]) -> str:
        """Return SQL for these columns as JSON. BigQuery quotes decimals and large whole numbers, the emulator neither:
        decimals become text here, and ``_value`` makes numbers of both."""
        values = [(DECIMAL_TEXT if self._kinds.get(n) == "BIGNUMERIC" else "{0}").format(_q(n)) for n in names]
        fields = ", ".join(f"{value} AS {_q(name)}" for name, value in zip(names, values, strict=True))
        return f"TO_JSON_STRING(STRUCT({fields}))"

    def _groups(self) -> str:
        same = ["b.n = a.n", "b.rest = a.rest", *(f"b.{_q(x)} IS NOT DISTINCT FROM a.{_q(x)}" for x in self._numbers)]
        sums = [f"{side}.{_q(x)} AS {side}_{x}" for side in "ba" for x in self._numbers]
        return f"""WITH b AS ({self._grouped(self._target, self._before)}),
a AS ({self._grouped(self._shadow, self._after)}),
judged AS (
  SELECT IFNULL(a.day, b.day) AS day, IFNULL(a.id, b.id) AS id,
    CASE WHEN b.id IS NULL THEN 'added' WHEN a.id IS NULL THEN 'removed'
      WHEN {" AND ".join(same)} THEN 'same' ELSE 'changed' END AS kind,
    GREATEST(IFNULL(a.n, 0), IFNULL(b.n, 0)) AS n, {", ".join(["b.n AS b_n", "a.n AS a_n", *sums])}
  FROM b FULL JOIN a ON a.day = b.day AND a.id = b.id
)"""  # noqa: S608

    def _grouped(self, table: str, where: str) -> str:
        sums = "".join(f", SUM({_q(name)}) AS {_q(name)}" for name in self._numbers)
        rest = f"STRING_AGG({self._struct(self._rest)} ORDER BY {self._struct(self._rest)})" if self._rest else "''"
        return f"""
  SELECT {DATA_DATE} AS day, {self._struct(self._identity)} AS id, COUNT(*) AS n, {rest} AS rest{sums}
  FROM {_q(table)} {where} GROUP BY day, id
"""  # noqa: S608


WHERE = f"""WHERE x_org_slug = @org AND x_pipeline_id = @pipeline AND x_credential_id = @credential
    AND {DATA_DATE} IN ({{days}})"""


def _q(name: str) -> str:
    return f"`{name}`"
