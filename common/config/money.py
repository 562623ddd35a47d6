"""Money in YAML: text in quotes, read as Decimal."""

from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator, Field


def _in_quotes(value: object) -> object:
    # Most YAML readers turn plain numbers into floats, and 0.1 as a float is not exactly 0.1.
    if not isinstance(value, str):
        raise ValueError('must be a number in quotes, such as "12.50": money is never read as a float.')
    return value


Money = Annotated[Decimal, BeforeValidator(_in_quotes)]
"""An amount or a rate, of any size. Fields add their own limits."""

Usd = Annotated[Money, Field(ge=0, max_digits=38, decimal_places=18)]
"""US dollars, not negative. The limits fit the emulator's decimals too: 38 digits, 18 of them decimals."""
