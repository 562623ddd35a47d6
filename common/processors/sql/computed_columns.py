"""Columns computed from others that a step has read: products, quotients and service categories.

Not in SQL, because products must be exact and the emulator's decimals have fewer digits than they need.
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
"""Decimal places of a BIGNUMERIC. Products with more are rounded half-even."""

QUOTIENT_PLACES = 18
"""Decimal places of a quotient, which may be periodic. The emulator has as many."""

MOST_LOGGED = 20
"""Most names of unknown services in the log line."""


class Product(Params):
    """A column that is the exact product of two others: FOCUS requires cost = price x quantity to the last digit."""

    product: tuple[str, str] = Field(description="Two columns of this step, by their names in the destination.")


class Quotient(Params):
    """A column that is one column divided by another, or the first itself if the second is 0 or NULL."""

    quotient: tuple[str, str] = Field(description="Two columns of this step, by their names in the destination.")


class Categorise(Params):
    """The category of a service, for the columns ``service_category`` and ``service_subcategory``."""

    provider: str = Field(description="Provider of the services in configs/system/service_categories.yml.")
    service: str = Field(description="Column of this step with the service's name.")


Spec = str | Product | Quotient
"""A field of the source by its path, or a computed column."""


def operands(spec: Product | Quotient) -> tuple[str, str]:
    """Return the two columns that a computed column needs."""
    return spec.product if isinstance(spec, Product) else spec.quotient


def check_operands(columns: Mapping[str, Spec]) -> None:
    """Raise ValueError unless quotients use columns that are read, and products use those or quotients."""
    for name, spec in columns.items():
        allowed = str | Quotient if isinstance(spec, Product) else str
        for other in () if isinstance(spec, str) else operands(spec):
            if not isinstance(columns.get(other), allowed):
                raise ValueError(
                    f"columns.{name}: {other!r} is not a column of this step that it can be computed from."
                )


class Computed:
    """Adds computed columns to rows."""

    def __init__(
        self,
        configs: Path,
        columns: Mapping[str, Spec],
        categorise: Categorise | None = None,
        units: Sequence[str] = (),
    ) -> None:
        computed = [(name, spec) for name, spec in columns.items() if not isinstance(spec, str)]
        self._specs = sorted(computed, key=lambda named: isinstance(named[1], Product))  # last: they may use quotients
        self._configs, self._categorise, self._units = configs, categorise, units
        self._uncategorised: dict[str, None] = {}  # an ordered set

    def __call__(self, rows: "pyarrow.RecordBatch") -> "pyarrow.Table":
        """Return the rows with the computed columns."""
        import pyarrow as pa

        table = pa.Table.from_batches([rows])
        for name, spec in self._specs:
            left, right = (table.column(operand).to_pylist() for operand in operands(spec))
            calculate = _product if isinstance(spec, Product) else _quotient
            # The default context of 28 digits would round products; a BIGNUMERIC has 76.
            with localcontext(prec=76):
                values = [calculate(a, b) for a, b in zip(left, right, strict=True)]
            table = table.append_column(name, pa.array(values, pa.decimal256(76, PLACES)))
        for name in self._units:
            units = [None if unit is None else focus_unit(unit) for unit in table.column(name).to_pylist()]
            table = table.set_column(table.column_names.index(name), name, pa.array(units, pa.string()))
        return table if self._categorise is None else self._with_categories(table, self._categorise)

    def _with_categories(self, table: "pyarrow.Table", categorise: Categorise) -> "pyarrow.Table":
        import pyarrow as pa

        known = service_categories(self._configs, categorise.provider)
        services: list[Any] = table.column(categorise.service).to_pylist()
        categories = {service: known.of(service or "") for service in set(services)}
        self._uncategorised |= {s: None for s, category in categories.items() if s and category == UNKNOWN}
        for position, name in enumerate(("service_category", "service_subcategory")):
            table = table.append_column(name, pa.array([categories[s][position] for s in services], pa.string()))
        return table

    def log_lines(self) -> Iterator[str]:
        """Yield log lines about all rows, after the last one."""
        if self._uncategorised:
            names = ", ".join(list(self._uncategorised)[:MOST_LOGGED])
            count = len(self._uncategorised)
            yield f"{count} services are in no category of service_categories.yml and become Other: {names}."


def _product(left: Decimal | None, right: Decimal | None) -> Decimal | None:
    return None if left is None or right is None else round(left * right, PLACES)


def _quotient(left: Decimal | None, right: Decimal | None) -> Decimal | None:
    if left is None or not right or right == 1:
        return left  # by 1 exactly, without rounding to QUOTIENT_PLACES
    return round(left / right, QUOTIENT_PLACES)
