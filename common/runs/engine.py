"""The engine: load the run, apply the event, commit what changed. Functions call it; it knows no HTTP and no cloud.

Every method may be called any number of times with the same arguments, in any order, by any number of processes:
an event that no longer applies to the run changes nothing.
"""

import logging
from collections.abc import Callable, Collection
from copy import replace
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from common.access.api_keys import Keys
from common.access.audit import Audit
from common.access.invokers import Invokers
from common.config.loader import ConfigTree
from common.domain import state
from common.domain.graph import map_of, spec_of, unlocked_by
from common.domain.messages import (
    AttemptClaimed,
    AttemptFailed,
    AttemptStopped,
    AttemptSucceeded,
    AttemptSuspended,
    CancelRequested,
    Event,
    JobsCost,
    MessageDied,
    OwnerLost,
    PreviewSettled,
    RunAnnounced,
    RunRejected,
    SettleReservation,
    SkipRequested,
    StepsEnded,
    Swept,
)
from common.domain.model import Estimate, Run, RunRequest, RunStatus, Step
from common.domain.state import STEP_ACCEPTS, Transition
from common.notify.notifications import Notifications
from common.platform.errors import (
    ConfigError,
    ConflictingStateError,
    LostLeaseError,
    NotFoundError,
    PipelineOpsError,
    RequestError,
    StaleRunError,
    TransientError,
    nearest,
)
from common.platform.logs import bound, logger
from common.platform.retry import FOR_A_RECORD, retried
from common.platform.settings import Settings
from common.ports.bus import EventBus
from common.ports.logs import RunLogs
from common.ports.meta import NoArchive, RunArchive
from common.ports.records import Records
from common.ports.secrets import Credentials
from common.ports.store import PlanLimits, RunStore
from common.runs.admit import Admission
from common.runs.attempt import AttemptRunner
from common.runs.cron import WORKERS, Cron, Result, watch
from common.runs.estimate import NO_COST, by_last_cost
from common.runs.log_lines import change_line
from common.runs.request import run_identity
from common.runs.topics import completed, finished, messages
from common.runs.validation import Validation

COMMIT_TRIES = 20
"""An event that loses this often is left to the redelivery of its message."""

SWEEP_LIMIT = 500
"""Bounds the time of one sweep; what is left over is still due in the next."""

NO_ARCHIVE = NoArchive()


@dataclass(frozen=True, slots=True)
class Engine:
    """All use cases of a run. ``owner`` names this process on the leases it takes.

    ``estimates`` returns a run's expected cost, given its resolved steps and the cost of its pipeline's last run.
    """

    settings: Settings
    store: RunStore
    bus: EventBus
    logs: RunLogs
    plans: PlanLimits
    records: Records
    credentials: Credentials
    audit: Audit
    invokers: Invokers
    keys: Keys
    notifications: Notifications
    configs: ConfigTree
    attempts: AttemptRunner
    now: Callable[[], datetime]
    owner: str
    archive: RunArchive = NO_ARCHIVE
    estimates: Callable[[Run, Decimal | None], Estimate] = by_last_cost

    def request_run(self, request: RunRequest) -> Run:
        """Reserve quota and store a new pending run in one transaction; return it.

        The run may be waiting in the queue (``RunRequest.queue``). A repeated request returns the run that it made
        before (``RunRequest.fingerprint``). Raises NotFoundError (organisation, pipeline or credential),
        ForbiddenPlanError, QuotaExceededError, ConflictingStateError.
        """
        admission = self._admission
        # Before any check: a repeat returns its run even when the quota is used up.
        known = admission.known(request)
        if known is not None:
            return known
        self.configs.find(request.route)
        limits = admission.limits(request.org_slug, request.route)
        if request.credential_id is not None:
            self._validation.named_credential(request)
        return admission.admit(state.create(request), limits)

    def default_days(self, route: str, today: date) -> tuple[date, date]:
        """Return the days of a run that is requested without dates (see ``Validation.days``)."""
        return self._validation.days(route, today)

    @property
    def _validation(self) -> Validation:
        return Validation(self.settings, self.configs, self.credentials)

    @property
    def _admission(self) -> Admission:
        return Admission(self.store, self.plans, self.configs, self.now, self._estimated, self._tell)

    def _estimated(self, run: Run) -> Estimate:
        """Return the expected cost of the steps that the run still has to do."""
        try:
            validated = self._validation.validated(run)
        except (ConfigError, RequestError):
            return NO_COST  # it will be rejected before it costs anything
        pipeline = validated.pipeline
        ahead = tuple(spec for spec in pipeline.steps if spec.step_id not in run.steps)
        last_usd = self.store.last_cost(run.request.org_slug, run.request.route)
        planned = replace(run, specs=ahead, pipeline_id=pipeline.pipeline_id, credential_id=validated.credential_id)
        return self.estimates(planned, last_usd)

    def rerun(
        self,
        old: Run,
        *,
        only: str | None,
        who: str,
        why: str,
        preview: bool = False,
        queue: bool = False,
        backfill: bool = False,
        idempotency_key: str | None = None,
    ) -> Run:
        """Store a new pending run that repeats an ended one and keeps what succeeded; return it. Takes quota like any.

        ``only`` names the single step to run. A ``preview`` runs everything and writes to shadow tables. The other
        arguments are those of a run request. Raises what ``request_run`` raises.
        """
        asked = ["rerun", old.run_id, only, preview, queue, backfill]
        run_id, fingerprint = run_identity(old.request.org_slug, idempotency_key, asked)
        request = replace(
            old.request,
            run_id=run_id,
            requested_at=self.now(),
            trigger="preview" if preview else "rerun",
            rerun_of=old.run_id,
            preview=preview,
            queue=queue,
            backfill=backfill,
            fingerprint=fingerprint,
        )
        known = self._admission.known(request)
        if known is not None:
            return known
        if old.request.preview:
            raise ConflictingStateError(f"Run {old.run_id} is a preview: run {old.request.rerun_of} again instead.")
        if not old.status.is_terminal:
            raise ConflictingStateError(f"Run {old.run_id} is {old.status}: cancel it, or wait for its end.")
        if not old.specs:
            raise ConflictingStateError(f"Run {old.run_id} never had a valid config: start a new run.")
        if only is not None:
            self._known_step(old, only)
        new = state.rerun(old, request, only, who=who, why=why)
        if not any(spec.step_id not in new.run.steps for spec in old.specs):
            raise ConflictingStateError(f"Every step of {old.run_id} succeeded: name one to run again, or start a run.")
        return self._admission.admit(new, self._admission.limits(request.org_slug, request.route))

    def settle_preview(self, run: Run, settled: PreviewSettled) -> Run:
        """Record that a preview was promoted or discarded; return it. Raises ConflictingStateError if it was before."""
        changed = self._apply(run.run_id, settled)
        if changed is None:
            raise ConflictingStateError(f"Run {run.run_id} is not a preview, or was promoted or discarded already.")
        return changed

    def cancel(self, run: Run, *, who: str, why: str) -> Run:
        """End the run, at once or as ``cancelling`` when its work has stopped; return it.

        Raises ConflictingStateError if it has ended.
        """
        cancelled = self._apply(run.run_id, CancelRequested(who, why))
        if cancelled is None:
            stored = self.store.load(run.run_id)
            if stored.status is RunStatus.CANCELLING:
                return stored  # a repeated request
            raise ConflictingStateError(f"Run {run.run_id} has ended already: there is nothing to cancel.")
        return cancelled

    def skip(self, run: Run, step_id: str, *, who: str, why: str) -> Run:
        """Skip a step whose turn has come, so that the run goes on; return the run. Raises ConflictingStateError.

        One that is at work is ``stopping`` until its attempt has ended; if its commit came first, it has succeeded.
        """
        step = self._known_step(run, step_id)
        skipped = self._apply(run.run_id, SkipRequested(step_id, who, why))
        if skipped is None:
            raise ConflictingStateError(
                f"Step {step_id} is {step.status} ({step.reason}) and can't be skipped: only one that is queued, "
                "running, retrying or suspended can."
            )
        return skipped

    @staticmethod
    def _known_step(run: Run, step_id: str) -> Step:
        step = run.step(step_id)
        if step is None:
            raise NotFoundError(f"Run {run.run_id} has no step {step_id!r}.{nearest(step_id, run.steps)}")
        return step

    def start_run(self, run_id: str) -> None:
        """Validate a pending run and queue its first steps, or end it with the validation error."""
        run = self.store.load(run_id, ())
        if run.status is not RunStatus.PENDING:
            return  # a redelivered message
        if run.specs:
            run = self.store.load(run_id)  # a rerun: some of its steps are kept
        try:
            event: Event = self._validation.validated(run)
        except (ConfigError, RequestError) as error:
            event = RunRejected(str(error))
        self._apply(run_id, event, view=run)

    def run_step(self, order: Run, step: Step) -> None:
        """Make or resume the current attempt of ``step``: claim its lease, do the work, publish the result.

        ``order`` is the run reduced to this step. Returns at once when the attempt can't be claimed (any more).
        Raises TransientError when it is not due yet, so that the message is redelivered.
        """
        run_id, step_id, attempt = order.run_id, step.step_id, step.attempt
        if step.not_before and self.now() < step.not_before:
            raise TransientError(f"Attempt {attempt} of {step_id} is due at {step.not_before.isoformat()}.")
        with bound(run=run_id, org=order.request.org_slug, step=step_id, attempt=attempt):
            claim = AttemptClaimed(step_id, attempt, self.owner)
            claimed = self._apply(run_id, claim, _parts(step_id), view=order.with_step(step))
            if claimed is None:
                logger.info("Not claimed: the attempt is already running or over")
                return
            ours = claimed.steps[step_id]
            if ours.spec is not step.spec:  # the claim reloaded it, with a spec in which the item is not filled in
                ours = replace(ours, spec=step.spec)
            try:
                result = self.attempts.run(order, ours, lambda: self.store.holds(run_id, ours))
            except LostLeaseError as error:
                logger.warning("%s Its result is dropped.", error)
                # A person may wait for exactly this (state.py, rule 5). To a later attempt it means nothing.
                self._apply(run_id, AttemptStopped(step_id, attempt), _parts(step_id))
                return
            if isinstance(result, AttemptSuspended):
                self._apply(run_id, result, _parts(step_id))
                return
            if isinstance(result, AttemptFailed):
                logger.error(result.error)
            try:
                self.bus.publish([completed(run_id, ours, result)])
            except TransientError as error:
                # Redelivery would not help: the claim is taken, so it would return at once, and the work that is done
                # would be repeated by a retry after the lease.
                logger.warning("The result could not be published and is applied directly: %s", error)
                self.advance(run_id, ours, result)

    def advance(self, run_id: str, step: Step, result: AttemptSucceeded | AttemptFailed) -> None:
        """Apply an attempt's result: unlock dependents, retry, or end the run."""
        base = map_of(step.step_id)
        run = self.store.load(run_id, (base[0],) if base else ())
        spec = spec_of(run, step.step_id)
        if spec is None or run.status.is_terminal:
            return
        view = run.with_step(replace(step, spec=spec))
        if self._apply(run_id, result, _parts(step.step_id), view=view) is None:
            # Applied before, by a delivery that may have died before it started the steps that depend on this one.
            self._apply(run_id, StepsEnded(unlocked_by(run, step.step_id)))

    def message_died(self, run_id: str, step_id: str, attempt: int, error: str) -> None:
        """End the step (or the run that never started) whose message became a dead letter."""
        self._apply(run_id, MessageDied(step_id, attempt, error))

    def run_finished(self, run_id: str) -> None:
        """Announce the end of a run: one structured log line for alerting, the archive, notifications.

        Archive and notifications do not wait for each other. Raises what they raise: the message is redelivered until
        both are done.
        """
        run = self.store.load(run_id, self.archive.parts)
        with bound(run=run_id, org=run.request.org_slug, route=run.request.route):
            failed = run.status is RunStatus.FAILED
            logger.log(40 if failed else 20, "Run %s%s", run.status, f": {run.error}" if failed else "")
            jobs: JobsCost | None = None
            not_kept: PipelineOpsError | None = None
            try:
                jobs = self.archive.keep(run, lambda: self.store.changes(run_id))
            except PipelineOpsError as error:
                not_kept = error  # raised last: a failing warehouse must not hold back the notifications
            self.notifications.tell(run, comes_back=not_kept is not None)
        if not_kept is not None:
            raise not_kept
        # Last: until this is stored the sweep repeats the announcement, so a crash above loses nothing.
        self._apply(run_id, RunAnnounced(jobs), (), view=run)

    def sweep(self) -> int:
        """Re-drive or end every overdue run, then admit waiting runs that have room; return how many were overdue.

        Safe to run concurrently."""
        swept = 0
        for run_id in self.store.due(self.now(), SWEEP_LIMIT):
            try:
                self._apply(run_id, Swept())
                swept += 1
            except Exception:
                # Whatever is wrong with one run, even a bug in its handling, must not stop the sweep for the others.
                logger.exception("Run %s could not be swept", run_id)
        for record, run_id in self.notifications.due():
            if run_id:
                self.bus.publish([finished(run_id)])
            self.notifications.seen(record)  # after publishing: a crash in between repeats the message
        self._admission.release()
        watch(self.records, self.now())
        return swept

    def tick(self) -> Result:
        """Start the runs that are due by their pipelines' schedules (``common/runs/cron.py``). Safe to run twice."""
        workers = 1 if self.settings.store == "sqlite" else WORKERS
        return Cron(
            self.records,
            self.plans,
            self.configs,
            self.credentials,
            self.request_run,
            self.default_days,
            self.now,
            self.settings.landing,
            workers,
        ).tick()

    def recover(self) -> int:
        """End the leases of all processes but this one, which are known to be dead; return how many runs had any.

        Only for a stack that is alone on its store, as the embedded one is when it starts.
        """
        touched = 0
        for run_id in self.store.active():
            run = self.store.load(run_id)
            at_work = (s for s in run.steps.values() if s.status in STEP_ACCEPTS[OwnerLost])
            owners = {s.owner for s in at_work if s.owner} - {self.owner}
            for owner in sorted(owners):
                self._apply(run_id, OwnerLost(owner))
            touched += bool(owners)
        return touched

    def _apply(
        self, run_id: str, event: Event, parts: Collection[str] | None = None, *, view: Run | None = None
    ) -> Run | None:
        """Apply the event; return the run if it changed, None if the event no longer applies.

        ``parts`` are the steps that the event needs (None: all). ``view`` is the run as the caller knows it: it is
        tried first, and the stored run only if it turns out to be stale. That saves a read.
        """
        untried = [] if view is None else [view]

        def once() -> tuple[Transition, Run | None]:
            run = untried.pop() if untried else self._reload(run_id, parts, view)
            transition = state.apply(run, event, self.now())
            return transition, self.store.commit(transition) if transition.writes else None

        try:
            transition, stored = retried(once, on=StaleRunError, backoff=FOR_A_RECORD, tries=COMMIT_TRIES)
        except StaleRunError:
            raise TransientError(f"Run {run_id} was changed by others {COMMIT_TRIES} times in a row.") from None
        if stored is None:
            # Nothing was written, so no commit has carried these messages (docs/decisions/0002).
            self.bus.publish(messages(transition.run, transition.commands))
            self._settle_ready(run_id, transition)
            return None
        self._tell(transition)
        self._settle_ready(run_id, transition)
        if any(isinstance(command, SettleReservation) for command in transition.commands):
            self._admission.release(stored)  # now, not at the next sweep: its slot is free
        return stored

    def _reload(self, run_id: str, parts: Collection[str] | None, view: Run | None) -> Run:
        """Load what the event needs. A step that still has no record is taken from ``view``."""
        run = self.store.load(run_id, parts)
        for step in view.steps.values() if view is not None and parts is not None else ():
            if step.version == 0 and step.step_id not in run.steps:
                run = run.with_step(step)
        return run

    def _settle_ready(self, run_id: str, transition: Transition) -> None:
        """Start or end what waited for several steps, if this step was the last of them.

        The loaded part of the run can't show that. Of the steps that finish together, at least one sees all ended,
        because each queries the store after its own end is committed; if several do, the later events change nothing.
        """
        for check in transition.ready_checks:
            if not check.needs or self.store.all_ended(run_id, check.needs):
                self._apply(run_id, StepsEnded((check.target,)))

    def _tell(self, transition: Transition) -> None:
        """Log what a committed transition changed."""
        if not logger.isEnabledFor(logging.INFO):
            return
        run = transition.run
        with bound(run=run.run_id, org=run.request.org_slug):
            for change in transition.changes:
                line = change_line(change)
                logger.log(40 if line.severity == "ERROR" else 20, line.message)


def _parts(step_id: str) -> tuple[str, ...]:
    """Return the steps that an event of this step needs: itself, and its map if it is an item."""
    base = map_of(step_id)
    return (step_id, base[0]) if base else (step_id,)
