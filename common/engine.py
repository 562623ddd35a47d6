"""The engine: load the run, apply the event, commit what changed. Functions call it; it knows no HTTP and no cloud.

Every method may be called any number of times with the same arguments, in any order, by any number of processes:
what no longer concerns the run changes nothing.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from common.attempt import AttemptRunner
from common.config.loader import ConfigTree
from common.domain import transitions
from common.domain.events import (
    AttemptClaimed,
    AttemptFailed,
    AttemptSucceeded,
    Event,
    OwnerLost,
    RunRejected,
    RunValidated,
    Swept,
    ValidationStarted,
)
from common.domain.model import NO_CREDENTIAL, Pipeline, Run, RunRequest, RunStatus, StepStatus
from common.domain.quota import ADMITTED_STATUSES
from common.domain.transitions import Change, Transition
from common.errors import (
    ConfigError,
    ForbiddenPlanError,
    LostLeaseError,
    NotFoundError,
    RequestError,
    StaleRunError,
    TransientError,
    nearest,
)
from common.logs import bound, logger
from common.ports import Credentials, EventBus, LogLine, PlanLimits, RunLogs, RunStore
from common.processors.registry import processor
from common.settings import Settings
from common.topics import completed, messages

COMMIT_TRIES = 20
SWEEP_LIMIT = 500


@dataclass(frozen=True, slots=True)
class Engine:
    """All use cases of a run. ``owner`` names this process on the leases it takes."""

    settings: Settings
    store: RunStore
    bus: EventBus
    logs: RunLogs
    plans: PlanLimits
    credentials: Credentials
    configs: ConfigTree
    attempts: AttemptRunner
    now: Callable[[], datetime]
    owner: str

    def request_run(self, request: RunRequest) -> Run:
        """Hold quota and store a new pending run, all in one transaction; return it.

        Raises NotFoundError (organisation, pipeline or credential), ForbiddenPlanError, QuotaExceededError.
        """
        self.configs.find(request.route)
        limits = self.plans.limits(request.org_slug)
        if limits.status not in ADMITTED_STATUSES:
            raise ForbiddenPlanError(
                f"The subscription of {request.org_slug} is {limits.status}; runs need "
                f"{' or '.join(sorted(ADMITTED_STATUSES))}. Renew the subscription, then try again."
            )
        if request.credential_id is not None:
            self._check_credential(request)
        new = transitions.create(request)
        with bound(run=request.run_id, org=request.org_slug):
            self.store.create(new, messages(new.commands), limits)
            self._tell(new)
        return new.run

    def start_run(self, run_id: str) -> None:
        """Validate a pending run and queue its first steps, or end it with what is wrong."""
        run = self._apply(run_id, ValidationStarted())
        if run.status is not RunStatus.VALIDATING:
            return
        try:
            event: Event = self._validated(run)
        except (ConfigError, RequestError) as error:
            event = RunRejected(str(error))
        self._apply(run_id, event)

    def run_step(self, run_id: str, step_id: str, attempt: int) -> None:
        """Make one attempt: claim its lease, do the work, publish the result.

        Returns at once when the attempt is not (or no longer) there to be taken. Raises TransientError when it is
        not due yet, so that the message comes back.
        """
        run = self.store.load(run_id)
        step = run.step(step_id)
        if step and step.attempt == attempt and step.not_before and self.now() < step.not_before:
            raise TransientError(f"Attempt {attempt} of {step_id} is due at {step.not_before.isoformat()}.")
        with bound(run=run_id, org=run.request.org_slug, step=step_id, attempt=attempt):
            claim = AttemptClaimed(step_id, attempt, self.owner)
            claimed = self._apply_once(run_id, claim)
            if claimed is None:
                logger.info("Not taken: the attempt is already at work or over")
                return
            step = claimed.step(step_id)
            assert step is not None
            try:
                result = self.attempts.run(claimed, step, lambda: self._owns(run_id, step_id, attempt))
            except LostLeaseError as error:
                logger.warning("%s Its result is dropped.", error)
                return
            if isinstance(result, AttemptFailed):
                self._log(run_id, LogLine(self.now(), "ERROR", result.error, step_id, attempt))
            self.bus.publish([completed(run_id, result)])

    def advance(self, run_id: str, result: AttemptSucceeded | AttemptFailed) -> None:
        """Apply an attempt's result: unlock dependents, retry, or end the run."""
        self._apply(run_id, result)

    def run_finished(self, run_id: str) -> None:
        """Tell that a run has ended: one structured line that alerting can be built on."""
        run = self.store.load(run_id)
        rows = sum(s.receipt.rows for s in run.steps)
        with bound(run=run_id, org=run.request.org_slug, route=run.request.route, rows=rows):
            failed = run.status is RunStatus.FAILED
            logger.log(40 if failed else 20, "Run %s%s", run.status, f": {run.error}" if failed else "")

    def sweep(self) -> int:
        """Re-drive or end every run that is past a deadline; return how many were. Safe to run twice at once."""
        swept = 0
        for run_id in self.store.due(self.now(), SWEEP_LIMIT):
            self._apply(run_id, Swept())
            swept += 1
        return swept

    def recover(self) -> int:
        """Give up the leases of processes that are known to be dead: all but this one. Returns the runs touched.

        Only for a stack that knows it is alone on its store, as the embedded one does when it starts.
        """
        touched = 0
        for run_id in self.store.active():
            run = self.store.load(run_id)
            owners = {s.owner for s in run.steps if s.status is StepStatus.RUNNING} - {self.owner}
            for owner in sorted(owners):
                self._apply(run_id, OwnerLost(owner))
            touched += bool(owners)
        return touched

    def _validated(self, run: Run) -> RunValidated:
        """Read, resolve and check the config as the run will use it from now on."""
        request = run.request
        file = self.configs.load(request.route)
        needs = any(processor(step.ps_type).needs_credential for step in file.config.steps)
        credential_id = self._credential(request, file.config.provider) if needs else NO_CREDENTIAL
        pipeline: Pipeline = self.configs.resolve(
            file,
            {
                "org_slug": request.org_slug,
                "project_id": self.settings.project_id,
                "org_dataset": self.settings.dataset(request.org_slug),
                "start_date": request.start_date.isoformat(),
                "end_date": request.end_date.isoformat(),
                "credential_id": credential_id,
                "pipeline_id": file.config.pipeline_id,
                "run_id": run.run_id,
            },
        )
        return RunValidated(pipeline, credential_id)

    def _credential(self, request: RunRequest, provider: str) -> str:
        """Return the run's credential: the one it names, else the only one there is for the provider."""
        if request.credential_id is not None:
            return self._check_credential(request, provider)
        found = [c.credential_id for c in self.credentials.list(request.org_slug) if c.provider == provider]
        if len(found) == 1:
            return found[0]
        if not found:
            raise ConfigError(
                f"{request.org_slug} has no credential for {provider}. "
                f"Add one: main.py credentials add {request.org_slug} {provider}"
            )
        raise ConfigError(
            f"{request.org_slug} has {len(found)} credentials for {provider} ({', '.join(found)}): "
            "name one of them as credential_id."
        )

    def _check_credential(self, request: RunRequest, provider: str | None = None) -> str:
        assert request.credential_id is not None
        known = {c.credential_id: c.provider for c in self.credentials.list(request.org_slug)}
        if request.credential_id not in known:
            raise NotFoundError(
                f"{request.org_slug} has no credential {request.credential_id!r}."
                f"{nearest(request.credential_id, known)} See: main.py credentials list {request.org_slug}"
            )
        found = known[request.credential_id]
        if provider is not None and found != provider:
            raise ConfigError(f"Credential {request.credential_id!r} is for {found}, the pipeline needs {provider}.")
        return request.credential_id

    def _owns(self, run_id: str, step_id: str, attempt: int) -> bool:
        """Whether the attempt still holds its step: no attempt number is ever claimed twice."""
        step = self.store.load(run_id).step(step_id)
        return step is not None and step.status is StepStatus.RUNNING and step.attempt == attempt

    def _apply_once(self, run_id: str, event: Event) -> Run | None:
        """Apply the event; return the run if that changed it, None if it no longer concerns it."""
        for tried in range(COMMIT_TRIES):
            transition = transitions.apply(self.store.load(run_id), event, self.now())
            if not transition.changes:
                return None
            try:
                self.store.commit(transition, messages(transition.commands))
            except StaleRunError:
                time.sleep(random.uniform(0, 0.002 * 2 ** min(tried, 7)))
                continue
            self._tell(transition)
            return transition.run
        raise TransientError(f"Run {run_id} was changed by others {COMMIT_TRIES} times in a row.")

    def _apply(self, run_id: str, event: Event) -> Run:
        changed = self._apply_once(run_id, event)
        return self.store.load(run_id) if changed is None else changed

    def _tell(self, transition: Transition) -> None:
        """Log what a committed transition changed."""
        run = transition.run
        for change in transition.changes:
            severity, text = _describe(change)
            with bound(run=run.run_id, org=run.request.org_slug):
                logger.log(40 if severity == "ERROR" else 20, text)
            self.logs.append(run.run_id, LogLine(change.at, severity, text, change.step_id, change.attempt))

    def _log(self, run_id: str, line: LogLine) -> None:
        logger.error(line.message)
        self.logs.append(run_id, line)


def _describe(change: Change) -> tuple[str, str]:
    subject = f"step {change.step_id}" if change.step_id else "run"
    moved = change.after if change.before in ("", change.after) else f"{change.before} → {change.after}"
    return ("ERROR" if change.after == "failed" else "INFO"), f"{subject} {moved}: {change.reason}"
