"""How runs get their quota: at once, or out of the queue when there is room again. The engine's part of it.

``docs/limits.md`` says what the limits are, ``common/domain/queueing.py`` whose turn it is, and the store holds them.
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
"""Runs that one call lets out of the queue at most; the next sweep goes on."""


@dataclass(frozen=True, slots=True)
class Admission:
    """Takes quota for runs. ``estimate`` says what a run will cost, ``tell`` logs what a transition has changed."""

    store: RunStore
    plans: PlanLimits
    configs: ConfigTree
    now: Callable[[], datetime]
    estimate: Callable[[Run], Estimate]
    tell: Callable[[Transition], None]

    def limits(self, org_slug: str, route: str) -> Limits:
        """Return what a run of this organisation and pipeline is checked against.

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
        """Return the run that was made of this very request before, with the same Idempotency-Key.

        Raises ConflictingStateError if the key was used for something else.
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
                "Send what was sent then, or another key.",
                run_id=run.run_id,
            )
        return run

    def admit(self, new: Transition, limits: Limits) -> Run:
        """Hold quota for the new run and store it; or store it in the queue, if it asks for that and has to wait.

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
        # What was freed in between did not know of this run.
        self.release()
        return self.store.load(new.run.run_id, ())

    def _create(self, new: Transition, limits: Limits) -> Run:
        try:
            self.store.create(new, limits)
        except ConflictingStateError:
            known = self.known(new.run.request)
            if known is None:
                raise
            return known  # somebody asked for it with the same key at the same time
        self.tell(new)
        return new.run

    def release(self, ended: Run | None = None) -> int:
        """Let runs out of the queue as far as there is room, in their turn; return how many.

        ``ended`` is a run whose end has just made room. Safe to call at any time, by several processes at once; what
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
                    queues = self.store.queues(ended)
        except PipelineOpsError as error:
            logger.warning("Runs that wait are left to the sweep: %s", error)
        return admitted

    def _let_in(self, queue: Queue, head: Waiting) -> tuple[Block | None, bool]:
        """Admit one waiting run; return what keeps it waiting, if something does, and whether it was admitted."""
        org, now = queue.org_slug, self.now()
        run = self.store.load(head.run_id, ())
        try:
            limits = self.limits(org, head.route)
            admitted = state.apply(run, RunAdmitted(limits.global_concurrent is not None), now)
            if admitted.writes:  # else somebody was faster
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
            # Its organisation's trouble must not keep others waiting.
            logger.error("Run %s could not be let out of the queue: %s", head.run_id, error)
            return block("plan", org, head.route), False
        self._keep(run, kept)
        return block(kept.limit, org, head.route), False

    def _keep(self, run: Run, event: RunKeptWaiting) -> None:
        """Say what the run waits for by now."""
        kept = state.apply(run, event, self.now())
        if kept.writes:
            with suppress(StaleRunError):
                self.store.commit(kept)
                self.tell(kept)
