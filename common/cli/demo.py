"""``main.py demo``: the pipelines, for real, against sandboxes of the providers and generated bills; then the proof."""

import json
import tempfile
import time
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
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
from infra.local.deepseek_export import write_deepseek_export
from infra.local.focus_export import write_focus_export
from infra.local.sandbox.server import SandboxServer
from infra.local.stack import EmbeddedStack

ORG = "acme_corp"
DAYS = 3
SEED = 20261121
TABLE = "cost_data_standard_1_3"
GENAI = ("openai", "anthropic", "gemini", "deepseek")

CHARGE = ("BilledCost", "BillingCurrency", "ServiceProviderName", "ServiceName", "ChargeDescription")
LINEAGE_FIELDS = tuple(name for name, _ in LINEAGE)


def run_demo(settings: Settings) -> int:
    """Run the demo; return the exit code: 0 only if all runs completed."""
    last = datetime.now(UTC).date() - timedelta(days=1)
    first = last - timedelta(days=DAYS - 1)
    days = {"start_date": first.isoformat(), "end_date": last.isoformat()}
    with SandboxServer(seed=SEED) as sandbox:
        settings = replace(settings, provider_urls={**settings.provider_urls, **sandbox.urls})
        click.echo("Starting the embedded stack (SQLite, BigQuery emulator, every function in one process) ...")
        began = time.monotonic()
        with EmbeddedStack(settings) as stack:
            click.echo(f"  up in {time.monotonic() - began:.1f} s on {stack.url}; provider sandboxes on {sandbox.url}")
            for key in GENAI:
                info = CredentialInfo(ORG, _credential(key), key, datetime.now(UTC))
                stack.engine.credentials.add(info, sandbox.secrets[key])
            source, billed = _bill(settings, first)
            client = ApiClient(stack.url, stack.token)
            _finish_earlier(client)
            bodies: dict[str, dict[str, str]] = {
                **{
                    f"genai/payg/{key}": {"credential_id": _credential(key)}
                    for key in ("openai", "anthropic", "gemini")
                },
                "genai/payg/deepseek": {"credential_id": _credential("deepseek"), "source": _export(settings, first)},
                "aws/cost/billing": {"source": source},
                "genai/unified/consolidate": {},
            }
            ended = [_run(client, route, {**days, **body}) for route, body in bodies.items()]
            for run in ended:
                show.run_table(run)
            _show_rows(stack, settings, billed)
            _show_proof(stack, settings)
    return 0 if all(run["status"] == "completed" for run in ended) else 1


def _credential(provider: str) -> str:
    return f"cred_{provider}_sandbox"


def _export(settings: Settings, first: date) -> str:
    """Generate DeepSeek's usage export of the demo's days and land it; return its name."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "usage_data_demo.zip"
        write_deepseek_export(path, seed=SEED, first_day=first, days=DAYS)
        return place(settings.landing / ORG, path)


def _bill(settings: Settings, first: date) -> tuple[str, Decimal]:
    """Generate the AWS bill of the demo's days and land it; return its name and its sum."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "aws-focus-demo.csv.gz"
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
    billed_sql = f"SELECT SUM(BilledCost) AS billed FROM {table} WHERE x_pipeline_id = @pipeline"  # noqa: S608
    found = next(warehouse.query(billed_sql, {"pipeline": "cloud_aws_cost_billing"}))["billed"]
    verdict = "equal to the last digit" if found == billed else "DIFFERENT"
    click.echo(f"AWS bill: SUM(BilledCost) of the file {_cell(billed)}, of the table {_cell(found)}: {verdict}")


def _show_proof(stack: EmbeddedStack, settings: Settings) -> None:
    """Print what consolidate has proved: rows and sums of each provider, in its source and in the FOCUS table."""
    names = ("provider", "currency", "source", "rows_in", "rows_unpriced", "rows_out", "sum_in", "sum_out", "proof")
    table = f"`{settings.project_id}.{settings.dataset(ORG)}.cost_consolidation`"
    sql = (
        "SELECT provider, currency, source, SUM(rows_in) AS rows_in, SUM(rows_unpriced) AS rows_unpriced, "  # noqa: S608
        "SUM(rows_out) AS rows_out, SUM(sum_in) AS sum_in, SUM(sum_out) AS sum_out, proof "
        f"FROM {table} GROUP BY provider, currency, source, proof ORDER BY provider, currency"
    )
    rows = [tuple(_cell(row[name]) for name in names) for row in stack.engine.attempts.warehouse().query(sql)]
    show.table("What was proved (rows and sums in the source, and in the FOCUS table)", names, rows, names[3:8])
    click.echo(f"Next: main.py reconcile {ORG} · main.py prices missing {ORG} · main.py history {ORG} · main.py serve")


def _cell(value: Any) -> str:
    """Show a value on one line; money without exponent."""
    if isinstance(value, Decimal):
        return show.number(value)
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    return " ".join(str(value).split())[:48]
