"""The shape of a pipeline's YAML (FR-PIP-003, FR-PIP-004). What steps mean to each other is in ``rules.py``.

Descriptions go into ``configs/pipeline.schema.json``, from which editors complete and explain.
"""

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, field_validator

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

# Cloud Scheduler takes unix-cron: no seconds, and none of the extensions (L, W, #, ?) that cronsim would let pass.
_CRON_FIELD = re.compile(r"(?:\*|[0-9]{1,2}|[A-Za-z]{3})(?:[-/,](?:\*|[0-9]{1,2}|[A-Za-z]{3}))*", re.ASCII)
_CRON_EXAMPLE = "Example: '0 6 * * *' is 06:00 UTC every day."


def _known_kind(name: str) -> str:
    if name not in KINDS:
        raise ValueError(f"no kind of failure is named {name[:80]!r}.{nearest(name, KINDS)} Known: {', '.join(KINDS)}.")
    return name


_Kind = Annotated[str, AfterValidator(_known_kind), WithJsonSchema({"enum": list(KINDS), "type": "string"})]


class RetryConfig(StrictModel):
    """How often a step is tried, and after what."""

    max_attempts: int = Field(
        default=1, strict=True, ge=1, le=10, description="Attempts in all, the first one included: 1 is no retry."
    )
    backoff_seconds: int = Field(
        default=0, strict=True, ge=0, le=MAX_BACKOFF_S, description="Seconds of rest between two attempts, at least."
    )
    backoff_multiplier: float = Field(
        default=1, ge=1, le=10, description="The rest grows by this factor with each attempt: 2 doubles it."
    )
    max_backoff_seconds: int = Field(
        default=MAX_BACKOFF_S, strict=True, ge=0, le=MAX_BACKOFF_S, description="The rest does not grow beyond this."
    )
    jitter: float = Field(
        default=0, ge=0, le=1, description="Up to this share of the rest is added by chance: 0.5 is up to half more."
    )
    retry_on: tuple[_Kind, ...] = Field(
        default=(),
        description="Kinds of failures after which the step is tried again. Empty: all that another attempt may mend.",
    )


class MapConfig(StrictModel):
    """Makes a step run once for each item of a list."""

    over: str = Field(
        pattern=OUTPUT, description="The list, <step_id>.outputs.<name>: an output of a step in depends_on."
    )
    max_parallel: int = Field(
        default=10, strict=True, ge=1, le=100, description="How many items are at work at a time, at most."
    )
    dates: bool = Field(
        default=False,
        strict=True,
        description="The items are days (YYYY-MM-DD); each item's run covers its day alone. Needed to write a table.",
    )


class WriteConfig(StrictModel):
    """How a step's rows come into its ``destination_table``."""

    mode: Literal["replace_key", "merge", "append_once", "truncate_partition"] = Field(
        default="replace_key",
        description="replace_key: the run's days are replaced. merge: rows are updated or added by keys. append_once: "
        "a day is added once. truncate_partition: what was ingested today is replaced. A table has one mode.",
    )
    keys: tuple[str, ...] = Field(
        default=(),
        description="Columns that tell one row of a day from another; merge needs them, any mode checks that they do.",
    )
    on_empty: Literal["replace", "keep", "fail"] = Field(
        default="fail",
        description="What no rows at all mean. replace: there are none any more. keep: leave what is there. fail.",
    )
    max_bad_rows: int = Field(
        default=0,
        strict=True,
        ge=0,
        le=100_000,
        description="How many rows may go to the quarantine table because a value can't be typed; one more fails.",
    )


class StepConfig(StrictModel):
    """One step of a pipeline."""

    step_id: str = Field(pattern=IDENTIFIER, description="Name of the step, unique within the pipeline.")
    ps_type: str = Field(
        pattern=r"^[A-Za-z][A-Za-z0-9_.]{0,99}$", description="Processor type: which code does the work of the step."
    )
    config: dict[str, Any] = Field(
        default={}, description="Settings of the processor. Strings may hold templates such as {org_slug}."
    )
    depends_on: tuple[str, ...] = Field(
        default=(), description="Ids of the steps that must have succeeded, or been skipped, before this one starts."
    )
    timeout_seconds: int = Field(
        default=300, strict=True, ge=1, le=MAX_TIMEOUT_S, description="Longest time one attempt may take, in seconds."
    )
    max_wait_seconds: int = Field(
        default=21_600,
        strict=True,
        ge=60,
        le=86_400,
        description="Longest time the step may wait for a job in BigQuery, in seconds. No function is held meanwhile.",
    )
    retry: RetryConfig = Field(default=RetryConfig(), description="How often the step is tried, and how far apart.")
    write: WriteConfig = Field(
        default=WriteConfig(), description="How the rows come into destination_table: what they replace, and when."
    )
    condition: str | None = Field(
        default=None,
        max_length=MAX_CHARS,
        description="Skip the step unless this holds, such as: steps.extract.rows > 0 and run.trigger == 'api'",
    )
    map: MapConfig | None = Field(
        default=None, description="Run the step once for each item of a list; {item} in config: is the item."
    )
    allow_failure: bool = Field(
        default=False, strict=True, description="If the step fails, the run goes on as if it had succeeded."
    )
    run_if: Literal["success", "always"] = Field(
        default="success",
        description="always: start once all in depends_on have ended, however they ended. For cleaning up.",
    )


def _number_as_text(value: Any) -> Any:
    # `version: 1.10` is meant as it is written; the YAML reader keeps decimals digit by digit
    return str(value) if isinstance(value, int | Decimal) and not isinstance(value, bool) else value


class PipelineConfig(StrictModel):
    """A pipeline: what runs, in which order, how often it is retried."""

    pipeline_id: str = Field(
        pattern=IDENTIFIER, description="Unique id. It is part of the key of every row, so a new id keeps old rows."
    )
    name: str = Field(min_length=1, max_length=200, description="Name for people.")
    description: str = Field(default="", max_length=4000, description="What the pipeline is for.")
    provider: str = Field(pattern=IDENTIFIER, description="Key of a provider in configs/system/providers.yml.")
    domain: str = Field(pattern=IDENTIFIER, description="What kind of data it brings: cost, payg, unified, ...")
    version: Annotated[str, BeforeValidator(_number_as_text)] = Field(
        min_length=1,
        max_length=40,
        description="Version of this file. A number is kept as the text it is written as.",
        json_schema_extra={"type": ["string", "number"]},
    )
    schedule: str | None = Field(
        default=None, description=f"When to run by itself: five cron fields, in UTC. {_CRON_EXAMPLE}"
    )
    concurrency: int | None = Field(
        default=None, ge=1, le=1000, strict=True, description="Live runs of it that one organisation may have."
    )
    steps: tuple[StepConfig, ...] = Field(min_length=1, description="The steps, in reading order.")

    @field_validator("schedule")
    @classmethod
    def _is_cron(cls, value: str | None) -> str | None:
        if value is not None:
            check_cron(value)
        return value


def check_cron(expression: str) -> None:
    """Raise ValueError unless it is a five-field cron expression in UTC that comes due at some time."""
    from cronsim import CronSim, CronSimError

    fields = expression.split()
    if len(fields) != 5 or len(expression) > 200:
        raise ValueError(f"must be five fields (minute hour day month weekday), not {len(fields)}. {_CRON_EXAMPLE}")
    for name, field in zip(("minute", "hour", "day", "month", "weekday"), fields, strict=True):
        if not _CRON_FIELD.fullmatch(field):
            raise ValueError(f"its {name} may hold numbers, names, * - / and commas only. {_CRON_EXAMPLE}")
    try:
        next(CronSim(expression, datetime(2026, 1, 1, tzinfo=UTC)))
    except (CronSimError, AssertionError) as error:  # cronsim asserts where a step follows a list
        raise ValueError(f"not a schedule: {error or 'bad step'}. {_CRON_EXAMPLE}") from None
    except StopIteration:
        raise ValueError(f"the schedule never comes due. {_CRON_EXAMPLE}") from None
