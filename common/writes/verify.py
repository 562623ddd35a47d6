"""Checks runs' receipts against the lineage columns of the tables that they wrote, with one query per table."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from typing import Any, NamedTuple

from common.domain.model import Run
from common.platform.errors import NotFoundError, PermanentError
from common.ports.store import HistoryQuery, RunStore
from common.ports.warehouse import Warehouse
from common.tables.contract import DATA_DATE
from common.writes.receipts import NEVER, Finding, Key, Ledger, Rows, Write, compare
from common.writes.spool import content_hash

PAGE = 100

COUNT = """
SELECT x_pipeline_id, x_credential_id, x_run_id, {day}, x_ingested_at, COUNT(*) AS n
FROM `{table}` WHERE x_org_slug = @org {more}
GROUP BY x_pipeline_id, x_credential_id, x_run_id, {day}, x_ingested_at
"""
OF_KEY = "AND x_pipeline_id = @pipeline AND x_credential_id = @credential"
OF_DAYS = f"AND {DATA_DATE} BETWEEN @first AND @last"
CONTENT = f"""
SELECT * EXCEPT (x_org_slug, x_pipeline_id, x_credential_id, x_run_id, x_ingested_at, x_ingestion_date)
FROM `{{table}}` WHERE x_org_slug = @org {OF_KEY} {OF_DAYS} AND x_run_id = @run AND x_ingested_at = @at
"""  # noqa: S608


class Report(NamedTuple):
    """How many receipts were checked, and the findings."""

    checked: int
    findings: list[Finding]


@dataclass(frozen=True, slots=True)
class Verifier:
    """Reads what ``compare`` needs. ``table_id`` returns the full id of an organisation's table."""

    store: RunStore
    warehouse: Warehouse
    table_id: Callable[[str, str], str]

    def run(self, run_id: str) -> Report:
        """Check one run. Raises NotFoundError."""
        run = self.store.load(run_id)
        ledger = self._ledger(run.request.org_slug)
        ledger.add(run)
        mine, kept = list(ledger.writes), list(ledger.kept)
        rows: list[Rows] = []
        for key in dict.fromkeys(write.key for write in mine):
            writes = [write for write in mine if write.key == key]
            first, last = min(w.first_day for w in writes), max(w.last_day for w in writes)
            params = {"pipeline": key.pipeline_id, "credential": key.credential_id, "first": first, "last": last}
            rows += self._rows(ledger, key.table, f"{OF_KEY} {OF_DAYS}", params)
        if any(finding.kind == "missing" for finding in compare(ledger, rows, mine, lambda w: w.content_hash)):
            # A later run without rows leaves none to find it by, yet may have replaced these: only history shows it.
            for other in self._history(ledger.org, run.request.route):
                ledger.add(other)
        return self._report(kept, ledger, rows, mine)

    def organisation(self, org: str, seen: Callable[[int], None]) -> Report:
        """Check every run of an organisation; ``seen`` is called with the number of runs read so far."""
        ledger = self._ledger(org)
        for run in self._history(org):
            ledger.add(run)
            seen(len(ledger.runs))
        mine, kept = list(ledger.writes), list(ledger.kept)
        rows: list[Rows] = []
        for table in dict.fromkeys(write.key.table for write in mine):
            rows += self._rows(ledger, table, "", {})
        return self._report(kept, ledger, rows, mine)

    def _report(self, kept: list[Finding], ledger: Ledger, rows: Sequence[Rows], mine: Sequence[Write]) -> Report:
        checked = sum(write.rows is not None for write in mine)
        return Report(checked, kept + compare(ledger, rows, mine, lambda write: self._hash(ledger.org, write)))

    def _ledger(self, org: str) -> Ledger:
        return Ledger(org, lambda name: self.table_id(org, name))

    def _history(self, org: str, route: str | None = None) -> Iterator[Run]:
        cursor = None
        while True:
            page = self.store.history(HistoryQuery(org, PAGE, cursor=cursor, route=route))
            yield from page.runs
            if (cursor := page.next_cursor) is None:
                return

    def _rows(self, ledger: Ledger, table: str, more: str, params: Mapping[str, Any]) -> Iterator[Rows]:
        """Yield the table's row counts; add runs that wrote them to the ledger."""
        sql = COUNT.format(table=table, more=more, day=DATA_DATE)
        try:
            counts = list(self.warehouse.query(sql, {"org": ledger.org, **params}))
        except PermanentError as error:
            if "Not found" not in str(error):
                raise
            return
        for row in counts:
            self._learn(ledger, row["x_run_id"])
            key = Key(table, row["x_pipeline_id"], row["x_credential_id"])
            stamp = row[DATA_DATE] or date.min, row["x_ingested_at"] or NEVER
            yield Rows(key, row["x_run_id"], *stamp, row["n"])

    def _learn(self, ledger: Ledger, run_id: str) -> None:
        if run_id and run_id not in ledger.runs:
            with suppress(NotFoundError):
                run = self.store.load(run_id)
                if run.request.org_slug == ledger.org:  # a row can carry any run id: show nothing of others' runs
                    ledger.add(run)

    def _hash(self, org: str, write: Write) -> str:
        params = {
            "org": org,
            "pipeline": write.key.pipeline_id,
            "credential": write.key.credential_id,
            "first": write.first_day,
            "last": write.last_day,
            "run": write.run_id,
            "at": write.at,
        }
        return content_hash(self.warehouse.query(CONTENT.format(table=write.key.table), params))
