"""Parts of a delivery: each is staged by a step of its own, and all are committed at once (docs/decisions/0017).

A staged part is a staging table, and a row in the list of its delivery that says so. Both expire by themselves. A row
is written after its table was loaded, so that a listed part is a whole one, whoever else tried it before or since.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any

from common.domain.model import Run
from common.platform.errors import PermanentError, TransientError
from common.tables.contract import DATA_DATE, Table
from common.writes.spool.hashing import HASH_MODULUS, VERSION, hash_text

MOST_PARTS = 500
"""A commit reads the staging tables of all parts, and a query of BigQuery names at most 1,000 tables."""

MOST_NAMED = 10

LIST = Table.model_validate(
    {
        "table": "parts",
        "description": "The staged parts of one delivery. Expires by itself.",
        "columns": [
            {"name": "part", "type": "STRING", "mode": "REQUIRED"},
            {"name": "fence", "type": "INT64", "mode": "REQUIRED"},
            {"name": "staging", "type": "STRING"},
            {"name": "row_count", "type": "INT64", "mode": "REQUIRED"},
            {"name": "content_hash", "type": "STRING"},
            {"name": "bad_rows", "type": "INT64", "mode": "REQUIRED"},
            {"name": "facts", "type": "STRING"},
        ],
    }
)


@dataclass(frozen=True, slots=True)
class PartRead:
    """Yielded after the last batch of a part: the rows are staged under its name and not committed.

    ``delivery`` identifies the delivery that the part was read from, ``facts`` (JSON) is for who commits it.
    """

    part: str
    delivery: str
    facts: str


@dataclass(frozen=True, slots=True)
class WholeDelivery:
    """Yielded instead of batches: the staged parts of these names are committed together, or nothing is.

    ``check`` is called with the facts of each part, in order; it raises if the delivery must not be committed.
    """

    parts: Sequence[str]
    delivery: str
    check: Callable[[Sequence[str]], None]


@dataclass(frozen=True, slots=True)
class StagedPart:
    """A row of the list. ``staging`` is empty if the part has no rows of the run's days."""

    part: str
    fence: int
    staging: str
    row_count: int
    content_hash: str
    bad_rows: int
    facts: str


def list_name(run: Run, delivery: str) -> str:
    """Return the name of a delivery's list.

    A rerun finds the parts that an earlier run has staged of the same delivery, for the same days and by the same
    config; of any other it must not.
    """
    request = run.request
    what = (run.pipeline_id, run.credential_id, run.config_hash, request.start_date, request.end_date, delivery)
    return f"parts_{sha256(repr(what).encode()).hexdigest()[:20]}"


def write_row(path: Path, part: StagedPart, day: date) -> None:
    """Write the row of a part to a Parquet file that the list takes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = {name: getattr(part, name) for name in LIST.names} | {DATA_DATE: day}
    try:
        pq.write_table(pa.Table.from_pylist([row]), path)
    except OSError as error:
        raise TransientError(f"The list of parts could not be written to {path.parent}: {error}") from error


def chosen(rows: Iterator[Mapping[str, Any]], wanted: Sequence[str]) -> list[StagedPart]:
    """Return the latest row of each part. Raises PermanentError, with their names, if parts are missing."""
    latest: dict[str, StagedPart] = {}
    for row in rows:
        values: dict[str, Any] = {name: "" if row[name] is None else row[name] for name in LIST.names}
        part = StagedPart(**values)
        if part.part not in latest or latest[part.part].fence < part.fence:
            latest[part.part] = part
    missing = [name for name in wanted if name not in latest]
    if missing:
        more = f" and {len(missing) - MOST_NAMED} more" if len(missing) > MOST_NAMED else ""
        raise PermanentError(
            f"{len(missing)} of the delivery's {len(wanted)} parts are not staged: {', '.join(missing[:MOST_NAMED])}"
            f"{more}. Nothing is committed. The export may have been refreshed since its parts were listed: run the "
            "pipeline again."
        )
    return [latest[name] for name in wanted]


def content_hash(parts: Sequence[StagedPart]) -> str:
    """Return the content hash of all rows: that of a part is the sum of its rows' hashes, so theirs is the sum."""
    return hash_text(sum(int(p.content_hash.removeprefix(VERSION), 16) for p in parts if p.row_count) % HASH_MODULUS)
