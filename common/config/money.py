"""Money in YAML: text in quotes, read as Decimal."""

from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator, Field


def _from_text(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("must be a number in quotes: money is never read as a float.")
    return value


Usd = Annotated[Decimal, BeforeValidator(_from_text), Field(ge=0, max_digits=38, decimal_places=18)]
"""US dollars, not negative."""
