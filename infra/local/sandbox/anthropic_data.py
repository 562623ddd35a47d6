"""Made-up usage of Claude models: the same for the same seed and day; and what it costs at the published prices.

The prices stand here a second time on purpose, copied from Anthropic's price list and not from the library that the
product uses: where both agree, ``reconcile`` finds no difference because there is none.
"""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache

LATE = 0.1
"""Share of the usage that is reported late (made up: Anthropic publishes no figure)."""

QUIET_DAYS = 0.06

# US dollars for 1,000,000 tokens: input, cache write of 5 minutes and of 1 hour, cache read, output
# (platform.claude.com/docs/en/about-claude/pricing, read in 2026-11). Above 200,000 input tokens a request of
# claude-sonnet-4-5 costs twice as much, its output 1.5 times. claude-sandbox-unpriced is made up: no list has it.
PRICES = {
    "claude-opus-5": ("5", "6.25", "10", "0.50", "25"),
    "claude-sonnet-4-5-20250929": ("3", "3.75", "6", "0.30", "15"),
    "claude-haiku-4-5-20251001": ("1", "1.25", "2", "0.10", "5"),
    "claude-sandbox-unpriced": ("2", "2.50", "4", "0.20", "10"),
}
LONG_CONTEXT = {"claude-sonnet-4-5-20250929": ("6", "7.50", "12", "0.60", "22.50")}
BATCH, US = Decimal("0.5"), Decimal("1.1")
WEB_SEARCH = Decimal("0.01")
CODE_EXECUTION = Decimal("0.05")
"""US dollars for an hour of a container, which only the cost report shows."""

TOKEN_TYPES = {
    "uncached_input_tokens": "Input Tokens",
    "ephemeral_5m_input_tokens": "Input Tokens, Cache Write (5m)",
    "ephemeral_1h_input_tokens": "Input Tokens, Cache Write (1h)",
    "cache_read_input_tokens": "Input Tokens, Cache Hit",
    "output_tokens": "Output Tokens",
}


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """Some usage of one kind at one moment. What is ``late`` is reported days after it."""

    at: datetime
    dimensions: Mapping[str, str | None]
    measures: Mapping[str, int]
    late: bool
    container_hours: int = 0


@dataclass(frozen=True, slots=True)
class Profile:
    """How a model is used: ``kinds`` are (service_tier, context_window, inference_geo)."""

    model: str
    tokens: int
    kinds: tuple[tuple[str, str, str], ...]


PROFILES = (
    Profile(
        "claude-opus-5",
        700_000,
        (("standard", "0-200k", "global"), ("batch", "0-200k", "global"), ("standard", "0-200k", "us")),
    ),
    Profile(
        "claude-sonnet-4-5-20250929",
        900_000,
        (("standard", "0-200k", "not_available"), ("standard", "200k-1M", "not_available")),
    ),
    Profile("claude-haiku-4-5-20251001", 2_000_000, (("standard", "0-200k", "not_available"),)),
    Profile("claude-sandbox-unpriced", 50_000, (("standard", "0-200k", "not_available"),)),
)


@lru_cache(maxsize=2_048)
def records(seed: int, day: date) -> tuple[UsageRecord, ...]:
    """Return the usage of one UTC day, in order of time."""
    rng = random.Random(f"anthropic/{seed}/{day}")
    if rng.random() < QUIET_DAYS:
        return ()
    midnight = datetime.combine(day, time(), UTC)
    records = []
    for profile in PROFILES:
        for tier, window, geo in profile.kinds:
            workspace = rng.choice((None, "wrkspc_search", "wrkspc_support"))
            dimensions = {
                "workspace_id": workspace,
                "api_key_id": f"apikey_{rng.randint(1, 3)}",
                "account_id": None,
                "service_account_id": None,
                "model": profile.model,
                "service_tier": tier,
                "context_window": window,
                "inference_geo": geo,
            }
            at = midnight + timedelta(seconds=rng.randrange(86_400))
            hours = rng.randint(1, 4) if profile.model == "claude-opus-5" and tier == "standard" else 0
            records.append(UsageRecord(at, dimensions, _measures(rng, profile.tokens), rng.random() < LATE, hours))
    return tuple(sorted(records, key=lambda record: record.at))


def _measures(rng: random.Random, most: int) -> dict[str, int]:
    total = rng.randint(most // 10, most)
    return {
        "uncached_input_tokens": total // 2,
        "ephemeral_5m_input_tokens": total // 10,
        "ephemeral_1h_input_tokens": total // 20,
        "cache_read_input_tokens": total // 3,
        "output_tokens": rng.randint(total // 50, total // 8),
        "web_search_requests": rng.randint(0, 40),
    }


def cost_lines(record: UsageRecord) -> Iterator[tuple[dict[str, str | None], Decimal]]:
    """Yield the lines of the cost report that a record makes, and US dollars."""
    of, measures = record.dimensions, record.measures
    model, tier, window = str(of["model"]), of["service_tier"], of["context_window"]
    prices = LONG_CONTEXT.get(model, PRICES[model]) if window == "200k-1M" else PRICES[model]
    factor = (BATCH if tier == "batch" else 1) * (US if of["inference_geo"] == "us" else 1)
    for (token_type, words), price in zip(TOKEN_TYPES.items(), prices, strict=True):
        nested = "cache_creation." if token_type.startswith("ephemeral") else ""
        line = {
            "description": f"{model} Usage - {words}" + (", US" if of["inference_geo"] == "us" else ""),
            "cost_type": "tokens",
            "token_type": nested + token_type,
            "model": model,
            "service_tier": tier,
            "context_window": window,
        }
        yield line, measures[token_type] * Decimal(price).scaleb(-6) * factor
    if measures["web_search_requests"]:
        searches: dict[str, str | None] = {"description": "Web Search Usage", "cost_type": "web_search"}
        yield searches, measures["web_search_requests"] * WEB_SEARCH
    if record.container_hours:
        code: dict[str, str | None] = {"description": "Code Execution Usage", "cost_type": "code_execution"}
        yield code, record.container_hours * CODE_EXECUTION
