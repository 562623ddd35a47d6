"""Money in YAML: text in quotes, read as Decimal."""

from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator, Field


def _in_quotes(value: object) -> object:
    # YAML readers make floats of plain numbers, and 0.1 as a float is another price.
    if not isinstance(value, str):
        raise ValueError('must be a number in quotes, such as "12.50": money is never read as a float.')
    return value


Money = Annotated[Decimal, BeforeValidator(_in_quotes)]
"""An amount or a rate, of any size. A field adds its own limits."""

Usd = Annotated[Money, Field(ge=0, max_digits=38, decimal_places=18)]
"""US dollars, not negative."""
