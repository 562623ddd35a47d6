"""What BigQuery's jobs cost at list prices. Exact: Decimal, rounded once, half-even."""

from collections.abc import Mapping
from datetime import date
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.config.money import Usd
from common.config.problems import InvalidFileError, findings_of
from common.config.yaml_source import read
from common.ports.meta import JobStats

PRICES_FILE = Path("system") / "bigquery_prices.yml"
TIB = 2**40
FREE_JOBS = frozenset({"load", "copy", "extract"})
"""cloud.google.com/bigquery/pricing, free operations: in the shared pool of slots that everybody has."""


class BigQueryPrices(BaseModel):
    """``configs/system/bigquery_prices.yml``: US dollars for a TiB billed to a query on demand, by location.

    ``floor_usd_per_run`` is what a run is taken to cost at least, before anything else is known of it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field(min_length=1)
    read_on: date
    usd_per_tib: Mapping[str, Usd]
    floor_usd_per_run: Usd = Decimal(0)

    @property
    def named(self) -> str:
        """Where the prices are from, and when they were read."""
        return f"{self.source} ({self.read_on})"


def load_prices(root: Path) -> BigQueryPrices | None:
    """Read the prices of the tree ``root``; None if it has none. Raises InvalidFileError with all that is wrong."""
    if not (root / PRICES_FILE).is_file():
        return None
    source = read(root / PRICES_FILE, str(root.resolve().name / PRICES_FILE))
    try:
        return BigQueryPrices.model_validate(source.data)
    except ValidationError as error:
        raise InvalidFileError(source.problem(*finding) for finding in findings_of(error, BigQueryPrices)) from None


def cost_usd(stats: JobStats, usd_per_tib: Decimal | None, decimals: int) -> Decimal | None:
    """Return what the job costs on demand, or None if that can't be told. A load costs nothing.

    ``bytes_billed`` holds BigQuery's minimum already (10 MB a table and a query, and errors and cached results are 0),
    so nothing is added here. The free TiB of each month is not taken off: no run knows whether it is used up.
    """
    if stats.job_type in FREE_JOBS:
        return Decimal(0)
    if usd_per_tib is None or stats.bytes_billed is None:
        return None
    with localcontext(prec=120):  # a division by 2^40 is exact within 40 further digits
        exact = Decimal(stats.bytes_billed) * usd_per_tib / TIB
        return exact.quantize(Decimal(1).scaleb(-decimals), rounding=ROUND_HALF_EVEN)
