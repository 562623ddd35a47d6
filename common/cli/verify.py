"""``main.py verify``: checks that the rows of all receipts are in their tables, once and unchanged."""

import sys
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial

import click
from rich.console import Console
from rich.status import Status

from common import bootstrap
from common.cli import show
from common.cli.base import cli, friendly, json_option, quiet
from common.cli.stack import attached, warehouse_of
from common.platform.errors import PipelineOpsError, TransientError
from common.platform.settings import Settings
from common.ports.store import all_organisations
from common.writes.receipts import Finding
from common.writes.verify import Report, Verifier


@cli.command()
@click.argument("run_id", required=False)
@click.option("--all", "every", is_flag=True, help="Every run of every organisation that has a plan.")
@click.option("--org", help="With --all: only this organisation.")
@json_option
@click.pass_obj
@friendly
def verify(settings: Settings, run_id: str | None, every: bool, org: str | None, as_json: bool) -> None:
    """Check receipts against the tables. Exit code 1 if a row is missing, duplicated, changed or unexpected.

    \b
    Examples:
      main.py verify run_0123
      main.py verify --all --org acme_corp
    """
    if (run_id is None) != every:
        raise click.UsageError("Name a run, or use --all.")
    if org and not every:
        raise click.UsageError("--org needs --all: a run already belongs to an organisation.")
    quiet(settings)
    engine = bootstrap.build(attached(settings))
    if org:
        engine.plans.limits(org)
    if run_id is not None:
        engine.store.load(run_id)  # raises for an unknown run before an emulator is started, which takes seconds
    orgs = [org] if org else list(all_organisations(engine.plans)) if every else []
    project = f"{settings.project_id}."
    with warehouse_of(settings) as warehouse:
        verifier = Verifier(engine.store, warehouse, lambda of, name: f"{project}{settings.dataset(of)}.{name}")
        try:
            report = verifier.run(run_id) if run_id is not None else _all(verifier, orgs)
        except TransientError as error:
            own = "unset BIGQUERY_EMULATOR_HOST so that it starts its own emulator, or try again"
            raise PipelineOpsError(f"{error} verify needs the warehouse: start `main.py serve`, {own}.") from error
    wrong = [finding for finding in report.findings if finding.is_wrong]
    if as_json:
        findings = [{**asdict(finding), "is_wrong": finding.is_wrong} for finding in report.findings]
        show.as_json({"ok": not wrong, "receipts_checked": report.checked, "findings": findings})
    else:
        _show(report, report.findings if run_id else wrong)
    sys.exit(1 if wrong else 0)


def _all(verifier: Verifier, orgs: list[str]) -> Report:
    """Check the organisations in turn, with progress on a terminal."""
    checked, findings = 0, list[Finding]()
    # On standard error, so that --json can be piped.
    with Status("", console=Console(stderr=True)) as status:
        for org in orgs:
            report = verifier.organisation(org, partial(_progress, status, org))
            checked += report.checked
            findings += report.findings
    return Report(checked, findings)


def _progress(status: Status, org: str, runs: int) -> None:
    status.update(f"{org}: {runs} runs read")


def _show(report: Report, findings: list[Finding]) -> None:
    if findings:
        show.table("", ("finding", "run", "step", "table", "day", "expected", "found"), _rows(findings))
    for finding in findings:
        click.echo(f"{finding.kind}: {finding.run_id} {finding.step_id or '?'}: {finding.text}")
    wrong = sum(finding.is_wrong for finding in report.findings)
    notes = len(report.findings) - wrong
    click.echo(f"{report.checked} receipts checked: {wrong or 'nothing'} wrong, {notes} notes.")


def _rows(findings: list[Finding]) -> Iterator[tuple[object, ...]]:
    for f in findings:
        yield f.kind, f.run_id, f.step_id, f.table.rpartition(".")[2], f.day, f.expected, f.found
