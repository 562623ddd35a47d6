"""Translates BigQuery's exceptions to this project's by what to do next."""

import re

from common.adapters.google_errors import Service, short
from common.domain.model import ErrorKind
from common.platform.errors import PermanentError, PipelineOpsError, StepTimeoutError, TransientError

# Errors that pass once other writers are done, matched by message because BigQuery has no status of its own for them.
# The first two lines are messages reported from the cloud: a cancelled transaction, a full queue of DML statements, a
# table changed too often. The last is the emulator's for a lost commit, of rows or of its catalogue.
CONFLICT = re.compile(
    r"aborted due to concurrent update|could not serialize access|conflict with concurrent|transaction conflict"
    r"|too many dml statements outstanding|exceeded quota for [^.]*dml|exceeded rate limits|rateLimitExceeded"
    r"|failed to commit ducklake transaction|conflict on (?:update|tuple deletion)|write-write conflict",
    re.IGNORECASE,
)
DAILY_QUOTA = re.compile(r"quota exceeded|quotaExceeded", re.IGNORECASE)
TIMED_OUT = re.compile(r"job timed out|jobTimeout", re.IGNORECASE)
# BigQuery's text, then the emulator's.
NO_VALUE = re.compile(
    r"required field (\w+) cannot be null|NOT NULL constraint failed: \S*?(\w+)\b(?![.\w])", re.IGNORECASE
)
DISK_FULL = re.compile(r"no space left on device|disk full|could not write .*file", re.IGNORECASE)


class ConflictError(TransientError):
    """A transaction lost to another writer, or the DML queue is full. The job has failed; a new one may succeed."""

    kind = ErrorKind.CONFLICT


def _own(failed: str, error: Exception) -> PipelineOpsError | None:
    """Translate by message: BigQuery's statuses do not distinguish a lost conflict from a mistake in the SQL."""
    from google.api_core import exceptions

    if not isinstance(error, exceptions.GoogleAPICallError):
        return None
    text = f"{failed} {short(error)}"
    if CONFLICT.search(str(error)):
        return ConflictError(text)
    if match := NO_VALUE.search(str(error)):
        return PermanentError(
            f"{failed} A row has no {match[1] or match[2]}, which the table needs. Look for it in the step's "
            "source, or make the column NULLABLE in the table's contract. Nothing was changed."
        )
    if TIMED_OUT.search(str(error)):
        return StepTimeoutError(text)
    if DAILY_QUOTA.search(str(error)):
        return TransientError(text, kind=ErrorKind.RATE_LIMIT)
    if DISK_FULL.search(str(error)):
        return TransientError(f"{text} The disk is full: free some space, the step is tried again.")
    return None


service = Service("BigQuery", own=_own)
translated = service.translated
"""Raises ConflictError, TransientError or PermanentError instead of the client's exceptions."""
