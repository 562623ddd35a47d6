"""BigQuery's exceptions as this project's, told apart by what to do next."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from common.domain.model import ErrorKind
from common.platform.errors import PermanentError, PipelineOpsError, StepTimeoutError, TransientError

MAX_CHARS = 300

# What passes once other writers are done. The texts are those that people report of the cloud: a cancelled transaction,
# a full queue of DML statements, a table changed too often in a short time; and the emulator's words for a lost commit,
# of rows or of what it knows about tables and procedures.
CONFLICT = re.compile(
    r"aborted due to concurrent update|could not serialize access|conflict with concurrent|transaction conflict"
    r"|too many dml statements outstanding|exceeded quota for [^.]*dml|exceeded rate limits|rateLimitExceeded"
    r"|failed to commit ducklake transaction|conflict on (?:update|tuple deletion)|write-write conflict",
    re.IGNORECASE,
)
DAILY_QUOTA = re.compile(r"quota exceeded|quotaExceeded", re.IGNORECASE)
TIMED_OUT = re.compile(r"job timed out|jobTimeout", re.IGNORECASE)
DISK_FULL = re.compile(r"no space left on device|disk full|could not write .*file", re.IGNORECASE)


class ConflictError(TransientError):
    """Others are at it: a transaction lost, or their queue is full. The job is over, a new one may win."""

    kind = ErrorKind.CONFLICT


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Raise ConflictError, TransientError or PermanentError in the place of the client's exceptions."""
    import concurrent.futures

    import requests
    from google.api_core import exceptions
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, TransportError

    try:
        yield
    except PipelineOpsError:
        raise
    except DefaultCredentialsError as error:
        raise PermanentError(
            f"BigQuery could not {what}: no Google credentials. Run `gcloud auth application-default login`, "
            "or give the function a service account."
        ) from error
    except (exceptions.RetryError, requests.RequestException, TransportError, ConnectionError) as error:
        raise TransientError(f"BigQuery could not {what}: it does not answer ({type(error).__name__}).") from error
    except (concurrent.futures.TimeoutError, TimeoutError) as error:
        raise TransientError(f"BigQuery could not {what} in time.") from error
    except GoogleAuthError as error:
        raise PermanentError(f"BigQuery could not {what}: {_short(error)}") from error
    except exceptions.GoogleAPICallError as error:
        raise _sorted_out(what, error) from error


def _sorted_out(what: str, error: Exception) -> PipelineOpsError:
    from google.api_core import exceptions

    text = f"BigQuery could not {what}: {_short(error)}"
    if CONFLICT.search(str(error)):
        return ConflictError(text)
    if TIMED_OUT.search(str(error)):
        return StepTimeoutError(text)
    if DAILY_QUOTA.search(str(error)):
        return TransientError(text, kind=ErrorKind.RATE_LIMIT)
    if DISK_FULL.search(str(error)):
        return TransientError(f"{text} The disk is full: free some space, the step is tried again.")
    permanent = exceptions.NotFound, exceptions.BadRequest, exceptions.Forbidden, exceptions.Unauthorized
    return PermanentError(text) if isinstance(error, permanent) else TransientError(text)


def _short(error: Exception) -> str:
    """The message without the request's URL, the location and job id lines, and never a page long."""
    text = str(getattr(error, "message", "") or error).split("\n\nLocation:")[0]
    text = " ".join(re.sub(r"^(?:[A-Z]+ )?https?://\S+ ?", "", text).split())
    text = text.split("; reason:")[0]
    return text if len(text) <= MAX_CHARS else text[:MAX_CHARS] + "…"
