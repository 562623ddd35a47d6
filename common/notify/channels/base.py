"""The contract of a channel: it turns a notice into one HTTP POST.

It does not send, retry or store secrets.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import ClassVar, Protocol, Self

from common.domain.model import Run

MAX_ERROR_CHARS = 1_000


@dataclass(frozen=True, slots=True)
class LeftOut:
    """How many failures of the pipeline were not notified one by one since a time."""

    count: int
    since: datetime


@dataclass(frozen=True, slots=True)
class Notice:
    """How a run ended. ``key`` stays the same when it is sent again.

    With ``left_out`` it is about that many failures, of which this run is one; with ``is_test`` about no run.
    """

    key: str
    org_slug: str
    pipeline: str
    run_id: str
    status: str
    error: str
    trigger: str
    start_date: date
    end_date: date
    ended_at: datetime
    left_out: LeftOut | None = None
    is_test: bool = False

    @classmethod
    def of(cls, run: Run) -> Self:
        """Return the notice of a run that has ended."""
        request = run.request
        assert run.ended_at is not None
        return cls(
            key=run.run_id,
            org_slug=request.org_slug,
            pipeline=request.route,
            run_id=run.run_id,
            status=run.status.value,
            error=shortened(run.error),
            trigger=request.trigger,
            start_date=request.start_date,
            end_date=request.end_date,
            ended_at=run.ended_at,
        )


@dataclass(frozen=True, slots=True)
class Post:
    """What is sent: the body and its headers. The sender adds ``Idempotency-Key``."""

    body: bytes
    headers: Mapping[str, str]


class Channel(Protocol):
    """One kind of receiver. ``needs_secret``: it signs what it sends, with a secret that the receiver knows too."""

    needs_secret: ClassVar[bool]

    def post(self, notice: Notice, secret: str, at: datetime) -> Post:
        """Return the notice as this channel's receivers read it. ``at`` is the time of sending."""


def shortened(text: str) -> str:
    """Return the text, cut where it gets too long for a message."""
    return text if len(text) <= MAX_ERROR_CHARS else text[:MAX_ERROR_CHARS] + " …"
