"""Reads made-up and real bills with a layout, without a warehouse."""

import csv
from collections.abc import Iterable, Mapping
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

from common.platform.paths import CONFIGS
from common.processors.bills.file_extractor import ExternalFileExtractor, ExternalFileParams, date_span
from tests.processors.bill_files import rows_of
from tests.processors.context import make_context


def write_bill(path: Path, lines: Iterable[Mapping[str, str]]) -> Path:
    """Write a CSV whose header has every name that one of the lines has."""
    rows = list(lines)
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def read_bill(path: Path, **config: Any) -> list[dict[str, Any]]:
    """Return the rows of a whole bill, as the file step makes them."""
    params = ExternalFileParams.model_validate(
        {"destination_table": "cloud_focus_export", "source": path.name, **config}
    )
    first, last = date_span(path, params, CONFIGS)
    context = make_context(landing=path.parent, start_date=first, end_date=last)
    rows: list[dict[str, Any]] = []
    for batch in ExternalFileExtractor().run(context, params):
        assert not batch.bad, [str(bad) for bad in batch.bad]
        rows += rows_of(batch)
    return rows


def total(rows: Iterable[Mapping[str, Any]], column: str = "BilledCost") -> Decimal:
    """Return a column's sum, exactly."""
    with localcontext(prec=100):
        return sum((row[column] for row in rows), Decimal(0))


def check_prices(rows: Iterable[Mapping[str, Any]]) -> None:
    """FOCUS's rules about prices: cost = price x quantity, nothing negative, nothing half there."""
    for row in rows:
        priced = row["ChargeCategory"] in ("Usage", "Purchase")
        for name in ("PricingQuantity", "PricingUnit", "ListUnitPrice", "ContractedUnitPrice", "SkuPriceId", "SkuId"):
            assert (row.get(name) is not None) == priced, (name, row)
        if priced:
            with localcontext(prec=100):
                assert row["ListCost"] == round(row["ListUnitPrice"] * row["PricingQuantity"], 38)
                assert row["ContractedCost"] == round(row["ContractedUnitPrice"] * row["PricingQuantity"], 38)
            assert row["ListUnitPrice"] >= 0 and row["ContractedUnitPrice"] >= 0
        else:
            assert row["ListCost"] == row["ContractedCost"] == row["BilledCost"]
        consumed = row["ChargeCategory"] == "Usage" and row.get("CommitmentDiscountStatus") != "Unused"
        assert (row.get("ConsumedQuantity") is not None) == (row.get("ConsumedUnit") is not None) == consumed, row
        has_commitment = row.get("CommitmentDiscountId") is not None
        for name in ("Category", "Type", "Quantity", "Unit"):
            assert (row.get(f"CommitmentDiscount{name}") is not None) == has_commitment
        assert row["ChargePeriodStart"] < row["ChargePeriodEnd"]
        assert row["BillingPeriodStart"] < row["BillingPeriodEnd"]
