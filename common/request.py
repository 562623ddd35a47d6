"""What a caller may ask of a run, checked. The same for HTTP, CLI and cron."""

import json
import re
import uuid
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from hashlib import sha256
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.domain.model import RunRequest
from common.errors import NotFoundError, RequestError, nearest

ORG_SLUG = re.compile(r"^[a-z][a-z0-9_]{1,49}$")
RUN_ID = re.compile(r"^run_[0-9a-f]{32}$")
ROUTE_PART = re.compile(r"^[a-z][a-z0-9_]{0,62}$")
IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")
MAX_DAYS = 366
EARLIEST = date(2000, 1, 1)


class InvalidFieldsError(RequestError):
    """Fields of a request are wrong; ``problems`` maps each field to what is wrong with it."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {text}" for name, text in problems.items()))
        self.problems = dict(problems)


QUEUE = Field(False, strict=True, description="Wait for a slot if there is none, in the place of a 429.")
BACKFILL = Field(False, strict=True, description="This is a backfill: where runs wait, live work goes first.")


class RunBody(BaseModel):
    """Body of a run request. Dates are UTC days, both inclusive; without any, yesterday is run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    start_date: date | None = Field(None, description="First data date, e.g. 2026-11-20. Default: yesterday (UTC).")
    end_date: date | None = Field(None, description="Last data date, inclusive. Default: start_date.")
    credential_id: str | None = Field(None, pattern=r"^[a-z][a-z0-9_-]{0,62}$")
    source: str | None = Field(
        None, pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,199}$", description="Name of a file in the landing folder."
    )
    queue: bool = QUEUE
    backfill: bool = BACKFILL


class ControlBody(BaseModel):
    """Body of a request that changes a run: who wants it and why. Both are logged with what it changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    by: str = Field(min_length=1, max_length=100, description="Who asks, e.g. a mail address.")
    reason: str = Field(min_length=1, max_length=500, description="Why, for whoever reads the run's transitions.")
    step: str | None = Field(None, max_length=80, description="Of a rerun: the only step to run again.")
    preview: bool = Field(
        False, description="Of a rerun: run everything and write beside the tables, to look at first."
    )
    queue: bool = QUEUE
    backfill: bool = BACKFILL


OF_RERUN = ("step", "preview", "queue", "backfill")


def control_body(body: Any, *, of_rerun: bool = False) -> ControlBody:
    """Return the checked body, or raise InvalidFieldsError that names each bad field."""
    if not isinstance(body, dict):
        raise InvalidFieldsError({"body": 'must be a JSON object, e.g. {"by": "ana", "reason": "wrong dates"}'})
    foreign = {} if of_rerun else {name: "goes with a rerun only." for name in OF_RERUN if name in body}
    if foreign:
        raise InvalidFieldsError(foreign)
    try:
        checked = ControlBody.model_validate(body)
    except ValidationError as error:
        raise InvalidFieldsError(_problems(error, ControlBody)) from error
    if checked.preview and checked.step:
        raise InvalidFieldsError({"step": "a preview runs the whole pipeline again."})
    return checked


def new_run_id() -> str:
    """Return an id that no other run has."""
    return f"run_{uuid.uuid4().hex}"


def run_identity(org_slug: str, idempotency_key: str | None, asked: Any) -> tuple[str, str]:
    """Return the id of the run to be made and the fingerprint of what is asked for, as plain JSON data.

    The caller's key makes both: the same key of an organisation is the same run, which the store makes once, and the
    fingerprint tells whether it is asked for the same thing again. Without a key it is a run of its own. The key is
    what the HTTP header ``Idempotency-Key`` says, None if there is none; raises InvalidFieldsError for one that is not
    1 to 255 visible ASCII characters.
    """
    if idempotency_key is None:
        return new_run_id(), ""
    if not IDEMPOTENCY_KEY.fullmatch(idempotency_key):
        raise InvalidFieldsError({"Idempotency-Key": "must be 1 to 255 visible ASCII characters, without spaces."})
    run_id = f"run_{_digest([org_slug, idempotency_key])[:32]}"
    return run_id, _digest(asked)


def _digest(asked: Any) -> str:
    return sha256(json.dumps(asked, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def run_request(
    org_slug: str, route: str, body: Any, *, now: datetime, trigger: str, idempotency_key: str | None = None
) -> RunRequest:
    """Return the checked request, or raise InvalidFieldsError that names each bad field.

    Its run id is fresh, or that of ``idempotency_key`` (see ``run_identity``).
    """
    if not ORG_SLUG.match(org_slug):
        raise NotFoundError(f"There is no organisation {org_slug!r}.")
    if not isinstance(body, dict):
        raise InvalidFieldsError({"body": 'must be a JSON object, e.g. {} or {"start_date": "2026-11-20"}'})
    try:
        # JSON has no dates, so strings are read as such; a number or a time of day is refused.
        checked = RunBody.model_validate(body)
    except ValidationError as error:
        raise InvalidFieldsError(_problems(error, RunBody)) from error
    today = now.date()
    start = checked.start_date or checked.end_date or today - timedelta(days=1)
    end = checked.end_date or start
    _check_dates(start, end, today)
    # As it was asked for: "yesterday" is the same request tomorrow.
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


def _problems(error: ValidationError, model: type[BaseModel]) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in error.errors():
        name = ".".join(str(part) for part in item["loc"]) or "body"
        if item["type"] == "extra_forbidden":
            known = ", ".join(model.model_fields)
            found[name] = f"unknown field.{nearest(name, model.model_fields)} Known: {known}"
        else:
            found[name] = f"{item['msg']} (got {str(item['input'])[:80]!r})"
    return found
