"""OpenAI's costs endpoint, read into ``genai_reported_cost``: money by day, project and line item.

Facts are those of OpenAI's OpenAPI document 2.3.0; the line items' forms are those that public code has seen:
``gpt-5.5-2026-04-23, cached input``, ``gpt-audio-mini-2025-12-15 audio, input``, ``priority | gpt-5.6-sol, output, long
context``, ``web search tool calls``. They are text for people, so what can't be read stays whole in ``line_item``.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from common.processors.base import StepContext
from common.processors.genai.prices import variant
from common.processors.http.json_fields import Fields
from common.processors.http.report_pages import Days, pages
from common.processors.openai_usage import account, client, span

TITLE = "OpenAI costs"
PATH = "/organization/costs"
PAGE_DAYS = 31
"""The API allows 180 buckets a page; a page is one batch in memory."""

GROUPS = ("project_id", "line_item")
"""Not ``api_key_id``: organisations have been refused it with a 400 (PostHog pull request 71784)."""

_LINE = re.compile(
    r"(?:(?P<tier>[a-z]+) \| )?(?P<model>[\w.:/-]+)(?: (?P<modality>text|audio|image))?, "
    r"(?P<kind>cached input|cache writes|input|output|input_tokens|output_tokens)(?P<long>, long context)?"
)
_MODEL = re.compile(r"(?:[a-z]+ \| )?(?P<model>[\w.:/-]+)(?: \w+)?, .+")
_KINDS = {"cached input": "input_cached", "cache writes": "input_cache_write", "input": "input", "output": "output"}
_TOOLS = {
    "web search": "web_searches",
    "file search": "file_searches",
    "code interpreter": "sessions",
    "vector stor": "stored_bytes",
}
_UNITS = {
    "tokens": "Tokens",
    "1000_tokens": "1000 Tokens",
    "duration_seconds": "Seconds",
    "duration_minutes": "Minutes",
    "duration_hours": "Hours",
    "gibibyte_hours": "GiB-Hours",
    "images": "Images",
    "characters": "Characters",
}
"""OpenAI says that there may be more: such a one is kept as it is."""


def costs(context: StepContext, _endpoints: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of each page. Raises TransientError for an answer of unexpected shape, and as ProviderClient."""
    days = Days(context.start_date, context.end_date)
    query = [*span(days), ("limit", str(PAGE_DAYS)), *(("group_by[]", value) for value in GROUPS)]
    empty = 0
    with client(context, context.secret()) as opened:
        for body, headers in pages(opened, PATH, query, TITLE):
            owner = account(context, headers)
            rows: list[dict[str, Any]] = []
            for bucket in body.objects("data"):
                begins, ends = bucket.unix_time("start_time"), bucket.unix_time("end_time")
                days.take(bucket, begins, ends, start="start_time", end="end_time")
                when = {"bucket_start": begins, "bucket_end": ends, "x_pipeline_run_date": begins.date()}
                results = [_row(result) for result in bucket.objects("results")]
                empty += results.count(None)
                rows += [row | when | {"account_id": owner} for row in results if row is not None]
            yield rows
    if empty:
        context.warn(f"{TITLE}: {empty} results have no amount. They are left out; compare with OpenAI's invoice.")


def _row(result: Fields) -> dict[str, Any] | None:
    """Return a row without its day; None where there is no amount, which the document allows."""
    if result.text("object") != "organization.costs.result":
        result.wrong("object", "'organization.costs.result'")
    amount = result.optional_object("amount")
    if amount is None:
        return None
    unit = result.text("quantity_unit")
    line = result.text("line_item")
    return {
        "provider": "openai",
        "project_id": result.text("project_id"),
        "api_key_id": result.text("api_key_id"),
        "line_item": line,
        **_read(line or ""),
        "quantity": result.optional_number("quantity"),
        "unit": _UNITS.get(unit or "", unit),
        "amount": amount.amount("value"),
        "currency": amount.required("currency").upper(),
        "attributes": None,
    }


def _read(line: str) -> dict[str, str | None]:
    """Return model, meter and price variant as far as the line item tells them."""
    if (found := _LINE.fullmatch(line)) is None:
        tool = next((meter for words, meter in _TOOLS.items() if words in line.lower()), None)
        named = None if tool else _MODEL.fullmatch(line)
        return {"model": named["model"] if named else None, "meter": tool, "price_variant": None}
    kind = _KINDS[found["kind"].removesuffix("_tokens")]
    meter = kind if kind == "input_cache_write" else f"{kind}_{found['modality'] or 'text'}"
    how = variant(None, found["tier"], long_context=found["long"] is not None)
    return {"model": found["model"], "meter": meter, "price_variant": how}
