"""Price columns of FOCUS, computed so that cost = unit price x quantity holds in every row, to the last digit.

A price that the source does not state is not derived by division, because its product would rarely be the cost again.
Such a row is priced as one charge at its cost; ConsumedQuantity still has the quantity.
"""

from decimal import Decimal

from common.processors.bills.expressions import (
    NO_NUMBER,
    NO_TEXT,
    ZERO,
    Absolute,
    AnyOf,
    Case,
    Columns,
    Condition,
    Expression,
    First,
    IsNull,
    Joined,
    Less,
    Not,
    Times,
    constant,
)

LUMP_UNIT = "Charges"
ONE, MINUS_ONE = Decimal(1), Decimal(-1)


def price_columns(
    *,
    cost: Expression,
    quantity: Expression,
    unit: Expression,
    list_price: Expression,
    contracted_price: Expression,
    price_id: Expression,
) -> Columns:
    """Return the price columns of a row of category Usage or Purchase.

    FOCUS allows no negative price: a row that gives money back has a negative quantity instead.
    """
    listed = First((list_price, contracted_price))
    lump = AnyOf((IsNull(quantity), IsNull(listed), Less(listed, ZERO)))
    has_own = Not(AnyOf((IsNull(contracted_price), Less(contracted_price, ZERO))))
    contracted = Case(((has_own, contracted_price),), listed)
    priced: Columns = {
        "PricingQuantity": quantity,
        "PricingUnit": unit,
        "ListUnitPrice": listed,
        "ContractedUnitPrice": contracted,
        "ListCost": Times(listed, quantity),
        "ContractedCost": Times(contracted, quantity),
        "SkuPriceId": price_id,
    }
    by_lump = lump_columns(cost, price_id)
    return {name: Case(((lump, by_lump[name]),), of) for name, of in priced.items()}


def lump_columns(cost: Expression, price_id: Expression) -> Columns:
    """Return the price columns of one charge at its cost."""
    amount = Absolute(cost)
    return {
        "PricingQuantity": Case(((Less(cost, ZERO), constant(MINUS_ONE)),), constant(ONE)),
        "PricingUnit": constant(LUMP_UNIT),
        "ListUnitPrice": amount,
        "ContractedUnitPrice": amount,
        "ListCost": cost,
        "ContractedCost": cost,
        "SkuPriceId": Joined((price_id, "/charge")),
    }


def unpriced(cost: Expression) -> Columns:
    """Return the price columns of a Tax, Credit or Adjustment, which has no price in FOCUS."""
    return {"ListCost": cost, "ContractedCost": cost}


def charged(is_priced: Condition, prices: Columns, cost: Expression) -> Columns:
    """Return the price columns of a row: ``prices`` if it has any, else those of ``unpriced``."""
    lump = unpriced(cost)
    return {
        name: Case(((is_priced, of),), lump.get(name, NO_NUMBER if of.kind == "BIGNUMERIC" else NO_TEXT))
        for name, of in prices.items()
    }
