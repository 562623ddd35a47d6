"""``main.py conform``: checks that an organisation's costs are valid FOCUS 1.3 and add up to their sources."""

import re
import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime

import click

from common import bootstrap
from common.cli import show
from common.cli.base import cli, friendly, json_option, quiet
from common.cli.stack import warehouse_of
from common.config.loader import ConfigTree
from common.focus.commitments import TABLE as COMMITMENTS
from common.focus.commitments import check_commitments, commitment_checks, statements
from common.focus.conformance import CHARGES, CheckedRows, Checks, Finding, Report, sources
from common.platform.errors import PipelineOpsError, nearest
from common.platform.settings import Settings
from common.ports.warehouse import Warehouse
from common.processors.registry import REGISTRY

NAME = re.compile(r"[a-z][a-z0-9_]{0,200}")
DAY = click.DateTime(["%Y-%m-%d"])


@cli.command()
@click.argument("org")
@click.option("--table", "name", default=CHARGES, show_default=True, help="Another table of FOCUS rows.")
@click.option("--from", "first", type=DAY, help="First day to check. Default: the table's first.")
@click.option("--to", "last", type=DAY, help="Last day, inclusive. Default: the table's last.")
@click.option("--sql", "as_sql", is_flag=True, help="Print the statements for BigQuery, and run nothing.")
@json_option
@click.pass_obj
@friendly
def conform(
    settings: Settings,
    org: str,
    name: str,
    first: datetime | None,
    last: datetime | None,
    as_sql: bool,
    as_json: bool,
) -> None:
    """Check an organisation's rows with the SQL of configs/sql/checks. Exit code 1 unless all of them conform.

    Commitments (contract_commitment_1_3) are checked as well, if there are any.

    \b
    Examples:
      main.py conform acme_corp
      main.py conform acme_corp --from 2026-11-01 --to 2026-11-30 --json
      main.py conform acme_corp --sql | less
    """
    bootstrap.plans(settings).limits(org)
    if not NAME.fullmatch(name):
        raise PipelineOpsError(f"--table: {name[:80]!r} is not the name of a table.{nearest(name, [CHARGES])}")
    days = {"first": first and first.date(), "last": last and last.date()}
    scope = CheckedRows(org, **{day: value for day, value in days.items() if value is not None})
    if as_sql:
        for sql in _statements(settings, org, name):
            click.echo(f"{sql.strip()};\n")
        return
    results = _check(settings, scope, name)
    if as_json:
        costs, *commitments = (_plain(table_id, report) for table_id, report in results.items())
        show.as_json(costs | ({"commitments": commitments[0]} if commitments else {}))
    else:
        for table_id, report in results.items():
            show_report(table_id, report)
    sys.exit(0 if all(report.conforms for report in results.values()) else 1)


def _statements(settings: Settings, org: str, name: str) -> Iterator[str]:
    dataset = f"{settings.project_id}.{settings.dataset(org)}"
    checks, origins = Checks(settings.configs), sources(ConfigTree(settings.configs, REGISTRY), CHARGES)
    for family in checks.catalog:
        yield from (sql for sql, _ in checks.statements(family, f"{dataset}.{name}", origins))
    yield from statements(commitment_checks(settings.configs), dataset)


def reports(warehouse: Warehouse, settings: Settings, scope: CheckedRows, name: str = CHARGES) -> dict[str, Report]:
    """Check a table of FOCUS rows, and the organisation's commitments if there are any; return reports by table."""
    dataset = f"{settings.project_id}.{settings.dataset(scope.org)}"
    origins = sources(ConfigTree(settings.configs, REGISTRY), CHARGES)
    charges = {f"{dataset}.{name}": Checks(settings.configs).run(warehouse, f"{dataset}.{name}", scope, origins)}
    commitments = check_commitments(commitment_checks(settings.configs), warehouse, dataset, scope)
    return charges | ({f"{dataset}.{COMMITMENTS}": commitments} if commitments else {})


def _check(settings: Settings, scope: CheckedRows, name: str) -> dict[str, Report]:
    table_id = f"{settings.project_id}.{settings.dataset(scope.org)}.{name}"
    quiet(settings)
    with warehouse_of(settings) as warehouse:
        # Before the checks, whose statements would all fail with BigQuery's own error.
        if warehouse.tables.find(table_id) is None:
            raise PipelineOpsError(f"There is no table {table_id}. Run a pipeline, or: main.py bootstrap-sync --apply")
        return reports(warehouse, settings, scope, name)


def _plain(table_id: str, report: Report) -> dict[str, object]:
    findings = [{**asdict(f), "check": f.check.model_dump(), "is_wrong": f.is_wrong} for f in report.findings]
    return {
        "ok": report.conforms,
        "table": table_id,
        "rows": report.rows,
        "findings": findings,
        "not_run": dict(report.not_run),
    }


def show_report(table_id: str, report: Report) -> None:
    """Print failed checks with examples, checks that could not run, and the numbers of rows and checks."""
    failed = [finding for finding in report.findings if finding.failed]
    if failed:
        show.table("", ("check", "", "failed", "meaning", "FOCUS rules"), _rows(failed), ("failed",))
    for finding in failed:
        for example in finding.examples:
            click.echo(f"{finding.name}: {example}")
    for family, why in report.not_run.items():
        click.echo(f"not run: {family}. {why}")
    wrong = sum(finding.is_wrong for finding in failed)
    summary = f"{wrong or 'none'} wrong, {len(failed) - wrong} warnings"
    click.echo(f"{table_id}: {report.rows} rows, {len(report.findings)} checks: {summary}.")
    if not report.rows and not report.not_run:
        click.echo("There are no rows to check. Run a pipeline, or choose other days.")


def _rows(failed: list[Finding]) -> Iterator[tuple[object, ...]]:
    for f in failed:
        yield f.name, "ERROR" if f.is_wrong else "WARNING", f.failed, f.check.means, "\n".join(f.check.focus)
