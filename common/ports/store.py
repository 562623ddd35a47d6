"""Where runs and their quota live. ``tests/contract`` holds every adapter to these promises."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from common.domain.model import Run, Step
from common.domain.queueing import Place, Queue
from common.domain.quota import Limits, Usage
from common.domain.state import Change, Transition


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """Which of an organisation's runs to return: ``limit`` of them, after the page that returned ``cursor``.

    ``route`` and ``status`` leave out the others, ``since`` and ``before`` those requested earlier, and then or later.
    """

    org_slug: str
    limit: int
    cursor: str | None = None
    route: str | None = None
    status: str | None = None
    since: datetime | None = None
    before: datetime | None = None


@dataclass(frozen=True, slots=True)
class RunPage:
    """Some runs, newest first, and the cursor of the next page (None on the last)."""

    runs: tuple[Run, ...]
    next_cursor: str | None


class RunStore(Protocol):
    """Where runs, their steps, their transitions and their reservations live.

    A run and each of its steps are records of their own, so that steps running in parallel never wait for one
    another. What a transition leaves alone is not written and not compared.
    """

    def create(self, new: Transition, limits: Limits) -> None:
        """Hold quota and store the new run, its kept steps, its changes and its messages: all of it or nothing.

        Checks every limit and takes what it checks in one step: counts the run in its day and month, reserves its
        estimate in the month's money, and a slot of its pipeline, its organisation and the deployment (``global_slot``)
        until the run's ``expires_at``, which ``commit`` keeps in step with the run. Stale reservations go first. A run
        that waits (``waits_for``) takes only its place in the queue, while fewer than ``QUEUE_LIMIT`` wait.

        Raises ConflictingStateError if there is a run of that id, even without quota left; QuotaExceededError.
        """

    def load(self, run_id: str, step_ids: Collection[str] | None = None) -> Run:
        """Return the whole run, or with ``step_ids`` the run and the records of these steps that exist.

        Raises NotFoundError if there is no such run.
        """

    def commit(self, transition: Transition) -> Run:
        """Store what the transition changed, and its messages, together or nothing; return it with new versions.

        Settles reservation and money, and moves the run in the queue, when the transition commands it. The messages
        reach the bus at least once, even if the process dies right after, or the sweep derives them from what was
        stored. Raises StaleRunError if a record that the transition changes is no longer at the version it was read
        with (0: it must not exist).
        """

    def admit(self, transition: Transition, limits: Limits) -> Run:
        """Commit the transition that admits a waiting run, and hold its quota from ``admitted_at`` on, as one step.

        Moves the organisation's turn on. Other waiting runs don't count against it. Raises StaleRunError,
        QuotaExceededError.
        """

    def queues(self, ended: Run | None = None) -> Sequence[Queue]:
        """Return the queues that have runs in them: all, or those that may get what the end of this run has freed.

        The caller has just committed that end.
        """

    def place(self, run: Run) -> Place | None:
        """Return the run's place in its organisation's queue, None if it does not wait."""

    def last_cost(self, org_slug: str, route: str) -> Decimal | None:
        """Return the cost in US dollars of the organisation's last run of the pipeline whose cost is known."""

    def holds(self, run_id: str, step: Step) -> bool:
        """Return whether the step's record is still at the version of ``step``."""

    def all_ended(self, run_id: str, step_ids: Collection[str]) -> bool:
        """Return whether each of these steps has a record that has ended, without reading the records one by one."""

    def due(self, now: datetime, limit: int) -> Sequence[str]:
        """Return the ids of runs that are due for the sweep: their ``wake_at`` or the deadline of a step has passed."""

    def active(self) -> Sequence[str]:
        """Return ids of the runs that the sweep still looks at, oldest first; all that have not ended are."""

    def history(self, query: HistoryQuery) -> RunPage:
        """Return one page of an organisation's runs, newest first.

        A page never shifts when new runs come in, and takes no longer when there are many. Raises RequestError for an
        invalid cursor.
        """

    def changes(self, run_id: str) -> Sequence[Change]:
        """Return the run's transitions in the order they were committed."""

    def usage(self, org_slug: str, now: datetime) -> Usage:
        """Return what counts against the organisation's limits at ``now``."""


PLANS_PAGE = 1_000
"""Organisations that are read at once: a page is a query of some 100 kB, and ten of them list ten thousand."""


class PlanLimits(Protocol):
    """The source of organisations' plans."""

    def limits(self, org_slug: str) -> Limits:
        """Return the organisation's limits; raise NotFoundError, or TransientError if they can't be read now."""

    def page(self, after: str = "", *, size: int = PLANS_PAGE) -> Sequence[tuple[str, Limits]]:
        """Return organisations with their limits, ``size`` at most, by their names in ASCII order, behind ``after``.

        All are listed, whatever their status. Fewer than ``size`` are the last ones. Raises TransientError.
        """


def all_organisations(plans: PlanLimits) -> Iterator[str]:
    """Yield the name of every organisation, in order, a page at a time. The one list that commands go through."""
    after = ""
    while page := plans.page(after):
        yield from (name for name, _ in page)
        if len(page) < PLANS_PAGE:
            return
        after = page[-1][0]
