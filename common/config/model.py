"""The model of a pipeline's YAML (FR-PIP-003, FR-PIP-004). Rules between steps are in ``rules.py``.

Descriptions go into ``configs/pipeline.schema.json``, which editors show.
"""

import re
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, field_validator

from common.config.schedule import find_zone
from common.domain.condition import MAX_CHARS
from common.domain.model import ErrorKind
from common.platform.errors import nearest
from common.platform.strict import StrictModel

IDENTIFIER = r"^[a-z][a-z0-9_]{0,62}$"
OUTPUT = r"^[a-z][a-z0-9_]{0,62}\.outputs\.[a-z][a-z0-9_]{0,62}$"

MAX_TIMEOUT_S = 540
"""Event-driven functions end after 540 s (cloud.google.com/functions/docs/configuring/timeout)."""

MAX_BACKOFF_S = 600
"""A Pub/Sub retry policy holds a message back for at most 600 s."""

KINDS = tuple(kind.value for kind in ErrorKind)

# Cloud Scheduler accepts unix-cron only: no seconds, and no extensions (L, W, #, ?), which cronsim accepts.
_CRON_FIELD = re.compile(r"(?:\*|[0-9]{1,2}|[A-Za-z]{3})(?:[-/,](?:\*|[0-9]{1,2}|[A-Za-z]{3}))*", re.ASCII)
_CRON_EXAMPLE = "Example: '0 6 * * *' is 06:00 UTC every day."


def _known_kind(name: str) -> str:
    if name not in KINDS:
        raise ValueError(f"no kind of failure is named {name[:80]!r}.{nearest(name, KINDS)} Known: {', '.join(KINDS)}.")
    return name


_Kind = Annotated[str, AfterValidator(_known_kind), WithJsonSchema({"enum": list(KINDS), "type": "string"})]


class RetryConfig(StrictModel):
    """When and how often a step is retried."""

    max_attempts: int = Field(
        default=1, strict=True, ge=1, le=10, description="Number of attempts, including the first: 1 is no retry."
    )
    backoff_seconds: int = Field(
        default=0,
        strict=True,
        ge=0,
        le=MAX_BACKOFF_S,
        description="Shortest wait before the second attempt, in seconds.",
    )
    backoff_multiplier: float = Field(
        default=1, ge=1, le=10, description="Factor by which the wait grows with each attempt: 2 doubles it."
    )
    max_backoff_seconds: int = Field(
        default=MAX_BACKOFF_S, strict=True, ge=0, le=MAX_BACKOFF_S, description="Upper bound of the growing wait."
    )
    jitter: float = Field(
        default=0, ge=0, le=1, description="Largest random addition, as a share of the wait: 0.5 adds up to half."
    )
    retry_on: tuple[_Kind, ...] = Field(
        default=(),
        description="Kinds of failures that are retried. Empty: all that a further attempt may overcome.",
    )


class MapConfig(StrictModel):
    """Runs a step once for each item of a list."""

    over: str = Field(
        pattern=OUTPUT, description="The list, <step_id>.outputs.<name>: an output of a step in depends_on."
    )
    max_parallel: int = Field(default=10, strict=True, ge=1, le=100, description="Largest number of concurrent items.")
    dates: bool = Field(
        default=False,
        strict=True,
        description="The items are days (YYYY-MM-DD), and each item covers only its day. Required to write a table.",
    )


class WriteConfig(StrictModel):
    """How a step's rows are written to its ``destination_table``."""

    mode: Literal["replace_key", "merge", "append_once", "truncate_partition"] = Field(
        default="replace_key",
        description="replace_key: replace the run's days. merge: update or add rows by keys. append_once: add each day "
        "once. truncate_partition: replace the rows ingested today. All steps use the same mode for a table.",
    )
    keys: tuple[str, ...] = Field(
        default=(),
        description="Columns that identify a row within a day. Required for merge; every mode checks that they do.",
    )
    on_empty: Literal["replace", "keep", "fail"] = Field(
        default="fail",
        description="If there are no rows at all. replace: delete stored rows. keep: keep them. fail: fail the step.",
    )
    max_bad_rows: int = Field(
        default=0,
        strict=True,
        ge=0,
        le=100_000,
        description="Rows with values of a wrong type that may go to the quarantine table; one more fails the step.",
    )


class StepConfig(StrictModel):
    """One step of a pipeline."""

    step_id: str = Field(pattern=IDENTIFIER, description="Name of the step, unique within the pipeline.")
    ps_type: str = Field(
        pattern=r"^[A-Za-z][A-Za-z0-9_.]{0,99}$", description="Processor type: the code that does the step's work."
    )
    config: dict[str, Any] = Field(
        default={}, description="Settings of the processor. Strings may have templates such as {org_slug}."
    )
    depends_on: tuple[str, ...] = Field(
        default=(), description="Ids of the steps that must have succeeded, or been skipped, before this step starts."
    )
    timeout_seconds: int = Field(
        default=300, strict=True, ge=1, le=MAX_TIMEOUT_S, description="Longest time of one attempt, in seconds."
    )
    max_wait_seconds: int = Field(
        default=21_600,
        strict=True,
        ge=60,
        le=86_400,
        description="Longest wait for a job in BigQuery, in seconds. The step holds no function while it waits.",
    )
    retry: RetryConfig = Field(default=RetryConfig(), description="When and how often the step is retried.")
    write: WriteConfig = Field(
        default=WriteConfig(), description="How rows are written to destination_table, and which rows they replace."
    )
    condition: str | None = Field(
        default=None,
        max_length=MAX_CHARS,
        description="Skip the step unless this is true, e.g. steps.extract.rows > 0 and run.trigger == 'api'",
    )
    map: MapConfig | None = Field(
        default=None, description="Run the step once for each item of a list; in config, {item} is the item."
    )
    allow_failure: bool = Field(
        default=False, strict=True, description="If the step fails, the run goes on as if it had succeeded."
    )
    run_if: Literal["success", "always"] = Field(
        default="success",
        description="always: start when all steps in depends_on have ended in any way, e.g. to clean up.",
    )


def _number_as_text(value: Any) -> Any:
    # `version: 1.10` must stay 1.10: the YAML reader keeps decimals digit by digit
    return str(value) if isinstance(value, int | Decimal) and not isinstance(value, bool) else value


def _is_a_day_in_quotes(value: Any) -> Any:
    if value is not None and not (isinstance(value, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value)):
        raise ValueError('must be a day in quotes, like "2026-12-01"')
    return value


class PipelineConfig(StrictModel):
    """A pipeline: what runs, in which order, how often it is retried."""

    pipeline_id: str = Field(
        pattern=IDENTIFIER, description="Unique id. It is part of every row's key: a new id leaves old rows in place."
    )
    name: str = Field(min_length=1, max_length=200, description="Display name.")
    description: str = Field(default="", max_length=4000, description="What the pipeline is for.")
    provider: str = Field(pattern=IDENTIFIER, description="Key of a provider in configs/system/providers.yml.")
    domain: str = Field(pattern=IDENTIFIER, description="Kind of data that it loads: cost, payg, unified, ...")
    version: Annotated[str, BeforeValidator(_number_as_text)] = Field(
        min_length=1,
        max_length=40,
        description="Version of this file. A number is kept as text, exactly as written.",
        json_schema_extra={"type": ["string", "number"]},
    )
    schedule: str | None = Field(
        default=None, description=f"Schedule: five cron fields, on the clock of timezone. {_CRON_EXAMPLE}"
    )
    timezone: str = Field(default="UTC", description="Zone of the schedule, by its IANA name: Europe/Berlin.")
    catchup: Literal["none", "last", "all"] = Field(
        default="last",
        description="Times that were missed, because nothing ran: none leaves out those more than ten minutes old, "
        "last makes up for the latest, all for each.",
    )
    jitter: int = Field(
        default=0,
        strict=True,
        ge=0,
        le=3600,
        description="Seconds over which the organisations' runs are spread; each has its own, always the same delay.",
    )
    start_date: Annotated[date, BeforeValidator(_is_a_day_in_quotes)] | None = Field(
        default=None, description='First day of the schedule, in its zone, in quotes: "2026-12-01".'
    )
    concurrency: int | None = Field(
        default=None, ge=1, le=1000, strict=True, description="Largest number of live runs per organisation."
    )
    steps: tuple[StepConfig, ...] = Field(min_length=1, description="The steps, in reading order.")

    @field_validator("timezone")
    @classmethod
    def _is_zone(cls, value: str) -> str:
        find_zone(value)
        return value

    @field_validator("schedule")
    @classmethod
    def _is_cron(cls, value: str | None) -> str | None:
        if value is not None:
            check_cron(value)
        return value


def check_cron(expression: str) -> None:
    """Raise ValueError unless it is a five-field cron expression that is due at some time."""
    from cronsim import CronSim, CronSimError

    fields = expression.split()
    if len(fields) != 5 or len(expression) > 200:
        raise ValueError(f"must be five fields (minute hour day month weekday), not {len(fields)}. {_CRON_EXAMPLE}")
    for name, field in zip(("minute", "hour", "day", "month", "weekday"), fields, strict=True):
        if not _CRON_FIELD.fullmatch(field):
            raise ValueError(f"{name} may only have numbers, names, * - / and commas. {_CRON_EXAMPLE}")
    try:
        next(CronSim(expression, datetime(2026, 1, 1, tzinfo=UTC)))
    except (CronSimError, AssertionError) as error:  # cronsim asserts where a step follows a list
        raise ValueError(f"not a schedule: {error or 'bad step'}. {_CRON_EXAMPLE}") from None
    except StopIteration:  # such as 30 February
        raise ValueError(f"the schedule is never due. {_CRON_EXAMPLE}") from None
