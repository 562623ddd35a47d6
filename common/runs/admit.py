"""Admission of runs: quota is taken at once, or later from the queue when there is room again.

``docs/limits.md`` describes the limits, ``common/domain/queueing.py`` decides whose turn it is, the store counts.
"""

from collections.abc import Callable
from contextlib import suppress
from copy import replace
from dataclasses import dataclass
from datetime import datetime

from common.config.loader import ConfigTree
from common.domain import state
from common.domain.messages import RunAdmitted, RunKeptWaiting
from common.domain.model import Estimate, Run, RunRequest
from common.domain.queueing import Block, Queue, Waiting, block, choose
from common.domain.quota import ADMITTED_STATUSES, SCOPES, Limits
from common.domain.state import Transition
from common.platform.errors import (
    ConflictingStateError,
    ForbiddenPlanError,
    NotFoundError,
    PipelineOpsError,
    QuotaExceededError,
    StaleRunError,
    limits_as_of,
)
from common.platform.logs import logger
from common.ports.store import PlanLimits, RunStore

RELEASE_LIMIT = 200
"""Runs that one call admits at most: the end of another run waits for it. The next sweep continues."""


@dataclass(frozen=True, slots=True)
class Admission:
    """Takes quota for runs. ``estimate`` returns a run's expected cost, ``tell`` logs a committed transition."""

    store: RunStore
    plans: PlanLimits
    configs: ConfigTree
    now: Callable[[], datetime]
    estimate: Callable[[Run], Estimate]
    tell: Callable[[Transition], None]

    def limits(self, org_slug: str, route: str) -> Limits:
        """Return the limits that a run of this organisation and pipeline is checked against.

        Raises NotFoundError, and ForbiddenPlanError if the subscription admits no runs.
        """
        limits = self.plans.limits(org_slug)
        if limits.status not in ADMITTED_STATUSES:
            raise ForbiddenPlanError(
                f"The subscription of {org_slug} is {limits.status}; runs need "
                f"{' or '.join(sorted(ADMITTED_STATUSES))}. Renew the subscription, then try again."
                f"{limits_as_of(limits.as_of)}"
            )
        return replace(limits, pipeline=self.configs.concurrency(route))

    def known(self, request: RunRequest) -> Run | None:
        """Return the run that an earlier request with the same Idempotency-Key made, None if there is none.

        Raises ConflictingStateError if the key was used for a different request.
        """
        if not request.fingerprint:
            return None
        try:
            run = self.store.load(request.run_id, ())
        except NotFoundError:
            return None
        if run.request.fingerprint != request.fingerprint:
            raise ConflictingStateError(
                f"This Idempotency-Key was used for another request, of run {run.run_id}. "
                "Send the same request again, or use another key.",
                run_id=run.run_id,
            )
        return run

    def admit(self, new: Transition, limits: Limits) -> Run:
        """Reserve quota for the new run and store it; if a slot is missing and the request may wait, store it queued.

        Raises QuotaExceededError.
        """
        estimate = None if limits.money_usd is None else self.estimate(new.run)
        shares = limits.global_concurrent is not None
        new = replace(new, run=replace(new.run, estimate=estimate, global_slot=shares))
        try:
            return self._create(new, limits)
        except QuotaExceededError as error:
            if not new.run.request.queue or error.limit not in SCOPES:
                raise
            waiting = state.waiting(new, error.limit, error.why)
        self._create(waiting, limits)
        # A slot freed since the refusal was offered before this run was in the queue. Without another pass, the run
        # would wait for the next sweep.
        self.release()
        return self.store.load(new.run.run_id, ())

    def _create(self, new: Transition, limits: Limits) -> Run:
        try:
            self.store.create(new, limits)
        except ConflictingStateError:
            known = self.known(new.run.request)
            if known is None:
                raise
            return known  # a concurrent request with the same key created it first
        self.tell(new)
        return new.run

    def release(self, ended: Run | None = None) -> int:
        """Admit waiting runs in turn while there is room; return how many.

        ``ended`` is a run whose end has just made room. Safe to call at any time, from several processes at once; what
        one leaves undone, or can't do, the next sweep does.
        """
        admitted = 0
        try:
            blocked: set[Block] = set()
            queues = self.store.queues(ended)
            for _ in range(RELEASE_LIMIT):
                chosen = choose(queues, blocked)
                if chosen is None:
                    break
                full, let_in = self._let_in(*chosen)
                admitted += let_in
                if full is not None:
                    blocked.add(full)
                else:
                    # An admission, ours or another process's, changes turns and who is next.
                    queues = self.store.queues(ended)
        except PipelineOpsError as error:
            logger.warning("Waiting runs can't be admitted now, the next sweep tries again: %s", error)
        return admitted

    def _let_in(self, queue: Queue, head: Waiting) -> tuple[Block | None, bool]:
        """Admit one waiting run; return what keeps it waiting, if anything, and whether it was admitted."""
        org, now = queue.org_slug, self.now()
        run = self.store.load(head.run_id, ())
        try:
            limits = self.limits(org, head.route)
            admitted = state.apply(run, RunAdmitted(limits.global_concurrent is not None), now)
            if admitted.writes:  # else another process was faster
                self.store.admit(admitted, limits)
                self.tell(admitted)
            return None, admitted.writes
        except StaleRunError:
            return None, False
        except QuotaExceededError as error:
            kept = RunKeptWaiting(error.limit, error.why)
        except (ForbiddenPlanError, NotFoundError) as error:
            kept = RunKeptWaiting("plan", str(error))
        except PipelineOpsError as error:
            # One organisation's broken plan or config must not keep the others waiting.
            logger.error("Run %s could not be admitted from the queue: %s", head.run_id, error)
            return block("plan", org, head.route), False
        self._keep(run, kept)
        return block(kept.limit, org, head.route), False

    def _keep(self, run: Run, event: RunKeptWaiting) -> None:
        """Record which limit the run waits for now."""
        kept = state.apply(run, event, self.now())
        if kept.writes:
            with suppress(StaleRunError):  # it was admitted or ended meanwhile, and waits for nothing
                self.store.commit(kept)
                self.tell(kept)
