"""``ExternalBqChangedDays``: finds the days for which an ``ExternalBqExtractor`` must read a table.

Exports such as Google's only append, and a row may arrive long after its day. So besides the run's own days, earlier
days that received rows since the run's first day are read again. The step outputs them as ``days``, for a step with
``map:``.
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
    """``config:`` of the step: the table as in the extractor's config, and how late rows may be."""

    export_column: FieldPath = Field(description="Field with the time at which a row was exported.")
    late_days: int = Field(
        62, ge=0, le=400, description="Days before the run's first day in which to look for late rows."
    )

    def check_fields(self, external: ExternalTable, day: date, configs: Path) -> list[str]:
        external.changed_days(self.export_column, day, day, day)
        return []


class ExternalBqChangedDays:
    """Counts rows by day. Raises PermanentError for a missing table or field."""

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
            context.info(f"{count} rows arrived late, for {len(late)} days from {late[0]} to {late[-1]}.")
        # A day without rows is not read: the export may be late, and replacing its stored rows by none would lose them.
        if missing := [day for day in own if day not in rows_by_day]:
            days = ", ".join(map(str, missing[:10])) + (" …" if len(missing) > 10 else "")
            context.warn(
                f"{external.table_id} has no rows for {days}: stored rows of these days are kept. Run them again later."
            )
        context.put_out("days", [day.isoformat() for day in (*late, *(day for day in own if day in rows_by_day))])
        yield from ()
