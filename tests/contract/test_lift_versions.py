"""``sp_lift_focus_export`` on a row of each version of FOCUS that has every column of that version, and no other.

What a version has passes through as it is. What it lacks has a rule here, or stays without a value.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from common.adapters.bigquery import BigQueryWarehouse
from tests.conftest import PROJECT
from tests.contract.focus import FOCUS, Dataset, export, numbers

SINCE = {
    "1.1": (
        *("CapacityReservationId", "CapacityReservationStatus", "CommitmentDiscountQuantity", "CommitmentDiscountUnit"),
        *("ServiceSubcategory", "SkuMeter", "SkuPriceDetails"),
    ),
    "1.2": (
        *("BillingAccountType", "InvoiceId", "PricingCurrency", "PricingCurrencyContractedUnitPrice"),
        *("PricingCurrencyEffectiveCost", "PricingCurrencyListUnitPrice", "SubAccountType"),
    ),
    "1.3": (
        *("AllocatedMethodDetails", "AllocatedMethodId", "AllocatedResourceId", "AllocatedResourceName"),
        *("AllocatedTags", "ContractApplied", "HostProviderName", "ServiceProviderName"),
    ),
}
"""Columns by the version that brought them (``../shared/focus/columns_1_3.csv``)."""

OLD, DEPRECATED = "1.0", ("ProviderName", "PublisherName")
WITHOUT = "1.3 without what it deprecates"
VERSIONS = (OLD, *SINCE, WITHOUT)
VALUES: dict[str, Any] = {
    "STRING": "its own {}",
    "BIGNUMERIC": Decimal("12.345678901234567891"),
    "TIMESTAMP": datetime(2026, 10, 5, tzinfo=UTC),
    "JSON": {"its own": "{}"},
}
SAID = {
    "ChargeCategory": "Usage",
    "ChargeFrequency": "Recurring",
    "BillingCurrency": "EUR",
    "PricingCurrency": "EUR",
    "ListUnitPrice": Decimal("0.1"),
    "ContractedUnitPrice": Decimal("0.09"),
    "EffectiveCost": Decimal("0.5"),
    "PricingCurrencyListUnitPrice": Decimal("0.11"),
    "PricingCurrencyContractedUnitPrice": Decimal("0.095"),
    "PricingCurrencyEffectiveCost": Decimal("0.55"),
}
RULES: dict[str, Any] = {
    "ServiceSubcategory": "Other (its own ServiceCategory)",
    "BillingAccountType": "Billing Account",
    "SubAccountType": "Sub Account",
    "PricingCurrency": "EUR",
    "PricingCurrencyListUnitPrice": Decimal("0.1"),
    "PricingCurrencyContractedUnitPrice": Decimal("0.09"),
    "PricingCurrencyEffectiveCost": Decimal("0.5"),
    "ServiceProviderName": "its own ProviderName",
    "HostProviderName": "its own ProviderName",
    "ProviderName": "its own ServiceProviderName",
    "PublisherName": "its own ServiceProviderName",
}
"""What the procedure fills where the export has no such column."""

OLD_ROW = export("1.00", ServiceProviderName=None, HostProviderName=None, ProviderName="AWS", PublisherName="AWS")
EMPTY_CELLS = [
    OLD_ROW | {"ChargeDescription": "no issuer", "InvoiceIssuerName": None, "extra": None},
    OLD_ROW | {"ChargeDescription": "no service", "ServiceName": None, "ServiceCategory": None, "SkuMeter": None},
    OLD_ROW | {"ChargeDescription": "seller", "PublisherName": "Databricks, Inc."},
    OLD_ROW | {"ChargeDescription": "not the seller", "PublisherName": "Amazon Web Services, Inc."},
    OLD_ROW
    | {"ChargeDescription": "vendor", "ProviderName": "Microsoft", "PublisherName": "Contoso"}
    | {"extra": {"x_PublisherCategory": "Vendor"}},
    OLD_ROW
    | {"ChargeDescription": "zeros", "ListUnitPrice": Decimal(0), "ContractedUnitPrice": Decimal(0)}
    | {"ListCost": Decimal(0), "ContractedCost": Decimal(0)},
    OLD_ROW
    | {"ChargeDescription": "free", "BilledCost": Decimal(0), "EffectiveCost": Decimal(0), "ListCost": Decimal(0)}
    | {"ListUnitPrice": Decimal(0)},
]

COLUMNS = {column.name: column.type for column in FOCUS.columns if not column.name.startswith("x_")}


def lacking(version: str) -> set[str]:
    """Columns of FOCUS 1.3 that an export of the version does not have."""
    if version == WITHOUT:
        return set(DEPRECATED)
    return {name for since, names in SINCE.items() if since > version for name in names}


def its_own(name: str, kind: str) -> Any:
    if name in SAID:
        return SAID[name]
    value = VALUES[kind]
    return value.format(name) if isinstance(value, str) else value


def given(version: str) -> dict[str, Any]:
    own = {name: its_own(name, kind) for name, kind in COLUMNS.items() if name not in lacking(version)}
    return own | {"ChargeDescription": version}


@pytest.fixture(scope="module")
def lifted(warehouse: BigQueryWarehouse, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    dataset = Dataset(warehouse, tmp_path_factory.mktemp("rows"), f"{PROJECT}.versions{next(numbers)}")
    stamp = {"source_file": "x.csv", "source_row": 1, "extra": {"x_own": "7"}}
    odd = [
        export("-4", ConsumedQuantity=Decimal(-2), ChargeDescription="negative"),
        export("0", ConsumedQuantity=Decimal(0), ChargeDescription="nothing", BillingCurrency="JPY"),
    ]
    rows = [*(stamp | given(version) for version in VERSIONS), *odd, *(stamp | row for row in EMPTY_CELLS)]
    dataset.fill("cloud_focus_export", rows)
    found = dataset.call("sp_lift_focus_export", "cloud_focus_export")
    assert len(found) == len(rows)
    yield {row["ChargeDescription"]: row for row in found}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_row_of_a_version_keeps_what_it_has_and_gets_by_a_rule_what_it_lacks(
    lifted: dict[str, Any], version: str
) -> None:
    expected = given(version) | {name: RULES.get(name) for name in lacking(version)}
    assert {name: lifted[version][name] for name in COLUMNS} == expected
    own = {name: lifted[version][name] for name in FOCUS.names if name not in COLUMNS}
    assert {name: value for name, value in own.items() if value is not None} == {
        "x_FocusVersion": "1.4" if version == WITHOUT else "1.3",  # 1.4 has removed what 1.3 deprecates
        "x_SourceColumns": {"x_own": "7"},
    }


def test_negative_usage_usage_of_nothing_and_another_currency_pass_through(lifted: dict[str, Any]) -> None:
    names = ("BilledCost", "ConsumedQuantity", "BillingCurrency")
    assert [tuple(lifted[kind][name] for name in names) for kind in ("negative", "nothing")] == [
        (-4, -2, "EUR"),
        (0, 0, "JPY"),
    ]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("no issuer", {"InvoiceIssuerName": "AWS", "x_SourceColumns": {"x_Filled": "InvoiceIssuerName"}}),
        (
            "no service",
            {"ServiceName": "AWS", "ServiceCategory": "Other"}
            | {"x_SourceColumns": {"x_Filled": "ServiceName ServiceCategory", "x_own": "7"}},
        ),
    ],
)
def test_an_empty_cell_that_providers_document_gets_a_fallback_which_the_row_names(
    lifted: dict[str, Any], row: str, expected: dict[str, Any]
) -> None:
    assert {name: lifted[row][name] for name in expected} == expected


@pytest.mark.parametrize(
    ("row", "seller"),
    [("seller", "Databricks, Inc."), ("not the seller", "AWS"), ("vendor", "Contoso"), ("no issuer", "AWS")],
)
def test_before_1_3_a_marketplace_charge_names_its_seller_as_publisher(
    lifted: dict[str, Any], row: str, seller: str
) -> None:
    assert lifted[row]["ServiceProviderName"] == seller


def test_a_price_of_0_beside_a_cost_is_not_known_and_the_costs_stay(lifted: dict[str, Any]) -> None:
    prices = ("ListUnitPrice", "ContractedUnitPrice", "PricingCurrencyListUnitPrice")
    assert [lifted["zeros"][name] for name in prices] == [None, None, None]
    assert (lifted["zeros"]["ListCost"], lifted["zeros"]["BilledCost"]) == (0, 1)
    assert lifted["free"]["ListUnitPrice"] == 0


@pytest.mark.shared
def test_the_columns_of_each_version_are_those_of_the_specification(shared_data: Path) -> None:
    import csv

    with (shared_data.parent / "focus" / "columns_1_3.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["dataset"] == "CostAndUsage"]
    assert {row["column"] for row in rows} == COLUMNS.keys()
    for version, names in SINCE.items():
        assert {row["column"] for row in rows if row["introduced"] == version} == set(names)
