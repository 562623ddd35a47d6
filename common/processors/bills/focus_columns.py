"""What a FOCUS file has to bring before anything of it is stored, and its columns of earlier versions.

``sp_lift_focus_export`` passes these columns into the unified table, where they may not be NULL. A row that lacks one
is refused while the file is read, because only there file, line and column are known: BigQuery would refuse the whole
bill, after it has been stored, without naming a row.
"""

from collections.abc import Collection, Mapping, Sequence

SERVICE_PROVIDERS = ("ServiceProviderName", "ProviderName")

NEEDED: Mapping[str, tuple[str, ...]] = {
    "BilledCost": ("BilledCost",),
    "BillingAccountId": ("BillingAccountId",),
    "BillingCurrency": ("BillingCurrency",),
    "BillingPeriodEnd": ("BillingPeriodEnd",),
    "BillingPeriodStart": ("BillingPeriodStart",),
    "ChargeCategory": ("ChargeCategory",),
    "ChargePeriodEnd": ("ChargePeriodEnd",),
    "ChargePeriodStart": ("ChargePeriodStart",),
    "EffectiveCost": ("EffectiveCost",),
    "ListCost": ("ListCost", "ContractedCost"),
    "ContractedCost": ("ContractedCost", "ListCost"),
    "ServiceProviderName": (*SERVICE_PROVIDERS, "PublisherName"),
}
"""By column of the unified table: the columns of which one must have a value. All others have a fallback of their own.

The fallbacks are in the procedure: InvoiceIssuerName (which AWS documents as possibly NULL) is the provider;
ServiceName (which Microsoft leaves empty for Marketplace, credits and rounding) is the SKU's meter, the publisher, or
"Other"; ServiceCategory is "Other".
"""

RENAMED: Mapping[str, str] = {
    "InvoiceId": "x_InvoiceId",
    "PricingCurrency": "x_PricingCurrency",
    "SkuMeter": "x_SkuMeterName",
}
"""By column of FOCUS 1.2: what Microsoft's FocusCost 1.0 calls it, whose specification had no such column yet."""


def spelt(name: str) -> str:
    """Return what a column's name has in every spelling: ``billing_account_id`` is ``BillingAccountId``."""
    return name.strip().replace("_", "").replace(" ", "").lower()


def plain_names(columns: Sequence[str], known: Collection[str]) -> dict[str, list[str]]:
    """Return the file's columns by the contract's names, or by their own if it has none that is spelt alike.

    A name that is exactly one of the contract's wins. More than one column for a name is the file's fault.
    """
    by_spelling = {spelt(name): name for name in known}
    exact = set(columns) & set(known)
    names: dict[str, list[str]] = {}
    for own in columns:
        alike = by_spelling.get(spelt(own), own)
        names.setdefault(own if own in known or alike in exact else alike, []).append(own)
    return names
