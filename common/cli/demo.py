"""``main.py demo``: runs every provider's pipeline against sandboxes and made-up bills, then proves the sums."""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import click

from common import bootstrap
from common.cli import show
from common.cli.client import ApiClient
from common.cli.conform import reports, show_report
from common.cli.stack import follow
from common.config.loader import ConfigTree
from common.focus.conformance import CHARGES, CheckedRows
from common.platform.settings import Settings
from common.ports.warehouse import Warehouse
from common.processors.registry import REGISTRY
from common.runs.own_schedules import EVERY, OwnSchedules
from common.tables.contract import LINEAGE
from infra.local.demo_data import (
    DEMO_PIPELINES,
    MONTH,
    DemoInput,
    DemoPipeline,
    DemoSetup,
    add_credentials,
    add_gcp_export,
)
from infra.local.sandbox.server import SandboxServer
from infra.local.stack import EmbeddedStack

ORG = "acme_corp"
DAYS = 3
SEED = 20261121
"""Fixed, so that a repeated demo of the same days gets the same data and replaces its rows by equal ones."""
PROOF = DemoPipeline("genai/unified/consolidate", days=MONTH)

CHARGE = ("BilledCost", "BillingCurrency", "ServiceProviderName", "ServiceName", "ChargeDescription")
LINEAGE_FIELDS = tuple(name for name, _ in LINEAGE)
PROVED = ("provider", "currency", "pipeline", "source rows", "source sum", "FOCUS rows", "FOCUS sum", "proof", "bill")
SUMS = """
SELECT source_pipeline_id AS pipeline, provider, currency, SUM(rows_in) AS rows_in, SUM(sum_in) AS sum_in,
  SUM(focus_rows) AS rows_out, SUM(sum_out) AS sum_out,
  SUM(IF(x_pipeline_run_date >= @made, sum_out, BIGNUMERIC '0')) AS sum_made,
  MIN(proof) AS proof, COUNT(DISTINCT proof) AS proofs
FROM `{table}` WHERE x_org_slug = @org AND x_pipeline_run_date BETWEEN @first AND @last
GROUP BY source_pipeline_id, provider, currency ORDER BY provider, currency
"""


def run_demo(settings: Settings) -> int:
    """Run the demo; return exit code 0 only if all runs completed, all sums are proved and all rows conform."""
    began = time.monotonic()
    first = datetime.now(UTC).date() - timedelta(days=DAYS)
    with SandboxServer(seed=SEED) as sandbox:
        settings = replace(settings, provider_urls={**settings.provider_urls, **sandbox.urls})
        setup = DemoSetup(settings, sandbox, ORG, SEED, first, DAYS)
        # Before the stack starts: it resumes runs of an earlier, killed demo, which need this demo's sandboxes.
        engine = bootstrap.build(settings)
        add_credentials(engine.credentials, setup)
        pause_schedules(OwnSchedules(engine.records, engine.now))
        click.echo("Starting the embedded stack (SQLite, BigQuery emulator, every function in one process) ...")
        with EmbeddedStack(settings) as stack:
            up = time.monotonic() - began
            click.echo(f"  up in {up:.1f} s on {stack.url}; sandboxes of the providers on {sandbox.url}")
            add_gcp_export(setup, str(stack.engine.settings.bigquery_url))
            client = ApiClient(stack.url, stack.token)
            _finish_earlier(client)
            inputs = {pipeline: pipeline.make(setup) for pipeline in DEMO_PIPELINES}
            ended = _run(client, setup, inputs)
            ended += _run(client, setup, {PROOF: DemoInput()})  # after all others: it sums what they wrote
            good = _show_all(stack.engine.attempts.warehouse(), setup, inputs)
    click.echo(f"The demo took {time.monotonic() - began:.0f} s.")
    return 0 if good and all(run["status"] == "completed" for run in ended) else 1


def pause_schedules(own: OwnSchedules) -> None:
    """Keep a later ``serve`` from running every pipeline with the sandboxes' credentials, which open nothing else.

    An organisation that has set something before is left as it is.
    """
    if not own.of(ORG):
        own.change(ORG, EVERY, paused=True, reason="the demo's credentials open its sandboxes only")


def _finish_earlier(client: ApiClient) -> None:
    """Follow the runs of an earlier, killed demo: the stack resumes them, and they hold slots of the plan."""
    for run in reversed(client.history(ORG, limit="200")["runs"]):
        if not run["ended_at"]:
            click.echo(f"\nResuming {run['run_id']} of an earlier process")
            show.run_table(follow(client, ORG, run["run_id"], run["pipeline"]))


def _run(client: ApiClient, setup: DemoSetup, inputs: dict[DemoPipeline, DemoInput]) -> list[dict[str, Any]]:
    """Start all runs, so that they work in parallel; then follow each to its end."""
    started: list[tuple[str, str]] = []
    for pipeline, demo_input in inputs.items():
        body = pipeline.body(setup, demo_input)
        click.echo(f"POST /pipelines/run/{ORG}/{pipeline.route} {json.dumps(body)}")
        started.append((pipeline.route, client.start(ORG, pipeline.route, body | {"queue": True})["run_id"]))
    ended = []
    for route, run_id in started:
        click.echo(f"\n{route} {run_id}")
        ended.append(follow(client, ORG, run_id, route))
    for run in ended:
        show.run_table(run)
    return ended


def _show_all(warehouse: Warehouse, setup: DemoSetup, inputs: dict[DemoPipeline, DemoInput]) -> bool:
    """Show rows, proof and conformance; return whether everything is right."""
    dataset = f"{setup.settings.project_id}.{setup.settings.dataset(ORG)}"
    _show_rows(warehouse, f"{dataset}.{CHARGES}")
    tree = ConfigTree(setup.settings.configs, REGISTRY)
    bills = {tree.load(pipeline.route).config.pipeline_id: made.billed for pipeline, made in inputs.items()}
    proved = show_proof(warehouse, f"{dataset}.cost_consolidation", setup, bills)
    click.echo("\nIs it FOCUS 1.3? The checks of configs/sql/checks on every row:")
    results = reports(warehouse, setup.settings, CheckedRows(ORG))
    for table_id, report in results.items():
        show_report(table_id, report)
    click.echo(
        f"\nNext: main.py report {ORG} --html costs.html (a page with charts) · main.py conform {ORG} · "
        f"main.py reconcile {ORG} · main.py prices missing {ORG} · main.py history {ORG} · main.py serve"
    )
    return proved and all(report.conforms for report in results.values())


def _show_rows(warehouse: Warehouse, table: str) -> None:
    """Print the most expensive rows with their lineage."""
    columns = ", ".join((*CHARGE, *LINEAGE_FIELDS))
    rows = list(
        warehouse.query(f"SELECT {columns} FROM `{table}` ORDER BY BilledCost DESC, ChargeDescription LIMIT 10")  # noqa: S608
    )
    for title, names in ((f"The ten most expensive rows of {CHARGES}", CHARGE), ("Their lineage", LINEAGE_FIELDS)):
        cells = [(number, *(_cell(row[name]) for name in names)) for number, row in enumerate(rows, 1)]
        show.table(title, ("#", *names), cells, ("#", "BilledCost"))


def show_proof(warehouse: Warehouse, table: str, setup: DemoSetup, bills: dict[str, Decimal | None]) -> bool:
    """Print each provider's rows and sums in its source and in the FOCUS table, and compare with the made-up bills.

    Return whether all sums are equal and every pipeline has rows.
    """
    days = {"org": ORG, "first": setup.last - timedelta(days=MONTH - 1), "last": setup.last, "made": setup.first}
    rows = list(warehouse.query(SUMS.format(table=table), days))
    lines = [_proved(row, bills.get(row["pipeline"])) for row in rows]
    title = f"Proof, {days['first']} to {setup.last}: rows and sums in the source and in {CHARGES}"
    show.table(title, PROVED, lines, PROVED[3:7])
    click.echo("A FOCUS row may sum several source rows (x_SourceRows); credits and adjustments are further rows.")
    missing = sorted(bills.keys() - {row["pipeline"] for row in rows})
    for pipeline in missing:
        click.echo(f"{pipeline} has no rows.")
    click.echo(
        f"bill: whether the sum from {setup.first} on equals the generator's total, which no pipeline has processed."
    )
    return not missing and all(line[-2:] in (("equal", "equal"), ("equal", "")) for line in lines)


def _proved(row: Any, billed: Decimal | None) -> Sequence[str]:
    proof = row["proof"] if row["proofs"] == 1 else "different"
    bill = "" if billed is None else "equal" if billed == row["sum_made"] else f"DIFFERENT: {_cell(billed)}"
    names = ("provider", "currency", "pipeline", "rows_in", "sum_in", "rows_out", "sum_out")
    return *(_cell(row[name]) for name in names), proof, bill


def _cell(value: Any) -> str:
    """Return a value on one line; money without an exponent."""
    if isinstance(value, Decimal):
        return show.number(value)
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    return " ".join(str(value).split())[:48]
