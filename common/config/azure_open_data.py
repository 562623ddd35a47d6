"""Names of Azure's services and regions by Microsoft's open mapping (``configs/system/open_data``)."""

import csv
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

FOLDER = Path("system/open_data")


class AzureService(NamedTuple):
    """What a resource type belongs to, in FOCUS's words."""

    name: str
    category: str
    subcategory: str


@lru_cache(maxsize=4)
def azure_services(root: Path) -> dict[tuple[str, str], AzureService]:
    """Return services by consumed service and resource type, both in lower case."""
    return {
        (row["ConsumedService"].lower(), row["ResourceType"].lower()): AzureService(
            row["ServiceName"], row["ServiceCategory"], row["ServiceSubcategory"]
        )
        for row in _rows(root / FOLDER / "azure_services.csv")
    }


@lru_cache(maxsize=4)
def azure_regions(root: Path) -> dict[str, tuple[str, str]]:
    """Return id and name of a region by any of its spellings in bills, in lower case."""
    rows = _rows(root / FOLDER / "azure_regions.csv")
    return {row["OriginalValue"].lower(): (row["RegionId"], row["RegionName"]) for row in rows}


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
