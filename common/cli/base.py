"""Shared by all commands: the group with its settings, error messages, the JSON flag."""

import getpass
import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path

import click

from common.cli import show
from common.cli.client import ApiError
from common.cli.own_bigquery import followed
from common.platform import logs
from common.platform.errors import PipelineOpsError
from common.platform.problems import in_words, problem_here
from common.platform.settings import Settings


def friendly[**P](command: Callable[P, None]) -> Callable[P, None]:
    """Turn an error into exit code 1 and a message; with ``--json``, a problem document. Bugs keep their traceback."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except (PipelineOpsError, OSError) as error:
            problem = error.problem if isinstance(error, ApiError) else problem_here(error)
            if kwargs.get("as_json"):
                show.as_json(problem)
                sys.exit(1)
            raise click.ClickException(in_words(problem)) from error

    return run


def my_name() -> str:
    """Return the login name, ``unknown`` if there is none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user id often has no name
        return "unknown"


def me() -> str:
    """Return the user of this command line, as audit rows name it."""
    return f"cli:{my_name()}"


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs instead of tables.")

idempotency_option = click.option(
    "--idempotency-key",
    metavar="KEY",
    help="A name for this start: repeating it starts no second run (default: a random one).",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of runs, credentials and the local BigQuery (default: PIPELINE_OPS_STATE_DIR or .pipeline-ops).",
)
@click.pass_context
def cli(context: click.Context, state_dir: Path | None) -> None:
    """Pipeline Ops: cost pipelines from provider APIs into one FOCUS table.

    \b
    Examples:
      main.py demo
      main.py serve
      main.py run acme_corp genai/payg/openai --start-date 2026-11-01 --end-date 2026-11-07
      main.py run acme_corp aws/cost/billing --source focus.csv.gz
      main.py status acme_corp RUN_ID
    """
    try:
        settings = Settings.from_env()
    except PipelineOpsError as error:
        raise click.ClickException(str(error)) from error
    settings = settings if state_dir is None else replace(settings, state_dir=state_dir.absolute())
    try:
        context.obj = followed(settings)
    except PipelineOpsError as error:
        raise click.ClickException(str(error)) from error


def quiet(settings: Settings) -> None:
    """Write log lines to a file, so that tables stay readable."""
    # Only for the owner: logs and the store name organisations and files.
    settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    logs.configure(settings.project_id, (settings.state_dir / "pipeline-ops.log").open("a"))
    logging.captureWarnings(True)  # those of libraries would appear between the tables
