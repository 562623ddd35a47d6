"""Every error this project raises, grouped by what the catcher should do next.

- ``ConfigError``: somebody mends a YAML file. Never retried.
- ``RequestError``: the caller mends the request (``status`` is the HTTP status it is answered with).
- ``TransientError``: try the attempt again later; ``retry_after_s`` is the earliest moment the other side asked for.
- ``PermanentError``: the step fails now; a second attempt would end the same way.
- ``StaleRunError``: somebody else changed the run, or one of its steps; load it again and apply the event again.

Messages are written for the person who reads them: where, what, what to do. They never hold a secret.
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
    """A request can't be served as it is."""

    status = 422
    title = "The request is not valid"


class NotFoundError(RequestError):
    """What the request names does not exist (or belongs to somebody else, which looks the same)."""

    status = 404
    title = "Not found"


class QuotaExceededError(RequestError):
    """A limit is used up. ``value`` and ``used`` are as JSON has them: runs as whole numbers, US dollars as text.

    ``why`` names the limit in a few words; ``waiting`` is how many runs wait for it already. ``as_of`` is when the
    limit was read, if its source has not answered since.
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
    """The request has no API key, or none that opens anything. It does not tell which part of a key is wrong."""

    status = 401
    title = "Not authenticated"


class ForbiddenScopeError(RequestError):
    """The key is good, but not for this."""

    status = 403
    title = "Not allowed"


class ConflictingStateError(RequestError):
    """What was asked for does not fit the state that the run or step is in. ``run_id`` is one that nobody named yet."""

    status = 409
    title = "Not possible now"

    def __init__(self, message: str, *, run_id: str | None = None) -> None:
        super().__init__(message)
        self.run_id = run_id


class TransientError(PipelineOpsError):
    """Worth another attempt: a provider is down, a limit was hit, a conflict was lost."""

    kind = ErrorKind.UNAVAILABLE

    def __init__(self, message: str, *, retry_after_s: float = 0.0, kind: ErrorKind | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        if kind is not None:
            self.kind = kind


class StepTimeoutError(TransientError):
    """The attempt used up its ``timeout_seconds``."""

    kind = ErrorKind.TIMEOUT


class SupersededError(TransientError):
    """An attempt that started later has written the same days: these rows must not replace its rows.

    Another attempt of the step may: it starts later still, and reads afresh.
    """

    kind = ErrorKind.CONFLICT


class PermanentError(PipelineOpsError):
    """Another attempt would fail the same way: bad credentials, bad data, bad config."""


class DriftError(PermanentError):
    """Rows that do not fit their table's contract. ``drift`` is how they differ (``common/writes/drift.py``)."""

    def __init__(self, message: str, drift: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.drift = drift


class LostLeaseError(PipelineOpsError):
    """This attempt no longer owns its step: its result must change nothing."""


class StaleRunError(PipelineOpsError):
    """A stored record that the transition changes, the run or one of its steps, is newer than the one it was made from.

    Nothing was committed. Load the run again and apply the event to what is stored now.
    """


class StaleRecordError(PipelineOpsError):
    """A stored document is no longer at the version that it was read with: read it again, decide again."""


class InvalidFieldsError(RequestError):
    """Fields of a request are wrong; ``problems`` maps each field to what is wrong with it."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {text}" for name, text in problems.items()))
        self.problems = dict(problems)
