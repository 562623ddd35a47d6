"""``configs/system/subscriptions/<org>.yml``: what an organisation subscribes to."""

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from common.config.model import IDENTIFIER
from common.config.money import Money
from common.config.service_categories import Category
from common.platform.strict import StrictModel

FOLDER = Path("system") / "subscriptions"

MONTHS = {"monthly": 1, "quarterly": 3, "half-yearly": 6, "yearly": 12}
"""Months of each billing cycle."""

FIRST_DAY, LAST_DAY = date(2000, 1, 1), date(2200, 1, 1)
"""Range of days in a file: one outside it is a typing error, and its cycles would be counted for ever."""


def _in_range(day: date) -> date:
    if not FIRST_DAY <= day < LAST_DAY:
        raise ValueError(f"must be a day from {FIRST_DAY} to before {LAST_DAY}.")
    return day


Amount = Annotated[Money, Field(max_digits=20, decimal_places=12)]
"""Times ten million seats it has at most 28 digits, which Python's decimals multiply exactly by default."""

Day = Annotated[date, AfterValidator(_in_range)]
Name = Annotated[str, Field(min_length=1, max_length=100)]


class Term(StrictModel):
    """Plan, seats and price from ``first_day`` until the next term's first day, or the end."""

    first_day: Day = Field(description="First day on which this holds.")
    plan: Name = Field(description="What the vendor calls the plan.")
    seats: int = Field(strict=True, ge=0, le=10_000_000, description="How many seats are paid for.")
    price: Annotated[Amount, Field(ge=0)] = Field(description="Price of one seat for one billing cycle, as text.")


class Invoice(StrictModel):
    """What the vendor actually billed on a day. It replaces the computed amount."""

    day: Day = Field(description="Day of the charge: a cycle's first day, or that of a change within it.")
    amount: Amount = Field(description="Amount of the invoice, as text; below zero for a credit.")
    invoice_id: Name | None = Field(default=None, description="The vendor's number of it.")


class Subscription(StrictModel):
    """One subscription. Its cycles are counted from ``first_day``, in whole months."""

    subscription_id: Annotated[str, StringConstraints(pattern=IDENTIFIER)] = Field(description="Unique name of it.")
    vendor: Name = Field(description="Who sells it and sends the invoice.")
    service: Name = Field(description="The service as it is sold.")
    category: Category = Field(default="Business Applications", description="ServiceCategory of FOCUS.")
    subcategory: Name | None = Field(default=None, description="ServiceSubcategory of FOCUS; Other if left out.")
    account: Name | None = Field(default=None, description="The vendor's id of the account; subscription_id if none.")
    currency: str = Field(pattern=r"^[A-Z]{3}$", description="ISO 4217 code of its prices and invoices.")
    billing_cycle: Literal["monthly", "quarterly", "half-yearly", "yearly"] = Field(
        description="How long a cycle is. Each is charged on its first day, in advance."
    )
    first_day: Day = Field(description="Day on which it begins.")
    last_day: Day | None = Field(default=None, description="Last day on which it can be used; none: it goes on.")
    proration: Literal["daily", "none"] = Field(
        default="daily",
        description="What a change within a cycle does. daily: it is charged (or credited) by days at once. "
        "none: it counts from the next cycle on.",
    )
    refund: Literal["daily", "none"] = Field(
        default="none", description="Whether an end within a cycle gives the unused days' money back."
    )
    terms: tuple[Term, ...] = Field(min_length=1, description="Plan, seats and price, by the day they hold from.")
    invoices: tuple[Invoice, ...] = Field((), description="Invoices whose amounts are known.")
    tags: Mapping[Annotated[str, Field(min_length=1, max_length=128)], str] = Field(
        default_factory=dict, description="Tags of its costs, e.g. the team."
    )

    @property
    def months(self) -> int:
        """Months of a cycle."""
        return MONTHS[self.billing_cycle]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        days = [term.first_day for term in self.terms]
        if days[0] != self.first_day:
            raise ValueError(f"the first term must hold from first_day ({self.first_day}), not from {days[0]}.")
        if days != sorted(set(days)):
            raise ValueError("terms must be in order of first_day, each day once.")
        if self.last_day is not None and not self.first_day <= self.last_day:
            raise ValueError("last_day must not be before first_day.")
        if self.last_day is not None and days[-1] > self.last_day:
            raise ValueError(f"a term holds from {days[-1]}, after last_day ({self.last_day}).")
        if len({invoice.day for invoice in self.invoices}) != len(self.invoices):
            raise ValueError("each day of invoices must be named once: add up what was billed on one day.")
        return self


class SubscriptionsFile(StrictModel):
    """The file of one organisation."""

    subscriptions: tuple[Subscription, ...]

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        ids = [subscription.subscription_id for subscription in self.subscriptions]
        repeated = sorted({name for name in ids if ids.count(name) > 1})
        if repeated:
            raise ValueError(f"each subscription_id must be there once: {', '.join(repeated)}.")
        return self
