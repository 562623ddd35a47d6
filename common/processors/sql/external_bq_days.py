"""``ExternalBqChangedDays``: for which days an ``ExternalBqExtractor`` has to read a table.

Exports such as Google's append: a row may come long after the day it is for. So besides the run's own days, those
before it that have got rows since its first day are read anew. They are put out as ``days``, for a step with ``map:``.
"""

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from common.processors.base import Params, StepContext
from common.processors.clouds.gcp.credential import google_credential
from common.processors.sql.external_bq import GIB, ExternalTableParams, FieldPath
from common.processors.sql.external_sql import ExternalTable
from common.writes.batch import Batch


class ChangedDaysParams(ExternalTableParams):
    """``config:`` of the step: the table as the extractor has it, and how late rows may be."""

    export_column: FieldPath = Field(description="Field that says when a row came.")
    late_days: int = Field(62, ge=0, le=400, description="How many days before the run's first are looked at.")

    def check_fields(self, external: ExternalTable, day: date, configs: Path) -> list[str]:
        external.changed_days(self.export_column, day, day, day)
        return []


class ExternalBqChangedDays:
    """Counts rows by day. Raises PermanentError for a table or field that is not there."""

    params_type: ClassVar[type[Params]] = ChangedDaysParams
    needs_credential: ClassVar[bool] = True

    def run(self, context: StepContext, params: ChangedDaysParams) -> Iterator[Batch]:
        credential = google_credential(context.credential_id, context.secret())
        external = params.external_table(context, credential)
        earliest = context.start_date - timedelta(days=params.late_days)
        select = external.changed_days(params.export_column, earliest, context.start_date, context.end_date)
        rows_by_day: dict[date, Any] = {}
        limit = params.max_gib_billed * GIB
        for rows in context.google().read(credential.key, select.sql, select.params, max_bytes=limit):
            rows_by_day |= {day["day"]: day["n"] for day in rows.to_pylist()}
        own = [context.start_date + timedelta(days=n) for n in range((context.end_date - context.start_date).days + 1)]
        late = sorted(day for day in rows_by_day if day < context.start_date)
        if late:
            count = sum(rows_by_day[day] for day in late)
            context.info(f"{count} rows have come late, for {len(late)} days from {late[0]} to {late[-1]}.")
        if missing := [day for day in own if day not in rows_by_day]:
            days = ", ".join(map(str, missing[:10])) + (" …" if len(missing) > 10 else "")
            context.warn(
                f"{external.table_id} has no rows for {days}: what is stored of them stays. Run them again later."
            )
        context.put_out("days", [day.isoformat() for day in (*late, *(day for day in own if day in rows_by_day))])
        yield from ()
