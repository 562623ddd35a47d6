"""What BigQuery's jobs cost at list prices. Exact: Decimal, rounded once, half-even."""

from decimal import ROUND_HALF_EVEN, Decimal, localcontext

from common.ports.meta import JobStats

TIB = 2**40
FREE_JOBS = frozenset({"load", "copy", "extract"})
"""cloud.google.com/bigquery/pricing, free operations: in the shared slot pool."""


def cost_usd(stats: JobStats, usd_per_tib: Decimal | None, decimals: int) -> Decimal | None:
    """Return what the job costs on demand, or None if it is unknown. A load costs nothing.

    ``bytes_billed`` holds BigQuery's minimum already (10 MB a table and a query, and errors and cached results are 0),
    so nothing is added here. The free TiB of each month is not deducted: no run knows whether it is used up.
    """
    if stats.job_type in FREE_JOBS:
        return Decimal(0)
    if usd_per_tib is None or stats.bytes_billed is None:
        return None
    with localcontext(prec=120):  # a division by 2^40 is exact within 40 further digits
        exact = Decimal(stats.bytes_billed) * usd_per_tib / TIB
        return exact.quantize(Decimal(1).scaleb(-decimals), rounding=ROUND_HALF_EVEN)
