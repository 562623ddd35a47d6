"""The cursor of a page of runs: the time and the id of the last one on it."""

import json
from datetime import UTC, datetime

from common.domain.model import Run
from common.errors import RequestError
from common.request import RUN_ID


def encode_cursor(run: Run) -> str:
    """Return the cursor of the page after this run."""
    return json.dumps([run.request.requested_at.astimezone(UTC).isoformat(), run.run_id])


def decode_cursor(cursor: str) -> tuple[datetime, str]:
    """Return (requested_at, run id) of a cursor that ``encode_cursor`` made. Raises RequestError."""
    try:
        at, run_id = json.loads(cursor)
        if not RUN_ID.fullmatch(run_id):
            raise ValueError(run_id)
        return datetime.fromisoformat(at).astimezone(UTC), run_id
    except (ValueError, TypeError, OverflowError) as error:
        raise RequestError(
            "cursor: not one that this API gave out; leave it away to start at the newest run."
        ) from error
