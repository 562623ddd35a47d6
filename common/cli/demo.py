"""``main.py demo``: both example pipelines, for real, against a sandbox of the provider and a generated bill."""

import json
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import click

from common.cli import show
from common.cli.client import ApiClient
from common.cli.landing import place
from common.cli.runs import follow
from common.ports import CredentialInfo
from common.settings import Settings
from common.table import LINEAGE
from infra.local.focus_export import write_focus_export
from infra.local.sandbox.server import SANDBOX_ADMIN_KEY, SandboxServer
from infra.local.stack import EmbeddedStack

ORG = "acme_corp"
CREDENTIAL = "cred_openai_sandbox"
DAYS = 3
SEED = 20261121
TABLE = "cost_data_standard_1_3"

CHARGE = ("BilledCost", "BillingCurrency", "ServiceProviderName", "ServiceName", "ChargeDescription")
LINEAGE_FIELDS = tuple(name for name, _ in LINEAGE)


def run_demo(settings: Settings) -> int:
    """Run the demo; return the exit code: 0 only if both runs completed."""
    last = datetime.now(UTC).date() - timedelta(days=1)
    days = {"start_date": (last - timedelta(days=DAYS - 1)).isoformat(), "end_date": last.isoformat()}
    with SandboxServer(seed=SEED) as sandbox:
        settings = replace(settings, provider_urls={**settings.provider_urls, "openai": sandbox.url})
        click.echo("Starting the embedded stack (SQLite, BigQuery emulator, every function in one process) ...")
        began = time.monotonic()
        with EmbeddedStack(settings) as stack:
            click.echo(f"  up in {time.monotonic() - began:.1f} s on {stack.url}; OpenAI sandbox on {sandbox.url}")
            info = CredentialInfo(ORG, CREDENTIAL, "openai", datetime.now(UTC))
            stack.engine.credentials.add(info, SANDBOX_ADMIN_KEY)
            source, billed = _bill(settings, last)
            client = ApiClient(stack.url)
            _finish_earlier(client)
            ended = [
                _run(client, "genai/payg/openai", {**days, "credential_id": CREDENTIAL}),
                _run(client, "aws/cost/billing", {**days, "source": source}),
            ]
            for run in ended:
                show.run_table(run)
            _show_rows(stack, settings, billed)
    return 0 if all(run["status"] == "completed" for run in ended) else 1


def _bill(settings: Settings, last: Any) -> tuple[str, Decimal]:
    """Generate the AWS bill of the demo's days and land it; return its name and its sum."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "aws-focus-demo.csv.gz"
        first = last - timedelta(days=DAYS - 1)
        billed = write_focus_export(path, seed=SEED, first_day=first, days=DAYS, rows_per_day=120)
        return place(settings.landing / ORG, path), billed


def _finish_earlier(client: ApiClient) -> None:
    """Follow the runs that an earlier, killed demo left: the stack has taken them up again."""
    for run in reversed(client.history(ORG, limit="200")["runs"]):
        if not run["ended_at"]:
            click.echo(f"\n{run['run_id']} of an earlier process goes on")
            show.run_table(follow(client, ORG, run["run_id"], run["pipeline"]))


def _run(client: ApiClient, route: str, body: dict[str, str]) -> dict[str, Any]:
    click.echo(f"\nPOST /pipelines/run/{ORG}/{route} {json.dumps(body)}")
    started = client.start(ORG, route, body)
    click.echo(f"  {started['run_id']} {started['status']}")
    return follow(client, ORG, started["run_id"], route)


def _show_rows(stack: EmbeddedStack, settings: Settings, billed: Decimal) -> None:
    """Print the dearest rows with their lineage, and that the bill's sum is the table's."""
    warehouse = stack.engine.attempts.warehouse()
    table = f"`{settings.project_id}.{settings.dataset(ORG)}.{TABLE}`"
    columns = ", ".join((*CHARGE, *LINEAGE_FIELDS))
    rows = list(
        warehouse.query(f"SELECT {columns} FROM {table} ORDER BY BilledCost DESC, ChargeDescription LIMIT 10")  # noqa: S608
    )
    for title, names in ((f"The ten dearest rows of {TABLE}", CHARGE), ("Their lineage", LINEAGE_FIELDS)):
        cells = [(number, *(_cell(row[name]) for name in names)) for number, row in enumerate(rows, 1)]
        show.table(title, ("#", *names), cells, ("#", "BilledCost"))
    sums = list(
        warehouse.query(
            f"SELECT x_pipeline_id, COUNT(*) AS n, SUM(BilledCost) AS billed FROM {table}"  # noqa: S608
            " WHERE x_org_slug = @org GROUP BY x_pipeline_id ORDER BY x_pipeline_id",
            {"org": ORG},
        )
    )
    lines = [(row["x_pipeline_id"], row["n"], _cell(row["billed"])) for row in sums]
    show.table(f"Rows and sums in {TABLE}", ("pipeline", "rows", "SUM(BilledCost)"), lines, ("rows", "SUM(BilledCost)"))
    found = next((row["billed"] for row in sums if row["x_pipeline_id"] == "cloud_aws_cost_billing"), None)
    verdict = "equal to the last digit" if found == billed else "DIFFERENT"
    click.echo(f"AWS bill: SUM(BilledCost) of the file {_cell(billed)}, of the table {_cell(found)}: {verdict}")
    click.echo(f"Next: main.py history {ORG} · main.py status {ORG} RUN_ID · main.py serve")


def _cell(value: Any) -> str:
    """Show a value on one line; money without exponent."""
    if isinstance(value, Decimal):
        return show.number(value)
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    return " ".join(str(value).split())[:48]
