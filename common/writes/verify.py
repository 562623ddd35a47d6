"""Checks runs' receipts against the rows of the tables that they wrote, with one query per table.

BigQuery counts and hashes the rows: one row comes back for each commit and day. The rows themselves are read only where
the hash is another one than the receipt's, because BigQuery could print a JSON number otherwise than the spool did, and
for receipts of the first definition of the hash.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from typing import Any, NamedTuple

from common.domain.model import Run
from common.platform.errors import NotFoundError
from common.ports.store import HistoryQuery, RunStore
from common.ports.warehouse import Warehouse
from common.tables.contract import DATA_DATE, LINEAGE
from common.writes.receipts import NEVER, Finding, Key, Ledger, Rows, Write, compare
from common.writes.spool import hashing, hashing_v1
from common.writes.spool.hashing import ROW_HASH, SUM_NAMES, SUMS

PAGE = 100

GROUP = f"x_pipeline_id, x_credential_id, x_run_id, {DATA_DATE}, x_ingested_at"
COUNT = f"""
SELECT {GROUP}, COUNT(*) AS n, {SUMS}
FROM (SELECT {GROUP}, {{row_hash}} AS {ROW_HASH} FROM `{{table}}` WHERE x_org_slug = @org {{more}})
GROUP BY {GROUP}
"""  # noqa: S608
OF_KEY = "AND x_pipeline_id = @pipeline AND x_credential_id = @credential"
OF_DAYS = f"AND {DATA_DATE} BETWEEN @first AND @last"
CONTENT = f"""
SELECT {{columns}}
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
        return Report(checked, kept + compare(ledger, rows, mine, lambda write: self._hash(ledger.org, write, rows)))

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
        columns = self._columns(table)
        if columns is None:
            return
        sql = COUNT.format(table=table, more=more, row_hash=hashing.row_hash_sql(columns))
        for row in list(self.warehouse.query(sql, {"org": ledger.org, **params})):
            self._learn(ledger, row["x_run_id"])
            key = Key(table, row["x_pipeline_id"], row["x_credential_id"])
            stamp = row[DATA_DATE] or date.min, row["x_ingested_at"] or NEVER
            total = hashing.total([[row[name] for name in SUM_NAMES]])
            yield Rows(key, row["x_run_id"], *stamp, row["n"], total)

    def _columns(self, table: str) -> dict[str, str] | None:
        """Return what is hashed of a table: names and types of its columns, without lineage but the data date."""
        found = self.warehouse.tables.find(table)
        lineage = {name for name, _ in LINEAGE} - {DATA_DATE}
        return None if found is None else {c.name: c.type for c in found.columns if c.name not in lineage}

    def _learn(self, ledger: Ledger, run_id: str) -> None:
        if run_id and run_id not in ledger.runs:
            with suppress(NotFoundError):
                run = self.store.load(run_id)
                if run.request.org_slug == ledger.org:  # a row can carry any run id: show nothing of others' runs
                    ledger.add(run)

    def _hash(self, org: str, write: Write, rows: Sequence[Rows]) -> str:
        """Return the hash of the rows that are there, by the definition of the receipt's."""
        its = [r for r in rows if (r.key, r.run_id, r.ingested_at) == (write.key, write.run_id, write.at)]
        stored = hashing.hash_text(sum(r.hash_total for r in its if write.first_day <= r.day <= write.last_day))
        if stored == write.content_hash:
            return stored
        columns = self._columns(write.key.table) or {}
        params = {
            "org": org,
            "pipeline": write.key.pipeline_id,
            "credential": write.key.credential_id,
            "first": write.first_day,
            "last": write.last_day,
            "run": write.run_id,
            "at": write.at,
        }
        names = ", ".join(f"`{name}`" for name in columns)
        stored_rows = self.warehouse.query(CONTENT.format(table=write.key.table, columns=names), params)
        if write.content_hash.startswith(hashing.VERSION):
            return hashing.content_hash(stored_rows, columns)
        return hashing_v1.content_hash(stored_rows)
