"""What runs cost, held against what an organisation may spend a month. On the real engine."""

from dataclasses import replace
from decimal import Decimal

import pytest

from common import bootstrap
from common.domain.messages import JobsCost
from common.domain.model import Estimate
from common.platform.errors import QuotaExceededError
from tests.functions.limited import ask, plan, shown, statuses, waits_for
from tests.functions.test_archive import FlakyArchive
from tests.harness import ORG, Harness, step


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
