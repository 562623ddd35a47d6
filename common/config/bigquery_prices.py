"""BigQuery's list prices, ``configs/system/bigquery_prices.yml``."""

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path

from pydantic import Field, ValidationError

from common.config.money import Usd
from common.config.problems import InvalidFileError, findings_of
from common.config.yaml_source import read
from common.platform.strict import StrictModel

PRICES_FILE = Path("system") / "bigquery_prices.yml"


class BigQueryPrices(StrictModel):
    """``configs/system/bigquery_prices.yml``: on-demand price of a billed TiB in US dollars, by location.

    ``floor_usd_per_run`` is the lowest estimate of a run's cost, used while there is no history.
    """

    source: str = Field(min_length=1)
    read_on: date
    usd_per_tib: Mapping[str, Usd]
    floor_usd_per_run: Usd = Decimal(0)

    @property
    def named(self) -> str:
        """The source of the prices, and when they were read."""
        return f"{self.source} ({self.read_on})"


def load_prices(root: Path) -> BigQueryPrices | None:
    """Read the prices of the tree ``root``; None if it has no file. Raises InvalidFileError with every problem."""
    if not (root / PRICES_FILE).is_file():
        return None
    source = read(root / PRICES_FILE, str(root.resolve().name / PRICES_FILE))
    try:
        return BigQueryPrices.model_validate(source.data)
    except ValidationError as error:
        raise InvalidFileError(source.problem(*finding) for finding in findings_of(error, BigQueryPrices)) from None
