"""What OpenAI's costs endpoint says of the made-up usage: its quantities at the prices of OpenAI's price list.

The prices stand here a second time on purpose, copied from the list and not from the library that the product uses:
where both agree, ``reconcile`` finds no difference because there is none.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from infra.local.sandbox.openai_data import UsageRecord

# US dollars for 1,000,000 tokens: input, cached input, cache writes, output
# (developers.openai.com/api/docs/pricing, read in 2026-11; gpt-sandbox-unpriced is made up, so that no list has it).
_TOKENS = {
    "gpt-5.6-sol": ("4", "0.40", "5", "20"),
    "gpt-4o": ("2.50", "1.25", "2.50", "10"),
    "gpt-5-mini": ("0.25", "0.025", "0.25", "2"),
    "gpt-realtime": ("4", "0.40", "4", "16"),
    "gpt-sandbox-unpriced": ("1", "0.50", "1", "4"),
}
_AUDIO = {"gpt-realtime": ("32", "0.40", "32", "64")}
_FACTORS = {"priority": Decimal(2), "flex": Decimal("0.5"), "batch": Decimal("0.5")}
_KINDS = ("input", "cached input", "cache writes", "output")

# What is not priced in tokens: measure, name of the line, unit, US dollars for one of them.
_OTHERS = {
    "embeddings": ("input_tokens", "{model}, input", "tokens", "0.00000002"),
    "images": ("images", "{model} image, output", "images", "0.04"),
    "audio_speeches": ("characters", "{model}, input", "characters", "0.000015"),
    "audio_transcriptions": ("seconds", "{model}, audio", "duration_seconds", "0.0001"),
    "vector_stores": ("usage_bytes", "Vector storage", "gibibyte_hours", "0.0000000001"),
    "code_interpreter_sessions": ("num_sessions", "code interpreter sessions", None, "0.03"),
    "file_search_calls": ("num_requests", "file search tool calls", None, "0.0025"),
    "web_search_calls": ("num_requests", "web search tool calls", None, "0.01"),
}

Line = tuple[str, str | None, int, Decimal]
"""Name, unit, quantity and cost of one line."""


def cost_results(
    used: Iterable[tuple[str, UsageRecord]], group_by: Sequence[str], filters: Mapping[str, tuple[str, ...]]
) -> list[dict[str, Any]]:
    """Return the results of one bucket, summed by project and line as far as they are asked for."""
    sums: dict[tuple[str | None, str | None, str | None], list[Any]] = defaultdict(lambda: [Decimal(0), 0, None])
    for endpoint, record in used:
        project = record.dimensions.get("project_id")
        if project not in filters.get("project_id", (project,)):
            continue
        for name, unit, quantity, cost in _lines(endpoint, record):
            by_project = str(project) if "project_id" in group_by else None
            source = str(record.dimensions.get("api_source") or "unlabeled") if "api_source" in group_by else None
            entry = sums[by_project, name if "line_item" in group_by else None, source]
            entry[0], entry[1], entry[2] = entry[0] + cost, entry[1] + quantity, unit
    return [
        {
            "object": "organization.costs.result",
            "amount": {"value": float(cost), "currency": "usd"},
            "line_item": line,
            "project_id": project,
            "api_key_id": None,
            "api_source": source,
            "quantity": None if line is None else quantity,
            "quantity_unit": None if line is None else unit,
        }
        for (project, line, source), (cost, quantity, unit) in sorted(sums.items(), key=_text)
    ]


def _text(item: tuple[tuple[str | None, ...], Any]) -> tuple[str, ...]:
    return tuple(map(str, item[0]))


def _lines(endpoint: str, record: UsageRecord) -> Iterator[Line]:
    if endpoint in ("completions", "decisions"):
        yield from _token_lines(record)
    elif endpoint in _OTHERS:  # moderations cost nothing
        measure, name, unit, price = _OTHERS[endpoint]
        quantity = record.measures[measure]
        yield name.format(model=record.dimensions.get("model")), unit, quantity, quantity * Decimal(price)


def _token_lines(record: UsageRecord) -> Iterator[Line]:
    model, measures = str(record.dimensions["model"]), record.measures
    tier = "batch" if record.dimensions["batch"] else str(record.dimensions["service_tier"])
    before = f"{tier} | " if tier in _FACTORS else ""
    audio = {
        "input": measures["input_audio_tokens"],
        "cached input": measures["input_cached_audio_tokens"],
        "output": measures["output_audio_tokens"],
    }
    total = {
        "input": measures["input_uncached_tokens"],
        "cached input": measures["input_cached_tokens"],
        "cache writes": measures["input_cache_write_tokens"],
        "output": measures["output_tokens"],
    }
    for kind in _KINDS:
        spoken = audio.get(kind, 0) if model in _AUDIO else 0
        for label, prices, tokens in (("", _TOKENS, total[kind] - spoken), (" audio", _AUDIO, spoken)):
            if tokens:
                price = Decimal(prices[model][_KINDS.index(kind)]).scaleb(-6) * _FACTORS.get(tier, 1)
                yield f"{before}{model}{label}, {kind}", "tokens", tokens, tokens * price
