"""Page cursors: the time and the id of the page's last run, the number of its last log line."""

from datetime import UTC, datetime

from common.domain.model import Run
from common.platform.errors import RequestError
from common.runs.request import RUN_ID


def encode_cursor(run: Run) -> str:
    """Return the cursor of the page after this run: its time to the microsecond and its id, in URL-safe characters."""
    at = run.request.requested_at.astimezone(UTC)
    return f"{at:%Y%m%dT%H%M%S.%fZ}_{run.run_id}"


def decode_cursor(cursor: str) -> tuple[datetime, str]:
    """Return (requested_at, run id) of a cursor that ``encode_cursor`` made. Raises RequestError."""
    try:
        at, _, run_id = cursor.partition("_")
        if not RUN_ID.fullmatch(run_id):
            raise ValueError(run_id)
        return datetime.strptime(at, "%Y%m%dT%H%M%S.%f%z").astimezone(UTC), run_id
    except (ValueError, OverflowError) as error:
        raise RequestError(
            "cursor: not one that this API gave out; leave it away to start at the newest run."
        ) from error


def line_number(place: str) -> int:
    """Return the number of a log line whose ``place`` this is, 0 for no place. Raises RequestError."""
    if not place:
        return 0
    # At most 18 digits: a longer number may not fit the databases' 64-bit integers.
    if not (place.isascii() and place.isdigit() and len(place) < 19):
        raise RequestError(f"No line of a log has the place {place[:40]!r}.")
    return int(place)
