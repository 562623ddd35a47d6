"""``genai.payg_cost``: the usage of a run's days with list prices, an estimate until the provider's invoice.

A row whose price is unknown keeps its quantity and has NULL as ``unit_price`` and ``cost``: summed as 0 it would pass
for free. The run says so in a warning for each model and meter.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Context, Decimal
from itertools import batched
from typing import Any, ClassVar

from pydantic import Field

from common.processors.base import Batch, Params, StepContext, TableParams
from common.processors.prices import CURRENCY, Price, PriceList, variant_of

BATCH_ROWS = 2_000
_EXACT = Context(prec=200)
"""Holds quantity x price with every digit: a BIGNUMERIC has at most 77, a price of the library 28."""

_CARRIED = (
    "provider",
    "account_id",
    "endpoint",
    "project_id",
    "user_id",
    "api_key_id",
    "model",
    "batch",
    "service_tier",
    "attributes",
    "meter",
    "quantity",
    "unit",
    "requests",
    "x_pipeline_run_date",
)


class GenaiPaygCostParams(TableParams):
    """``config:`` of a ``genai.payg_cost`` step."""

    source_table: str = Field(
        pattern=r"^[a-z][a-z0-9_]{0,127}$",
        description="Table of the organisation's dataset that genai.payg_usage wrote in this pipeline.",
    )


@dataclass(slots=True)
class _Unpriced:
    """What of one model and meter has no price."""

    quantity: Decimal = Decimal(0)
    unit: str = ""
    reasons: dict[str, None] = field(default_factory=dict)  # in the order they were met


class GenaiPaygCost:
    """Prices the usage rows of this organisation, pipeline, credential and days."""

    params_type: ClassVar[type[Params]] = GenaiPaygCostParams
    needs_credential: ClassVar[bool] = False

    def run(self, context: StepContext, params: Any) -> Iterator[Batch]:
        """Yield priced rows in bounded batches. Raises what the warehouse raises."""
        prices = PriceList()
        unpriced: dict[tuple[str, str], _Unpriced] = {}
        for usage in batched(_usage(context, params.source_table), BATCH_ROWS, strict=False):
            yield Batch([_priced(row, prices, unpriced) for row in usage])
        for (subject, meter), missing in unpriced.items():
            context.warn(
                f"No price for {missing.quantity:f} {missing.unit} ({meter}) of {subject}: "
                f"{'; '.join(missing.reasons)}. Their unit_price and cost are NULL, so the sum is too low. "
                "Update genai-prices, or take this part from the provider's invoice."
            )


def _usage(context: StepContext, source_table: str) -> Iterator[dict[str, Any]]:
    sql = (
        f"SELECT {', '.join(_CARRIED)} FROM `{context.table(source_table)}` "  # noqa: S608 - checked identifiers
        "WHERE x_org_slug = @org_slug AND x_pipeline_id = @pipeline_id AND x_credential_id = @credential_id "
        "AND x_pipeline_run_date BETWEEN @first_day AND @last_day"
    )
    yield from context.warehouse.query(
        sql,
        {
            "org_slug": context.org_slug,
            "pipeline_id": context.pipeline_id,
            "credential_id": context.credential_id,
            "first_day": context.start_date,
            "last_day": context.end_date,
        },
    )


def _priced(usage: Mapping[str, Any], prices: PriceList, unpriced: dict[tuple[str, str], _Unpriced]) -> dict[str, Any]:
    quantity: Decimal = usage["quantity"]
    variant = variant_of(usage["batch"], usage["service_tier"])
    price = prices.price(
        usage["provider"], usage["endpoint"], usage["model"], usage["meter"], variant, usage["x_pipeline_run_date"]
    )
    if price.unit_price is None:
        _note(usage, price, unpriced)
    return {name: usage[name] for name in _CARRIED} | {
        "attributes": _json_text(usage["attributes"]),
        "unit_price": price.unit_price,
        "cost": None if price.unit_price is None else _EXACT.multiply(quantity, price.unit_price),
        "currency": CURRENCY,
        "price_variant": variant,
        "price_source": None if price.unit_price is None else prices.source,
        "price_model": price.model,
    }


def _note(usage: Mapping[str, Any], price: Price, unpriced: dict[tuple[str, str], _Unpriced]) -> None:
    subject = f"model {usage['model']}" if usage["model"] is not None else f"{usage['provider']} {usage['endpoint']}"
    missing = unpriced.setdefault((subject, usage["meter"]), _Unpriced())
    missing.quantity = _EXACT.add(missing.quantity, usage["quantity"])
    missing.unit = usage["unit"]
    missing.reasons[price.reason] = None


def _json_text(value: Any) -> str | None:
    """The BigQuery client gives a JSON column parsed or as text, by version; a batch carries text."""
    return value if value is None or isinstance(value, str) else json.dumps(value, sort_keys=True)
