"""The ten rules of the design as checks, run at each commit, message and attempt, in the calm and at the end.

Each check knows only what was stored, never what the core meant. ``Broken`` names the rule.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from common.domain.graph import RUN_END, map_of, spec_of, unlocked_by, whole
from common.domain.mapping import item_config
from common.domain.messages import AttemptFailed, AttemptSucceeded, AttemptSuspended
from common.domain.model import Run, RunStatus, Step, StepSpec, StepStatus
from common.domain.quota import Limits, Usage
from common.domain.state import RESEND_AFTER, Transition
from common.ports.bus import Message
from common.runs.attempt import Result
from common.runs.topics import read_dead
from tests.sim.ledger import Key as Place
from tests.sim.ledger import keys
from tests.sim.quota_rules import QuotaRules

CANARY = "sk-canary-9b1f77"
LEASE_MARGIN = timedelta(seconds=60)
AT_WORK = (StepStatus.RUNNING, StepStatus.RETRYING, StepStatus.SUSPENDED, StepStatus.STOPPING)
MOVES = {
    StepStatus.WAITING: {*StepStatus}
    - {StepStatus.WAITING, StepStatus.QUEUED, StepStatus.SUSPENDED, StepStatus.STOPPING},
    StepStatus.STOPPING: {StepStatus.SUCCEEDED, StepStatus.SKIPPED, StepStatus.CANCELLED},
    StepStatus.RUNNING: {*StepStatus} - {StepStatus.WAITING, StepStatus.QUEUED, StepStatus.OMITTED},
    StepStatus.RETRYING: {
        StepStatus.RETRYING,
        StepStatus.RUNNING,
        StepStatus.FAILED,
        StepStatus.SKIPPED,
        StepStatus.CANCELLED,
    },
    StepStatus.SUSPENDED: {
        StepStatus.SUSPENDED,
        StepStatus.RUNNING,
        StepStatus.FAILED,
        StepStatus.SKIPPED,
        StepStatus.CANCELLED,
    },
}

type Key = tuple[str, str, int]


class Broken(AssertionError):
    """A rule does not hold."""


class Rules:
    """What has been seen of one world, and the checks on it."""

    def __init__(
        self, now: Callable[[], datetime], actor_run: Callable[[], str | None], actor: Callable[[], object]
    ) -> None:
        self._now, self._actor_run = now, actor_run
        self.runs: dict[str, Run] = {}
        self.steps: dict[str, dict[str, Step]] = {}
        self.results: dict[Key, Result] = {}
        self.active: dict[tuple[str, str], int] = {}
        self.rows: dict[Place, Key] = {}
        self.claims: dict[Key, datetime] = {}
        self.written: set[Key] = set()
        self.looked: set[Key] = set()
        self.dead: set[Key] = set()
        self.sent: set[tuple[str, str]] = set()
        self.late_rows = 0
        self.quota = QuotaRules(self.runs, now, self._check, actor)

    def _check(self, holds: object, rule: int, text: str, *about: object) -> None:
        if not holds:
            raise Broken(f"rule {rule}: {text}: {'; '.join(map(str, about))}")

    # what was seen

    def touched(self, run_id: str) -> None:
        """A process reads or writes this run (rule 9). Whoever ends a run may let in others that wait."""
        mine, waited = self._actor_run(), run_id in self.quota.queued
        self._check(
            mine is None or mine == run_id or waited, 9, "a process touched a run that is not its own", mine, run_id
        )

    def published(self, message: Message) -> None:
        """A message is on its way (rules 2, 9 and 10)."""
        self.touched(message.key)
        text = json.dumps(message.data)
        self._check(CANARY not in text, 10, "a message holds a secret", message.topic)
        if "run" in message.data:
            run = self.runs[message.key]
            self.sent.add((message.key, message.data["step"]["spec"]["step_id"]))
            self._check(message.data["run"]["request"]["org_slug"] == run.request.org_slug, 9, "another's order")

    def died(self, message: Message, poison: str) -> None:
        """A message became a dead letter: only one that no handler could take may (rule 6)."""
        self._check(poison, 6, "a message died that only had to wait", message.topic, message.key)
        run_id, step_id, attempt = read_dead(message.data)
        self.dead.add((run_id, step_id, attempt))

    def acknowledged(self, run_id: str, step: Step, *, last: bool) -> None:
        """A result is never delivered again; ``last``: and nobody else is at work on the run (rule 3).

        Then the result of the step that ended last has started what waited for it, or ended the run.
        """
        steps, run = self.steps[run_id], self.runs[run_id]
        record = steps.get(step.step_id)
        lost = record and record.status is StepStatus.RUNNING and record.attempt == step.attempt
        self._check(not lost or run.status.is_terminal, 3, "a result was dropped", run_id, step.step_id, step.attempt)
        full = whole(run, steps)
        ends = [s.ended_at for s in full.steps.values() if s.ended_at]
        last = last and record is not None and record.ended_at == max(ends, default=None)
        if last and not run.status.is_terminal:
            for name in unlocked_by(full, step.step_id):  # what follows from those again is left to the sweep
                if name == RUN_END:
                    still_open = not all(s.status.is_terminal for s in full.steps.values())
                    self._check(still_open, 3, "nobody ended the run", run_id, step.step_id)
                elif full.steps[name].status is StepStatus.QUEUED:
                    self._check((run_id, name) in self.sent, 3, "nobody started the step", run_id, name)

    def read(self, run: Run) -> None:
        """A process reads the whole run (rule 8)."""
        for step in run.steps.values() if not run.status.is_terminal else ():
            if step.status is StepStatus.QUEUED and map_of(step.step_id) is None:
                self._needs_met(step.spec, dict(run.steps), (run.run_id, step.step_id, "reads as queued"))

    def looked_at(self, run_id: str, step: Step) -> None:
        """An attempt asks whether its step is still its own."""
        record = self.steps[run_id].get(step.step_id)
        if record and record.status is StepStatus.RUNNING and record.attempt == step.attempt:
            self.looked.add((run_id, step.step_id, step.attempt))

    def created(self, run: Run, limits: Limits) -> None:
        """A run was admitted, or begins to wait (rule 5)."""
        self._check(run.run_id not in self.runs, 5, "a run was made twice", run.run_id)
        self.runs[run.run_id], self.steps[run.run_id] = replace(run, steps={}), dict(run.steps)
        if run.waits_for:
            self.quota.joined(run)
        else:
            self.quota.admitted(run, limits)
        self._header(run)

    def committed(self, transition: Transition, stored: Run) -> None:
        """A transition was stored (rules 1, 2, 6, 7, 8, 9, 10)."""
        run_id, old = stored.run_id, self.runs[stored.run_id]
        self.touched(run_id)
        written = [stored.steps[name] for name in transition.touched]
        told = repr((written, transition.changes, stored.reason, stored.error))
        self._check(CANARY not in told, 10, "a document holds a secret", run_id)
        if old.status.is_terminal:
            # All that may still change is when the sweep looks whether its end was announced, and what it has cost.
            cost = stored.cost_usd if old.cost_usd is None else old.cost_usd
            same = replace(old, version=0, wake_at=stored.wake_at, cost_usd=cost)
            same = replace(stored, steps={}, version=0) == same
            self._check(same and not written, 1, "an ended run was changed", run_id, old.status, transition.changes)
        if transition.header:
            self._check(transition.run.version == old.version, 1, "a commit overwrote one it did not see", run_id)
            self._pinned(old, stored)
            self.runs[run_id] = replace(stored, steps={})
            self._header(stored)
        records = self.steps[run_id]
        before = {step.step_id: records.get(step.step_id) for step in written}
        records |= {step.step_id: step for step in written}
        for step in written:
            past = before[step.step_id]
            seen = transition.run.steps[step.step_id].version == (past.version if past else 0)
            self._check(seen, 2, "a commit overwrote one it did not see", run_id, step.step_id)
            self._step(self.runs[run_id], past, step)
        if self.runs[run_id].status.is_terminal and not old.status.is_terminal:
            self._ended(self.runs[run_id], records)

    # the rules

    def _pinned(self, old: Run, new: Run) -> None:
        if old.specs:
            same = (old.specs, old.config_hash, old.pipeline_id) == (new.specs, new.config_hash, new.pipeline_id)
            self._check(same, 7, "the config of a run changed", old.run_id, old.config_hash, new.config_hash)
        self._check(old.request == new.request, 7, "what was requested changed", old.run_id)

    def _header(self, run: Run) -> None:
        if not run.status.is_terminal:
            readable = run.reason and run.since and run.wake_at and run.expires_at
            self._check(readable, 8, "a run does not say what it waits for, since when, until when", run)
            assert run.wake_at is not None
            # The sweep lets in whoever waits; of each of them it looks at the deadline alone.
            by = run.request.requested_at + timedelta(hours=24) if run.waits_for else self._now() + RESEND_AFTER
            self._check(run.wake_at <= by, 8, "the sweep comes too late", run.wake_at)

    def _ended(self, run: Run, records: dict[str, Step]) -> None:
        steps = whole(run, records).steps.values()
        still = [f"{s.step_id} {s.status}" for s in steps if not s.status.is_terminal]
        self._check(not still, 1, "a run ended before its steps", run.run_id, run.status, still)
        top = [s for s in steps if map_of(s.step_id) is None]
        bad = [f"{s.step_id} {s.status}" for s in top if not s.is_done]
        if run.status is RunStatus.COMPLETED:
            self._check(not bad, 1, "a run completed though steps did not succeed", run.run_id, bad)
        elif run.status is RunStatus.FAILED:
            self._check(bad or not run.specs, 1, "a run failed though every step is done", run.run_id, run.reason)
        self._check("not finished within its time" not in run.reason, 3, "a run was stranded", run.run_id, run.reason)

    def _step(self, run: Run, old: Step | None, new: Step) -> None:
        was = old.status if old else StepStatus.WAITING
        about = (run.run_id, new.step_id, f"{was}/{old.attempt if old else 0} → {new.status}/{new.attempt}", new.reason)
        self._check(not was.is_terminal, 1, "an ended step was changed", *about)
        moves = new.status in MOVES[was] and (old or new.status is not StepStatus.RETRYING)
        self._check(moves, 2, "a step can't go that way", *about)
        self._check(new.attempt <= new.spec.retry.max_attempts, 6, "more attempts than max_attempts", *about)
        if new.status.is_terminal:
            self._step_ended(run, old, new, about)
        else:
            seen = new.reason and new.since and (new.due_at or new.items)
            self._check(seen, 8, "a step does not say what it waits for, since when, until when", *about)
        if new.status is StepStatus.RUNNING and was is not StepStatus.RUNNING:
            self._started(run, old, new, about)
        elif new.status is StepStatus.RETRYING and was is StepStatus.RUNNING:
            assert old is not None
            self._retried(run, old, new, about)
        elif new.status is StepStatus.SUSPENDED and was is StepStatus.RUNNING:
            told = self.results.get((run.run_id, new.step_id, new.attempt))
            asked = isinstance(told, AttemptFailed) and told.retry_after_s > 0
            waits = isinstance(told, AttemptSuspended) and new.waits_on == told.job
            self._check(waits or asked, 2, "nobody suspended", *about)
        elif old and not new.status.is_terminal:
            self._check(new.attempt == old.attempt, 6, "an attempt was skipped", *about)

    def _started(self, run: Run, old: Step | None, new: Step, about: tuple[Any, ...]) -> None:
        records, base = self.steps[run.run_id], map_of(new.step_id)
        self._check(run.status is RunStatus.RUNNING, 2, "a step started in a run that is not running", *about)
        if not base:
            self._needs_met(new.spec, records, about)
        else:
            parent = records[base[0]]
            self._check(parent.status is StepStatus.RUNNING, 2, "an item started without its map", *about)
            others = [records[n] for n in records if (b := map_of(n)) and b[0] == base[0]]
            busy = sum(s.status in AT_WORK for s in others)
            assert parent.spec.map is not None
            self._check(busy <= parent.spec.map.max_parallel, 6, "more items at work than max_parallel", busy, *about)
        if new.items:
            return
        self._check(new.attempt == (old.attempt if old else 1), 6, "a step started an attempt out of turn", *about)
        due = old.not_before if old else None
        self._check(due is None or (new.since and new.since >= due), 6, "an attempt started before its time", *about)
        assert new.since is not None and new.lease_until is not None
        self.claims[run.run_id, new.step_id, new.attempt] = new.since
        lease = new.lease_until - new.since - timedelta(seconds=new.spec.timeout_seconds)
        self._check(LEASE_MARGIN <= lease <= 2 * LEASE_MARGIN, 4, "a lease does not outlive its attempt", *about)

    def _needs_met(self, spec: StepSpec, records: dict[str, Step], about: tuple[Any, ...]) -> None:
        needs = [records.get(name) for name in spec.depends_on]
        if spec.always:
            self._check(all(s and s.status.is_terminal for s in needs), 2, "a clean-up started too early", *about)
        else:
            self._check(all(s and s.is_done for s in needs), 2, "a step started before what it depends on", *about)
        if spec.condition:
            name, _, least = spec.condition.removeprefix("steps.").split()
            holds = records[name.removesuffix(".rows")].receipt.rows > int(least)
            self._check(holds, 2, "a step started against its condition", *about)

    def _retried(self, run: Run, old: Step, new: Step, about: tuple[Any, ...]) -> None:
        policy, told = new.spec.retry, self.results.get((run.run_id, old.step_id, old.attempt))
        self._check(new.attempt == old.attempt + 1, 6, "an attempt was skipped", *about)
        kind, asked = "lost", 0.0
        if isinstance(told, AttemptFailed) and told.error == new.error:
            kind, asked = told.kind, told.retry_after_s
        elif "max_wait_seconds" in new.error:
            kind = "timeout"
        elif "process that ran it" not in new.error:
            self._check(old.lease_until and old.lease_until <= self._now(), 6, "a lease was taken away", *about)
        self._check(kind, 6, "a permanent failure was tried again", *about)
        self._check(not policy.retry_on or kind in policy.retry_on, 6, "retry_on does not name this kind", kind, *about)
        rest = min(policy.backoff_seconds * policy.backoff_multiplier ** (old.attempt - 1), policy.max_backoff_seconds)
        assert new.since is not None and new.not_before is not None
        rests = new.not_before - new.since >= timedelta(seconds=max(rest, asked) - 1e-5)
        self._check(rests, 6, "a retry comes too early", rest, asked, new.not_before, *about)

    def _step_ended(self, run: Run, old: Step | None, new: Step, about: tuple[Any, ...]) -> None:
        told = self.results.get((run.run_id, new.step_id, new.attempt))
        if new.status is StepStatus.SUCCEEDED and new.spec.map is None:
            same = isinstance(told, AttemptSucceeded) and told.receipt == new.receipt
            self._check(same and old and old.attempt == new.attempt, 2, "no attempt succeeded so", *about)
        elif new.status is StepStatus.FAILED and isinstance(told, AttemptFailed) and new.error == told.error:
            policy = new.spec.retry
            over = not told.kind or (policy.retry_on and told.kind not in policy.retry_on)
            self._check(over or new.attempt == policy.max_attempts, 6, "attempts were left", *about)
        elif new.status is StepStatus.FAILED and "given up" in new.error and not new.spec.map:
            died = (run.run_id, new.step_id, new.attempt) in self.dead
            self._check(died, 2, "the dead letter of another attempt ended a step", *about)
        elif new.status is StepStatus.OMITTED:
            needs = [self.steps[run.run_id].get(name) for name in new.spec.depends_on]
            lost = any(s and s.status.is_terminal and not s.is_done for s in needs)
            self._check(lost and not new.spec.always, 2, "a step was left out though it could start", *about)

    # attempts and their rows

    def attempt_began(self, order: Run, step: Step) -> None:
        """An attempt is at work (rules 2, 7 and 9)."""
        run, key = self.runs[order.run_id], (order.run_id, step.step_id)
        self.touched(order.run_id)
        self._check(key not in self.active, 2, "two attempts of a step are at work at once", key, self.active.get(key))
        self.active[key] = step.attempt
        spec, base = spec_of(run, step.step_id), map_of(step.step_id)
        if base and spec:
            item = self.steps[run.run_id][base[0]].items[base[1]]
            spec = replace(spec, config=item_config(spec.config, item))
        self._check(step.spec == spec == order.specs[0], 7, "an attempt has another config", key, step.spec, spec)
        told = self.results.get((*key, step.attempt))
        asked = isinstance(told, AttemptFailed) and told.retry_after_s > 0  # to wait: the same attempt comes again
        resumed = isinstance(told, AttemptSuspended) or asked
        self._check(told is None or resumed, 2, "an attempt was made twice", key, step.attempt, told)
        if isinstance(told, AttemptSuspended):
            self._check(step.waits_on == told.job, 2, "an attempt does not know its job any more", key)

    def attempt_ended(self, order: Run, step: Step, result: Result) -> None:
        """An attempt has a result."""
        self.results[order.run_id, step.step_id, step.attempt] = result

    def attempt_stopped(self, order: Run, step: Step) -> None:
        """Nothing works on the attempt any more."""
        if self.active.get((order.run_id, step.step_id)) == step.attempt:
            del self.active[order.run_id, step.step_id]

    def wrote_rows(self, order: Run, step: Step) -> None:
        """An attempt's commit replaces the rows of its days (rule 4)."""
        key = (order.run_id, step.step_id, step.attempt)
        record = self.steps[order.run_id][step.step_id]
        self._check(key in self.looked, 4, "an attempt replaced rows when its step was not its own", key, record.status)
        newest = step.attempt >= record.attempt
        self._check(newest, 4, "a superseded attempt replaced rows", key, record.attempt, record.status)
        # A run that was cancelled (or a step skipped) between the attempt's look at its lease and its commit.
        self.late_rows += record.status is not StepStatus.RUNNING
        self.written.add(key)
        for place in self.days_of(order, step):
            past = self.rows.get(place, key)
            in_order = self.claims[past] <= self.claims[key]
            self._check(in_order, 4, "an older attempt replaced rows of one that started later", key, past)
            self.rows[place] = key

    def days_of(self, order: Run, step: Step) -> list[Place]:
        """Return whose rows of which days the attempt replaces."""
        base = map_of(step.step_id)
        spread = self.steps[order.run_id][base[0]].spec.map if base else None
        return keys(order, step, dated=bool(spread and spread.dates))

    # in the calm

    def nothing_overdue(self, slack: timedelta) -> None:
        """With no fault for a while, nothing is past the time by which the sweep acts on it (rules 3 and 8)."""
        late = self._now() - slack
        for run_id, run in self.runs.items():
            if run.status.is_terminal:
                continue
            self._check(run.wake_at and run.wake_at > late, 3, "a run is overdue", run_id, run.reason, run.wake_at)
            for step in whole(run, self.steps[run_id]).steps.values():
                until = step.due_at
                if step.status is StepStatus.QUEUED and step.since:
                    until = step.since + RESEND_AFTER
                overdue = until and until <= late and not step.status.is_terminal
                self._check(not overdue, 3, "a step is overdue", run_id, step.step_id, step.status, step.reason, until)

    def at_the_end(self, usage: Mapping[str, Usage], day: datetime) -> None:
        """Every run has ended, and what was counted is what was seen (rules 3, 4 and 5)."""
        still = [f"{run_id} {r.status}: {r.reason}" for run_id, r in self.runs.items() if not r.status.is_terminal]
        self._check(not still, 3, "runs did not end", *still)
        due = [run_id for run_id, run in self.runs.items() if run.wake_at]
        self._check(not due, 3, "the sweep still looks at ended runs", *due)
        self._check(not self.active, 2, "an attempt never stopped", *self.active)
        self.quota.at_the_end(usage, day)
        self.quota.ended(self.runs.values())
        self._rows_at_the_end()

    def _rows_at_the_end(self) -> None:
        last: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
        for run_id, step_id, attempt in self.rows.values():
            last[run_id, step_id].add(attempt)
        for (run_id, step_id), attempts in last.items():
            step = self.steps[run_id][step_id]
            if step.status is StepStatus.SUCCEEDED:
                self._check(attempts == {step.attempt}, 4, "rows are not the receipt's", run_id, step_id, attempts)
        for run_id, steps in self.steps.items():
            for step in steps.values():
                mine = step.receipt.content_hash.startswith(f"{run_id}/") and step.spec.config.get("writes")
                if step.status is StepStatus.SUCCEEDED and mine:
                    key = (run_id, step.step_id, step.attempt)
                    self._check(key in self.written, 4, "a step succeeded without its rows", key)
