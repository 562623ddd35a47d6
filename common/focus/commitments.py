"""Checks the second dataset of FOCUS 1.3, contract commitments, and the charges that refer to them.

The SQL is in ``configs/sql/checks/commitments``; BigQuery can run it without us.
"""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from common.focus.conformance import CHARGES, COLUMNS, FATAL, ROWS, UNREADABLE, CheckedRows, Checks, Report
from common.ports.warehouse import Warehouse

TABLE = "contract_commitment_1_3"
APPLIED = "applied"
NO_CHARGES = f"There is no table {CHARGES}."


def commitment_checks(configs: Path) -> Checks:
    """Return the checks of commitments. Raises ConfigError if they can't be read."""
    return Checks(configs, TABLE, "commitments")


def check_commitments(checks: Checks, warehouse: Warehouse, dataset: str, scope: CheckedRows) -> Report | None:
    """Check all commitments of the organisation, and the charges of the scope that apply to one.

    Returns None if it has no commitments. Raises as ``Checks.run`` does.
    """
    # Commitments are checked for all days: one that began before the scope still covers charges in it.
    table_id, everything = f"{dataset}.{TABLE}", CheckedRows(scope.org)
    if warehouse.tables.find(table_id) is None:
        return None
    columns = checks.family(warehouse, COLUMNS, table_id, everything)
    others = [family for family in checks.catalog if family != COLUMNS]
    if any(finding.failed for finding in columns if finding.name in FATAL):
        return Report(0, tuple(columns), dict.fromkeys(others, UNREADABLE))
    rows = sum(row["n"] for row in warehouse.query(ROWS.format(table=table_id), asdict(everything)))
    if not rows:
        return None
    missing = {} if warehouse.tables.find(f"{dataset}.{CHARGES}") else {APPLIED: NO_CHARGES}
    findings = [
        finding
        for family in others
        if family not in missing
        for finding in checks.family(warehouse, family, table_id, scope if family == APPLIED else everything)
    ]
    return Report(rows, (*columns, *findings), missing)


def statements(checks: Checks, dataset: str) -> Iterator[str]:
    """Yield the statements for BigQuery."""
    for family in checks.catalog:
        yield from (sql for sql, _ in checks.statements(family, f"{dataset}.{TABLE}", ()))
