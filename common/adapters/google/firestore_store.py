"""The run store port on Firestore, in the cloud and on Google's emulator of it.

A transition is one atomic batch that compares the update time of each document that it changes, and of no other. Its
messages are published after it, because Firestore and Pub/Sub share no transaction: see ``_publish``.
"""

import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from itertools import batched
from typing import Any

from common.adapters.cursor import decode_cursor, encode_cursor
from common.adapters.google.firestore_client import (
    PATIENCE_S,
    Firestore,
    NotAppliedError,
    Operations,
    unchanged_since,
    version,
    where,
)
from common.adapters.google.firestore_documents import (
    change_entries,
    fixed_run_fields,
    read_changes,
    read_run,
    read_steps,
    run_fields,
    step_fields,
)
from common.adapters.google.firestore_limits import MAX_IN
from common.adapters.google.firestore_quota import Fill, FirestoreQuota
from common.domain.graph import whole
from common.domain.model import ErrorKind, Run, Step
from common.domain.queueing import Place, Queue
from common.domain.quota import Limits, Usage
from common.domain.state import Change, Transition
from common.platform.errors import (
    ConflictingStateError,
    NotFoundError,
    PipelineOpsError,
    QuotaExceededError,
    StaleRunError,
    TransientError,
)
from common.platform.logs import logger
from common.platform.retry import Backoff, countdown, retried
from common.ports.bus import EventBus
from common.ports.store import HistoryQuery, RunPage
from common.runs.topics import messages

# All admissions of an organisation compare-and-set one document, so many at once each lose many times; short pauses,
# because every round has a winner. ``PATIENCE_S`` bounds the whole.
ADMIT_TRIES = 60
ADMIT_BACKOFF = Backoff(0.1, 0.25)
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class FirestoreRunStore:
    """Stores runs in a project's default database; ``operations`` counts what is billed."""

    def __init__(
        self,
        project_id: str,
        bus: EventBus,
        emulator_host: str | None = None,
        operations: Operations | None = None,
    ) -> None:
        self._firestore = Firestore(project_id, emulator_host, operations)
        self._quota = FirestoreQuota(self._firestore)
        self._bus = bus

    def create(self, new: Transition, limits: Limits) -> None:
        run, commit, entries = new.run, uuid.uuid4().hex, change_entries(new)
        run_ref = self._run(run.run_id)

        def fill(batch: Any) -> None:
            changes = entries.get("", [])
            batch.create(run_ref, {**fixed_run_fields(run), **run_fields(run, commit), "changes": changes})
            for step_id in new.touched:
                self._fill_step(batch, run.run_id, run.steps[step_id], entries.get(step_id, []), commit)

        def exists() -> None:
            if self._firestore.get(run_ref, fields=["__name__"]):
                raise ConflictingStateError(f"There is a run {run.run_id!r} already.")

        def take() -> Fill:
            return self._quota.enqueue(run) if run.waits_for else self._quota.hold(run, limits, waited=False)

        self._write_with(take, fill, lambda: self._made_by(commit, [run_ref]), exists)
        try:
            self._publish(run, new)
        except PipelineOpsError as error:
            # The run is stored and holds its slot. If this raised, the caller would request a second one.
            logger.warning("Run %s is stored, its message is left to the sweep: %s", run.run_id, error)

    def _write_with(
        self, take: Callable[[], Fill], fill: Fill, applied: Callable[[], int | None], check: Callable[[], None]
    ) -> int:
        """Write ``fill`` together with the quota, or the place in the queue, that ``take`` returns; return the version.

        ``check`` raises what is wrong with the run itself. It is called before a limit is reported, and when the batch
        was refused. If it raises nothing, another run of the organisation was admitted or ended meanwhile: try again.
        """

        def once() -> int:
            try:
                taking = take()
            except QuotaExceededError:
                check()
                raise

            def both(batch: Any) -> None:
                fill(batch)
                taking(batch)

            try:
                return self._firestore.write(both, applied)
            except NotAppliedError:
                check()
                raise

        left_s = countdown(PATIENCE_S)
        try:
            return retried(once, on=NotAppliedError, backoff=ADMIT_BACKOFF, tries=ADMIT_TRIES, left_s=left_s)
        except NotAppliedError as error:
            message = "Too many runs are requesting this quota at once. Try again."
            raise TransientError(message, retry_after_s=1.0, kind=ErrorKind.CONFLICT) from error

    def admit(self, transition: Transition, limits: Limits) -> Run:
        run, commit, entries = transition.run, uuid.uuid4().hex, change_entries(transition)
        run_ref = self._run(run.run_id)

        def fill(batch: Any) -> None:
            self._fill_run(batch, run, entries.get("", []), commit)
            self._quota.leave(batch, run, transition, limits)

        def stale() -> None:
            snapshots = self._firestore.get(run_ref, fields=["__name__"]).values()
            if not any(version(one.update_time) == run.version for one in snapshots):
                raise StaleRunError(f"Run {run.run_id} has changed since it was read.")

        def take() -> Fill:
            return self._quota.hold(run, limits, waited=True)

        made = self._write_with(take, fill, lambda: self._made_by(commit, [run_ref]), stale)
        stored = replace(run, version=made)
        self._publish(stored, transition)
        return stored

    def load(self, run_id: str, step_ids: Collection[str] | None = None) -> Run:
        run_ref = self._run(run_id)
        wanted = [self._step(run_id, step_id) for step_id in dict.fromkeys(step_ids or ())]
        snapshots = self._firestore.get(run_ref, *wanted)
        stored = snapshots.pop(run_ref.path, None)
        if stored is None:
            raise NotFoundError(f"There is no run {run_id!r}.")
        run = read_run(stored)
        if step_ids is None:
            return whole(run, read_steps(run, self._firestore.query(self._steps(run_id))))
        return replace(run, steps=read_steps(run, snapshots.values()))

    def commit(self, transition: Transition) -> Run:
        stored = self._stored(transition) if transition.writes else transition.run
        self._publish(stored, transition)
        return stored

    def _stored(self, transition: Transition) -> Run:
        run, commit, entries = transition.run, uuid.uuid4().hex, change_entries(transition)
        touched = [run.steps[step_id] for step_id in transition.touched]
        run_ref = self._run(run.run_id)
        note_results: list[Callable[[Sequence[Any]], None]] = []

        def fill(batch: Any) -> None:
            if transition.header:
                self._fill_run(batch, run, entries.get("", []), commit)
            for step in touched:
                self._fill_step(batch, run.run_id, step, entries.get(step.step_id, []), commit)
            note_results[:] = [self._quota.carry_out(batch, transition)]

        references = [run_ref] * transition.header + [self._step(run.run_id, step.step_id) for step in touched]
        try:
            made = self._firestore.write(
                fill, lambda: self._made_by(commit, references), lambda results: note_results[0](results)
            )
        except NotAppliedError as error:
            raise StaleRunError(f"Run {run.run_id} has changed since it was read: {error}") from error
        steps = {**run.steps, **{step.step_id: replace(step, version=made) for step in touched}}
        return replace(run, steps=steps, version=made if transition.header else run.version)

    def _fill_run(self, batch: Any, run: Run, entries: list[str], commit: str) -> None:
        fields = {**run_fields(run, commit), **_appended(entries)}
        batch.update(self._run(run.run_id), fields, option=unchanged_since(run.version))

    def _fill_step(self, batch: Any, run_id: str, step: Step, entries: list[str], commit: str) -> None:
        reference, fields = self._step(run_id, step.step_id), step_fields(run_id, step, commit)
        if step.version == 0:
            batch.create(reference, {**fields, "changes": entries})
        else:
            batch.update(reference, {**fields, **_appended(entries)}, option=unchanged_since(step.version))

    def _made_by(self, commit: str, references: Sequence[Any]) -> int | None:
        """Return the version that this commit made, None if it was not applied.

        One document is enough, because the batch is atomic; another may have been changed again since.
        """
        snapshots = self._firestore.get(*references, fields=["commit"]).values()
        return next((version(one.update_time) for one in snapshots if one.get("commit") == commit), None)

    def _publish(self, stored: Run, transition: Transition) -> None:
        """Publish the messages that the stored transition commands.

        An error is raised although the transition is stored: the message that caused it is then redelivered, and an
        event that was already applied sends its messages again. If nothing is redelivered, or the process dies here,
        the sweep derives the messages from the stored state.
        """
        self._bus.publish(messages(stored, transition.commands))

    def holds(self, run_id: str, step: Step) -> bool:
        snapshots = self._firestore.get(self._step(run_id, step.step_id), fields=["__name__"]).values()
        return any(version(one.update_time) == step.version for one in snapshots)

    def all_ended(self, run_id: str, step_ids: Collection[str]) -> bool:
        wanted = set(step_ids)
        ended = where(self._steps(run_id), "ended", "==", True)
        # With many steps, some are open at most calls: one count shows that, instead of one for each thirty steps.
        if len(wanted) > MAX_IN and self._firestore.count(ended) < len(wanted):
            return False
        return all(
            self._firestore.count(where(ended, "step_id", "in", list(some))) == len(some)
            for some in batched(sorted(wanted), MAX_IN, strict=False)
        )

    def due(self, now: datetime, limit: int) -> Sequence[str]:
        runs = where(self._firestore.collection("runs"), "wake_at", "<=", now).order_by("wake_at")
        steps = where(self._firestore.group("steps"), "deadline", "<=", now).order_by("deadline")
        due = [(one.get("wake_at"), one.id) for one in self._firestore.query(runs.select(["wake_at"]).limit(limit))]
        late = self._firestore.query(steps.select(["run_id", "deadline"]).limit(limit))
        due += [(one.get("deadline"), one.get("run_id")) for one in late]
        return list(dict.fromkeys(run_id for _, run_id in sorted(due)))[:limit]

    def active(self) -> Sequence[str]:
        # An ended run's wake_at is null, which no comparison matches. Sorting here saves a composite index.
        awake = where(self._firestore.collection("runs"), "wake_at", ">", LONG_AGO)
        snapshots = self._firestore.query(awake.select(["requested_at"]))
        return [one.id for one in sorted(snapshots, key=lambda one: (one.get("requested_at"), one.id))]

    def history(self, query: HistoryQuery) -> RunPage:
        after = None if query.cursor is None else decode_cursor(query.cursor)
        runs = where(self._firestore.collection("runs"), "org_slug", "==", query.org_slug)
        for field, value in (("route", query.route), ("status", query.status)):
            if value is not None:
                runs = where(runs, field, "==", value)
        for operator, at in ((">=", query.since), ("<", query.before)):
            if at is not None:
                runs = where(runs, "requested_at", operator, at)
        runs = runs.order_by("requested_at", direction="DESCENDING").order_by("__name__", direction="DESCENDING")
        if after is not None:
            runs = runs.start_after({"requested_at": after[0], "__name__": self._run(after[1])})
        snapshots = self._firestore.query(runs.limit(query.limit + 1))
        page = self._with_steps([read_run(one) for one in snapshots[: query.limit]])
        return RunPage(page, encode_cursor(page[-1]) if len(snapshots) > query.limit else None)

    def _with_steps(self, runs: Iterable[Run]) -> tuple[Run, ...]:
        """Return these runs with their steps, read in one query for each thirty runs."""
        complete: list[Run] = []
        for some in batched(runs, MAX_IN, strict=False):
            records: dict[str, list[Any]] = {run.run_id: [] for run in some}
            for one in self._firestore.query(where(self._firestore.group("steps"), "run_id", "in", list(records))):
                records[one.get("run_id")].append(one)
            complete += [whole(run, read_steps(run, records[run.run_id])) for run in some]
        return tuple(complete)

    def changes(self, run_id: str) -> Sequence[Change]:
        snapshots = [*self._firestore.get(self._run(run_id), fields=["changes"]).values()]
        snapshots += self._firestore.query(self._steps(run_id).select(["changes"]))
        return read_changes(one.get("changes") for one in snapshots)

    def usage(self, org_slug: str, now: datetime) -> Usage:
        return self._quota.usage(org_slug, now)

    def queues(self, ended: Run | None = None) -> Sequence[Queue]:
        return self._quota.queues(ended)

    def place(self, run: Run) -> Place | None:
        return self._quota.place(run)

    def last_cost(self, org_slug: str, route: str) -> Decimal | None:
        return self._quota.last_cost(org_slug, route)

    def _run(self, run_id: str) -> Any:
        return self._firestore.document("runs", run_id)

    def _steps(self, run_id: str) -> Any:
        return self._firestore.collection("runs", run_id, "steps")

    def _step(self, run_id: str, step_id: str) -> Any:
        return self._firestore.document("runs", run_id, "steps", step_id)


def _appended(entries: list[str]) -> Mapping[str, Any]:
    """Return the update that adds these changes to a document."""
    from google.cloud.firestore import ArrayUnion

    array_union: Any = ArrayUnion  # untyped
    return {"changes": array_union(entries)} if entries else {}
