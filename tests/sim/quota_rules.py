"""Rule 5 as checks: no limit is ever exceeded, what is counted is what was seen, and who waits gets its turn."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal

from common.domain.model import Run, RunStatus
from common.domain.queueing import Block, block
from common.domain.quota import Limits, Outcomes, Usage, day_of, exceeded, month_of, to_micro_usd
from common.platform.errors import QuotaExceededError

ENDS = (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED)

Order = tuple[bool, datetime, str]


class QuotaRules:
    """What has been seen of the quota of one world. ``runs`` are the stored ones; ``check`` raises what is broken."""

    def __init__(
        self,
        runs: Mapping[str, Run],
        now: Callable[[], datetime],
        check: Callable[..., None],
        actor: Callable[[], object],
    ) -> None:
        self._runs, self._now, self._check, self._actor = runs, now, check, actor
        self.queued: dict[str, datetime] = {}
        self._looked: dict[object, datetime] = {}
        self._refused: dict[object, set[Block]] = {}
        self._could_go: dict[str, datetime] = {}
        self.went_on_waiting = 0

    def joined(self, run: Run) -> None:
        """A run begins to wait: it holds nothing."""
        self.queued[run.run_id] = self._now()
        holds = run.admitted_at or run.global_slot or not run.request.queue
        self._check(not holds, 5, "a run waits that holds quota, or did not ask to wait", run)

    def looked(self) -> None:
        """A process reads who waits."""
        self._looked[self._actor()] = self._now()

    def refused(self, run: Run, error: QuotaExceededError) -> None:
        """A process was told that there is no room for this run."""
        self.went_on_waiting += 1
        found = block(error.limit, run.request.org_slug, run.request.route)
        self._refused.setdefault(self._actor(), set()).add(found)

    def admitted(self, run: Run, limits: Limits) -> None:
        """A run took its quota: at once, or out of the queue."""
        now, org = self._now(), run.request.org_slug
        live = [r for r in self._runs.values() if r.admitted_at and not r.status.is_terminal]
        live = [r for r in live if r.expires_at and r.expires_at > now]
        mine = [r for r in live if r.request.org_slug == org]
        same = [r for r in mine if r.request.route == run.request.route]
        all_mine = [r for r in self._runs.values() if r.admitted_at and r.request.org_slug == org]
        assert run.admitted_at is not None
        for name, value, used in (
            ("concurrent", limits.concurrent, len(mine)),
            ("pipeline", limits.pipeline, len(same)),
            ("global", limits.global_concurrent, len(live)),
            ("daily", limits.daily, len([r for r in all_mine if _period(r, day_of) == day_of(now)])),
            ("monthly", limits.monthly, len([r for r in all_mine if _period(r, month_of) == month_of(now)])),
        ):
            self._check(value is None or used <= value, 5, f"more runs than the {name} limit admits", org, used, value)
        if limits.money_usd is not None:
            held = sum(_micros(r) for r in all_mine if _period(r, month_of) == month_of(now))
            late = sum(max(0, _micros(r) - _estimated(r)) for r in all_mine)  # what some cost beyond their estimate
            self._check(held - late <= to_micro_usd(limits.money_usd), 5, "more money than the plan admits", org, held)
        if run.run_id in self.queued:
            self._in_turn(run)

    def _in_turn(self, run: Run) -> None:
        """No run of its organisation that was before it could have gone, as far as its process knew."""
        looked, refused = self._looked[self._actor()], self._refused.get(self._actor(), set())
        org = run.request.org_slug
        for run_id, since in self.queued.items():
            other = self._runs[run_id]
            before = other.waits_for and other.request.org_slug == org and _order(other) < _order(run)
            if before and since < looked:
                route = other.request.route
                kept = {block(limit, org, route) for limit in ("pipeline", "money")} & refused
                self._check(kept, 5, "a run was let in before another one's turn", run.run_id, run_id)

    def nobody_waits_for_nothing(self, room: Callable[[Run], tuple[Limits, Usage]], slack: timedelta) -> None:
        """In the calm, the next run of each pipeline that waits has no room, or not for long."""
        now, could, first = self._now(), dict[str, datetime](), dict[tuple[str, str], Run]()
        for run in sorted((r for r in self._runs.values() if r.waits_for), key=_order):
            first.setdefault((run.request.org_slug, run.request.route), run)
        for run in first.values():
            limits, usage = room(run)
            cost = run.estimate.usd if run.estimate else Decimal(0)
            if exceeded(limits, usage, now, cost_usd=cost, waited=True) is None:
                could[run.run_id] = self._could_go.get(run.run_id, now)
                self._check(now - could[run.run_id] <= slack, 5, "a run waits though there is room", run.run_id, usage)
        self._could_go = could

    def at_the_end(self, usage: Mapping[str, Usage], day: datetime) -> None:
        """What was counted is what was seen, and nothing is held any more."""
        for org, counted in usage.items():
            mine = [r for r in self._runs.values() if r.request.org_slug == org and r.admitted_at]
            ends = [run.status for run in mine]
            today = [r for r in mine if _period(r, day_of) == day_of(day)]
            spent = Decimal(sum(_micros(r) for r in mine)) / 1_000_000
            by_end = [ends.count(end) for end in ENDS]
            ended_today = Outcomes(*([run.status for run in today].count(end) for end in ENDS))
            seen = Usage(len(today), len(mine), 0, *by_end, spent_usd=spent, ended_today=ended_today)  # type: ignore[misc]
            self._check(counted == seen, 5, "counts are not those of the runs", org, seen, counted)
            open_cost = [r.run_id for r in mine if r.estimate and r.cost_usd is None]
            self._check(not open_cost, 5, "what a run cost was never counted", *open_cost)

    def ended(self, runs: Iterable[Run]) -> None:
        """A run that never got a slot says so, and waited as long as it may."""
        for run in runs:
            if run.status is RunStatus.FAILED and not run.admitted_at:
                assert run.ended_at is not None
                waited = run.ended_at - run.request.requested_at
                self._check("no slot within" in run.error and waited >= timedelta(hours=24), 5, "gave up early", run)


def _order(run: Run) -> Order:
    return run.request.backfill, run.request.requested_at, run.run_id


def _period(run: Run, period: Callable[[datetime], str]) -> str:
    assert run.admitted_at is not None
    return period(run.admitted_at)


def _estimated(run: Run) -> int:
    return to_micro_usd(run.estimate.usd) if run.estimate else 0


def _micros(run: Run) -> int:
    """What the run counts in its month: its cost once that is settled, its estimate before."""
    return _estimated(run) if run.cost_usd is None else to_micro_usd(run.cost_usd)
