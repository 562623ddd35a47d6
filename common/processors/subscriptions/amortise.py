"""Splits an amount into parts that add up to it to the last digit.

A part is the difference between two rounded running totals. So it depends only on the amount and on its position, never
on which other parts are computed: any division of a cycle's days into runs gives the same rows.
"""

from decimal import ROUND_HALF_EVEN, Decimal, localcontext

PLACES = 12
"""Decimal places of a part. No currency has more than four; the BigQuery emulator keeps 18."""

PRECISION = 120
"""Digits of the arithmetic: far more than an amount and its weights need, so that only PLACES rounds."""


def part(amount: Decimal, begin: Decimal, end: Decimal, whole: Decimal) -> Decimal:
    """Return the part of ``amount`` from ``begin`` to ``end`` of ``0..whole``, at most ``10**-PLACES`` off."""
    if not 0 <= begin <= end <= whole or whole == 0:
        raise ValueError(f"{begin}..{end} is no part of 0..{whole}")
    with localcontext(prec=PRECISION):
        return _until(amount, end, whole) - _until(amount, begin, whole)


def _until(amount: Decimal, end: Decimal, whole: Decimal) -> Decimal:
    """Return the rounded running total at ``end``."""
    if end == whole:
        return amount  # not rounded: so the parts add up to the amount, however many places it has
    return (amount * end / whole).quantize(Decimal(1).scaleb(-PLACES), rounding=ROUND_HALF_EVEN)
