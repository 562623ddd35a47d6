"""The bills of ``tests/data_fixtures``, with the sums that were added up by hand (``SUMS.yml``)."""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).resolve().parent / "data_fixtures"


@dataclass(frozen=True, slots=True)
class Bill:
    """One bill: what it holds, and what has to come out of it. ``config`` is empty where no file step reads it."""

    name: str
    config: Mapping[str, Any]
    days: tuple[date, date]
    lines: int
    rows: int
    sums: Mapping[str, Decimal]

    @property
    def path(self) -> Path:
        return FOLDER / self.name

    @property
    def layout(self) -> str:
        layout: str = self.config.get("layout", "table")
        return layout

    def __str__(self) -> str:
        return self.name


def _bill(name: str, data: Mapping[str, Any]) -> Bill:
    first, last = map(date.fromisoformat, data["span"])
    sums = {column: Decimal(amount) for column, amount in data["sums"].items()}
    return Bill(name, data.get("config", {}), (first, last), data["lines"], data["rows"], sums)


BILLS = {name: _bill(name, data) for name, data in yaml.safe_load((FOLDER / "SUMS.yml").read_text("utf-8")).items()}
FILES = [bill for bill in BILLS.values() if bill.config]
"""Those that the file step reads."""


def google_rows() -> list[dict[str, Any]]:
    """Return the rows of Google's billing export."""
    return [json.loads(line) for line in BILLS["gcp_billing_export.jsonl"].path.read_text("utf-8").splitlines()]


def deepseek_export(folder: Path) -> Path:
    """Pack DeepSeek's export as its console does; return the ZIP."""
    path = folder / "usage_data_2026_10.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for member in sorted(BILLS["deepseek"].path.glob("*.csv")):
            archive.write(member, member.name)
    return path
