"""One attempt of one step: its processor yields rows, its writer commits them.

Nothing here touches the run's state. The engine claims the attempt before it and reports its result after it.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from common.config.params import read_params
from common.domain.messages import AttemptFailed, AttemptSucceeded, AttemptSuspended
from common.domain.model import MAX_JOB_IDS, ErrorKind, Receipt, Run, Staged, Step
from common.platform.errors import (
    ConfigError,
    LostLeaseError,
    PermanentError,
    PipelineOpsError,
    RequestError,
    TransientError,
)
from common.platform.logs import logger
from common.platform.redaction import hide, hiding, scrubbed, scrubbed_data
from common.platform.settings import Settings
from common.platform.stop import Stop
from common.platform.time_limit import limited
from common.ports.google import GoogleCloud
from common.ports.logs import LogLine, RunLogs
from common.ports.secrets import Credentials
from common.ports.warehouse import Warehouse
from common.processors.base import Processor, StepContext, no_google
from common.processors.registry import processor
from common.runs.lease_watch import WATCH
from common.tables.contract import Table, load_table, preview_name
from common.writes.batch import Batch, Waiting
from common.writes.parts import PartRead, WholeDelivery
from common.writes.writer import Suspended, Writer

PREVIEW_LIFETIME = timedelta(days=7)
"""How long a preview may wait to be promoted or discarded, until BigQuery deletes its tables."""

MAX_ERROR_CHARS = 2_000
MAX_OUTPUT_CHARS = 100_000
MAX_WARNINGS = 50
MAX_WARNING_CHARS = 1_000
MAX_LINE_CHARS = 20_000
"""With these bounds a step's record and a line of its log stay far below a document's 1 MiB in Firestore."""

"""Both are kept in the step's record, and a Firestore document holds at most 1 MiB."""

Result = AttemptSucceeded | AttemptFailed | AttemptSuspended


@dataclass(frozen=True, slots=True)
class AttemptRunner:
    """Runs attempts. ``warehouse`` is called on first use, because most functions need none.

    ``sleep`` replaces the pause between two calls of a provider, which otherwise ends when the attempt has to.
    """

    settings: Settings
    warehouse: Callable[[], Warehouse]
    credentials: Credentials
    logs: RunLogs
    now: Callable[[], datetime]
    provider_url: Callable[[str], str]
    sleep: Callable[[float], None] | None = None
    google: Callable[[], GoogleCloud] = no_google

    def run(self, run: Run, step: Step, still_ours: Callable[[], bool]) -> Result:
        """Do the attempt and return how it ended. Raises LostLeaseError if it no longer owns its step."""
        with hiding():
            return self._run(run, step, still_ours)

    def _run(self, run: Run, step: Step, still_ours: Callable[[], bool]) -> Result:
        spec, attempt = step.spec, step.attempt
        try:
            with WATCH.watching(still_ours) as stop:
                work = _Attempt(self, run, step, still_ours, stop)
                receipt = limited(work.receipt, spec.timeout_seconds, spec.step_id, stop)
        except LostLeaseError:
            raise  # the step belongs to a later attempt now, so this one has no result to report
        except Suspended as suspended:
            waiting = suspended.waiting
            staged = suspended.staged and work.staged(suspended.staged)
            return AttemptSuspended(spec.step_id, attempt, waiting.job, waiting.look_at, suspended.reason, staged)
        except TransientError as error:
            return AttemptFailed(spec.step_id, attempt, _text(error), error.kind, error.retry_after_s)
        except (PermanentError, ConfigError, RequestError) as error:
            return AttemptFailed(spec.step_id, attempt, _text(error))
        except Exception as error:
            logger.exception("The processor %s raised an error that it does not declare", spec.ps_type)
            return AttemptFailed(spec.step_id, attempt, _unexpected(error), ErrorKind.UNEXPECTED)
        return AttemptSucceeded(spec.step_id, attempt, receipt)


class _Attempt:
    """The parts of one attempt, in the order they happen."""

    def __init__(self, runner: AttemptRunner, run: Run, step: Step, still_ours: Callable[[], bool], stop: Stop) -> None:
        self._runner, self._run, self._step, self._still_ours, self._stop = runner, run, step, still_ours, stop
        self._warnings: list[str] = []
        self._warned = 0
        self._outputs: dict[str, Any] = {}
        self._jobs: dict[str, None] = {}
        org = run.request.org_slug
        self._dataset = f"{runner.settings.project_id}.{runner.settings.dataset(org)}"
        self._deadline = runner.now() + timedelta(seconds=step.spec.timeout_seconds)

    @cached_property
    def _warehouse(self) -> Warehouse:
        """The warehouse of this attempt: labels its jobs and collects their ids for the receipt."""
        run = self._run
        labels = {
            "org": run.request.org_slug,
            "pipeline": run.pipeline_id,
            "run": run.run_id,
            "step": self._step.step_id,
        }
        return self._runner.warehouse().labelled(labels, lambda job_id: self._jobs.setdefault(job_id))

    def receipt(self) -> Receipt:
        work = processor(self._step.spec.ps_type)
        params = read_params(work.params_type, self._step.spec.config, self._runner.settings.configs)
        # A part of a delivery is staged for a table that another step writes.
        name: str | None = getattr(params, "destination_table", None) or getattr(params, "staged_for", None)
        if name is None:
            for batch in self._batches(work, self._context(), params):
                if not isinstance(batch, Batch) or batch.count:
                    raise PermanentError("The processor yielded rows, but the step has no destination_table.")
            return self._completed(Receipt())
        table = load_table(self._runner.settings.configs, name)
        request = self._run.request
        target = f"{self._dataset}.{preview_name(name, request.run_id) if request.preview else name}"
        written = self._write(work, params, table, target)
        if request.preview:
            self._warehouse.tables.expire(target, self._runner.now() + PREVIEW_LIFETIME)
        return self._completed(written)

    def _table(self, name: str) -> str:
        """Return the full id of a table to read: in a preview its shadow, if an earlier step has written one."""
        request = self._run.request
        if request.preview:
            shadow = f"{self._dataset}.{preview_name(name, request.run_id)}"
            if self._warehouse.tables.find(shadow) is not None:
                return shadow
        return f"{self._dataset}.{name}"

    def staged(self, staged: Staged) -> Staged:
        """Return what is staged with the attempt's job ids, warnings and outputs so far."""
        return replace(staged, receipt=self._completed(staged.receipt))

    def _go_on_from(self, receipt: Receipt) -> None:
        """Take up the job ids, warnings and outputs of before the wait."""
        self._jobs = dict.fromkeys(receipt.job_ids)
        self._warnings, self._warned = list(receipt.warnings), len(receipt.warnings)
        self._outputs = dict(receipt.outputs)

    def _completed(self, receipt: Receipt) -> Receipt:
        """Return the receipt with the attempt's job ids, warnings and outputs."""
        jobs = list(self._jobs)
        if len(jobs) > MAX_JOB_IDS:
            self._warn(f"{len(jobs) - MAX_JOB_IDS} more jobs than the {MAX_JOB_IDS} of the receipt were run.")
        if self._warned > MAX_WARNINGS:
            self._warnings.append(f"{self._warned - MAX_WARNINGS} more warnings are in the log of the run.")
        return replace(
            receipt, job_ids=tuple(jobs[:MAX_JOB_IDS]), warnings=tuple(self._warnings), outputs=self._outputs
        )

    @staticmethod
    def _batches(work: Processor, context: StepContext, params: Any) -> Iterator[Batch | PartRead | WholeDelivery]:
        rows = 0
        for batch in work.run(context, params):
            if isinstance(batch, Waiting):
                if rows:
                    raise PermanentError("The processor waits for a job after it gave rows: they would be lost.")
                raise Suspended(batch)
            context.remaining_s()  # raises when the time is up, between batches
            rows += batch.count if isinstance(batch, Batch) else 0
            yield batch

    def _write(self, work: Processor, params: Any, table: Table, target: str) -> Receipt:
        settings, run_id = self._runner.settings, self._run.run_id
        writer = Writer(
            run=self._run,
            step=self._step,
            warehouse=self._warehouse,
            target=target,
            table=table,
            diff_file=settings.run_logs / run_id / "schema_diff.json",
            now=self._runner.now,
            warn=self._warn,
            info=lambda text: self._log("INFO", text),
            stop=self._stop,
        )
        if self._step.staged is not None:
            self._go_on_from(self._step.staged.receipt)
            return writer.resume(self._step.staged, self._seconds_left)
        return writer.write(lambda staging: self._batches(work, self._context(staging), params), self._seconds_left)

    def _seconds_left(self) -> float:
        left = self._context().remaining_s()
        # Checked before each write: rows take long to fetch, and a later attempt may have claimed the step since.
        if not self._still_ours():
            raise LostLeaseError(f"Attempt {self._step.attempt} of {self._step.spec.step_id} was superseded.")
        return left

    def _context(self, staging: Callable[[], str] = str) -> StepContext:
        runner, run, request = self._runner, self._run, self._run.request
        return StepContext(
            org_slug=request.org_slug,
            pipeline_id=run.pipeline_id,
            credential_id=run.credential_id,
            run_id=run.run_id,
            step_id=self._step.spec.step_id,
            attempt=self._step.attempt,
            start_date=request.start_date,
            end_date=request.end_date,
            source=request.source,
            project_id=runner.settings.project_id,
            dataset=self._dataset,
            configs=runner.settings.configs,
            table=self._table,
            preview=request.preview,
            staging=staging,
            landing=runner.settings.landing / request.org_slug,
            deadline=self._deadline,
            warehouse=self._warehouse,
            provider_url=runner.provider_url,
            secret=self._secret,
            info=lambda text: self._log("INFO", text),
            warn=self._warn,
            put_out=self._put_out,
            sleep=runner.sleep or self._stop.sleep,
            stop=self._stop,
            now=runner.now,
            waiting_on=self._step.waits_on,
            google=runner.google,
        )

    def _secret(self) -> str:
        """Decrypt the run's credential; from now on it is redacted from the attempt's logs, errors and outputs."""
        secret = self._runner.credentials.secret(self._run.request.org_slug, self._run.credential_id)
        hide(secret)
        return secret

    def _put_out(self, name: str, value: Any) -> None:
        outputs = {**self._outputs, name: value}
        try:
            text = json.dumps(outputs, allow_nan=False)  # NaN is not JSON: stores and messages would refuse it
        except (TypeError, ValueError, RecursionError) as error:
            raise PermanentError(f"Output {name!r} is not a JSON value: {type(error).__name__}.") from error
        if len(text) > MAX_OUTPUT_CHARS:
            raise PermanentError(f"The step's outputs have {len(text)} characters, the limit is {MAX_OUTPUT_CHARS}.")
        self._outputs = scrubbed_data(json.loads(text))

    def _warn(self, text: str) -> None:
        self._warned += 1
        if self._warned <= MAX_WARNINGS:
            self._warnings.append(_cut(scrubbed(text), MAX_WARNING_CHARS))
        self._log("WARNING", text)

    def _log(self, severity: str, text: str) -> None:
        text = _cut(scrubbed(text), MAX_LINE_CHARS)
        logger.log({"INFO": 20, "WARNING": 30}[severity], text)
        line = LogLine(self._runner.now(), severity, text, self._step.spec.step_id, self._step.attempt)
        self._runner.logs.append(self._run.run_id, line)


def _text(error: PipelineOpsError) -> str:
    return _cut(scrubbed(str(error)), MAX_ERROR_CHARS)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most] + " …"


def _unexpected(error: Exception) -> str:
    """Name an undeclared error by its type only: its text may contain a secret."""
    return (
        f"The processor ended with an unexpected {type(error).__name__}. "
        "Its stack trace is in the function's log; please report it."
    )
