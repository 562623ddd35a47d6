"""Clean FOCUS rows, made by hand: one of each kind of charge, as FOCUS 1.3 wants it. Figures are easy to check."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

Row = dict[str, Any]

DAY = date(2026, 10, 5)
MONTH = {
    "BillingPeriodStart": datetime(2026, 10, 1, tzinfo=UTC),
    "BillingPeriodEnd": datetime(2026, 11, 1, tzinfo=UTC),
}
OCTOBER_5 = {
    "ChargePeriodStart": datetime(2026, 10, 5, tzinfo=UTC),
    "ChargePeriodEnd": datetime(2026, 10, 6, tzinfo=UTC),
}
PLAN = {
    "CommitmentDiscountId": "plan-1",
    "CommitmentDiscountName": "Plan one",
    "CommitmentDiscountCategory": "Spend",
    "CommitmentDiscountType": "Savings Plan",
    "CommitmentDiscountUnit": "USD",
}
VM = {
    "ServiceName": "Virtual machines",
    "ServiceCategory": "Compute",
    "ServiceSubcategory": "Virtual Machines",
    "RegionId": "eu-west-1",
    "RegionName": "EU (Ireland)",
    "AvailabilityZone": "eu-west-1a",
    "ResourceId": "vm-1",
    "ResourceName": "web",
    "ResourceType": "Instance",
    "SubAccountId": "200",
    "SubAccountName": "Shop",
    "SubAccountType": "Account",
}


def charge(kind: str, billed: str, **more: Any) -> Row:
    """Return a row; its other costs are the billed one, and its account is that of a cloud, unless said otherwise."""
    amount = Decimal(billed)
    return {
        "x_pipeline_run_date": DAY,
        "x_FocusVersion": "1.3",
        "ChargeDescription": kind,
        "BilledCost": amount,
        "EffectiveCost": amount,
        "ListCost": amount,
        "ContractedCost": amount,
        "PricingCurrencyEffectiveCost": more.get("EffectiveCost", amount),
        "BillingCurrency": "USD",
        "PricingCurrency": "USD",
        "BillingAccountId": "100",
        "BillingAccountName": "Acme",
        "BillingAccountType": "Payer",
        "InvoiceIssuerName": "Cloud",
        "ServiceProviderName": "Cloud",
        "HostProviderName": "Cloud",
        "ProviderName": "Cloud",
        "PublisherName": "Cloud",
        **MONTH,
        **OCTOBER_5,
        **more,
    }


def priced(sku: str, quantity: str, unit: str, listed: str, contracted: str | None = None) -> Row:
    """Return the columns of what is priced by a unit; costs are price x quantity."""
    many, price, agreed = Decimal(quantity), Decimal(listed), Decimal(contracted or listed)
    return {
        "SkuId": sku,
        "SkuMeter": unit,
        "SkuPriceId": f"{sku}/price",
        "PricingCategory": "Standard",
        "PricingQuantity": many,
        "PricingUnit": unit,
        "ListUnitPrice": price,
        "PricingCurrencyListUnitPrice": price,
        "ContractedUnitPrice": agreed,
        "PricingCurrencyContractedUnitPrice": agreed,
        "ListCost": price * many,
        "ContractedCost": agreed * many,
    }


def consumed(quantity: str, unit: str) -> Row:
    """Return the columns of what was used."""
    return {"ConsumedQuantity": Decimal(quantity), "ConsumedUnit": unit}


def usage(kind: str, billed: str, **more: Any) -> Row:
    return charge(kind, billed, **{"ChargeCategory": "Usage", "ChargeFrequency": "Usage-Based", **more})


def tokens(kind: str, meter: str, quantity: str, price: str, **more: Any) -> Row:
    """Return one row of GenAI usage: quantity x price is what it costs."""
    sku = f"gpt-4o/{meter}"
    names = ("InvoiceIssuerName", "ServiceProviderName", "HostProviderName", "ProviderName", "PublisherName")
    columns = {
        **dict.fromkeys(names, "OpenAI"),
        "BillingAccountId": "org-1",
        "BillingAccountType": "Organization",
        "SubAccountId": "proj_a",
        "SubAccountName": "Support",
        "SubAccountType": "Project",
        "ServiceName": "OpenAI API",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceSubcategory": "Generative AI",
        "SkuPriceDetails": {"x_TokenType": meter},
        "x_Model": "gpt-4o",
        "x_TokenType": meter,
        "x_ServiceTier": "standard",
        **priced(sku, quantity, "Tokens", price),
        **consumed(quantity, "Tokens"),
        **more,
    }
    return usage(kind, str(Decimal(quantity) * Decimal(price)), **columns)


def _genai() -> list[Row]:
    """Return usage of a model, a row for each kind of token."""
    return [
        tokens("tokens in", "input_text", "12000", "0.0000025", Tags={"team": "support", "env": "prod"}),
        tokens("tokens cached", "input_cached_text", "40000", "0.00000125"),
        tokens("tokens out", "output_text", "3000", "0.00001"),
    ]


def _machine() -> list[Row]:
    """Return a machine at an agreed price."""
    return [
        # 24 h x 0.10 at list, 0.09 agreed: 2.16.
        usage(
            "machine",
            "2.16",
            **VM,
            **priced("vm", "24", "Hours", "0.1", "0.09"),
            **consumed("24", "Hours"),
            SkuPriceDetails={"CoreCount": 4, "InstanceType": "m1", "x_Tenancy": "Shared"},
            Tags={"team": "shop", "spot": True, "note": 'a "quoted" {brace} and [bracket]'},
            ContractApplied={
                "Elements": [
                    {
                        "ContractId": "contract-1",
                        "ContractCommitmentId": "commitment-1",
                        "ContractCommitmentAppliedCost": 2.16,
                        "ContractCommitmentAppliedQuantity": None,
                        "ContractCommitmentAppliedUnit": None,
                        "x_Share": "all",
                    }
                ]
            },
        ),
    ]


def _plan() -> list[Row]:
    """Return a commitment: what it covers, what nobody used of it, and its purchase."""
    return [
        # The plan pays for these hours: nothing is billed, 24 x 0.05 = 1.20 is what they took of it.
        usage(
            "covered",
            "0",
            **VM | {"ResourceId": "vm-2", "ResourceName": "batch"},
            **PLAN,
            **{**priced("vm-plan", "24", "Hours", "0.1"), "PricingCategory": "Committed"},
            **consumed("24", "Hours"),
            EffectiveCost=Decimal("1.20"),
            CommitmentDiscountStatus="Used",
            CommitmentDiscountQuantity=Decimal("1.20"),
        ),
        usage(
            "unused",
            "0",
            **VM | {"ResourceId": "plan-1", "ResourceName": "Plan one", "ResourceType": "Plan"},
            **PLAN,
            **{**priced("plan-unused", "0.8", "USD", "0"), "PricingCategory": "Committed"},
            EffectiveCost=Decimal("0.80"),
            CommitmentDiscountStatus="Unused",
            CommitmentDiscountQuantity=Decimal("0.80"),
        ),
        charge(
            "plan",
            "2",
            **VM | {"ResourceId": "plan-1", "ResourceName": "Plan one", "ResourceType": "Plan"},
            **PLAN,
            **priced("plan", "2", "USD", "1"),
            ChargeCategory="Purchase",
            ChargeFrequency="Recurring",
            EffectiveCost=Decimal(0),
            CommitmentDiscountQuantity=Decimal(2),
            ContractApplied={
                "Elements": [
                    {
                        "ContractId": "contract-1",
                        "ContractCommitmentId": "plan-1",
                        "ContractCommitmentAppliedCost": None,
                        "ContractCommitmentAppliedQuantity": 2,
                        "ContractCommitmentAppliedUnit": "USD",
                    }
                ]
            },
        ),
    ]


def _shared() -> list[Row]:
    """Return a cluster's part, and a reserved machine."""
    return [
        # A cluster of 3 h x 0.50, of which half goes to one workload.
        usage(
            "split",
            "0.75",
            **VM | {"ResourceId": "cluster-1", "ResourceName": "cluster", "ServiceName": "Clusters"},
            **priced("cluster", "1.5", "Hours", "0.5"),
            **consumed("1.5", "Hours"),
            AllocatedMethodId="by-cpu",
            AllocatedMethodDetails={
                "Elements": [{"AllocatedRatio": 0.5, "UsageUnit": "Hours", "UsageQuantity": 1.5, "x_Basis": "cpu"}]
            },
            AllocatedResourceId="workload-1",
            AllocatedResourceName="checkout",
            AllocatedTags={"team": "shop"},
        ),
        usage(
            "reserved",
            "0.5",
            **VM | {"ResourceId": "vm-3", "ResourceName": "ready"},
            **priced("vm", "5", "Hours", "0.1"),
            **consumed("5", "Hours"),
            CapacityReservationId="reservation-1",
            CapacityReservationStatus="Used",
        ),
    ]


def _invoice() -> list[Row]:
    """Return what stands on an invoice beside usage."""
    return [
        # What was charged too much in a month that was invoiced: no quantity is known.
        usage(
            "correction",
            "-0.4",
            **VM | {"ResourceId": "vm-1", "ResourceName": "web"},
            ChargeClass="Correction",
        ),
        charge(
            "credit",
            "-1",
            **{name: VM[name] for name in ("ServiceName", "ServiceCategory", "ServiceSubcategory")},
            ChargeCategory="Credit",
            ChargeFrequency="One-Time",
        ),
        charge(
            "tax",
            "0.57",
            ServiceName="Tax",
            ServiceCategory="Other",
            ServiceSubcategory="Other (Other)",
            ChargeCategory="Tax",
            ChargeFrequency="One-Time",
        ),
    ]


def clean_rows() -> list[Row]:
    """Return one valid row of each kind; ``ChargeDescription`` names the kind."""
    return [*_genai(), *_machine(), *_plan(), *_shared(), *_invoice()]
