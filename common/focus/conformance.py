"""Checks a table of FOCUS rows with the SQL of ``configs/sql/checks``, which BigQuery runs without us as well.

The focus-validator reads allowed values, periods, duplicates and types too kindly (``docs/focus.md``): what it lets
through is found here, row by row.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import TypeAdapter, ValidationError

from common.config.loader import ConfigTree
from common.platform.errors import ConfigError, nearest
from common.platform.strict import StrictModel
from common.ports.warehouse import Warehouse
from common.tables.contract import Column, Table, load_table

CHARGES = "cost_data_standard_1_3"
COLUMNS = "columns"
"""The family that the others need: what reads a column that is not there would only fail. One text for all tables."""
OWN = "x_"
"""How names of columns begin that are not FOCUS's."""
FATAL = ("columns.missing", "columns.type")
UNREADABLE = "The table's columns are not those that it reads."
SUMS = "sums"
UNKNOWN_SOURCE = "sums.unknown"
EXAMPLES = 3

CREDITS = (
    "COALESCE((SELECT SUM(CAST(JSON_VALUE(c, '$.amount') AS BIGNUMERIC)) "
    "FROM UNNEST(JSON_QUERY_ARRAY({column})) AS c), 0)"
)
"""Credits are added by their texts: a JSON number that is read as a float would lose its end."""

ROWS = """
SELECT x_pipeline_id, COUNT(*) AS n FROM `{table}`
WHERE x_org_slug = @org AND x_pipeline_run_date BETWEEN @first AND @last GROUP BY x_pipeline_id ORDER BY x_pipeline_id
"""


class Check(StrictModel):
    """What a check is for. ``focus`` are ids of rules of FOCUS; none where the check is ours alone."""

    severity: Literal["error", "warning"] = "error"
    focus: tuple[str, ...] = ()
    means: str


@dataclass(frozen=True)
class CheckedRows:
    """The rows that are checked: those of one organisation, and of these days."""

    org: str
    first: date = date(1, 1, 1)
    last: date = date(9999, 12, 31)


CATALOG = TypeAdapter(dict[str, dict[str, Check]])


@dataclass(frozen=True, slots=True)
class Finding:
    """How many rows failed a check (0: all passed), and up to three of them by their key, as JSON."""

    name: str
    check: Check
    failed: int = 0
    examples: tuple[str, ...] = ()

    @property
    def is_wrong(self) -> bool:
        """Whether it keeps the table from conforming: a failed check that is no warning."""
        return self.failed > 0 and self.check.severity == "error"


@dataclass(frozen=True, slots=True)
class Report:
    """What was found: of every check that was run, and which families of checks could not be run, and why."""

    rows: int
    findings: tuple[Finding, ...]
    not_run: Mapping[str, str]

    @property
    def conforms(self) -> bool:
        """Whether there were rows, every check was run, and none but warnings failed."""
        return self.rows > 0 and not self.not_run and not any(finding.is_wrong for finding in self.findings)


@dataclass(frozen=True, slots=True)
class SourceTable:
    """The table that a pipeline makes its FOCUS rows from, and the columns that have to add up to BilledCost.

    ``credits`` is the JSON column with a list of amounts that are billed besides, if there is one. With ``usage_only``
    rows of other categories come from further tables: they are proved by sp_consolidate, not here.
    """

    pipeline_id: str
    table: str
    billed: str
    currency: str
    usage_only: bool = False
    credits: str = ""

    @property
    def amount(self) -> str:
        """What a row of the source is billed, as SQL."""
        return f"{self.billed} + {CREDITS.format(column=self.credits)}" if self.credits else self.billed


def sources(tree: ConfigTree, destination: str) -> list[SourceTable]:
    """Return the source of each pipeline that has a step from a ``source_table`` to the table ``destination``.

    A source whose contract does not say what is ``billed`` is left out. Raises ConfigError.
    """
    found = list[SourceTable]()
    for route in tree.routes():
        config = tree.load(route).config
        for step in config.steps:
            name = step.config.get("source_table")
            if step.config.get("destination_table") != destination or not isinstance(name, str):
                continue
            contract = load_table(tree.root, name)
            currencies = {column.name: column.currency for column in contract.columns}
            if contract.billed:
                further = bool(step.config.get("further_tables"))
                currency = currencies[contract.billed]
                its = SourceTable(config.pipeline_id, name, contract.billed, currency, further, contract.billed_credits)
                found.append(its)
    return found


class Checks:
    """The checks of a tree of configs on tables with the contract of ``table``; those in the folder ``part``, if given.

    Raises ConfigError if they can't be read.
    """

    def __init__(self, configs: Path, table: str = CHARGES, part: str = "") -> None:
        common = configs / "sql" / "checks"
        folder = common / part
        try:
            self.catalog = CATALOG.validate_python(yaml.safe_load((folder / "checks.yml").read_text("utf-8")))
            paths = {family: (common if family == COLUMNS else folder) / f"{family}.sql" for family in self.catalog}
            self._sql = {family: path.read_text("utf-8") for family, path in paths.items()}
        except (OSError, yaml.YAMLError, ValidationError) as error:
            raise ConfigError(f"sql/checks: {error}") from error
        self._columns = self._wanted(load_table(configs, table))

    def _wanted(self, contract: Table) -> list[Column]:
        """Return the columns that a table must have: all of FOCUS, and of ours those that the checks read.

        A statement that reads a second table of the dataset names that table's columns as well, so it does not count.
        """
        read = [sql for sql in self._sql.values() if "`{dataset}." not in sql]
        own = {name for sql in read for name in re.findall(rf"\b{OWN}\w+", re.sub(r"--.*", "", sql))}
        return [column for column in contract.all_columns if not column.name.startswith(OWN) or column.name in own]

    def statements(
        self, family: str, table_id: str, origins: Sequence[SourceTable]
    ) -> Iterator[tuple[str, SourceTable | None]]:
        """Yield a family's statements as BigQuery takes them; those of sums with the source that each compares."""
        dataset, _, name = table_id.rpartition(".")
        columns = ",\n    ".join(f"'{column.name} {column.type}'" for column in self._columns)
        sql = self._sql[family].replace("{table}", table_id).replace("{dataset}", dataset).replace("{name}", name)
        sql = sql.replace("{columns}", columns)
        if family != SUMS:
            yield sql, None
            return
        for origin in origins:
            filled = sql.replace("{source}", f"{dataset}.{origin.table}").replace("{cost}", origin.amount)
            charges = "ChargeCategory = 'Usage'" if origin.usage_only else "TRUE"
            yield filled.replace("{currency}", origin.currency).replace("{charges}", charges), origin

    def run(
        self, warehouse: Warehouse, table_id: str, scope: CheckedRows, origins: Sequence[SourceTable] = ()
    ) -> Report:
        """Check the rows of the scope.

        Raises PermanentError if a statement fails, TransientError if the warehouse does not answer.
        """
        columns = self.family(warehouse, COLUMNS, table_id, scope)
        others = [family for family in self.catalog if family != COLUMNS]
        if any(finding.failed for finding in columns if finding.name in FATAL):
            return Report(0, tuple(columns), dict.fromkeys(others, UNREADABLE))
        rows = {row["x_pipeline_id"]: row["n"] for row in warehouse.query(ROWS.format(table=table_id), asdict(scope))}
        dataset = table_id.rpartition(".")[0]
        there = [origin for origin in origins if warehouse.tables.find(f"{dataset}.{origin.table}") is not None]
        known = {origin.pipeline_id for origin in there}
        found = [f for family in others for f in self.family(warehouse, family, table_id, scope, there)]
        strangers = {pipeline: n for pipeline, n in rows.items() if pipeline not in known}
        told = Finding(
            UNKNOWN_SOURCE,
            self.catalog[SUMS][UNKNOWN_SOURCE],
            sum(strangers.values()),
            tuple(json.dumps({"pipeline": pipeline}, separators=(",", ":")) for pipeline in list(strangers)[:EXAMPLES]),
        )
        findings = (told if finding.name == UNKNOWN_SOURCE else finding for finding in (*columns, *found))
        return Report(sum(rows.values()), tuple(findings), {})

    def family(
        self, warehouse: Warehouse, family: str, table_id: str, scope: CheckedRows, origins: Sequence[SourceTable] = ()
    ) -> list[Finding]:
        """Run the checks of one family; return a finding for each, in the order of ``checks.yml``."""
        checks = self.catalog[family]
        found = {name: Finding(name, check) for name, check in checks.items()}
        for sql, origin in self.statements(family, table_id, origins):
            for row in warehouse.query(sql, _parameters(family, scope, origin, warehouse)):
                if row["name"] not in checks:
                    raise ConfigError(
                        f"sql/checks/checks.yml: {family}: no check {row['name']!r}.{nearest(row['name'], checks)}"
                    )
                before = found[row["name"]]
                examples = (*before.examples, *row["examples"])[:EXAMPLES]
                found[row["name"]] = replace(before, failed=before.failed + int(row["failed"]), examples=examples)
        return list(found.values())


def _parameters(family: str, scope: CheckedRows, origin: SourceTable | None, warehouse: Warehouse) -> dict[str, Any]:
    """Return the parameters that the head of the family's SQL names."""
    if family == COLUMNS:
        return {}
    _, scale = warehouse.decimal_digits
    more: dict[str, dict[str, Any]] = {
        "amounts": {"last_place": Decimal(1).scaleb(-scale)},
        "decimals": {"decimals": scale},
        SUMS: {"pipeline": origin.pipeline_id if origin else None},
    }
    return {**asdict(scope), **more.get(family, {})}
