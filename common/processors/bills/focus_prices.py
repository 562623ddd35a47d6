"""Price columns of FOCUS, computed so that cost = unit price x quantity holds in every row, to the last digit.

A price that the source does not state is not derived by division, because its product would rarely be the cost again.
Such a row is priced as one charge at its cost; ConsumedQuantity still has the quantity.
"""

from decimal import Decimal, localcontext
from typing import Any

PLACES = 38
"""Decimal places of a BIGNUMERIC: a product with more is rounded half-even, because the column holds no more."""

LUMP_UNIT = "Charges"


def price_columns(
    *,
    cost: Decimal,
    quantity: Decimal | None,
    unit: str | None,
    list_price: Decimal | None,
    contracted_price: Decimal | None,
    price_id: str,
) -> dict[str, Any]:
    """Return the price columns of a row of category Usage or Purchase.

    FOCUS allows no negative price: a row that gives money back has a negative quantity instead.
    """
    listed = list_price if list_price is not None else contracted_price
    if quantity is None or listed is None or listed < 0:
        return _lump(cost, price_id)
    contracted = contracted_price if contracted_price is not None and contracted_price >= 0 else listed
    with localcontext(prec=76):  # all digits of a BIGNUMERIC: the default of 28 would round before PLACES does
        return {
            "PricingQuantity": quantity,
            "PricingUnit": unit or "Units",
            "ListUnitPrice": listed,
            "ContractedUnitPrice": contracted,
            "ListCost": round(listed * quantity, PLACES),
            "ContractedCost": round(contracted * quantity, PLACES),
            "SkuPriceId": price_id,
        }


def _lump(cost: Decimal, price_id: str) -> dict[str, Any]:
    return {
        "PricingQuantity": Decimal(-1 if cost < 0 else 1),
        "PricingUnit": LUMP_UNIT,
        "ListUnitPrice": abs(cost),
        "ContractedUnitPrice": abs(cost),
        "ListCost": cost,
        "ContractedCost": cost,
        "SkuPriceId": f"{price_id}/charge",
    }


def unpriced(cost: Decimal) -> dict[str, Any]:
    """Return the price columns of a Tax, Credit or Adjustment, which has no price in FOCUS."""
    return {"ListCost": cost, "ContractedCost": cost}
