"""``--bigquery-project``: the local stack on a BigQuery project of the user's own, after a question."""

import re
from collections.abc import Callable

import click

from common.cli.base import my_name
from common.cli.doctor import project_id
from common.cli.own_bigquery import Choice, keep, read
from common.platform.errors import ConfigError
from common.platform.settings import Settings

MAX_USER_CHARS = 30


def bigquery_options[**P](command: Callable[P, None]) -> Callable[P, None]:
    """Add the options that choose a project."""
    options = (
        click.option(
            "--bigquery-project",
            metavar="PROJECT",
            callback=project_id,
            help="Write to this BigQuery project of yours instead of the emulator, with your own credentials, in "
            "datasets that end in your name. Asks once for each state directory.",
        ),
        click.option(
            "--bigquery-location", metavar="LOCATION", help="Where its datasets are (default: PIPELINE_OPS_LOCATION)."
        ),
        click.option("--yes", is_flag=True, help="Do not ask before the first use of a BigQuery project."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def chosen(settings: Settings, project: str | None, location: str | None, *, yes: bool) -> Settings:
    """Return the settings with the project in place of the emulator, once the user has agreed; None: as they are.

    Raises ConfigError if the state directory belongs to the emulator, or to another project or location.
    """
    if project is None:
        if location is not None:
            raise click.UsageError("--bigquery-location goes with --bigquery-project.")
        return settings
    before = read(settings.state_dir)
    if before is not None:
        if project != before.project or location not in (None, before.location):
            raise ConfigError(
                f"The runs of {settings.state_dir} are in project {before.project}, location {before.location}. "
                "Leave the options out, or give this one its own --state-dir."
            )
        return before.of(settings)
    if (settings.state_dir / "bigquery").exists():
        raise ConfigError(
            f"The runs of {settings.state_dir} are in the BigQuery emulator. Give the project a state directory of its "
            f"own: main.py --state-dir .pipeline-ops-{project} ... --bigquery-project {project}"
        )
    choice = Choice(project, location or settings.location, f"{settings.environment}_{_user()}")
    if not yes:
        click.confirm(_question(choice.of(settings)), abort=True, err=True)
    keep(settings.state_dir, choice)
    return choice.of(settings)


def _question(settings: Settings) -> str:
    where = f" at {settings.bigquery_url}" if settings.bigquery_url else ""
    return (
        f"Runs of this state directory make datasets and tables in BigQuery's project {settings.project_id}{where}, "
        f"location {settings.location}, with your own credentials, and their queries are billed there. An "
        f"organisation's dataset is called like {settings.dataset('acme_corp')}; no other is touched. "
        f"(`main.py doctor --project {settings.project_id}` tries the project first.) Go on?"
    )


def _user() -> str:
    return re.sub(r"[^a-z0-9_]", "_", my_name().lower())[:MAX_USER_CHARS]
