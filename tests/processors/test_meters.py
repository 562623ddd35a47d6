"""Every meter that a provider's usage can have has a price, or a reason for having none."""

from decimal import Decimal

import pytest

from common.processors.genai.prices import NO_PRICE, Item, PriceList, is_known_meter
from common.processors.genai.providers.openai import TOKEN_METERS, token_meters
from common.processors.genai.registry import genai_provider, provider_keys
from common.processors.http.json_fields import Fields
from tests.processors.test_genai_payg_cost import DAY, priced, usage

EVERY = [
    (key, endpoint, meter)
    for key in provider_keys()
    for endpoint, meters in genai_provider(key).meters.items()
    for meter in meters
]


def test_every_provider_names_its_meters() -> None:
    assert {key for key, _, _ in EVERY} == set(provider_keys())
    assert len(EVERY) == len(set(EVERY)) > 40


@pytest.mark.parametrize(("key", "endpoint", "meter"), EVERY)
def test_every_meter_has_a_price_or_a_reason_for_having_none(key: str, endpoint: str, meter: str) -> None:
    assert is_known_meter(endpoint, meter), (
        f"{key} {endpoint} can yield {meter}, which has no price: its cost would be NULL for everyone. Add it to "
        "_TOKENS or _OTHERS of prices.py, or, if no price is published, to NO_PRICE with the reason."
    )


def test_every_reason_is_for_a_meter_that_some_provider_has() -> None:
    assert set(NO_PRICE) <= {meter for _, _, meter in EVERY}


@pytest.mark.parametrize("meter", sorted(NO_PRICE))
def test_what_has_no_published_price_is_null_and_reported_with_the_reason(meter: str) -> None:
    (row,), context = priced(usage(meter, 1_000, "gpt-5.6-sol"))
    assert (row["cost"], row["unit_price"]) == (None, None)
    (warning,) = context.warnings
    assert NO_PRICE[meter] in warning and "1000" in warning and meter in warning and "the total is too low" in warning


def test_the_meters_of_tokens_are_those_that_an_answer_with_every_field_makes() -> None:
    parts = {f"input_{m}_tokens": 10 for m in ("text", "audio", "image")}
    cached = {f"input_cached_{m}_tokens": 10 for m in ("text", "audio", "image")}
    written = {"input_cache_write_30m_tokens": 10, "input_cache_write_12h_tokens": 10, "input_cache_write_tokens": 30}
    output = {f"output_{m}_tokens": 10 for m in ("text", "audio", "image")}
    result = {**parts, **cached, **written, **output, "input_tokens": 90, "output_tokens": 30}
    meters = list(token_meters(Fields.of(result, "test"), lambda _meter, _tokens: None))
    assert {meter.name for meter in meters} == set(TOKEN_METERS)
    assert [meter.quantity for meter in meters] == [10] * len(TOKEN_METERS)


@pytest.mark.parametrize(
    ("model", "variant", "input_price"),  # US dollars for a million tokens, from OpenAI's price list
    [
        ("gpt-5.6-sol", "standard", "4"),
        ("gpt-5.6-sol", "batch", "2"),
        ("gpt-5.6-sol", "priority", "8"),
        ("gpt-5.6-luna", "standard", "0.2"),
        ("gpt-6-astra", "standard", "10"),
        ("gpt-6-astra", "flex", "5"),
    ],
)
def test_a_cache_write_of_30_minutes_costs_a_quarter_more_than_the_input(
    model: str, variant: str, input_price: str
) -> None:
    item = Item("openai", "completions", model, "input_cache_write_30m", variant, DAY)
    assert PriceList().price(item).unit_price == Decimal(input_price) * Decimal("1.25") / 1_000_000


def test_a_bill_with_cache_writes_is_whole() -> None:
    # 500 x 4 + 400 x 0.40 + 100 x 5 + 500 x 20, by the million; without the writes it was 4 % lower
    meters = {"input_text": 500, "input_cached_text": 400, "input_cache_write_30m": 100, "output_text": 500}
    rows, context = priced(*(usage(meter, tokens, "gpt-5.6-sol") for meter, tokens in meters.items()))
    assert sum(row["cost"] for row in rows) == Decimal("0.01266")
    assert context.warnings == []
