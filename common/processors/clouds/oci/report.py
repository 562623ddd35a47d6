"""``OciReportExtractor``: Oracle's FOCUS reports, or its cost reports, from the bucket that Oracle keeps for a tenancy.

Reports have no manifest. Oracle writes several files a day; a file never changes, and a correction is another row in a
later file. So a row belongs to the day of its file: each file counts once, on one day, however late it comes. The time
of the usage is in ChargePeriodStart.

Facts: docs.oracle.com/en-us/iaas/Content/Billing, cost and usage reports; columns as in docs/providers-cloud.md.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from functools import partial
from typing import ClassVar, Literal

from pydantic import Field

from common.platform.errors import PermanentError
from common.ports.http import Calls
from common.processors.base import Caller, Params, StepContext
from common.processors.bills.deliveries import Delivery, ExportParams, Part
from common.processors.clouds.oci.bucket import REPORTS, OciBucket
from common.processors.clouds.oci.signature import HELP, oci_key
from common.processors.http.object_store import Stored
from common.processors.http.stored_settings import StoredSettings
from common.writes.batch import Batch

FOCUS_FOLDER, COST_FOLDER = "FOCUS Reports", "reports/cost-csv"
_DATED = re.compile(r"/(\d{4})/(\d{2})/(\d{2})/")


class OciReportParams(ExportParams):
    """``config:`` of the step."""

    layout: Literal["oci_focus", "oci_cost"] = Field("oci_focus", description="Which of Oracle's two reports is read.")


class OciReportExtractor:
    """Reads the files that Oracle wrote on the days of the run."""

    params_type: ClassVar[type[Params]] = OciReportParams
    needs_credential: ClassVar[bool] = True
    credential_field: ClassVar[str] = "tenancy"

    def run(self, context: StepContext, params: OciReportParams) -> Iterator[Batch]:
        with _opened(context, context.secret()) as bucket:
            files = list(_files(bucket, params.layout, context.start_date, context.end_date))
            if not files:
                raise PermanentError(
                    f"There is no report from {context.start_date} to {context.end_date}. Oracle writes some a day, "
                    "and keeps them for a year."
                )
            parts = (Part(item.key, partial(bucket.download, item.key), day) for day, item in files)
            yield from Delivery(context, params, "oci").batches(parts)

    def try_credential(self, caller: Caller, secret: str, configured: Sequence[Params]) -> str:
        """List yesterday's reports and return a summary. Raises what ``run`` raises."""
        day = caller.now().date() - timedelta(days=1)
        with _opened(caller, secret) as bucket:
            reports = list(_files(bucket, "oci_focus", day, day))
        return f"{len(reports)} FOCUS reports of {day}"


def _opened(calls: Calls, secret: str) -> OciBucket:
    stored = StoredSettings(calls.credential_id, secret, HELP)
    key, region = oci_key(stored), stored.text("region", r"[a-z0-9-]{1,40}")
    return OciBucket(calls, key, region=region, namespace=REPORTS, bucket=key.tenancy)


def _files(bucket: OciBucket, layout: str, first: date, last: date) -> Iterator[tuple[date, Stored]]:
    """Yield the files of the days, in order."""
    # Cost reports are all in one folder, and their names have no day: the day is that of the object's creation.
    if layout == "oci_cost":
        listed = sorted(bucket.objects(f"{COST_FOLDER}/"), key=lambda item: (item.modified, item.key))
        yield from ((day, item) for item in listed if first <= (day := item.modified.date()) <= last)
        return
    for number in range((last - first).days + 1):
        day = first + timedelta(days=number)
        for item in bucket.objects(f"{FOCUS_FOLDER}/{day:%Y/%m/%d}/"):
            if _DATED.search(item.key) is not None:
                yield day, item
