"""Runs that meet a limit: they are refused, or wait and are let in by turn; and what they cost. On the real engine."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
import yaml

from common import bootstrap
from common.domain.events import JobsCost
from common.domain.model import Estimate, Run, RunStatus
from common.errors import ConflictingStateError, ForbiddenPlanError, QuotaExceededError, TransientError
from common.request import InvalidFieldsError, run_request
from functions.api.views import run_view
from tests.functions.test_archive import FlakyArchive
from tests.harness import ORG, ROUTE, Harness, step

OTHER = "test/demo/other"
ONE = {"daily": 100, "monthly": 100, "concurrent": 1}


def plan(harness: Harness, *, status: str = "ACTIVE", shared: int | None = None, **fields: Any) -> None:
    """Give both organisations this plan, globex three times the weight."""
    plans = {"p": {**ONE, **fields}, "heavy": {**ONE, **fields, "weight": 3}}
    organisations = {ORG: {"plan": "p", "status": status}, "globex": {"plan": "heavy", "status": "ACTIVE"}}
    data: dict[str, Any] = {"plans": plans, "organisations": organisations}
    if shared is not None:
        data["global_concurrent"] = shared
    path = harness.configs / "system" / "plans.yml"
    path.write_text(yaml.safe_dump(data))


def ask(
    harness: Harness, *, org: str = ORG, route: str = ROUTE, key: str | None = None, queue: bool = True, **body: Any
) -> Run:
    """Ask for a run a second after the last one; with ``queue``, it may wait."""
    harness.clock.tick(1)
    asked = run_request(org, route, {**body, "queue": queue}, now=harness.clock(), trigger="api", idempotency_key=key)
    return harness.engine.request_run(asked)


def shown(harness: Harness, run: Run) -> dict[str, Any]:
    stored = harness.run(run.run_id)
    return run_view(stored, harness.engine.store.place(stored)).model_dump(mode="json")


def place(harness: Harness, run: Run) -> tuple[int, int]:
    queue = shown(harness, run)["queue"]
    return queue["place"], queue["of"]


def statuses(harness: Harness, *runs: Run) -> list[str]:
    return [str(harness.run(run.run_id).status) for run in runs]


def waits_for(harness: Harness, *runs: Run) -> list[str]:
    return [harness.run(run.run_id).waits_for for run in runs]


def test_a_run_that_meets_a_limit_waits_says_so_and_is_started_when_a_slot_is_free(harness: Harness) -> None:
    plan(harness)
    first, second = ask(harness), ask(harness)
    assert (second.status, second.waits_for, second.admitted_at) == (RunStatus.PENDING, "concurrent", None)
    view = shown(harness, second)
    assert "waits for a slot: the concurrent limit of 1 runs is used up" in view["reason"]
    assert view["queue"] == {
        "waits_for": "concurrent",
        "place": 1,
        "of": 1,
        "backfill": False,
        "until": "2026-11-22T06:00:02Z",
    }
    harness.drain()
    assert statuses(harness, first, second) == ["completed", "completed"]
    assert shown(harness, second)["queue"] is None and shown(harness, second)["admitted_at"]
    told = [change.reason for change in harness.engine.store.changes(second.run_id)]
    assert "waits for a slot" in told[0] and told[1].startswith("admitted after ")
    assert harness.engine.store.usage(ORG, harness.clock.now).daily == 2


def test_a_run_that_does_not_ask_to_wait_is_refused(harness: Harness) -> None:
    plan(harness)
    ask(harness)
    with pytest.raises(QuotaExceededError, match="concurrent limit of 1"):
        ask(harness, queue=False)


@pytest.mark.parametrize("limit", ["daily", "monthly"])
def test_no_run_waits_for_a_new_day_or_month_from_the_start(harness: Harness, limit: str) -> None:
    plan(harness, **{limit: 1})
    ask(harness)
    with pytest.raises(QuotaExceededError, match=limit):
        ask(harness)


def test_live_work_goes_before_backfills_and_then_the_oldest(harness: Harness) -> None:
    plan(harness)
    order = list[str]()
    harness.script("ok", lambda context, _params: order.append(context.run_id))
    first, backfill = ask(harness), ask(harness, backfill=True)
    early, late = ask(harness), ask(harness)
    assert [place(harness, run) for run in (early, late, backfill)] == [(1, 3), (2, 3), (3, 3)]
    harness.drain()
    assert order == [run.run_id for run in (first, early, late, backfill)]


def test_a_freed_slot_belongs_to_whoever_waits_for_it(harness: Harness) -> None:
    plan(harness, concurrent=2)
    ask(harness)
    second = ask(harness)
    third = ask(harness)
    harness.engine.cancel(harness.run(second.run_id), who="me", why="so")
    assert waits_for(harness, third) == [""]
    with pytest.raises(QuotaExceededError):
        ask(harness, queue=False)


def test_a_pipelines_concurrency_keeps_its_runs_apart_and_nobody_elses(harness: Harness) -> None:
    plan(harness, concurrent=3)
    harness.pipeline(step("only"), concurrency=1)
    harness.pipeline(step("only"), route=OTHER)
    ask(harness)
    second = ask(harness)
    assert second.waits_for == "pipeline" and "pipeline limit of 1 runs" in second.reason
    assert ask(harness, route=OTHER, queue=False).waits_for == ""
    assert ask(harness, org="globex", queue=False).waits_for == ""
    harness.drain()
    assert statuses(harness, second) == ["completed"]


def test_a_wrong_concurrency_fails_its_runs_and_limits_nothing(harness: Harness) -> None:
    harness.pipeline(step("only"), concurrency="two")
    run = ask(harness, queue=False)
    harness.drain()
    assert "concurrency" in harness.run(run.run_id).error


def test_slots_of_the_deployment_go_round_by_weight(harness: Harness) -> None:
    plan(harness, concurrent=50, shared=1)
    order = list[str]()
    harness.script("ok", lambda context, _params: order.append(context.org_slug))
    harness.engine.credentials.add(replace(harness.engine.credentials.list(ORG)[0], org_slug="globex"), "sk-x")
    ask(harness)
    for _ in range(4):
        assert ask(harness).waits_for == "global"
    for _ in range(8):
        ask(harness, org="globex")
    harness.drain()
    # Three of globex for one of the other, whoever came first; and those that are left when only one waits.
    assert [order[1:9].count(org) for org in (ORG, "globex")] == [2, 6] and len(order) == 13


def test_a_run_that_gets_no_slot_for_a_day_fails_in_words_and_counts_nowhere(harness: Harness) -> None:
    plan(harness)
    first, second = ask(harness), ask(harness)
    harness.clock.tick(24 * 3600 - 10)
    plan(harness, concurrent=0)  # the first one's end must not let it in
    harness.engine.sweep()
    assert statuses(harness, second) == ["pending"]
    harness.clock.tick(20)
    harness.engine.sweep()
    late = harness.run(second.run_id)
    assert late.status is RunStatus.FAILED and "no slot within 24 h" in late.error and "request it again" in late.error
    assert harness.run(first.run_id).status is RunStatus.FAILED
    usage = harness.engine.store.usage(ORG, second.request.requested_at)
    assert (usage.monthly, usage.failed, usage.waiting) == (1, 1, 0)


def test_a_run_can_be_cancelled_while_it_waits(harness: Harness) -> None:
    plan(harness)
    first, second, third = ask(harness), ask(harness), ask(harness)
    harness.engine.cancel(harness.run(second.run_id), who="ana", why="not needed")
    assert place(harness, third) == (1, 1)
    harness.drain()
    assert statuses(harness, first, second, third) == ["completed", "cancelled", "completed"]
    usage = harness.engine.store.usage(ORG, harness.clock.now)
    assert (usage.daily, usage.cancelled, usage.completed) == (2, 0, 2)


def test_a_waiting_run_whose_day_is_used_up_says_so_and_is_let_in_on_the_next(harness: Harness) -> None:
    plan(harness, daily=1)
    first = ask(harness)
    plan(harness, daily=2)
    second = ask(harness)
    plan(harness, daily=1)
    harness.drain()
    assert statuses(harness, first, second) == ["completed", "pending"] and waits_for(harness, second) == ["daily"]
    assert "waits for a slot: the daily limit of 1 runs is used up" in harness.run(second.run_id).reason
    changes = len(harness.engine.store.changes(second.run_id))
    harness.engine.sweep()
    assert len(harness.engine.store.changes(second.run_id)) == changes  # it is said once
    harness.clock.tick(19 * 3600)
    harness.engine.sweep()
    assert harness.engine.store.usage(ORG, harness.clock.now).daily == 1
    harness.drain()
    assert statuses(harness, second) == ["completed"]


def test_a_waiting_run_of_a_lapsed_subscription_goes_on_waiting_and_says_why(harness: Harness) -> None:
    plan(harness)
    ask(harness)
    second = ask(harness)
    plan(harness, status="SUSPENDED")
    harness.drain()
    assert waits_for(harness, second) == ["plan"] and "SUSPENDED" in harness.run(second.run_id).reason
    with pytest.raises(ForbiddenPlanError):
        ask(harness)
    plan(harness)
    harness.engine.sweep()
    harness.drain()
    assert statuses(harness, second) == ["completed"]


def test_the_sweep_lets_in_whom_nobody_has_let_in(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    plan(harness)
    first, second = ask(harness), ask(harness)
    store = type(harness.engine.store)

    def unavailable(*_asked: object) -> None:
        raise TransientError("the store does not answer")

    with monkeypatch.context() as broken:
        broken.setattr(store, "queues", unavailable)
        harness.drain()
    assert statuses(harness, first, second) == ["completed", "pending"]
    harness.engine.sweep()
    harness.drain()
    assert statuses(harness, second) == ["completed"]


def test_a_slot_that_is_freed_while_a_run_joins_the_queue_lets_it_in(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan(harness)
    first = ask(harness)
    store = type(harness.engine.store)
    real = store.create

    def create(self: Any, new: Any, limits: Any) -> None:
        if new.run.waits_for:
            harness.engine.cancel(harness.run(first.run_id), who="me", why="at this very moment")
        real(self, new, limits)

    monkeypatch.setattr(store, "create", create)
    assert ask(harness).waits_for == ""


def test_one_organisations_trouble_keeps_no_other_waiting(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    plan(harness)
    for org in ("globex", ORG):
        ask(harness, org=org)
    theirs, ours = ask(harness, org="globex"), ask(harness)
    plans = type(harness.engine.plans)
    real = plans.limits

    def limits(self: Any, org_slug: str) -> Any:
        if org_slug == "globex":
            raise TransientError("the plans of globex can't be read")
        return real(self, org_slug)

    plan(harness, concurrent=2)
    monkeypatch.setattr(plans, "limits", limits)
    harness.engine.sweep()
    assert waits_for(harness, theirs, ours) == ["concurrent", ""]


def test_a_rerun_may_wait_too(harness: Harness) -> None:
    plan(harness)
    old = ask(harness)
    harness.drain()
    ask(harness)
    again = harness.engine.rerun(
        harness.run(old.run_id), only="only", who="me", why="so", queue=True, backfill=True, idempotency_key="k"
    )
    assert (again.waits_for, again.request.backfill) == ("concurrent", True)
    same = harness.engine.rerun(
        harness.run(old.run_id), only="only", who="other", why="words", queue=True, backfill=True, idempotency_key="k"
    )
    assert same.run_id == again.run_id
    harness.drain()
    assert statuses(harness, again) == ["completed"]


# Idempotency-Key


def test_the_same_key_and_request_are_the_same_run_whatever_is_left_of_the_quota(harness: Harness) -> None:
    plan(harness, daily=1)
    first = ask(harness, key="k1", start_date="2026-11-01")
    harness.drain()
    again = ask(harness, key="k1", start_date="2026-11-01")
    assert (again.run_id, again.status) == (first.run_id, RunStatus.COMPLETED)
    assert harness.engine.store.usage(ORG, harness.clock.now).daily == 1
    with pytest.raises(QuotaExceededError):
        ask(harness, key="k2", start_date="2026-11-01")


def test_a_repeated_request_is_answered_though_nothing_of_it_is_there_any_more(harness: Harness) -> None:
    first = ask(harness, key="k1")
    plan(harness, status="SUSPENDED")
    (harness.configs / f"{ROUTE}.yml").unlink()
    assert ask(harness, key="k1").run_id == first.run_id


@pytest.mark.parametrize("change", [{"start_date": "2026-11-02"}, {"route": OTHER}, {"queue": False}])
def test_a_key_that_was_used_for_something_else_is_refused(harness: Harness, change: dict[str, Any]) -> None:
    harness.pipeline(step("only"), route=OTHER)
    first = ask(harness, key="k1", start_date="2026-11-01")
    with pytest.raises(ConflictingStateError, match=f"another request, of run {first.run_id}"):
        ask(harness, key="k1", **{"start_date": "2026-11-01", **change})


def test_a_key_is_one_organisations_own(harness: Harness) -> None:
    assert ask(harness, key="k1").run_id != ask(harness, key="k1", org="globex").run_id


def test_yesterday_is_the_same_request_tomorrow(harness: Harness) -> None:
    first = ask(harness, key="k1")
    harness.clock.tick(24 * 3600)
    assert ask(harness, key="k1").run_id == first.run_id


def test_of_two_with_one_key_at_the_same_time_both_get_the_one_run(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ask(harness, key="k1")
    admission = "common.admission.Admission.known"
    real, missed = bootstrap.engine()._admission.known, list[bool]()

    def known(_self: object, request: Any) -> Run | None:
        missed.append(True)
        return None if len(missed) == 1 else real(request)  # it looked just before the other one was stored

    monkeypatch.setattr(admission, known)
    assert ask(harness, key="k1").run_id == first.run_id and len(missed) == 2


@pytest.mark.parametrize("key", ["", " ", "a b", "ä", "x" * 256, "a\n"])
def test_a_key_is_visible_ascii(harness: Harness, key: str) -> None:
    with pytest.raises(InvalidFieldsError, match="Idempotency-Key"):
        ask(harness, key=key)


# money


def priced(harness: Harness, *costs: JobsCost | None) -> FlakyArchive:
    """Have each run estimated at 0.40 USD, or as its pipeline's last one, and an archive that knows what it cost."""
    archive = FlakyArchive(cost=costs[0] if costs else None)
    harness.engine = replace(
        harness.engine,
        archive=archive,
        estimates=lambda _run, last: Estimate(last or Decimal("0.40"), Decimal(0), "as a test says"),
    )
    bootstrap.use(harness.engine)
    return archive


def test_a_month_s_money_is_reserved_by_estimate_and_settled_by_what_the_jobs_cost(harness: Harness) -> None:
    plan(harness, concurrent=9, money_usd="1.00")
    priced(harness, JobsCost(Decimal("0.05"), True))
    runs = [ask(harness, queue=False) for _ in range(2)]
    with pytest.raises(QuotaExceededError, match="money limit of 1.00 USD is used up .0.8 used") as refused:
        ask(harness)
    assert (refused.value.limit, refused.value.value, refused.value.used) == ("money", "1.00", "0.8")
    assert shown(harness, runs[0])["money"] == {
        "estimated_usd": "0.40",
        "estimated_from": "as a test says",
        "cost_usd": None,
    }
    harness.drain()
    usage = harness.engine.store.usage(ORG, harness.clock.now)
    assert (usage.spent_usd, usage.reserved_usd) == (Decimal("0.10"), 0)
    assert shown(harness, runs[0])["money"]["cost_usd"] == "0.05"
    third = ask(harness, queue=False)
    assert third.estimate and third.estimate.usd == Decimal("0.05")  # what the last one cost


def test_where_the_cost_is_not_known_the_estimate_stays_and_this_is_said(harness: Harness) -> None:
    plan(harness, money_usd="1.00")
    priced(harness)
    run = ask(harness)
    harness.drain()
    usage = harness.engine.store.usage(ORG, harness.clock.now)
    assert (usage.spent_usd, usage.reserved_usd) == (Decimal("0.40"), 0)
    assert "not all that its jobs cost is known" in harness.engine.store.changes(run.run_id)[-1].reason


def test_a_run_is_estimated_only_where_money_is_limited(harness: Harness) -> None:
    plan(harness)
    priced(harness)
    run = ask(harness)
    assert run.estimate is None and shown(harness, run)["money"] is None
    harness.drain()
    assert harness.engine.store.usage(ORG, harness.clock.now).spent_usd == 0


def test_a_run_whose_config_is_wrong_is_estimated_at_nothing_and_fails_as_ever(harness: Harness) -> None:
    plan(harness, money_usd="1.00")
    priced(harness)
    harness.pipeline(step("only", "nobody"))
    run = ask(harness)
    harness.drain()
    assert run.estimate and run.estimate.usd == 0 and statuses(harness, run) == ["failed"]


def test_a_waiting_run_holds_no_money_until_it_is_let_in(harness: Harness) -> None:
    plan(harness, money_usd="0.80")
    priced(harness, JobsCost(Decimal("0.35"), True))
    ask(harness)
    second = ask(harness)
    assert second.waits_for == "concurrent"
    assert harness.engine.store.usage(ORG, harness.clock.now).reserved_usd == Decimal("0.40")
    plan(harness, money_usd="0.70")
    harness.drain()
    assert waits_for(harness, second) == ["money"]  # 0.35 are spent, and it needs 0.40
    plan(harness, money_usd="0.75")
    harness.engine.sweep()
    harness.drain()
    assert statuses(harness, second) == ["completed"]
    assert harness.engine.store.usage(ORG, harness.clock.now).spent_usd == Decimal("0.70")
