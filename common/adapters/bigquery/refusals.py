"""Turns a refusal of a commit's script into an error that says what to do."""

import json
import re
from collections.abc import Sequence
from typing import Any

from common.domain.model import ErrorKind
from common.platform.errors import (
    PermanentError,
    PipelineOpsError,
    StepTimeoutError,
    SupersededError,
    TransientError,
)
from common.ports.warehouse import Commit

REFUSED = re.compile(r"pipeline-ops:(\d+)(\w+)(?=\{)")


class NoGateError(TransientError):
    """The ledger has no gate row: it was made, and never filled."""


def refusal(text: str, writes: Sequence[Commit]) -> PipelineOpsError | None:
    """Return the error for a refusal that the text of an exception contains, or None. ``writes`` are the script's."""
    match = REFUSED.search(text)
    if match is None:
        return None
    told, _ = json.JSONDecoder().raw_decode(text[match.end() :])
    return _error(match[2], told, writes[int(match[1])])


def _error(word: str, told: dict[str, Any], write: Commit) -> PipelineOpsError:
    table, days = write.target, span(write)
    match word:
        case "superseded":
            return SupersededError(
                f"{told['run']} started later and has written {days} into {table} already: these rows would have "
                "replaced newer ones. Nothing was changed."
            )
        case "late":
            return StepTimeoutError(
                f"The commit into {table} came after the end of its attempt's lease and was refused. "
                "Raise timeout_seconds if the write takes that long."
            )
        case "rows":
            return TransientError(f"{write.rows} rows were spooled but the staging table holds {told['n']}.")
        case "gate":
            return NoGateError(
                f"The ledger {table}__commits has no gate row. If it can't be filled anew, drop that table.",
                kind=ErrorKind.UNAVAILABLE,
            )
    return PermanentError(f"{_why(word, told, write)} Nothing was changed.")


def _why(word: str, told: dict[str, Any], write: Commit) -> str:
    table, keys = write.target, ", ".join(write.write.keys)
    match word:
        case "mode":
            return (
                f"{table} is written with mode {told['mode']}, this step says {write.write.mode}: "
                "a table has one mode. Set it back in the step's write: block, or write another table."
            )
        case "partly":
            return (
                f"mode append_once: {told['run']} has appended some days of {span(write)} to {table} already. "
                f"Run only the days that are not in: {told['days']}."
            )
        case "organisation":
            return f"{told['n']} staged rows are of another organisation than {write.lineage.org_slug}."
        case "nulls":
            return f"Staged rows hold NULL where {table} requires a value: {told['columns']}."
        case "day":
            return f"Staged rows hold a day outside the run ({told['day']}, the run is of {span(write)})."
        case "null_keys":
            return f"Staged rows hold NULL in a column of write: keys ({told['columns']})."
        case "doubled":
            return f"{told['n']} values of write: keys ({keys}) occur more than once on a day in the staged rows."
        case "empty":
            return (
                "There are no rows at all, and the step does not say what that means: set write: {on_empty: replace} "
                f"if the days {span(write)} have none, or keep to leave what is there."
            )
    return f"The commit into {table} was refused ({word})."


def span(write: Commit) -> str:
    """Return the days of a commit as text."""
    first, last = write.first_day, write.last_day
    return f"{first}" if first == last else f"{first}..{last}"
