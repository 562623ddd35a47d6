"""Commands that cancel a run, run it again or skip a step. Transitions and audit rows record who did it and why."""

from collections.abc import Callable
from typing import Any

import click

from common.cli import show
from common.cli.base import cli, friendly, idempotency_option, json_option, my_name
from common.cli.stack import OwnStack, reader, wait_for_end
from common.platform.settings import Settings


def _who_and_why(command: Callable[..., Any]) -> Callable[..., Any]:
    reason = click.option("--reason", required=True, help="Why; shown in the run's transitions.")
    by = click.option("--by", default=my_name, show_default="your login name", help="Who decided.")
    return reason(by(command))


@cli.command()
@click.argument("org")
@click.argument("run_id")
@_who_and_why
@json_option
@click.pass_obj
@friendly
def cancel(settings: Settings, org: str, run_id: str, reason: str, by: str, as_json: bool) -> None:
    """Cancel a run. It is cancelling until the steps at work have stopped; rows that were committed before stay.

    \b
    Example:
      main.py cancel acme_corp run_0123 --reason "wrong dates"
    """
    run = reader(settings).cancel(org, run_id, {"by": by, "reason": reason})
    show.as_json(run) if as_json else show.run_table(run)


@cli.command()
@click.argument("org")
@click.argument("run_id")
@click.option("--step", help="Run only this step; all others stay as they are.")
@_who_and_why
@idempotency_option
@json_option
@click.pass_obj
@friendly
def rerun(
    settings: Settings,
    org: str,
    run_id: str,
    step: str | None,
    reason: str,
    by: str,
    idempotency_key: str | None,
    as_json: bool,
) -> None:
    """Run the steps of an ended run that did not succeed, as a new run with the same config. Waits for its end.

    \b
    Examples:
      main.py rerun acme_corp run_0123 --reason "provider is back"
      main.py rerun acme_corp run_0123 --step convert --reason "procedure fixed"
    """
    body = {"by": by, "reason": reason, **({"step": step} if step else {})}
    with OwnStack(settings) as client:
        started = client.rerun(org, run_id, body, idempotency_key)
        wait_for_end(client, org, started["run_id"], f"rerun of {run_id}", as_json)


@cli.command()
@click.argument("org")
@click.argument("run_id")
@click.argument("step")
@_who_and_why
@json_option
@click.pass_obj
@friendly
def skip(settings: Settings, org: str, run_id: str, step: str, reason: str, by: str, as_json: bool) -> None:
    """Let a run go on without a step that is queued, running, retrying or suspended.

    \b
    Example:
      main.py skip acme_corp run_0123 enrich --reason "not needed for the close"
    """
    run = reader(settings).skip(org, run_id, step, {"by": by, "reason": reason})
    show.as_json(run) if as_json else show.run_table(run)
