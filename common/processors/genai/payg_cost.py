"""``genai.payg_cost``: prices the usage of a run's days, as an estimate until the provider's invoice.

The price is the one that the provider states with the usage; else that of the organisation's first matching rule; else
the list price. Each row carries the list price too, so that discounts can be reported.

A row without a known price keeps its quantity and has NULL as ``unit_price`` and ``cost``, because 0 would read as
free. The run logs a warning for each model and meter (docs/decisions/0004).
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Context, Decimal
from itertools import batched
from typing import Any, ClassVar

from pydantic import Field

from common.processors.base import Params, StepContext, TableParams
from common.processors.genai.price_rules import PriceRules, load_price_rules
from common.processors.genai.prices import CURRENCY, Item, Price, PriceList
from common.processors.genai.provider import GenaiProvider
from common.processors.genai.registry import genai_provider
from common.writes.batch import Batch

BATCH_ROWS = 2_000
"""Rows in memory at a time: a busy organisation has many more usage rows than a function has memory for."""

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
    "region",
    "publisher",
    "attributes",
    "meter",
    "quantity",
    "unit",
    "requests",
    "price_variant",
    "x_pipeline_run_date",
)
_READ = (*_CARRIED, "stated_price", "stated_currency")


class GenaiPaygCostParams(TableParams):
    """``config:`` of a ``genai.payg_cost`` step."""

    source_table: str = Field(
        pattern=r"^[a-z][a-z0-9_]{0,127}$",
        description="Table of the organisation's dataset that genai.payg_usage wrote in this pipeline.",
    )


@dataclass(slots=True)
class _Unpriced:
    """Usage of one model and meter that has no price."""

    quantity: Decimal = Decimal(0)
    unit: str = ""
    reasons: dict[str, None] = field(default_factory=dict)  # an ordered set: the warning repeats no reason


class GenaiPaygCost:
    """Prices the usage rows of this organisation, pipeline, credential and days."""

    params_type: ClassVar[type[Params]] = GenaiPaygCostParams
    needs_credential: ClassVar[bool] = False

    def run(self, context: StepContext, params: Any) -> Iterator[Batch]:
        """Yield priced rows in bounded batches. Raises what the warehouse raises."""
        pricer = _Pricer(PriceList(), load_price_rules(context.configs, context.org_slug))
        for usage in batched(_usage(context, params.source_table), BATCH_ROWS, strict=False):
            yield Batch([pricer.priced(row) for row in usage])
        for warning in pricer.warnings():
            context.warn(warning)


def _usage(context: StepContext, source_table: str) -> Iterator[dict[str, Any]]:
    sql = (
        f"SELECT {', '.join(_READ)} FROM `{context.table(source_table)}` "  # noqa: S608 - checked identifiers
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


class _Pricer:
    """Prices usage rows, and adds up the usage without a price."""

    def __init__(self, prices: PriceList, rules: PriceRules) -> None:
        self._prices, self._rules = prices, rules
        self._unpriced: dict[tuple[str, str], _Unpriced] = {}

    def priced(self, usage: Mapping[str, Any]) -> dict[str, Any]:
        quantity: Decimal = usage["quantity"]
        provider = genai_provider(usage["provider"])
        listed = self._listed(usage, provider)
        price = self._apply_rules(usage, listed)
        if price.unit_price is None:
            self._add_unpriced(usage, price.reason)
        # A model in no list has the organisation's own price only: ListCost must not be NULL where Cost is known.
        list_price = price.unit_price if listed.unit_price is None else listed.unit_price
        return {
            **{name: usage[name] for name in _CARRIED},
            **provider.names.columns(usage["endpoint"]),
            "attributes": _json_text(usage["attributes"]),
            "unit_price": price.unit_price,
            "list_unit_price": list_price,
            "cost": _times(quantity, price.unit_price),
            "list_cost": _times(quantity, list_price),
            "currency": usage["stated_currency"] or CURRENCY,
            "price_source": None if price.unit_price is None else price.source,
            "price_date": price.since,
            "price_model": price.model,
        }

    def _apply_rules(self, usage: Mapping[str, Any], listed: Price) -> Price:
        """Return the organisation's own price if it has one, else ``listed``."""
        if usage["stated_price"] is not None:
            return listed  # what the provider charged already includes the organisation's discounts
        model, meter, price_variant = usage["model"], usage["meter"], usage["price_variant"]
        rule = self._rules.find(usage["provider"], model, meter, price_variant, usage["x_pipeline_run_date"])
        if rule is None or (price := rule.price(listed.unit_price)) is None:
            return listed
        return Price(price, listed.model, source=self._rules.source(rule), since=rule.since)

    def _listed(self, usage: Mapping[str, Any], provider: GenaiProvider) -> Price:
        """Return the price that the provider states with the usage, else the list price."""
        day: date = usage["x_pipeline_run_date"]
        if usage["stated_price"] is not None:
            source = f"stated by {provider.names.provider}"
            return Price(usage["stated_price"], usage["model"], source=source, since=day)
        endpoint, model, meter = usage["endpoint"], usage["model"], usage["meter"]
        return self._prices.price(Item(provider.price_key, endpoint, model, meter, usage["price_variant"], day))

    def _add_unpriced(self, usage: Mapping[str, Any], reason: str) -> None:
        model, meter = usage["model"], usage["meter"]
        subject = f"model {model}" if model is not None else f"{usage['provider']} {usage['endpoint']}"
        missing = self._unpriced.setdefault((subject, meter), _Unpriced())
        missing.quantity = _EXACT.add(missing.quantity, usage["quantity"])
        missing.unit = usage["unit"]
        missing.reasons[reason] = None

    def warnings(self) -> Iterator[str]:
        """Yield one warning for each model and meter without a price."""
        for (subject, meter), missing in self._unpriced.items():
            yield (
                f"No price for {missing.quantity:f} {missing.unit} ({meter}) of {subject}: "
                f"{'; '.join(missing.reasons)}. Their unit_price and cost are NULL, so the total is too low. "
                "Add a price of your own (docs/providers.md) or install a newer genai-prices."
            )


def _times(quantity: Decimal, price: Decimal | None) -> Decimal | None:
    return None if price is None else _EXACT.multiply(quantity, price)


def _json_text(value: Any) -> str | None:
    """Return a JSON value as text, which batches carry: the BigQuery client returns it parsed or as text, by version.

    Keys are sorted so that a repeated attempt writes the same text, and with it the same content hash.
    """
    return value if value is None or isinstance(value, str) else json.dumps(value, sort_keys=True)
