"""Defects to plant in the clean rows: what is changed, in the row of which kind, and which checks have to find it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Defect:
    """``changes`` are SQL expressions by column, for the row of that kind (for all rows where ``row`` is empty).

    ``finds`` are the checks of the family that fail by it, and nothing else of that family does.
    """

    family: str
    row: str
    changes: dict[str, str]
    finds: tuple[str, ...]
    what: str = ""


def _one(family: str, row: str, *finds: str, **changes: str) -> Defect:
    return Defect(family, row, changes, finds)


def _known(what: str, family: str, row: str, *finds: str, **changes: str) -> Defect:
    return Defect(family, row, changes, finds, what)


VALIDATOR_CATCHES = [
    _known("null BilledCost", "nullability", "tokens in", "BilledCost.missing", BilledCost="NULL"),
    _known("bad ChargeClass", "values", "tokens in", "ChargeClass.allowed", ChargeClass="'Corrected'"),
    _known("unknown currency", "values", "tokens in", "BillingCurrency.iso", BillingCurrency="'XYZ'"),
    _known("ListCost is not price x quantity", "amounts", "machine", "ListCost.product", ListCost="BIGNUMERIC '2.41'"),
    _known(
        "ContractedCost is not price x quantity", "amounts", "machine", "ContractedCost.product",
        ContractedCost="BIGNUMERIC '2.17'",
    ),
    _known(
        "negative unit price", "amounts", "machine", "ListUnitPrice.negative", "ListCost.product",
        "PricingCurrency.same", ListUnitPrice="BIGNUMERIC '-0.1'",
    ),
    _known("Tags are a JSON text", "json", "machine", "Tags.flat", Tags="TO_JSON('team=shop')"),
    _known("ConsumedUnit null", "nullability", "tokens in", "ConsumedUnit.pair", ConsumedUnit="NULL"),
    _known(
        "SubAccountName without id", "nullability", "tokens in", "SubAccountName.pair", "SubAccountType.pair",
        SubAccountId="NULL",
    ),
    _known(
        "SkuId null with SkuPriceId", "nullability", "tokens in", "SkuId.missing", "SkuPriceId.orphan",
        "SkuMeter.orphan", SkuId="NULL",
    ),
    _known(
        "ServiceSubcategory differs within one ServiceName", "consistency", "machine", "ServiceName.subcategories",
        ServiceSubcategory="'Containers'",
    ),
    _known("every ChargeCategory wrong", "values", "", *["ChargeCategory.allowed"] * 12, ChargeCategory="'usage'"),
    _known(
        "every PricingCategory wrong", "values", "", *["PricingCategory.allowed"] * 12,
        *["PricingCategory.committed"] * 2, PricingCategory="'On-Demand'",
    ),
    _known("one wrong ChargeCategory", "values", "machine", "ChargeCategory.allowed", ChargeCategory="'usage'"),
]  # fmt: skip

VALIDATOR_MISSES = [
    _known("one wrong PricingCategory", "values", "machine", "PricingCategory.allowed", PricingCategory="'OnDemand'"),
    _known(
        "ChargePeriodEnd before ChargePeriodStart", "periods", "machine", "ChargePeriod.order",
        ChargePeriodEnd="TIMESTAMP '2026-10-04 00:00:00+00'",
    ),
    _known(
        "nested object in Tags", "json", "machine", "Tags.flat", Tags="""PARSE_JSON('{"team": {"name": "shop"}}')"""
    ),
]  # fmt: skip
"""Beside these: a row that is there twice, a column without an x_, and times as texts: no changes of a row."""

COLUMN_DEFECTS = {
    "missing ServiceName column": ("* EXCEPT (ServiceName)", "columns.missing"),
    "Tags not JSON": ("* REPLACE ('team=shop' AS Tags)", "columns.type"),
    "BilledCost text '1,234.50'": ("* REPLACE ('1,234.50' AS BilledCost)", "columns.type"),
    "extra column without x_": ("*, 'shop' AS Team", "columns.unknown"),
    "times as text without zone": (
        "* REPLACE ('2026-10-05 00:00:00' AS ChargePeriodStart, '2026-10-06 00:00:00' AS ChargePeriodEnd)",
        "columns.type",
    ),
    "times as 05/10/2026": ("* REPLACE ('05/10/2026' AS ChargePeriodStart)", "columns.type"),
}
"""What is selected from the clean table to make another, and the check that has to find it."""


def _allowed(column: str, row: str) -> Defect:
    return _one("values", row, f"{column}.allowed", **{column: "'Used up'"})


def _json(column: str, text: str, row: str, *finds: str) -> Defect:
    return Defect("json", row, {column: f"PARSE_JSON('{text}')"}, finds)


def _applied(text: str, *finds: str) -> Defect:
    return _json("ContractApplied", f'{{"Elements": [{text}]}}', "machine", *finds)


def _method(text: str, *finds: str) -> Defect:
    return _json("AllocatedMethodDetails", f'{{"Elements": [{text}]}}', "split", *finds)


ID = '"ContractId": "c", "ContractCommitmentId": "k"'
COST = '"ContractCommitmentAppliedCost": 1'

VALUES = [
    _allowed("CapacityReservationStatus", "reserved"),
    _allowed("ChargeFrequency", "machine"),
    _one("values", "plan", "ChargeFrequency.purchase", ChargeFrequency="'Usage-Based'"),
    _allowed("CommitmentDiscountCategory", "covered"),
    _allowed("CommitmentDiscountStatus", "covered"),
    _one("values", "covered", "PricingCategory.committed", PricingCategory="'Standard'"),
    _one("values", "machine", "ServiceCategory.allowed", ServiceCategory="'AI'"),
    _one("values", "machine", "ServiceSubcategory.allowed", ServiceSubcategory="'Generative AI'"),
    _one("values", "machine", "text.placeholder", ResourceName="' '"),
    _one("values", "machine", "text.placeholder", AvailabilityZone="'N/A'"),
    _one("values", "machine", "x_FocusVersion.known", x_FocusVersion="'1.2'"),
]

NEVER_EMPTY = (
    "BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart", "ChargeFrequency", "ChargePeriodEnd",
    "ChargePeriodStart", "ContractedCost", "EffectiveCost", "InvoiceIssuerName", "ListCost", "PricingCurrency",
    "PricingCurrencyEffectiveCost", "ProviderName", "PublisherName", "ServiceCategory", "ServiceName",
    "ServiceProviderName", "ServiceSubcategory", "HostProviderName", "ChargeDescription",
)  # fmt: skip

NULLABILITY = [
    *(_one("nullability", "machine", f"{column}.missing", **{column: "NULL"}) for column in NEVER_EMPTY),
    _one("nullability", "tax", "ChargeCategory.missing", ChargeCategory="NULL"),
    _one("nullability", "machine", "BillingAccountId.missing", "BillingAccountType.pair", BillingAccountId="NULL"),
    _one("nullability", "split", "AllocatedResourceName.pair", AllocatedResourceName="NULL"),
    _one("nullability", "covered", "CommitmentDiscountCategory.pair", CommitmentDiscountCategory="NULL"),
    _one("nullability", "covered", "CommitmentDiscountType.pair", CommitmentDiscountType="NULL"),
    _one("nullability", "covered", "CommitmentDiscountUnit.pair", CommitmentDiscountUnit="NULL"),
    _one("nullability", "machine", "PricingUnit.pair", PricingUnit="NULL"),
    _one("nullability", "machine", "RegionName.pair", RegionName="NULL"),
    _one("nullability", "machine", "ResourceType.pair", ResourceType="NULL"),
    _one("nullability", "split", "AllocatedMethodId.required", AllocatedMethodId="NULL"),
    _one("nullability", "machine", "CapacityReservationStatus.orphan", CapacityReservationStatus="'Used'"),
    _one("nullability", "machine", "CommitmentDiscountName.orphan", CommitmentDiscountName="'Plan'"),
    _one("nullability", "machine", "CommitmentDiscountStatus.orphan", CommitmentDiscountStatus="'Used'"),
    _one("nullability", "tokens in", "ResourceName.orphan", ResourceName="'web'"),
    _one("nullability", "machine", "SkuMeter.missing", SkuMeter="NULL"),
    _one("nullability", "correction", "SkuPriceDetails.orphan", SkuPriceDetails="TO_JSON(STRUCT(1 AS x_a))"),
    _one(
        "nullability", "plan", "SkuPriceId.missing", "CommitmentDiscountQuantity.orphan", "PricingCategory.orphan",
        "PricingQuantity.orphan", "unit_prices.orphan", SkuPriceId="NULL",
    ),
    _one("nullability", "correction", "ConsumedQuantity.orphan", ConsumedQuantity="1", ConsumedUnit="'Hours'"),
    _one("nullability", "machine", "unit_prices.missing", PricingCurrencyListUnitPrice="NULL"),
    _one("nullability", "tax", "Tax.unpriced", SkuId="'s'", SkuMeter="'m'", SkuPriceId="'p'", ListUnitPrice="1",
         ContractedUnitPrice="1", PricingCurrencyListUnitPrice="1", PricingCurrencyContractedUnitPrice="1"),
    _one("nullability", "machine", "PricingCategory.missing", PricingCategory="NULL"),
    _one("nullability", "machine", "PricingQuantity.missing", PricingQuantity="NULL", PricingUnit="NULL"),
    _one("nullability", "machine", "ListUnitPrice.missing", "unit_prices.missing", ListUnitPrice="NULL"),
    _one("nullability", "machine", "ContractedUnitPrice.missing", "unit_prices.missing", ContractedUnitPrice="NULL"),
    _one("nullability", "unused", "ConsumedQuantity.forbidden", ConsumedQuantity="1", ConsumedUnit="'Hours'"),
    _one("nullability", "plan", "ConsumedQuantity.forbidden", ConsumedQuantity="1", ConsumedUnit="'Hours'"),
    _one("nullability", "machine", "ConsumedQuantity.missing", ConsumedQuantity="NULL", ConsumedUnit="NULL"),
    _one("nullability", "reserved", "CapacityReservationStatus.missing", CapacityReservationStatus="NULL"),
    _one("nullability", "covered", "CommitmentDiscountStatus.missing", CommitmentDiscountStatus="NULL"),
    _one("nullability", "covered", "CommitmentDiscountQuantity.missing", CommitmentDiscountQuantity="NULL",
         CommitmentDiscountUnit="NULL"),
    _one("nullability", "machine", "CommitmentDiscountQuantity.forbidden", CommitmentDiscountQuantity="1",
         CommitmentDiscountUnit="'USD'"),
]  # fmt: skip

AMOUNTS = [
    _one("amounts", "machine", "ContractedUnitPrice.negative", "ContractedCost.product", "PricingCurrency.same",
         ContractedUnitPrice="BIGNUMERIC '-0.09'"),
    _one("amounts", "machine", "PricingCurrencyListUnitPrice.negative", PricingCurrency="'EUR'",
         PricingCurrencyListUnitPrice="-1"),
    _one("amounts", "machine", "PricingCurrencyContractedUnitPrice.negative", PricingCurrency="'EUR'",
         PricingCurrencyContractedUnitPrice="-1"),
    _one("amounts", "machine", "ListCost.rounded", ListCost="ListCost + BIGNUMERIC '0.0000000001'"),
    _one("amounts", "machine", "ContractedCost.rounded", ContractedCost="ContractedCost - BIGNUMERIC '0.0000000001'"),
    _one("amounts", "plan", "EffectiveCost.prepaid", EffectiveCost="2", PricingCurrencyEffectiveCost="2"),
    _one("amounts", "credit", "Credit.costs", ListCost="0"),
    _one("amounts", "machine", "PricingCurrency.same", PricingCurrencyEffectiveCost="BIGNUMERIC '2.17'"),
]  # fmt: skip

DECIMALS = [
    _one("decimals", "machine", "decimals.last_place", BilledCost="BIGNUMERIC '2.161616161616161616'"),
    _one("decimals", "machine", "decimals.float", EffectiveCost="BIGNUMERIC '0.30000000000000004'"),
    _one("decimals", "machine", "decimals.float", EffectiveCost="BIGNUMERIC '1.0999999999999999'"),
]

PERIODS = [
    _one("periods", "machine", "BillingPeriod.order", "ChargePeriod.billing_period",
         BillingPeriodEnd="BillingPeriodStart"),
    _one("periods", "tokens in", "ChargePeriod.inclusive_end", ChargePeriodEnd="TIMESTAMP '2026-10-05 23:59:59+00'"),
    _one("periods", "machine", "BillingPeriod.inclusive_end", BillingAccountId="'101'",
         BillingPeriodEnd="TIMESTAMP '2026-10-31 00:00:00+00'"),
    _one("periods", "machine", "ChargePeriod.billing_period", BillingAccountId="'102'",
         BillingPeriodStart="TIMESTAMP '2026-11-01 00:00:00+00'",
         BillingPeriodEnd="TIMESTAMP '2026-12-01 00:00:00+00'"),
    _one("periods", "tax", "ChargePeriod.day", ChargePeriodStart="TIMESTAMP '2026-10-04 00:00:00+00'"),
    _one("periods", "tax", "BillingPeriod.overlap", BillingPeriodStart="TIMESTAMP '2026-10-15 00:00:00+00'",
         BillingPeriodEnd="TIMESTAMP '2026-11-15 00:00:00+00'"),
    _one("periods", "reserved", "ChargePeriod.overlap", ChargePeriodEnd="TIMESTAMP '2026-10-05 12:00:00+00'"),
]  # fmt: skip
"""They stand beside the clean rows: two of them overlap with those."""

CONSISTENCY = [
    _one("consistency", "credit", "row.twice"),
    _one("consistency", "tokens in", "token_type.twice", BilledCost="7"),
    _one("consistency", "tax", "ServiceName.categories", "ServiceName.subcategories", ServiceCategory="'Compute'",
         ServiceSubcategory="'Other (Compute)'"),
    _one("consistency", "split", "ServiceName.subcategories", ServiceSubcategory="'Containers'"),
    _one("consistency", "reserved", "SkuPriceId.skus", SkuId="'other'"),
    _one("consistency", "covered", "CommitmentDiscountUnit.units", CommitmentDiscountUnit="'Hours'"),
]  # fmt: skip

JSON = [
    _json("Tags", '["shop"]', "machine", "Tags.flat"),
    _json("AllocatedTags", '{"team": ["shop"]}', "split", "AllocatedTags.flat"),
    _json("SkuPriceDetails", '{"x_Sizes": [1]}', "machine", "SkuPriceDetails.flat"),
    _json("SkuPriceDetails", '{"Cores": 4}', "machine", "SkuPriceDetails.keys"),
    _json("ContractApplied", '{"ContractId": "c"}', "machine", "ContractApplied.elements"),
    _applied('"c"', "ContractApplied.flat", "ContractApplied.ids", "ContractApplied.amount"),
    _applied(f'{{{ID}, {COST}, "x_More": {{}}}}', "ContractApplied.flat"),
    _applied(f'{{"ContractId": "c", {COST}}}', "ContractApplied.ids"),
    _applied(f'{{{ID}, "ContractCommitmentAppliedCost": "1"}}', "ContractApplied.types"),
    _applied(f"{{{ID}}}", "ContractApplied.amount"),
    _applied(f'{{{ID}, "ContractCommitmentAppliedQuantity": 1}}', "ContractApplied.unit"),
    _applied(f'{{{ID}, {COST}, "Share": 1}}', "ContractApplied.keys"),
    _applied(f'{{"ContractId": "other", "ContractCommitmentId": "k", {COST}}}', "ContractApplied.contracts"),
    Defect("json", "plan", {"ResourceId": "'plan-2'"}, ("ContractApplied.purchase",)),
    _json("AllocatedMethodDetails", "[]", "split", "AllocatedMethodDetails.elements"),
    _method('{"AllocatedRatio": 1, "x_More": []}', "AllocatedMethodDetails.flat"),
    _method('{"AllocatedRatio": "1"}', "AllocatedMethodDetails.ratio"),
    _method('{"AllocatedRatio": 1, "UsageQuantity": 1}', "AllocatedMethodDetails.usage"),
    _method('{"AllocatedRatio": 1, "Basis": "cpu"}', "AllocatedMethodDetails.keys"),
]

EVERY = [*VALUES, *NULLABILITY, *AMOUNTS, *DECIMALS, *PERIODS, *CONSISTENCY, *JSON]
