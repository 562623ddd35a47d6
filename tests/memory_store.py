"""The run store port in memory, for simulations: deterministic, no I/O. It serialises, as every store does, so that
nothing in it is shared with what its callers hold."""

import threading
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from itertools import count

from common.adapters.cursor import decode_cursor, encode_cursor
from common.domain.graph import spec_of, whole
from common.domain.model import Run, Step
from common.domain.queueing import Place, Queue
from common.domain.quota import Limits, Usage
from common.domain.state import Change, Transition
from common.platform.errors import ConflictingStateError, NotFoundError, PipelineOpsError, StaleRunError
from common.ports.bus import EventBus
from common.ports.store import HistoryQuery, RunPage
from common.runs.codec import decode_changes, decode_run, decode_step, encode_changes, encode_run, encode_step
from common.runs.topics import messages
from tests.memory_quota import MemoryQuota


@dataclass
class _Record:
    """One stored document: its version, its JSON, and when the sweep has to look at it."""

    version: int
    body: bytes
    due: datetime | None
    ended: bool


@dataclass
class _Entry:
    """All that is stored of one run."""

    run: Run  # as it was requested: what it says here never changes
    header: _Record
    status: str
    steps: dict[str, _Record] = field(default_factory=dict)
    changes: list[bytes] = field(default_factory=list)


class MemoryRunStore:
    """Stores under one lock and publishes after it, like the cloud's store: a lost message is left to the sweep."""

    def __init__(self, bus: EventBus) -> None:
        self._bus = bus
        self._lock = threading.RLock()
        self._versions = count(1)
        self._runs: dict[str, _Entry] = {}
        self.quota = MemoryQuota()

    def create(self, new: Transition, limits: Limits) -> None:
        run = new.run
        with self._lock:
            if run.run_id in self._runs:
                raise ConflictingStateError(f"There is a run {run.run_id!r} already.")
            if run.waits_for:
                self.quota.check_queue(run.request.org_slug)
            else:
                self.quota.hold(run, limits, waited=False)
            self.quota.carry_out(run, new.commands)
            version = next(self._versions)
            entry = _Entry(replace(run, steps={}), self._header(run, version), run.status)
            entry.steps = {step_id: self._record(run.steps[step_id], version) for step_id in new.touched}
            entry.changes.append(encode_changes(new.changes))
            self._runs[run.run_id] = entry
        with suppress(PipelineOpsError):  # the run is stored: its message is left to the sweep
            self._bus.publish(messages(run, new.commands))

    def load(self, run_id: str, step_ids: Collection[str] | None = None) -> Run:
        with self._lock:
            entry = self._entry(run_id)
            run = decode_run(entry.header.body, entry.header.version)
            wanted = entry.steps if step_ids is None else step_ids
            steps = self._steps(run, ((name, entry.steps[name]) for name in wanted if name in entry.steps))
        return whole(run, steps) if step_ids is None else replace(run, steps=steps)

    @staticmethod
    def _steps(run: Run, records: Iterable[tuple[str, _Record]]) -> dict[str, Step]:
        steps: dict[str, Step] = {}
        for step_id, record in records:
            spec = spec_of(run, step_id)
            if spec is not None:
                steps[step_id] = decode_step(record.body, record.version, spec)
        return steps

    def commit(self, transition: Transition) -> Run:
        return self._commit(transition, None)

    def admit(self, transition: Transition, limits: Limits) -> Run:
        return self._commit(transition, limits)

    def _commit(self, transition: Transition, limits: Limits | None) -> Run:
        run = transition.run
        with self._lock:
            entry = self._entry(run.run_id)
            self._compare(entry, transition)
            if limits is not None:
                self.quota.hold(run, limits, waited=True)
            version, stored = next(self._versions), run
            if transition.header:
                entry.header, entry.status = self._header(run, version), run.status
                stored = replace(run, version=version)
            for step_id in transition.touched:
                entry.steps[step_id] = self._record(run.steps[step_id], version)
            written = {step_id: replace(run.steps[step_id], version=version) for step_id in transition.touched}
            stored = replace(stored, steps={**run.steps, **written})
            entry.changes.append(encode_changes(transition.changes))
            self.quota.carry_out(run, transition.commands, extends=transition.header)
        self._bus.publish(messages(stored, transition.commands))
        return stored

    @staticmethod
    def _compare(entry: _Entry, transition: Transition) -> None:
        """Raise StaleRunError if something that the transition changes is not as it was read."""
        run = transition.run
        if transition.header and entry.header.version != run.version:
            raise StaleRunError(f"Run {run.run_id} has changed since version {run.version} was read.")
        for step_id in transition.touched:
            stored = entry.steps.get(step_id)
            if (stored.version if stored else 0) != run.steps[step_id].version:
                raise StaleRunError(f"Step {step_id} of {run.run_id} has changed since it was read.")

    def holds(self, run_id: str, step: Step) -> bool:
        with self._lock:
            entry = self._runs.get(run_id)
            stored = entry.steps.get(step.step_id) if entry else None
            return stored is not None and stored.version == step.version

    def all_ended(self, run_id: str, step_ids: Collection[str]) -> bool:
        with self._lock:
            steps = self._entry(run_id).steps
            return all(step_id in steps and steps[step_id].ended for step_id in step_ids)

    def due(self, now: datetime, limit: int) -> Sequence[str]:
        with self._lock:
            late: list[tuple[datetime, str]] = []
            for run_id, entry in self._runs.items():
                times = [r.due for r in (entry.header, *entry.steps.values()) if r.due is not None and r.due <= now]
                if times:
                    late.append((min(times), run_id))
            return [run_id for _, run_id in sorted(late)][:limit]

    def active(self) -> Sequence[str]:
        with self._lock:
            live = [entry.run for entry in self._runs.values() if entry.header.due is not None]
            return [run.run_id for run in sorted(live, key=_age)]

    def history(self, query: HistoryQuery) -> RunPage:
        after = None if query.cursor is None else decode_cursor(query.cursor)
        with self._lock:
            asked_for = [
                entry.run
                for entry in self._runs.values()
                if entry.run.request.org_slug == query.org_slug
                and (after is None or _age(entry.run) < after)
                and query.route in (None, entry.run.request.route)
                and query.status in (None, entry.status)
                and (query.since is None or entry.run.request.requested_at >= query.since)
                and (query.before is None or entry.run.request.requested_at < query.before)
            ]
            asked_for.sort(key=_age, reverse=True)
            runs = tuple(self.load(run.run_id) for run in asked_for[: query.limit])
        return RunPage(runs, encode_cursor(runs[-1]) if len(asked_for) > query.limit else None)

    def changes(self, run_id: str) -> Sequence[Change]:
        with self._lock:
            entry = self._runs.get(run_id)
            return [change for body in (entry.changes if entry else ()) for change in decode_changes(body)]

    def usage(self, org_slug: str, now: datetime) -> Usage:
        with self._lock:
            return self.quota.usage(org_slug, now)

    def queues(self, ended: Run | None = None) -> Sequence[Queue]:
        with self._lock:
            return self.quota.queues(ended)

    def place(self, run: Run) -> Place | None:
        with self._lock:
            return self.quota.place(run)

    def last_cost(self, org_slug: str, route: str) -> Decimal | None:
        with self._lock:
            return self.quota.last_cost(org_slug, route)

    def _entry(self, run_id: str) -> _Entry:
        entry = self._runs.get(run_id)
        if entry is None:
            raise NotFoundError(f"There is no run {run_id!r}.")
        return entry

    @staticmethod
    def _header(run: Run, version: int) -> _Record:
        return _Record(version, encode_run(run), run.wake_at, run.status.is_terminal)

    @staticmethod
    def _record(step: Step, version: int) -> _Record:
        return _Record(version, encode_step(step), step.due_at, step.status.is_terminal)


def _age(run: Run) -> tuple[datetime, str]:
    return run.request.requested_at, run.run_id
