"""What a FOCUS file has to bring, whatever the case of its header. A file is refused before anything is stored."""

from pathlib import Path

import pytest

from tests.processors.bill_files import land, read, refused

NAMES = {
    "BilledCost": "4.00",
    "BillingAccountId": "1111",
    "BillingCurrency": "USD",
    "BillingPeriodEnd": "2026-11-01T00:00:00Z",
    "BillingPeriodStart": "2026-10-01T00:00:00Z",
    "ChargeCategory": "Usage",
    "ChargePeriodEnd": "2026-10-02T00:00:00Z",
    "ChargePeriodStart": "2026-10-01T00:00:00Z",
    "EffectiveCost": "3.00",
    "ListCost": "5.00",
    "ProviderName": "AWS",
}


def bill(**change: str) -> tuple[str, str]:
    row = NAMES | change
    return ",".join(row), ",".join(row.values())


@pytest.mark.parametrize("spelling", [str, str.lower, str.upper, lambda n: n.replace("Cost", "_Cost")])
def test_a_columns_name_is_the_contracts_in_any_case_and_with_underscores(tmp_path: Path, spelling) -> None:  # type: ignore[no-untyped-def]
    header, line = bill(Foo="x")
    land(tmp_path, spelling(header), line)
    (row,) = read(tmp_path)
    assert (row["BilledCost"], row["EffectiveCost"], row["ProviderName"]) == (4, 3, "AWS")
    assert row["extra"] == f'{{"{spelling("Foo")}": "x"}}'


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    header, line = bill(billedcost="5")
    # The exact name is the column; the other one is kept as it is.
    land(tmp_path, header, line)
    assert read(tmp_path)[0]["BilledCost"] == 4
    text = refused(tmp_path, header.replace("BilledCost", "BILLEDCOST"), line)
    assert "line 1: the columns 'BILLEDCOST' and 'billedcost' are the same one" in text


@pytest.mark.parametrize("name", [name for name in NAMES if name != "ChargePeriodStart"])
def test_a_column_that_the_unified_table_needs_is_missed_in_the_header(tmp_path: Path, name: str) -> None:
    row = {key: value for key, value in NAMES.items() if key != name}
    text = refused(tmp_path, ",".join(row), ",".join(row.values()))
    assert text.startswith("bill.csv: line 1: column ") and f"{name}" in text and "missing" in text


def test_the_nearest_name_is_offered_only_where_one_is_near(tmp_path: Path) -> None:
    header, line = bill()
    assert "Did you mean 'BildCost'?" in refused(tmp_path, header.replace("BilledCost", "BildCost"), line)
    assert "Did you mean" not in refused(tmp_path, header.replace("ListCost", "zz"), line)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("more", [1, 40])
def test_an_empty_cell_is_told_with_file_line_and_column(tmp_path: Path, name: str, more: int) -> None:
    header, line = bill()
    _, empty = bill(**{name: ""})
    expected = "ServiceProviderName" if name == "ProviderName" else name
    text = refused(tmp_path, header, *[line] * more, empty)
    assert text == f"bill.csv: line {more + 2}, column {expected}: it is empty, and needs a value."


def test_a_list_cost_stands_in_for_a_contracted_one_and_the_other_way_round(tmp_path: Path) -> None:
    header, line = bill(ContractedCost="", ListCost="5")
    land(tmp_path, header, line)
    assert read(tmp_path)[0]["ListCost"] == 5
    header, line = bill(ContractedCost="", ListCost="")
    assert "column ListCost: it is empty" in refused(tmp_path, header, line)


def test_columns_that_microsofts_1_0_had_before_focus_are_the_later_columns(tmp_path: Path) -> None:
    own = {"x_InvoiceId": "T000123", "x_PricingCurrency": "USD", "x_SkuMeterName": "D2 v2"}
    header, line = bill(**own)
    land(tmp_path, header, line)
    (row,) = read(tmp_path)
    assert (row["InvoiceId"], row["PricingCurrency"], row["SkuMeter"]) == ("T000123", "USD", "D2 v2")
    header, line = bill(**own, InvoiceId="later")
    land(tmp_path, header, line)
    (row,) = read(tmp_path)
    assert (row["InvoiceId"], row["extra"]) == ("later", '{"x_InvoiceId": "T000123"}')
