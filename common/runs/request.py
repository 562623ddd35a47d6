"""Requests that start or change runs, validated. The same for HTTP, CLI and cron."""

import json
import re
import uuid
from collections.abc import Callable
from datetime import date, datetime, timedelta
from hashlib import sha256
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from common.domain.model import RunRequest
from common.platform.errors import InvalidFieldsError, NotFoundError
from common.platform.problems import problems_of
from common.platform.strict import StrictModel

ORG_SLUG = re.compile(r"^[a-z][a-z0-9_]{1,49}$")
RUN_ID = re.compile(r"^run_[0-9a-f]{32}$")
DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")
ONE_LINE = r"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*$"
"""Text without control characters that is not blank."""

MAX_DAYS = 366
EARLIEST = date(2000, 1, 1)


def _written_as_a_day(value: Any) -> Any:
    """Accept YYYY-MM-DD only: pydantic would also accept seconds since 1970 and times at midnight."""
    if value is not None and not (isinstance(value, str) and DAY.fullmatch(value)):
        raise ValueError("must be a day like 2026-11-20")
    return value


Day = Annotated[date, BeforeValidator(_written_as_a_day)]


QUEUE = Field(False, strict=True, description="Wait for a slot if there is none, in the place of a 429.")
BACKFILL = Field(False, strict=True, description="This is a backfill: where runs wait, live work goes first.")


class RunBody(StrictModel):
    """Body of a run request. Dates are UTC days, both inclusive.

    Without any it is yesterday, and the days before it that the pipeline's provider may still correct; with a source it
    is yesterday.
    """

    start_date: Day | None = Field(
        None,
        description="First data date, e.g. 2026-11-20. Default: end_date; without it, what may still be corrected.",
    )
    end_date: Day | None = Field(None, description="Last data date, inclusive. Default: start_date.")
    credential_id: str | None = Field(None, pattern=r"^[a-z][a-z0-9_-]{0,62}$")
    source: str | None = Field(
        None, pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,199}$", description="Name of a file in the landing folder."
    )
    queue: bool = QUEUE
    backfill: bool = BACKFILL


class ControlBody(StrictModel):
    """Body of a request that changes a run: who wants it and why. Both are logged with what it changed."""

    by: str = Field(max_length=100, pattern=ONE_LINE, description="Who asks, e.g. a mail address.")
    reason: str = Field(max_length=500, pattern=ONE_LINE, description="Why, for whoever reads the run's transitions.")


class ReplayBody(ControlBody):
    """Body of a request that starts a run of one that has ended."""

    queue: bool = QUEUE
    backfill: bool = BACKFILL


class RerunBody(ReplayBody):
    """Body of a request that runs a run again."""

    step: str | None = Field(None, max_length=80, description="The only step to run again.")
    preview: bool = Field(
        False, strict=True, description="Run everything and write beside the tables, to look at first."
    )

    @field_validator("preview")
    @classmethod
    def _is_of_all_steps(cls, preview: bool, seen: ValidationInfo) -> bool:
        if preview and seen.data.get("step") is not None:
            raise ValueError("a preview runs the whole pipeline again: leave out step")
        return preview


def new_run_id() -> str:
    """Return an id that no other run has."""
    return f"run_{uuid.uuid4().hex}"


def run_identity(org_slug: str, idempotency_key: str | None, asked: Any) -> tuple[str, str]:
    """Return the id of the new run and the fingerprint of its request; ``asked`` is the request as plain JSON data.

    The id derives from organisation and ``Idempotency-Key``, so the same key always means the same run, which the store
    creates once; the fingerprint shows whether the request is the same. Without a key (None) the id is random and the
    fingerprint empty. Raises InvalidFieldsError unless the key is 1 to 255 visible ASCII characters.
    """
    if idempotency_key is None:
        return new_run_id(), ""
    if not IDEMPOTENCY_KEY.fullmatch(idempotency_key):
        raise InvalidFieldsError({"Idempotency-Key": "must be 1 to 255 visible ASCII characters, without spaces."})
    run_id = f"run_{_digest([org_slug, idempotency_key])[:32]}"
    return run_id, _digest(asked)


def scheduled_request(
    org_slug: str,
    route: str,
    pipeline_id: str,
    at: datetime,
    *,
    now: datetime,
    days: tuple[date, date],
    credential_id: str | None = None,
) -> RunRequest:
    """Return the request of the run that the schedule wants at ``at``. It waits for a slot.

    Its run id derives from (pipeline, organisation, scheduled time), so however often that time is noticed, the store
    creates one run. No Idempotency-Key of a caller gives the same id: those are hashed as two parts, this as four.
    """
    named = ["schedule", org_slug, pipeline_id, at.isoformat()]
    return RunRequest(
        run_id=f"run_{_digest(named)[:32]}",
        org_slug=org_slug,
        route=route,
        start_date=days[0],
        end_date=days[1],
        requested_at=now,
        trigger="schedule",
        credential_id=credential_id,
        queue=True,
        fingerprint=_digest(named),
    )


def _digest(asked: Any) -> str:
    return sha256(json.dumps(asked, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def run_request(
    org_slug: str,
    route: str,
    body: Any,
    *,
    now: datetime,
    trigger: str,
    idempotency_key: str | None = None,
    default_days: Callable[[str, date], tuple[date, date]] | None = None,
) -> RunRequest:
    """Return the checked request, or raise InvalidFieldsError that names each bad field.

    For its run id see ``run_identity``. ``default_days(route, today)`` returns the days of a request with neither dates
    nor a source; without it that is yesterday.
    """
    if not ORG_SLUG.match(org_slug):
        raise NotFoundError(f"There is no organisation {org_slug!r}.")
    if not isinstance(body, dict):
        raise InvalidFieldsError({"body": 'must be a JSON object, e.g. {} or {"start_date": "2026-11-20"}'})
    try:
        # JSON has no dates, so strings are read as such; a number or a time of day is refused.
        checked = RunBody.model_validate(body)
    except ValidationError as error:
        raise InvalidFieldsError(problems_of(error, RunBody)) from error
    today = now.date()
    start = checked.start_date or checked.end_date or today - timedelta(days=1)
    end = checked.end_date or start
    if default_days is not None and not (checked.start_date or checked.end_date or checked.source):
        start, end = default_days(route, today)
    _check_dates(start, end, today)
    # The body as it was sent: a request without dates is still the same request tomorrow.
    asked = [route, checked.model_dump(mode="json", exclude_defaults=True)]
    run_id, fingerprint = run_identity(org_slug, idempotency_key, asked)
    return RunRequest(
        run_id=run_id,
        org_slug=org_slug,
        route=route,
        start_date=start,
        end_date=end,
        requested_at=now,
        trigger=trigger,
        credential_id=checked.credential_id,
        source=checked.source,
        queue=checked.queue,
        backfill=checked.backfill,
        fingerprint=fingerprint,
    )


def _check_dates(start: date, end: date, today: date) -> None:
    problems: dict[str, str] = {}
    if start < EARLIEST:
        problems["start_date"] = f"{start} is before {EARLIEST}"
    if end > today:
        problems["end_date"] = f"{end} is in the future (today is {today} UTC)"
    if end < start:
        problems["end_date"] = f"{end} is before start_date {start}"
    elif (end - start).days >= MAX_DAYS:
        problems["end_date"] = f"a run covers at most {MAX_DAYS} days; split {start} to {end} into several runs"
    if problems:
        raise InvalidFieldsError(problems)
