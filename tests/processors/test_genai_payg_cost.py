"""Usage with its price: golden figures by hand, and nothing that is unknown ever priced.

Prices a million tokens, from genai-prices 0.2.3 and OpenAI's price list (developers.openai.com/api/docs/pricing):
gpt-4o 2.50 in, 1.25 cached, 10 out, fine-tuned 3.75 in, 15 out; gpt-5.6-sol 4 in, 0.40 cached, 5 cache-write, 20 out,
double above 272,000 input tokens of one request; gpt-realtime 4 in, 0.40 cached, 16 out, audio 32 in, 0.40 cached,
64 out. From Anthropic's (platform.claude.com/docs/en/about-claude/pricing): claude-sonnet-4-5 3 in, 0.30 cached, 3.75
and 6 for cache writes of 5 minutes and an hour, 15 out, above 200,000 input tokens of one request twice that and 22.50
out; claude-opus-5 5 in, 25 out, half of it in batches, 1.1 times where inference is in the US; 10 for 1,000 searches.
"""

import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import ValidationError

from common.processors.genai import prices
from common.processors.genai.payg_cost import BATCH_ROWS, GenaiPaygCost, GenaiPaygCostParams
from common.processors.genai.prices import Item, PriceList, variant
from common.tables.contract import load_table
from tests.processors.context import FakeWarehouse, RecordingContext, make_context

ROOT = Path(__file__).resolve().parent.parent.parent
DAY = date(2026, 11, 18)
PARAMS = GenaiPaygCostParams(source_table="genai_payg_usage", destination_table="genai_payg_cost")


def usage(meter: str, quantity: int | str, model: str | None = "gpt-4o", **more: Any) -> dict[str, Any]:
    """Return one usage row as the warehouse gives it: what OpenAI's module makes of these dimensions."""
    row = {
        "provider": "openai",
        "account_id": "org-1",
        "endpoint": "completions",
        "project_id": "proj_1",
        "user_id": None,
        "api_key_id": "key_1",
        "model": model,
        "batch": False,
        "service_tier": "default",
        "region": None,
        "publisher": None,
        "attributes": None,
        "meter": meter,
        "quantity": Decimal(quantity),
        "unit": "Tokens",
        "requests": 3,
        "x_pipeline_run_date": DAY,
        "stated_price": None,
        "stated_currency": None,
    } | more
    return {"price_variant": variant(row["batch"], row["service_tier"])} | row


def priced(*rows: dict[str, Any], org: str = "globex") -> tuple[list[dict[str, Any]], RecordingContext]:
    """Price usage rows, of an organisation without prices of its own unless another is named."""
    context = make_context(warehouse=FakeWarehouse(rows), org_slug=org)
    return [dict(row) for batch in GenaiPaygCost().run(context, PARAMS) for row in batch.rows], context


def total(*rows: dict[str, Any]) -> Decimal:
    found, context = priced(*rows)
    assert context.warnings == []
    return sum((row["cost"] for row in found), Decimal(0))


def unit_price(meter: str, model: str, day: date = DAY, endpoint: str = "completions", **more: str) -> Decimal | None:
    item = Item(more.get("provider", "openai"), endpoint, model, meter, more.get("variant", "standard"), day)
    return PriceList().price(item).unit_price


def test_cached_tokens_have_their_own_price() -> None:
    # 10,000 in of which 4,000 cached, 1,000 out: (6000 x 2.50 + 4000 x 1.25 + 1000 x 10) / 1e6 = 0.030
    rows = [usage("input_text", 6_000), usage("input_cached_text", 4_000), usage("output_text", 1_000)]
    assert total(*rows) == Decimal("0.030")


def test_cache_writes_have_their_own_price() -> None:
    # The arithmetic of OpenAI's example on gpt-5.6-sol: (500 x 4 + 400 x 0.40 + 100 x 5 + 500 x 20) / 1e6 = 0.01266
    meters = {"input_text": 500, "input_cached_text": 400, "input_cache_write": 100, "output_text": 500}
    assert total(*(usage(meter, tokens, "gpt-5.6-sol") for meter, tokens in meters.items())) == Decimal("0.01266")


def test_audio_tokens_have_their_own_price() -> None:
    # (400 x 4 + 300 x 32 + 200 x 0.40 + 100 x 0.40) / 1e6 = 0.01132; (50 x 16 + 150 x 64) / 1e6 = 0.0104
    meters = {"input_text": 400, "input_audio": 300, "input_cached_text": 200, "input_cached_audio": 100}
    assert total(*(usage(m, n, "gpt-realtime") for m, n in meters.items())) == Decimal("0.01132")
    meters = {"output_text": 50, "output_audio": 150}
    assert total(*(usage(m, n, "gpt-realtime") for m, n in meters.items())) == Decimal("0.0104")


def test_a_days_sum_does_not_meet_the_long_context_price_of_one_request() -> None:
    # 1,000,000 x 4 / 1e6; a single request of that size would cost 8
    assert total(usage("input_text", 1_000_000, "gpt-5.6-sol")) == 4


@pytest.mark.parametrize(
    ("row", "cost"),
    [
        ({"batch": True}, 2),  # half of 4
        ({"batch": True, "service_tier": None}, 2),
        ({"service_tier": "batch"}, 2),
        ({"service_tier": "flex"}, 2),
        ({"service_tier": "priority"}, 8),  # twice 4
        ({"service_tier": "default"}, 4),
        ({"service_tier": "auto"}, 4),
        ({"batch": None, "service_tier": None}, 4),
    ],
)
def test_batch_and_service_tiers_have_their_own_price(row: dict[str, Any], cost: int) -> None:
    assert total(usage("input_text", 1_000_000, "gpt-5.6-sol", **row)) == cost


CLAUDE = {"provider": "anthropic", "endpoint": "messages", "batch": None, "service_tier": "standard"}


def test_each_kind_of_claudes_tokens_has_its_own_price() -> None:
    # (1500 x 3 + 200 x 0.30 + 500 x 3.75 + 1000 x 6 + 500 x 15) / 1e6 = 0.019935, and 10 searches are 0.10
    meters = {
        "input_text": 1500,
        "input_cached_text": 200,
        "input_cache_write_5m": 500,
        "input_cache_write_1h": 1000,
        "output_text": 500,
        "web_searches": 10,
    }
    model = "claude-sonnet-4-5-20250929"
    assert total(*(usage(meter, count, model, **CLAUDE) for meter, count in meters.items())) == Decimal("0.119935")


@pytest.mark.parametrize(
    ("model", "variant", "cost"),  # of 1,000,000 tokens in and 100,000 out
    [
        ("claude-sonnet-4-5-20250929", "standard", "4.5"),  # 3 + 1.5
        ("claude-sonnet-4-5-20250929", "standard+long_context", "8.25"),  # 6 + 2.25
        ("claude-opus-5", "standard", "7.5"),  # 5 + 2.5
        ("claude-opus-5", "standard+long_context", "7.5"),  # has one price for its whole window
        ("claude-opus-5", "batch", "3.75"),
        ("claude-opus-5", "standard+us", "8.25"),  # 1.1 x 7.5
        ("claude-opus-5", "batch+us", "4.125"),
    ],
)
def test_long_requests_and_regions_have_their_own_price(model: str, variant: str, cost: str) -> None:
    rows = [usage("input_text", 1_000_000, model, **CLAUDE, price_variant=variant)]
    rows.append(usage("output_text", 100_000, model, **CLAUDE, price_variant=variant))
    assert total(*rows) == Decimal(cost)


def test_a_region_does_not_change_the_price_of_a_search() -> None:
    assert total(usage("web_searches", 10, "claude-opus-5", **CLAUDE, price_variant="standard+us")) == Decimal("0.1")


def test_a_fine_tuned_model_has_its_own_price() -> None:
    model = "ft:gpt-4o-2024-08-06:acme::abc"
    assert total(usage("input_text", 1_000_000, model), usage("output_text", 100_000, model)) == Decimal("5.25")


def test_reasoning_is_priced_as_output() -> None:
    assert total(usage("output_reasoning", 1_000_000, "gpt-5.6-sol")) == 20


def test_the_day_from_which_a_price_holds_stands_on_its_row() -> None:
    o3, dated, undated = priced(
        usage("input_text", 1, "o3"),
        usage("input_text", 1, "claude-opus-5", **CLAUDE | {"batch": True}),
        usage("input_text", 1),
    )[0]
    assert o3["price_date"] == date(2025, 6, 10)  # genai-prices: "prices dropped" then
    assert dated["price_date"] == date(2026, 10, 14)  # the library has batch rates since
    assert undated["price_date"] is None


def test_a_price_that_the_provider_states_is_the_price() -> None:
    stated = {"stated_price": Decimal("0.00000087"), "stated_currency": "CNY", "provider": "openai"}
    (row,), context = priced(usage("output_text", 1_000, "no-such-model", **stated))
    assert (row["cost"], row["currency"], row["list_cost"]) == (Decimal("0.00087"), "CNY", Decimal("0.00087"))
    assert (row["price_source"], row["price_date"], context.warnings) == ("stated by OpenAI", DAY, [])


def test_batch_is_half_of_the_standard_price() -> None:
    # (10,000 x 1.25 + 1,000 x 5) / 1e6
    rows = [usage("input_text", 10_000, batch=True), usage("output_text", 1_000, batch=True)]
    assert total(*rows) == Decimal("0.0175")


def test_the_price_of_the_day_counts() -> None:
    # o3: 10 a million until 2025-06, 2 since (facts: dated entries of 2025-05-01 and 2025-07-01)
    assert unit_price("input_text", "o3", date(2025, 5, 1)) == Decimal("0.00001")
    assert unit_price("input_text", "o3", date(2025, 7, 1)) == Decimal("0.000002")


@pytest.mark.parametrize(
    ("endpoint", "meter", "model", "quantity", "cost"),
    [
        ("embeddings", "input_text", "text-embedding-3-small", 1_000_000, "0.02"),
        ("audio_speeches", "characters", "tts-1", 1_000_000, "15"),
        ("audio_transcriptions", "seconds", "whisper-1", 3_600, "0.36"),  # 0.36 an hour
        ("web_search_calls", "web_searches", "gpt-4o", 1_000, "10"),
        ("completions", "input_image", "gpt-4o", 1_000_000, "2.5"),  # no image price: the input rate
        ("completions", "input_cached_image", "gpt-4o", 1_000_000, "1.25"),
        ("completions", "input_image", "gpt-realtime", 1_000_000, "5"),
        ("completions", "input_cached_image", "gpt-realtime", 1_000_000, "0.5"),
    ],
)
def test_other_meters_are_priced_where_the_library_knows(
    endpoint: str, meter: str, model: str, quantity: int, cost: str
) -> None:
    assert total(usage(meter, quantity, model, endpoint=endpoint, service_tier=None)) == Decimal(cost)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (usage("input_text", 5, "gpt-sandbox-unpriced"), "does not know the model"),
        (usage("input_audio", 5, "gpt-4o-audio-preview"), "no price for input_audio"),  # would pass as text otherwise
        (usage("output_audio", 5, "gpt-4o-audio-preview"), "no price for output_audio"),
        (usage("input_cached_audio", 5, "gpt-4o"), "no price for input_cached_audio"),
        (usage("input_cache_write", 5, "gpt-4o"), "no price for input_cache_write"),
        (usage("input_cached_text", 5, "gpt-4o-audio-preview"), "no price for input_cached_text"),
        (usage("input_cache_write_12h", 5, "gpt-5.6-sol"), "has published no price of cache writes"),
        (usage("output_text", 5, "text-embedding-3-small", endpoint="embeddings"), "no price for output_text"),
        (usage("input_text", 5, "tts-1"), "no price for input_text"),
        (usage("images", 5, "gpt-image-1", endpoint="images"), "none of an image"),
        (usage("seconds", 5, "gpt-4o-transcribe", endpoint="audio_transcriptions"), "no price for seconds"),
        (usage("web_searches", 5, "gpt-4o-audio-preview", endpoint="web_search_calls"), "no price for web_searches"),
        (usage("file_searches", 5, None, endpoint="file_search_calls"), "without the model"),
        (usage("input_text", 5, service_tier="scale"), "no scale price"),
        (usage("input_text", 5, "gpt-realtime", batch=True), "no batch price"),
        # Batch rates are in the library from 2026-10-14; the day before it would say the standard price.
        (usage("input_text", 5, batch=True, x_pipeline_run_date=date(2026, 10, 13)), "no batch price"),
        (usage("input_text", 5, "omni-moderation-latest", endpoint="completions"), "no price for input_text"),
        # The library would give the standard cached price: its batch prices have none.
        (usage("input_cached_text", 5, batch=True), "no batch price"),
        (usage("input_text", 5, "claude-opus-5", provider="anthropic", service_tier="priority"), "no priority price"),
        (usage("input_text", 5, "claude-opus-5", provider="anthropic", price_variant="standard+eu"), "the region eu"),
    ],
)
def test_what_has_no_price_is_null_and_never_zero(row: dict[str, Any], reason: str) -> None:
    (found,), context = priced(row)
    assert (found["unit_price"], found["cost"], found["price_source"]) == (None, None, None)
    assert found["quantity"] == 5
    (warning,) = context.warnings
    assert reason in warning and " 5 " in warning and "NULL" in warning and "genai-prices" in warning


def test_a_price_that_depends_on_the_hour_is_not_that_of_some_hour() -> None:
    """deepseek-v4-pro costs twice as much from 01:00 to 04:00 and from 06:00 to 10:00 UTC; usage is a day's."""
    price = PriceList().price(Item("deepseek", "export", "deepseek-v4-pro", "input_text", "standard", DAY))
    assert price.unit_price is None and "hourly prices" in price.reason


def test_moderation_is_free_because_openai_says_so() -> None:
    (row,), context = priced(usage("input_text", 500, "omni-moderation-latest", endpoint="moderations"))
    assert (row["unit_price"], row["cost"], row["price_model"]) == (0, 0, "moderation")
    assert context.warnings == []


def test_each_model_and_meter_without_a_price_is_one_warning_with_its_sum() -> None:
    model = "gpt-sandbox-unpriced"
    _, context = priced(usage("input_text", 5, model), usage("input_text", 7, model), usage("output_text", 1, model))
    assert len(context.warnings) == 2
    assert f"12 Tokens (input_text) of model {model}" in context.warnings[0]
    assert f"1 Tokens (output_text) of model {model}" in context.warnings[1]


def test_rows_have_exactly_the_columns_of_the_contract_and_their_day() -> None:
    (row,), _ = priced(usage("input_text", 10, attributes={"size": "1x1", "a": 1}, user_id="user_1"))
    assert set(row) == {*load_table(ROOT / "configs", "genai_payg_cost").names, "x_pipeline_run_date"}
    kept = ("account_id", "project_id", "user_id", "api_key_id", "model", "batch", "service_tier", "requests")
    assert [row[name] for name in kept] == ["org-1", "proj_1", "user_1", "key_1", "gpt-4o", False, "default", 3]
    assert row["attributes"] == '{"a": 1, "size": "1x1"}'
    stated = ("currency", "price_variant", "price_source", "price_model", "x_pipeline_run_date")
    assert [row[name] for name in stated] == ["USD", "standard", "genai-prices 0.2.3", "gpt-4o", DAY]


def test_a_dated_name_finds_its_model() -> None:
    (row,), _ = priced(usage("input_text", 1, "gpt-4o-2024-08-06"))
    assert row["price_model"] == "gpt-4o"


def test_cost_is_exact_to_the_last_digit() -> None:
    quantity = "123456789012345678901234567890.123456789012345678"
    (row,), _ = priced(usage("input_text", quantity))
    # quantity x 0.0000025, by hand: quantity x 25 shifted by seven places
    assert row["cost"] == Decimal("308641972530864197253086.4197253086419725308641950")


def test_only_rows_of_this_organisation_pipeline_credential_and_dates_are_read() -> None:
    warehouse = FakeWarehouse()
    context = make_context(warehouse=warehouse, start_date=date(2026, 11, 1), end_date=date(2026, 11, 3))
    assert list(GenaiPaygCost().run(context, PARAMS)) == []
    ((sql, params),) = warehouse.queries
    assert "FROM `test-project.acme_corp_local.genai_payg_usage`" in sql
    conditions = ("x_org_slug = @org_slug", "x_pipeline_id = @pipeline_id", "x_credential_id = @credential_id")
    assert all(condition in sql for condition in conditions)
    assert "x_pipeline_run_date BETWEEN @first_day AND @last_day" in sql
    assert params == {
        "org_slug": "acme_corp",
        "pipeline_id": "genai_payg_openai",
        "credential_id": "cred_openai",
        "first_day": date(2026, 11, 1),
        "last_day": date(2026, 11, 3),
    }


def test_a_table_name_that_is_more_than_a_name_is_refused() -> None:
    with pytest.raises(ValidationError):
        GenaiPaygCostParams(source_table="x` WHERE 1=1 --", destination_table="t")


def test_rows_are_read_and_given_in_bounded_batches() -> None:
    taken = 0

    class Endless(FakeWarehouse):
        def query(self, sql: str, params: Any = None) -> Iterator[dict[str, Any]]:
            nonlocal taken
            for _ in range(3 * BATCH_ROWS):
                taken += 1
                yield usage("input_text", 1)

    batches = GenaiPaygCost().run(make_context(warehouse=cast(Any, Endless())), PARAMS)
    assert len(next(batches).rows) == BATCH_ROWS
    assert taken == BATCH_ROWS
    assert sum(len(batch.rows) for batch in batches) == 2 * BATCH_ROWS


def test_each_price_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    real = prices._look_up

    def counted(*key: Any) -> prices.Price:
        calls.append(key)
        return real(*key)

    monkeypatch.setattr(prices, "_look_up", counted)
    priced(*[usage("input_text", n) for n in range(1, 50)], usage("input_text", 1, batch=True))
    assert len(calls) == 2


def test_a_fee_per_request_is_not_part_of_a_tokens_price() -> None:
    # Perplexity's sonar: 1 a million input tokens, and 12 a thousand requests on top (genai-prices 0.2.3)
    assert unit_price("input_text", "sonar", provider="perplexity") == Decimal("0.000001")


@pytest.mark.parametrize("module", ["genai.payg_cost", "genai.payg_usage", "http.client"])
def test_importing_a_processor_imports_nothing_heavy(module: str) -> None:
    heavy = ("genai_prices", "httpx2", "pyarrow", "google.cloud.bigquery", "fsspec")
    code = f"import sys, common.processors.{module}; print([n for n in {heavy} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
