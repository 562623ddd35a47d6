"""Spreads an amount over parts that add up to it to the last digit, whichever of them are asked for.

A part is the difference between two rounded running totals. So it depends on the amount and on where it lies alone,
never on which other parts somebody asks for: any division of a cycle's days into runs gives the same rows.
"""

from decimal import ROUND_HALF_EVEN, Decimal, localcontext

PLACES = 12
"""Decimal places of a part. No currency has more than four; the emulator keeps 18."""

PRECISION = 120
"""Digits to compute with: far more than an amount and its weights can need."""


def part(amount: Decimal, begin: Decimal, end: Decimal, whole: Decimal) -> Decimal:
    """Return what lies between ``begin`` and ``end`` of ``0..whole``: at most ``10**-PLACES`` off the exact part."""
    if not 0 <= begin <= end <= whole or whole == 0:
        raise ValueError(f"{begin}..{end} is no part of 0..{whole}")
    with localcontext(prec=PRECISION):
        return _until(amount, end, whole) - _until(amount, begin, whole)


def _until(amount: Decimal, end: Decimal, whole: Decimal) -> Decimal:
    """The running total at ``end``. That of the whole is the amount itself, however many places it has."""
    if end == whole:
        return amount
    return (amount * end / whole).quantize(Decimal(1).scaleb(-PLACES), rounding=ROUND_HALF_EVEN)
