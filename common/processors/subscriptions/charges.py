"""Computes a subscription's charges and the cost of each of its days. Pure: no clock, no files.

A cycle is charged on its first day. With proration, a change within it adds a charge (or credit) for the remaining
days. The cycle's charges are spread over the days on which the subscription can be used, weighted by seats and price:
so a cycle that ends early without a refund costs more a day, and still adds up.
"""

import calendar
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Decimal, localcontext
from typing import Literal

from common.processors.subscriptions.amortise import PRECISION, part
from common.processors.subscriptions.model import Subscription, Term

_PLACES = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}
MINOR_UNITS = {currency: places for places, names in _PLACES.items() for currency in names.split()}
"""Decimal places of ISO 4217's currencies that do not have two."""

Kind = Literal["cycle", "change", "refund"]


@dataclass(frozen=True, slots=True)
class Charge:
    """One line of an invoice: charged on ``day``, for the days from then to before ``until``."""

    kind: Kind
    day: date
    until: date
    term: Term
    amount: Decimal
    invoice_id: str | None = None


@dataclass(frozen=True, slots=True)
class DayCost:
    """The cost of one day of a subscription under ``term``.

    ``committed`` is the part of the cost that draws on the commitment of the cycle that began on ``cycle``.
    """

    day: date
    cost: Decimal
    term: Term
    cycle: date
    committed: Decimal


@dataclass(frozen=True, slots=True)
class Cycle:
    """Days ``start`` to before ``end``; the subscription can be used until before ``until``."""

    its: Subscription
    start: date
    end: date
    until: date

    @property
    def terms(self) -> Sequence[Term]:
        """The term at the start, and with proration each later one of the cycle."""
        at_first = next(term for term in reversed(self.its.terms) if term.first_day <= self.start)
        if self.its.proration == "none":
            return (at_first,)
        return (at_first, *(term for term in self.its.terms if self.start < term.first_day < self.until))

    @property
    def committed(self) -> Decimal:
        """The commitment made on the first day: that day's charge if the cycle is longer than a month, else 0.

        A change adds to the charges, not to the commitment. A later credit leaves part of the commitment unused.
        """
        return max(next(self.charges()).amount, Decimal(0)) if self.its.months > 1 else Decimal(0)

    def charges(self) -> Iterator[Charge]:
        """Yield the cycle's charges in order of days."""
        at_first, *changes = self.terms
        before = _price(at_first)
        yield self._charge("cycle", self.start, at_first, before)
        for term in changes:
            yield self._charge("change", term.first_day, term, _price(term) - before)
            before = _price(term)
        if self.its.refund == "daily" and self.until < self.end:
            yield self._charge("refund", self.until, self.terms[-1], -before)

    def _charge(self, kind: Kind, day: date, term: Term, price: Decimal) -> Charge:
        """Return the charge for the days from ``day`` on: the vendor's invoice of that day, else the price pro rata."""
        billed = next((invoice for invoice in self.its.invoices if invoice.day == day), None)
        if billed is not None:
            return Charge(kind, day, self.end, term, billed.amount, billed.invoice_id)
        with localcontext(prec=PRECISION):
            unit = Decimal(1).scaleb(-MINOR_UNITS.get(self.its.currency, 2))
            exact = price * (self.end - day).days / (self.end - self.start).days
            # Half up, to the currency's smallest unit, as vendors round their invoices.
            return Charge(kind, day, self.end, term, exact.quantize(unit, rounding=ROUND_HALF_UP))

    def day_costs(self) -> Iterator[DayCost]:
        """Yield the cost of each usable day; they add up to the cycle's charges to the last digit."""
        days = [self.start + timedelta(days=n) for n in range((self.until - self.start).days)]
        terms = [next(term for term in reversed(self.terms) if term.first_day <= day) for day in days]
        with localcontext(prec=PRECISION):
            total = sum((charge.amount for charge in self.charges()), Decimal(0))
            weights = [_price(term) for term in terms]
            if not any(weights):  # an invoice for a free term: all days share it equally
                weights = [Decimal(1)] * len(days)
            # A credit can make the total smaller than the commitment: no more is used up than was paid.
            used_up = max(min(self.committed, total), Decimal(0))
            whole, begin = sum(weights, Decimal(0)), Decimal(0)
            for day, term, weight in zip(days, terms, weights, strict=True):
                cost, used = (part(amount, begin, begin + weight, whole) for amount in (total, used_up))
                yield DayCost(day, cost, term, self.start, used)
                begin += weight


def cycles(its: Subscription, first: date, last: date) -> Iterator[Cycle]:
    """Yield the cycles that overlap the days ``first`` to ``last``."""
    # One cycle early: months differ in length, and the day of the month may not have come yet.
    number = max(_months_between(its.first_day, first) // its.months - 1, 0)
    ends = None if its.last_day is None else its.last_day + timedelta(days=1)
    while True:
        # Both are counted from the very first day: counted cycle by cycle, a 31st would stay a 28th after February.
        start, end = _later(its.first_day, number * its.months), _later(its.first_day, (number + 1) * its.months)
        if start > last or (ends is not None and start >= ends):
            return
        if end > first:
            yield Cycle(its, start, end, end if ends is None else min(end, ends))
        number += 1


def charges(its: Subscription, first: date, last: date) -> Iterator[Charge]:
    """Yield the charges of the days ``first`` to ``last``."""
    for cycle in cycles(its, first, last):
        yield from (charge for charge in cycle.charges() if first <= charge.day <= last)


def day_costs(its: Subscription, first: date, last: date) -> Iterator[DayCost]:
    """Yield the cost of each of the days ``first`` to ``last`` on which the subscription can be used."""
    for cycle in cycles(its, first, last):
        yield from (cost for cost in cycle.day_costs() if first <= cost.day <= last)


def _price(term: Term) -> Decimal:
    with localcontext(prec=PRECISION):
        return term.price * term.seats


def _later(day: date, months: int) -> date:
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    return date(year, month + 1, min(day.day, calendar.monthrange(year, month + 1)[1]))


def _months_between(first: date, then: date) -> int:
    return (then.year - first.year) * 12 + then.month - first.month
