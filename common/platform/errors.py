"""Every error this project raises, grouped by what the catcher should do next.

- ``ConfigError``: a person corrects a YAML file. Never retried.
- ``RequestError``: the caller corrects the request (``status`` is the HTTP status of the response).
- ``TransientError``: retry the attempt later, not before ``retry_after_s`` if the other side named a time.
- ``PermanentError``: the step fails now; a second attempt would end the same way.
- ``StaleRunError``: another writer changed the run, or one of its steps; load it again and apply the event again.

Messages say where, what, and what to do. They never hold a secret.
"""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from common.domain.model import ErrorKind
from common.domain.spelling import nearest as nearest


class PipelineOpsError(Exception):
    """Base of all errors that carry a message for a person."""


class ConfigError(PipelineOpsError):
    """A file under ``configs/`` is wrong. The message starts with ``file:line: field:``."""


class RequestError(PipelineOpsError):
    """The request can't be served and must be changed."""

    status = 422
    title = "The request is not valid"


class NotFoundError(RequestError):
    """What the request names does not exist, or belongs to another organisation, which must look the same."""

    status = 404
    title = "Not found"


class QuotaExceededError(RequestError):
    """A limit is used up. ``value`` and ``used`` are JSON values: runs as integers, US dollars as text.

    ``why`` names the limit in a few words; ``waiting`` is how many runs already wait for it. ``as_of`` is when the
    limit was read, if its source has been unavailable since.
    """

    status = 429
    title = "Quota exceeded"

    def __init__(
        self,
        *,
        limit: str,
        value: int | Decimal,
        used: int | Decimal,
        retry_after_s: int,
        waiting: int = 0,
        as_of: datetime | None = None,
    ) -> None:
        self.limit, self.retry_after_s, self.waiting = limit, retry_after_s, waiting
        self.value, self.used = _plain(value), _plain(used)
        self.why = f"the {limit} limit of {self.value} {'USD' if isinstance(value, Decimal) else 'runs'} is used up"
        before = f", {waiting} more wait for it" if waiting else ""
        way_out = WAYS_OUT.get(limit, "raise the plan's limit")
        stale = limits_as_of(as_of)
        super().__init__(
            f"T{self.why[1:]} ({self.used} used{before}). Try again in {retry_after_s} s, or {way_out}.{stale}"
        )


WAYS_OUT = {
    "pipeline": "raise concurrency in the pipeline's file",
    "global": "raise the deployment's global_concurrent",
    "queue": "cancel runs that wait",
}
"""What else can be done about a limit that is not of the plan."""


def limits_as_of(moment: datetime | None) -> str:
    """Return a sentence for limits that may have changed since they were read, none for current ones."""
    return "" if moment is None else f" Limits are as of {moment:%Y-%m-%dT%H:%M:%SZ}: their source is away since."


def _plain(amount: int | Decimal) -> int | str:
    return f"{amount:f}" if isinstance(amount, Decimal) else amount


class ForbiddenPlanError(RequestError):
    """The organisation's subscription does not admit runs."""

    status = 403
    title = "Subscription not active"


class UnauthorizedError(RequestError):
    """The request has no valid API key. The message does not reveal which part of a key is wrong."""

    status = 401
    title = "Not authenticated"


class ForbiddenScopeError(RequestError):
    """The key is valid, but its scope does not cover the request."""

    status = 403
    title = "Not allowed"


class ConflictingStateError(RequestError):
    """The request does not fit the state of the run or step. ``run_id`` is a run that the request did not name."""

    status = 409
    title = "Not possible now"

    def __init__(self, message: str, *, run_id: str | None = None) -> None:
        super().__init__(message)
        self.run_id = run_id


class TransientError(PipelineOpsError):
    """Worth another attempt: a provider is down, a rate limit was exceeded, a conflict was lost."""

    kind = ErrorKind.UNAVAILABLE

    def __init__(self, message: str, *, retry_after_s: float = 0.0, kind: ErrorKind | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        if kind is not None:
            self.kind = kind


class StepTimeoutError(TransientError):
    """The attempt used up its ``timeout_seconds``."""

    kind = ErrorKind.TIMEOUT


class WriterBusyError(TransientError):
    """Other writers kept the table busy for as long as the commit could wait. Nothing was written."""

    kind = ErrorKind.CONFLICT


class SupersededError(TransientError):
    """An attempt that started later has written the same days, and these older rows must not replace its rows.

    The step's next attempt may: it starts later still, and reads its source again.
    """

    kind = ErrorKind.CONFLICT


class PermanentError(PipelineOpsError):
    """Another attempt would fail the same way: bad credentials, bad data, bad config."""


class DriftError(PermanentError):
    """Rows do not fit their table's contract. ``drift`` is how they differ (``common/writes/drift.py``)."""

    def __init__(self, message: str, drift: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.drift = drift


class LostLeaseError(PipelineOpsError):
    """This attempt no longer owns its step: its result must change nothing."""


class StaleRunError(PipelineOpsError):
    """A record that the transition changes (the run or one of its steps) has a newer version in the store.

    Nothing was committed. Load the run again and apply the event to the stored state.
    """


class StaleRecordError(PipelineOpsError):
    """A stored document has a newer version than the one that was read: read it again and decide again."""


class InvalidFieldsError(RequestError):
    """Fields of a request are invalid; ``problems`` maps each field to what is wrong with it."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {text}" for name, text in problems.items()))
        self.problems = dict(problems)
