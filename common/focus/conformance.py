"""Checks a table of FOCUS rows with the SQL in ``configs/sql/checks``, which BigQuery can run without us.

The focus-validator is too lenient about allowed values, periods, duplicates and types (``docs/focus.md``). These checks
find what it misses, row by row.
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
"""The family that runs first: a statement that reads a missing column would only fail. All tables share its text."""
OWN = "x_"
"""Prefix of columns that are not FOCUS's: the specification requires it of custom columns."""
FATAL = ("columns.missing", "columns.type")
UNREADABLE = "A column that it reads is missing or has another type."
SUMS = "sums"
UNKNOWN_SOURCE = "sums.unknown"
EXAMPLES = 3
"""Examples per check: enough to find the cause, and a report of millions of failed rows stays readable."""

CREDITS = (
    "COALESCE((SELECT SUM(CAST(JSON_VALUE(c, '$.amount') AS BIGNUMERIC)) "
    "FROM UNNEST(JSON_QUERY_ARRAY({column})) AS c), 0)"
)
"""Credits are cast from their JSON text: a JSON number that is read as a float would lose digits."""

ROWS = """
SELECT x_pipeline_id, COUNT(*) AS n FROM `{table}`
WHERE x_org_slug = @org AND x_pipeline_run_date BETWEEN @first AND @last GROUP BY x_pipeline_id ORDER BY x_pipeline_id
"""


class Check(StrictModel):
    """A check's description. ``focus`` are ids of FOCUS's rules; empty if the check is ours."""

    severity: Literal["error", "warning"] = "error"
    focus: tuple[str, ...] = ()
    means: str


@dataclass(frozen=True)
class CheckedRows:
    """The rows to check: one organisation's, on the days from ``first`` to ``last``."""

    org: str
    first: date = date(1, 1, 1)
    last: date = date(9999, 12, 31)


CATALOG = TypeAdapter(dict[str, dict[str, Check]])


@dataclass(frozen=True, slots=True)
class Finding:
    """The number of rows that failed a check (0: it passed), and up to three of their keys, as JSON."""

    name: str
    check: Check
    failed: int = 0
    examples: tuple[str, ...] = ()

    @property
    def is_wrong(self) -> bool:
        """Whether the table does not conform because of it: it failed and is not a warning."""
        return self.failed > 0 and self.check.severity == "error"


@dataclass(frozen=True, slots=True)
class Report:
    """A finding for each check that ran, and the reason for each family of checks that could not run."""

    rows: int
    findings: tuple[Finding, ...]
    not_run: Mapping[str, str]

    @property
    def conforms(self) -> bool:
        """Whether there were rows, every check ran, and only warnings failed."""
        return self.rows > 0 and not self.not_run and not any(finding.is_wrong for finding in self.findings)


@dataclass(frozen=True, slots=True)
class SourceTable:
    """The source table of a pipeline's FOCUS rows, and the columns that must add up to BilledCost.

    ``credits`` is the JSON column with a list of further billed amounts, if there is one. With ``usage_only``, rows of
    other categories come from further tables; sp_consolidate checks those.
    """

    pipeline_id: str
    table: str
    billed: str
    currency: str
    usage_only: bool = False
    credits: str = ""

    @property
    def amount(self) -> str:
        """SQL for the billed amount of a source row."""
        return f"{self.billed} + {CREDITS.format(column=self.credits)}" if self.credits else self.billed


def sources(tree: ConfigTree, destination: str) -> list[SourceTable]:
    """Return the source of each pipeline that has a step from a ``source_table`` to the table ``destination``.

    Omits sources whose contract has no ``billed`` column. Raises ConfigError.
    """
    result = list[SourceTable]()
    for route in tree.routes():
        config = tree.load(route).config
        for step in config.steps:
            name = step.config.get("source_table")
            if step.config.get("destination_table") != destination or not isinstance(name, str):
                continue
            contract = load_table(tree.root, name)
            currencies = {column.name: column.currency for column in contract.columns}
            if contract.billed:
                result.append(
                    SourceTable(
                        config.pipeline_id,
                        name,
                        contract.billed,
                        currencies[contract.billed],
                        usage_only=bool(step.config.get("further_tables")),
                        credits=contract.billed_credits,
                    )
                )
    return result


class Checks:
    """The checks in a config tree for tables with the contract of ``table``, from the subfolder ``part`` if given.

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
        self._columns = self._required(load_table(configs, table))

    def _required(self, contract: Table) -> list[Column]:
        """Return the columns that a table must have: all of FOCUS's, and those of ours that the checks read.

        Statements that read a second table of the dataset are ignored here, because they name its columns as well.
        """
        read = [sql for sql in self._sql.values() if "`{dataset}." not in sql]
        own = {name for sql in read for name in re.findall(rf"\b{OWN}\w+", re.sub(r"--.*", "", sql))}
        return [column for column in contract.all_columns if not column.name.startswith(OWN) or column.name in own]

    def statements(
        self, family: str, table_id: str, origins: Sequence[SourceTable]
    ) -> Iterator[tuple[str, SourceTable | None]]:
        """Yield a family's statements for BigQuery; each statement of the sums family with the source it compares."""
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

        Raises PermanentError if a statement fails, TransientError if the warehouse does not respond.
        """
        columns = self.family(warehouse, COLUMNS, table_id, scope)
        others = [family for family in self.catalog if family != COLUMNS]
        if any(finding.failed for finding in columns if finding.name in FATAL):
            return Report(0, tuple(columns), dict.fromkeys(others, UNREADABLE))
        rows = {row["x_pipeline_id"]: row["n"] for row in warehouse.query(ROWS.format(table=table_id), asdict(scope))}
        dataset = table_id.rpartition(".")[0]
        present = [origin for origin in origins if warehouse.tables.find(f"{dataset}.{origin.table}") is not None]
        known = {origin.pipeline_id for origin in present}
        others_found = [f for family in others for f in self.family(warehouse, family, table_id, scope, present)]
        # Not in SQL: which pipelines have a source is known from the configs only.
        unknown = {pipeline: n for pipeline, n in rows.items() if pipeline not in known}
        unknown_source = Finding(
            UNKNOWN_SOURCE,
            self.catalog[SUMS][UNKNOWN_SOURCE],
            sum(unknown.values()),
            tuple(json.dumps({"pipeline": pipeline}, separators=(",", ":")) for pipeline in list(unknown)[:EXAMPLES]),
        )
        findings = (unknown_source if f.name == UNKNOWN_SOURCE else f for f in (*columns, *others_found))
        return Report(sum(rows.values()), tuple(findings), {})

    def family(
        self, warehouse: Warehouse, family: str, table_id: str, scope: CheckedRows, origins: Sequence[SourceTable] = ()
    ) -> list[Finding]:
        """Run the checks of one family; return a finding for each, in the order of ``checks.yml``."""
        checks = self.catalog[family]
        findings = {name: Finding(name, check) for name, check in checks.items()}
        for sql, origin in self.statements(family, table_id, origins):
            for row in warehouse.query(sql, _parameters(family, scope, origin, warehouse)):
                if row["name"] not in checks:
                    raise ConfigError(
                        f"sql/checks/checks.yml: {family}: no check {row['name']!r}.{nearest(row['name'], checks)}"
                    )
                # A check of sums is one statement per source; its finding adds them up.
                before = findings[row["name"]]
                examples = (*before.examples, *row["examples"])[:EXAMPLES]
                findings[row["name"]] = replace(before, failed=before.failed + int(row["failed"]), examples=examples)
        return list(findings.values())


def _parameters(family: str, scope: CheckedRows, origin: SourceTable | None, warehouse: Warehouse) -> dict[str, Any]:
    """Return the parameters that the comment at the top of the family's SQL lists."""
    if family == COLUMNS:
        return {}
    # The emulator's decimals have fewer places than BigQuery's: sums and roundings are exact to the last one.
    _, scale = warehouse.decimal_digits
    more: dict[str, dict[str, Any]] = {
        "amounts": {"last_place": Decimal(1).scaleb(-scale)},
        "decimals": {"decimals": scale},
        SUMS: {"pipeline": origin.pipeline_id if origin else None},
    }
    return {**asdict(scope), **more.get(family, {})}
