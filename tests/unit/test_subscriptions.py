"""Subscriptions: what is charged, and what a day bears of it. The figures are worked out by hand."""

import json
from datetime import date, timedelta
from decimal import Decimal, localcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config.problems import InvalidFileError
from common.processors.subscriptions.amortise import PLACES, part
from common.processors.subscriptions.charges import charges, cycles, day_costs
from common.processors.subscriptions.file import load_subscriptions
from common.processors.subscriptions.model import FOLDER, Subscription

LONG_AGO, FAR_AWAY = date(2000, 1, 1), date(2199, 1, 1)


def subscription(*terms: tuple[str, int, str], **more: Any) -> Subscription:
    named = [{"first_day": day, "plan": "Team", "seats": seats, "price": price} for day, seats, price in terms]
    given = {
        "subscription_id": "s1",
        "vendor": "Acme",
        "service": "Acme Chat",
        "currency": "USD",
        "billing_cycle": "monthly",
        "first_day": terms[0][0],
        "terms": named,
    }
    return Subscription.model_validate(given | more)


def charged(its: Subscription, first: str, last: str) -> list[tuple[str, str, Decimal]]:
    found = charges(its, date.fromisoformat(first), date.fromisoformat(last))
    return [(charge.kind, charge.day.isoformat(), charge.amount) for charge in found]


def costs(its: Subscription, first: str, last: str) -> list[Decimal]:
    return [cost.cost for cost in day_costs(its, date.fromisoformat(first), date.fromisoformat(last))]


def test_a_month_is_charged_on_its_first_day_and_borne_by_each_of_its_days() -> None:
    """10 seats at 12.50 are 125.00; a 28th of it is 4.464285714285714…"""
    its = subscription(("2026-02-01", 10, "12.50"))
    assert charged(its, "2026-02-01", "2026-02-28") == [("cycle", "2026-02-01", Decimal("125.00"))]
    days = costs(its, "2026-02-01", "2026-02-28")
    assert (len(days), days[0]) == (28, Decimal("4.464285714286"))
    assert sum(days) == Decimal("125.00")


def test_a_cycle_that_begins_on_the_31st_begins_on_the_last_day_of_shorter_months_and_stays_a_31st() -> None:
    its = subscription(("2026-01-31", 1, "1"))
    assert [day for _, day, _ in charged(its, "2026-01-01", "2026-05-31")] == [
        "2026-01-31",
        "2026-02-28",
        "2026-03-31",
        "2026-04-30",
        "2026-05-31",
    ]


def test_years_that_begin_on_the_29th_of_february_have_365_or_366_days() -> None:
    its = subscription(("2024-02-29", 1, "365"), billing_cycle="yearly")
    found = [(c.start.isoformat(), (c.end - c.start).days) for c in cycles(its, date(2024, 2, 29), date(2028, 3, 1))]
    assert found == [
        ("2024-02-29", 365),
        ("2025-02-28", 365),
        ("2026-02-28", 365),
        ("2027-02-28", 366),
        ("2028-02-29", 365),
    ]
    assert set(costs(its, "2024-02-29", "2025-02-27")) == {Decimal(1)}
    assert sum(costs(its, "2027-02-28", "2028-02-28")) == 365
    assert costs(its, "2028-02-28", "2028-02-28")[0] < 1, "the leap day bears its part"


def test_seats_that_come_within_a_month_are_charged_for_the_days_left() -> None:
    """12 more seats at 15 for 20 of October's 31 days: 180 x 20 / 31 = 116.129… = 116.13."""
    its = subscription(("2026-10-01", 40, "15.00"), ("2026-10-12", 52, "15.00"))
    assert charged(its, "2026-10-01", "2026-10-31") == [
        ("cycle", "2026-10-01", Decimal("600.00")),
        ("change", "2026-10-12", Decimal("116.13")),
    ]
    days = costs(its, "2026-10-01", "2026-10-31")
    assert sum(days) == Decimal("716.13")
    # 716.13 lies on 11 days of weight 600 and 20 of weight 780, 22,200 in all: 716.13 / 37, and that times 1.3.
    assert {str(day)[:-1] for day in days[:11]} == {"19.35486486486"}
    assert {str(day)[:-1] for day in days[11:]} == {"25.16132432432"}
    assert charged(its, "2026-11-01", "2026-11-30") == [("cycle", "2026-11-01", Decimal("780.00"))]


def test_seats_that_go_within_a_month_are_credited_for_the_days_left() -> None:
    its = subscription(("2026-04-01", 10, "30"), ("2026-04-21", 4, "30"))
    assert charged(its, "2026-04-21", "2026-04-21") == [("change", "2026-04-21", Decimal("-60.00"))]
    assert sum(costs(its, "2026-04-01", "2026-04-30")) == 240


def test_without_proration_a_change_counts_from_the_next_cycle_on() -> None:
    its = subscription(("2026-10-01", 40, "15.00"), ("2026-10-12", 52, "15.00"), proration="none")
    assert charged(its, "2026-10-01", "2026-11-30") == [
        ("cycle", "2026-10-01", Decimal("600.00")),
        ("cycle", "2026-11-01", Decimal("780.00")),
    ]
    assert [c.term.seats for c in day_costs(its, date(2026, 10, 31), date(2026, 11, 1))] == [40, 52]


def test_a_cycle_that_is_cut_short_is_paid_whole_and_borne_by_the_days_that_were_used() -> None:
    its = subscription(("2026-04-01", 1, "300"), last_day="2026-04-10")
    assert charged(its, "2026-04-01", "2026-06-30") == [("cycle", "2026-04-01", Decimal("300.00"))]
    assert costs(its, "2026-04-01", "2026-06-30") == [Decimal(30)] * 10


def test_unused_days_come_back_where_the_vendor_refunds_them() -> None:
    its = subscription(("2026-04-01", 1, "300"), last_day="2026-04-10", refund="daily")
    assert charged(its, "2026-04-01", "2026-06-30") == [
        ("cycle", "2026-04-01", Decimal("300.00")),
        ("refund", "2026-04-11", Decimal("-200.00")),
    ]
    assert costs(its, "2026-04-01", "2026-06-30") == [Decimal(10)] * 10


def test_a_subscription_that_ends_with_its_cycle_has_no_refund_and_no_further_charge() -> None:
    its = subscription(("2026-04-01", 1, "300"), last_day="2026-04-30", refund="daily")
    assert charged(its, "2026-04-01", "2026-06-30") == [("cycle", "2026-04-01", Decimal("300.00"))]


def test_what_the_vendor_has_billed_takes_the_place_of_what_was_computed() -> None:
    bill = {"day": "2026-02-01", "amount": "99.99", "invoice_id": "INV-7"}
    its = subscription(("2026-02-01", 10, "12.50"), invoices=[bill])
    (charge,) = charges(its, date(2026, 2, 1), date(2026, 2, 28))
    assert (charge.amount, charge.invoice_id) == (Decimal("99.99"), "INV-7")
    assert sum(costs(its, "2026-02-01", "2026-02-28")) == Decimal("99.99")


def test_an_invoice_for_what_should_be_free_lies_on_every_day_alike() -> None:
    its = subscription(("2026-04-01", 5, "0"), invoices=[{"day": "2026-04-01", "amount": "3"}])
    assert costs(its, "2026-04-01", "2026-04-30") == [Decimal("0.1")] * 30


@pytest.mark.parametrize(("currency", "amount"), [("JPY", "645"), ("USD", "645.16"), ("KWD", "645.161")])
def test_amounts_are_rounded_to_the_currencys_smallest_coin(currency: str, amount: str) -> None:
    """One more seat at 1,000 for 20 of 31 days: 645.16129…"""
    its = subscription(("2026-10-01", 1, "1000"), ("2026-10-12", 2, "1000"), currency=currency)
    assert charged(its, "2026-10-12", "2026-10-12")[0][2] == Decimal(amount)


def committed(its: Subscription, first: str, last: str) -> list[Decimal]:
    return [cost.committed for cost in day_costs(its, date.fromisoformat(first), date.fromisoformat(last))]


def test_a_cycle_longer_than_a_month_commits_to_its_first_charge_and_its_days_use_that_up() -> None:
    its = subscription(("2026-01-01", 10, "90"), ("2026-02-01", 20, "90"), billing_cycle="quarterly")
    (cycle,) = cycles(its, date(2026, 1, 1), date(2026, 3, 31))
    days = committed(its, "2026-01-01", "2026-03-31")
    assert (cycle.committed, len(days), sum(days)) == (900, 90, 900)
    assert sum(costs(its, "2026-01-01", "2026-03-31")) == 900 + 590, "what comes later is charged besides"
    assert set(committed(subscription(("2026-01-01", 10, "90")), "2026-01-01", "2026-01-31")) == {Decimal(0)}


def test_what_comes_back_of_a_commitment_is_not_used_up() -> None:
    its = subscription(("2026-01-01", 1, "900"), billing_cycle="quarterly", last_day="2026-01-30", refund="daily")
    assert sum(committed(its, "2026-01-01", "2026-03-31")) == sum(costs(its, "2026-01-01", "2026-03-31")) == 300
    paid = subscription(("2026-01-01", 1, "900"), billing_cycle="quarterly", last_day="2026-01-30")
    assert sum(committed(paid, "2026-01-01", "2026-03-31")) == 900, "paid whole, so used up by the days there were"


def test_a_credit_in_the_place_of_a_charge_is_no_commitment() -> None:
    its = subscription(
        ("2026-01-01", 1, "900"), billing_cycle="quarterly", invoices=[{"day": "2026-01-01", "amount": "-5"}]
    )
    assert set(committed(its, "2026-01-01", "2026-03-31")) == {Decimal(0)}


def test_nothing_is_charged_or_borne_before_the_first_day() -> None:
    its = subscription(("2026-04-15", 1, "300"))
    assert charged(its, "2026-01-01", "2026-04-14") == []
    assert costs(its, "2026-01-01", "2026-04-14") == []


days = st.dates(date(2020, 1, 1), date(2028, 12, 31))
money = st.decimals(0, 10**6, places=4)


@st.composite
def subscriptions(draw: st.DrawFn) -> Subscription:
    first = draw(days)
    later = sorted(draw(st.sets(st.integers(1, 800), max_size=4)))
    ends = draw(st.none() | st.integers(max(later, default=0), 1500))
    terms = [first, *(first + timedelta(days=n) for n in later)]
    return subscription(
        *((day.isoformat(), draw(st.integers(0, 500)), str(draw(money))) for day in terms),
        billing_cycle=draw(st.sampled_from(["monthly", "quarterly", "half-yearly", "yearly"])),
        currency=draw(st.sampled_from(["USD", "JPY", "KWD"])),
        proration=draw(st.sampled_from(["daily", "none"])),
        refund=draw(st.sampled_from(["daily", "none"])),
        last_day=None if ends is None else (first + timedelta(days=ends)).isoformat(),
    )


@given(subscriptions(), st.integers(0, 400))
def test_the_days_of_a_cycle_add_up_to_what_it_is_charged_to_the_last_digit(its: Subscription, skipped: int) -> None:
    first = its.first_day + timedelta(days=skipped)
    for cycle in cycles(its, first, first + timedelta(days=400)):
        borne = [cost.cost for cost in cycle.day_costs()]
        assert sum(borne, Decimal(0)) == sum((charge.amount for charge in cycle.charges()), Decimal(0))
        assert len(borne) == (cycle.until - cycle.start).days


@given(subscriptions(), st.lists(st.integers(1, 90), min_size=1, max_size=6), st.integers(-40, 700))
def test_however_the_days_are_divided_into_runs_the_rows_are_the_same(
    its: Subscription, lengths: list[int], offset: int
) -> None:
    first = its.first_day + timedelta(days=offset)
    ends = [first]
    for length in lengths:
        ends.append(ends[-1] + timedelta(days=length))
    runs = [(begin, end - timedelta(days=1)) for begin, end in pairwise(ends)]
    for rows in (charges, day_costs):
        whole = list(rows(its, first, runs[-1][1]))
        assert whole == [row for run in runs for row in rows(its, *run)]


@given(st.decimals(-(10**12), 10**12, places=18), st.lists(st.integers(0, 10**9), min_size=1).filter(any))
def test_parts_add_up_and_none_is_further_off_than_the_last_place(amount: Decimal, weights: list[int]) -> None:
    whole, begin, parts = Decimal(sum(weights)), Decimal(0), []
    with localcontext(prec=100):
        for weight in weights:
            parts.append(part(amount, begin, begin + weight, whole))
            assert abs(parts[-1] * whole - amount * weight) <= Decimal(10) ** -PLACES * whole
            begin += weight
        assert sum(parts) == amount


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"first_day": "2026-02-02"}, "the first term must hold from first_day"),
        ({"last_day": "2026-01-31"}, "last_day must not be before first_day"),
        ({"currency": "usd"}, "must match"),
        ({"category": "Chat"}, "must be one of 'AI and Machine Learning'"),
        ({"first_day": "1026-02-01"}, "must be a day from 2000-01-01"),
        ({"terms": [{"first_day": "2026-02-01", "plan": "a", "seats": 1, "price": 12.5}]}, "a number in quotes"),
        ({"invoices": [{"day": "2026-02-05", "amount": "1"}]}, "nothing of s1 is charged on 2026-02-05"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_its_place(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    its = subscription(("2026-02-01", 10, "12.50")).model_dump(mode="json", exclude_none=True) | change
    path = tmp_path / FOLDER / "acme.yml"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"subscriptions": [its]}))  # JSON is YAML
    with pytest.raises(InvalidFileError, match=r"system/subscriptions/acme\.yml:1: .*" + said):
        load_subscriptions(tmp_path, "acme")


def test_an_organisation_without_a_file_is_told_how_to_say_that_it_has_none(tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError, match=r"acme\.yml:1: \(file\): there is no such file\. .*subscriptions: \[\]"):
        load_subscriptions(tmp_path, "acme")
