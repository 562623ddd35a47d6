"""``subscription.cost``: charges of an organisation's subscriptions, and their cost by day.

Two kinds of rows: one for each charge, on the day it is billed; and one for each day of each subscription, with that
day's share of its cycle's charges. Over a cycle, ``billed_cost`` of the former and ``effective_cost`` of the latter add
up to the same amount, to the last digit; so does ``commitment_cost`` of both if the cycle is a commitment.
"""

from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from typing import Any, ClassVar

from common.processors.base import Params, StepContext, TableParams
from common.processors.subscriptions.charges import Charge, DayCost, cycles, day_costs
from common.processors.subscriptions.file import load_subscriptions
from common.processors.subscriptions.model import Subscription
from common.writes.batch import Batch, batches


class SubscriptionCost:
    """Reads ``configs/system/subscriptions/<org>.yml``. Raises InvalidFileError if it is missing or wrong."""

    params_type: ClassVar[type[Params]] = TableParams
    needs_credential: ClassVar[bool] = False

    def run(self, context: StepContext, params: Any) -> Iterator[Batch]:
        subscriptions = load_subscriptions(context.configs, context.org_slug)
        yield from batches(row for its in subscriptions for row in _rows(its, context.start_date, context.end_date))


def _rows(its: Subscription, first: date, last: date) -> Iterator[dict[str, Any]]:
    common = {
        "subscription_id": its.subscription_id,
        "vendor": its.vendor,
        "service": its.service,
        "category": its.category,
        "subcategory": its.subcategory or f"Other ({its.category})",
        "account_id": its.account or its.subscription_id,
        "billing_cycle": its.billing_cycle,
        "currency": its.currency,
        "tags": dict(its.tags),
    }
    for cycle in cycles(its, first, last):
        for charge in cycle.charges():
            if first <= charge.day <= last:
                committed = cycle.committed if charge.kind == "cycle" else Decimal(0)
                yield common | _charge(charge) | _commitment(its, cycle.start, committed)
    for cost in day_costs(its, first, last):
        yield common | _day(cost) | _commitment(its, cost.cycle, cost.committed)


def _commitment(its: Subscription, start: date, amount: Decimal) -> dict[str, Any]:
    """Return the commitment columns of a row that makes or uses a commitment; none if the amount is 0."""
    if not amount:
        return {}
    return {
        "commitment_id": f"{its.subscription_id}/{start}",
        "commitment_cost": amount,
        "contract_first_day": its.first_day,
        "contract_last_day": its.last_day,
    }


def _charge(charge: Charge) -> dict[str, Any]:
    """A whole cycle is priced by seat. A change or refund is one unit, because its price per seat is a fraction."""
    term, amount = charge.term, charge.amount
    if charge.kind == "cycle":
        quantity, unit, price = Decimal(term.seats), "Seats", term.price
    else:
        quantity, unit, price = _lump(amount, "Charges")
    return {
        "x_pipeline_run_date": charge.day,
        "kind": charge.kind,
        "plan": term.plan,
        "seats": term.seats,
        "covers_until": charge.until,
        "quantity": quantity,
        "unit": unit,
        "unit_price": price,
        "list_cost": quantity * price,
        "billed_cost": amount,
        "effective_cost": Decimal(0),
        "invoice_id": charge.invoice_id,
    }


def _day(cost: DayCost) -> dict[str, Any]:
    quantity, unit, price = _lump(cost.cost, "Days")
    return {
        "x_pipeline_run_date": cost.day,
        "kind": "day",
        "plan": cost.term.plan,
        "seats": cost.term.seats,
        "quantity": quantity,
        "unit": unit,
        "unit_price": price,
        "list_cost": cost.cost,
        "billed_cost": Decimal(0),
        "effective_cost": cost.cost,
    }


def _lump(amount: Decimal, unit: str) -> tuple[Decimal, str, Decimal]:
    """Return one unit at the price of the whole. FOCUS allows no negative price, so a credit is minus one unit."""
    return Decimal(-1 if amount < 0 else 1), unit, abs(amount)
