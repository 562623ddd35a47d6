"""Commands that serve the API, start runs and show them. The API function and the stack do the work."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from common.cli import show
from common.cli.base import cli, friendly, idempotency_option, json_option, quiet
from common.cli.bigquery_project import bigquery_options, chosen
from common.cli.stack import OwnStack, reader, stack_to_serve, wait_for_end
from common.platform import logs
from common.platform.errors import ConfigError
from common.platform.settings import Settings
from common.ports.logs import SEVERITIES

SIGNAL_POLL_S = 0.5
"""Longest delay until Ctrl-C is noticed."""


@cli.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="The server has no TLS: beyond this machine, others can read keys.",
)
@click.option(
    "--stack",
    "kind",
    type=click.Choice(["embedded", "emulators"]),
    default="embedded",
    show_default=True,
    help="embedded: runs and messages in one SQLite file. emulators: Google's own Firestore and Pub/Sub emulators.",
)
@bigquery_options
@click.pass_obj
@friendly
def serve(
    settings: Settings,
    port: int,
    host: str,
    kind: str,
    bigquery_project: str | None,
    bigquery_location: str | None,
    yes: bool,
) -> None:
    """Serve the API and every function until interrupted.

    \b
    Examples:
      main.py serve
      main.py --state-dir .pipeline-ops-real serve --bigquery-project my-test-project
      main.py serve --stack emulators --port 8081   (uses FIRESTORE_EMULATOR_HOST and PUBSUB_EMULATOR_HOST if set)
    """
    import signal
    import threading

    settings = chosen(settings, bigquery_project, bigquery_location, yes=yes)
    # Handlers only set an event: stopping takes locks, which the interrupted thread may hold.
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    logs.configure(settings.project_id, sys.stderr)
    with stack_to_serve(kind, settings, host=host, port=port) as stack:
        click.echo(f"Serving on {stack.url} (state in {settings.state_dir}). Ctrl-C ends it.")
        if settings.own_bigquery:
            click.echo(f"BigQuery: project {settings.project_id}, datasets like {settings.dataset('acme_corp')}")
        else:
            click.echo(f"BigQuery emulator: BIGQUERY_EMULATOR_HOST={stack.engine.settings.bigquery_url}")
        if stack.engine.settings.firestore_host:
            click.echo(f"Firestore emulator: FIRESTORE_EMULATOR_HOST={stack.engine.settings.firestore_host}")
            click.echo(f"Pub/Sub emulator: PUBSUB_EMULATOR_HOST={stack.engine.settings.pubsub_host}")
        click.echo(f"Docs: {stack.url}/docs. The API needs a key:")
        click.echo("  main.py keys create acme_corp --name app --scope run")
        start = f"{stack.url}/pipelines/run/acme_corp/genai/payg/openai"
        click.echo(f"  curl -H 'Authorization: Bearer KEY' --json '{{}}' {start}")
        stack.carry_out_schedules()
        # The system may deliver a signal to another thread, which does not end a wait here: the handler runs on this
        # thread's next bytecode, after the wait.
        while not stop.wait(SIGNAL_POLL_S):
            pass
        click.echo("Stopping: waiting for running steps.")


@cli.command()
@click.argument("org")
@click.argument("route")
@click.option(
    "--start-date", metavar="YYYY-MM-DD", help="First data date (default: the end date; without both, see below)."
)
@click.option("--end-date", metavar="YYYY-MM-DD", help="Last data date, inclusive (default: the start date).")
@click.option("--credential", "credential_id", help="Which credential, if the organisation has several.")
@click.option(
    "--source",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A bill to read: CSV or Parquet, gzipped or not. Without dates, the run covers the days of its rows.",
)
@click.option("--queue", is_flag=True, help="Wait for a slot if none is free.")
@click.option("--backfill", is_flag=True, help="Let live runs go first in the queue.")
@idempotency_option
@bigquery_options
@json_option
@click.pass_obj
@friendly
def run(
    settings: Settings,
    /,
    org: str,
    route: str,
    source: Path | None,
    idempotency_key: str | None,
    as_json: bool,
    bigquery_project: str | None,
    bigquery_location: str | None,
    yes: bool,
    **fields: Any,
) -> None:
    """Run a pipeline and wait for its end. Exit code 0 if it completed.

    Without dates it covers yesterday and the days before it that the provider may still restate (restatement_days in
    configs/system/providers.yml); if the pipeline reads a file, only yesterday.

    \b
    Examples:
      main.py run acme_corp genai/payg/openai
      main.py run acme_corp aws/cost/billing --source bills/focus-2026-10.csv.gz
      main.py --state-dir .pipeline-ops-real run acme_corp genai/payg/openai --bigquery-project my-test-project
    """
    from common.runs.landing import land

    settings = chosen(settings, bigquery_project, bigquery_location, yes=yes)
    # Only what was given: the API has the defaults.
    body = {name: value for name, value in fields.items() if value not in (None, False)}
    if source is not None:
        body |= land(settings, org, route, source, dated="start_date" in body or "end_date" in body)
    with OwnStack(settings) as client:
        wait_for_end(client, org, client.start(org, route, body, idempotency_key)["run_id"], route, as_json)


@cli.command()
@click.argument("org")
@click.argument("run_id")
@json_option
@click.pass_obj
@friendly
def status(settings: Settings, org: str, run_id: str, as_json: bool) -> None:
    """Show a run's state and what it waits for."""
    view = reader(settings).status(org, run_id)
    show.as_json(view) if as_json else show.run_table(view)


@cli.command()
@click.argument("org")
@click.option("--limit", type=click.IntRange(1, 200), default=20, show_default=True)
@click.option("--cursor", help="Next page: the cursor that the previous page ended with.")
@click.option("--pipeline", metavar="ROUTE", help="Only runs of this pipeline, e.g. genai/payg/openai.")
@click.option("--status", "state", help="Only runs in this state, e.g. failed.")
@click.option("--from", "since", metavar="DAY|TIME", help="Only runs requested on this UTC day or later.")
@click.option("--to", "until", metavar="DAY|TIME", help="Only runs requested on this UTC day or earlier.")
@json_option
@click.pass_obj
@friendly
def history(
    settings: Settings,
    org: str,
    limit: int,
    cursor: str | None,
    pipeline: str | None,
    state: str | None,
    since: str | None,
    until: str | None,
    as_json: bool,
) -> None:
    """List an organisation's runs, newest first.

    \b
    Examples:
      main.py history acme_corp --status failed --from 2026-11-01 --to 2026-11-30
      main.py history acme_corp --from 2026-11-21T06:00:00Z
    """
    query = {"limit": str(limit), "cursor": cursor, "pipeline": pipeline, "status": state, "from": since, "to": until}
    page = reader(settings).history(org, **{k: v for k, v in query.items() if v is not None})
    if as_json:
        show.as_json(page)
        return
    columns = ("run", "pipeline", "dates", "status", "rows", "seconds", "requested", "error")
    rows = [
        (
            r["run_id"],
            r["pipeline"],
            f"{r['start_date']}..{r['end_date']}",
            r["status"],
            r["rows"],
            r["seconds"],
            r["requested_at"][:19],
            (r["error"] or "")[:60],
        )
        for r in page["runs"]
    ]
    show.table(f"Runs of {org}", columns, rows, ("rows", "seconds"))
    if page["next_cursor"]:
        click.echo(f"More: --cursor '{page['next_cursor']}'")


@cli.command(name="logs")
@click.argument("org")
@click.argument("run_id")
@click.option("--step", help="Only lines of this step.")
@click.option("--severity", type=click.Choice(SEVERITIES), help="Only this severity and higher ones.")
@click.option("--transitions", is_flag=True, help="State changes instead of log lines.")
@click.option("--download", is_flag=True, help="The whole log as NDJSON.")
@click.option("--follow", "following", is_flag=True, help="Print lines as they arrive, until the run has ended.")
@json_option
@click.pass_obj
@friendly
def show_logs(
    settings: Settings,
    org: str,
    run_id: str,
    step: str | None,
    severity: str | None,
    transitions: bool,
    download: bool,
    following: bool,
    as_json: bool,
) -> None:
    """Print a run's log."""
    client = reader(settings)
    filters = {name: value for name, value in (("step", step), ("severity", severity)) if value}
    if download:
        for text in client.download(org, run_id, **filters):
            click.echo(text)
    elif following:
        for line in client.follow(org, run_id, **filters):
            click.echo(json.dumps(line, ensure_ascii=False) if as_json else show.log_line(line))
    elif transitions:
        view = client.logs(org, run_id, "/transitions")
        if as_json:
            show.as_json(view)
            return
        rows = [
            (t["at"], t["step_id"] or "run", t["attempt"], t["from"], t["to"], t["reason"]) for t in view["transitions"]
        ]
        show.table(f"Transitions of {run_id}", ("at", "of", "attempt", "from", "to", "reason"), rows)
    else:
        view = client.logs(org, run_id, **filters)
        if as_json:
            show.as_json(view)
            return
        lines = [
            (line["at"], line["severity"], line["step_id"], line["attempt"], line["message"]) for line in view["lines"]
        ]
        show.table(f"Log of {run_id}", ("at", "severity", "step", "attempt", "message"), lines)
        if view["truncated"]:
            click.echo("There are more lines: --download prints all of them.")


@cli.command()
@click.pass_obj
@friendly
def demo(settings: Settings) -> None:
    """Run every provider's pipeline against sandboxes and made-up bills, prove the sums, and check the rows."""
    from common.cli.demo import run_demo

    if settings.own_bigquery:
        raise ConfigError(
            f"The demo makes bills up, and {settings.state_dir} belongs to BigQuery's project {settings.project_id}: "
            "run it with another --state-dir."
        )
    quiet(settings)
    sys.exit(run_demo(settings))
