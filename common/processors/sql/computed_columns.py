"""Columns that a step works out from others that it has read: products, quotients and the kinds of services.

Here and not in SQL, because products have to be exact, and a warehouse may keep fewer digits than they have.
"""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, localcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from common.config.service_categories import UNKNOWN, service_categories
from common.processors.base import Params
from common.processors.bills.focus_units import focus_unit

if TYPE_CHECKING:
    import pyarrow

PLACES = 38
"""Decimal places of a BIGNUMERIC: a product with more is rounded to them, half-even."""

QUOTIENT_PLACES = 18
"""Decimal places of a quotient, which may have no end. The emulator keeps as many."""

MOST_TOLD = 20
"""As many names of unknown services as one line of a log takes."""


class Product(Params):
    """A column that is two others multiplied, exactly: FOCUS wants cost = price x quantity to the last digit."""

    product: tuple[str, str] = Field(description="Two columns of this step, as the destination names them.")


class Quotient(Params):
    """A column that is one divided by another; the first itself where the second is 0 or missing."""

    quotient: tuple[str, str] = Field(description="Two columns of this step, as the destination names them.")


class Categorise(Params):
    """The kind of a service, into the columns ``service_category`` and ``service_subcategory``."""

    provider: str = Field(description="Whose services, as configs/system/service_categories.yml has them.")
    service: str = Field(description="Column of this step with the service's name.")


Spec = str | Product | Quotient
"""A field of the source by its path, or what is worked out."""


def operands(spec: Product | Quotient) -> tuple[str, str]:
    """Return the two columns that another one is worked out from."""
    return spec.product if isinstance(spec, Product) else spec.quotient


def check_operands(columns: Mapping[str, Spec]) -> None:
    """Raise ValueError unless quotients are of columns that are read, and products of those and of quotients."""
    for name, spec in columns.items():
        may_be = str | Quotient if isinstance(spec, Product) else str
        for other in () if isinstance(spec, str) else operands(spec):
            if not isinstance(columns.get(other), may_be):
                raise ValueError(f"columns.{name}: {other!r} is no column of this step that it can be worked out from.")


class Computed:
    """Adds the columns to rows."""

    def __init__(
        self,
        configs: Path,
        columns: Mapping[str, Spec],
        categorise: Categorise | None = None,
        units: Sequence[str] = (),
    ) -> None:
        computed = [(name, spec) for name, spec in columns.items() if not isinstance(spec, str)]
        self._specs = sorted(computed, key=lambda named: isinstance(named[1], Product))  # of quotients, too
        self._configs, self._categorise, self._units = configs, categorise, units
        self._others: dict[str, None] = {}

    def __call__(self, rows: "pyarrow.RecordBatch") -> "pyarrow.Table":
        """Return the rows with the further columns."""
        import pyarrow as pa

        table = pa.Table.from_batches([rows])
        for name, spec in self._specs:
            left, right = (table.column(operand).to_pylist() for operand in operands(spec))
            calculate = _product if isinstance(spec, Product) else _quotient
            with localcontext(prec=76):
                values = [calculate(a, b) for a, b in zip(left, right, strict=True)]
            table = table.append_column(name, pa.array(values, pa.decimal256(76, PLACES)))
        for name in self._units:
            said = [None if unit is None else focus_unit(unit) for unit in table.column(name).to_pylist()]
            table = table.set_column(table.column_names.index(name), name, pa.array(said, pa.string()))
        return table if self._categorise is None else self._with_categories(table, self._categorise)

    def _with_categories(self, table: "pyarrow.Table", categorise: Categorise) -> "pyarrow.Table":
        import pyarrow as pa

        known = service_categories(self._configs, categorise.provider)
        services: list[Any] = table.column(categorise.service).to_pylist()
        kinds = {service: known.of(service or "") for service in set(services)}
        self._others |= {service: None for service, kind in kinds.items() if service and kind == UNKNOWN}
        for position, name in enumerate(("service_category", "service_subcategory")):
            table = table.append_column(name, pa.array([kinds[s][position] for s in services], pa.string()))
        return table

    def told(self) -> Iterator[str]:
        """Yield what is worth a line in the log, after the last row."""
        if self._others:
            names = ", ".join(list(self._others)[:MOST_TOLD])
            yield f"{len(self._others)} services are in no category of service_categories.yml, so Other: {names}."


def _product(left: Decimal | None, right: Decimal | None) -> Decimal | None:
    return None if left is None or right is None else round(left * right, PLACES)


def _quotient(left: Decimal | None, right: Decimal | None) -> Decimal | None:
    if left is None or not right or right == 1:
        return left
    return round(left / right, QUOTIENT_PLACES)
