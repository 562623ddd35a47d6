"""OpenAI: the organisation's usage and costs, with an admin key.

Paths, fields, ``group_by`` values and arithmetic are those of OpenAI's OpenAPI document 2.3.0; what only its Python SDK
3.57.0 describes is marked. The usage API gives quantities (``genai_payg_usage``), the costs endpoint money
(``genai_reported_cost``). The two are compared and never added up: OpenAI bills image generation for which the usage
API shows no rows.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any

from common.platform.errors import PermanentError
from common.ports.http import Calls
from common.processors.base import Caller, StepContext
from common.processors.genai.prices import variant
from common.processors.genai.provider import FocusNames, GenaiProvider
from common.processors.http.client import Api, ProviderClient, ProviderNotFoundError, ProviderRefusedError
from common.processors.http.json_fields import Fields
from common.processors.http.report_pages import Days, pages

API = Api(
    key="openai",
    name="OpenAI",
    credential_help="It has to be an admin key (sk-admin-...) with the scope api.usage.read; "
    "a project's key can't read the organisation's usage.",
)
COSTS_PATH = "/organization/costs"
COSTS_TITLE = "OpenAI costs"

USAGE_PAGE_DAYS = 7
"""Buckets a page: OpenAI's default. It allows 31, but a page is one batch in memory, and busy days are large."""

COSTS_PAGE_DAYS = 31
"""The API allows 180 buckets a page; a page is one batch in memory."""


def client(calls: Calls, secret: str) -> ProviderClient:
    """Return a client that sends the admin key."""
    return ProviderClient(calls, API, secret=secret, headers={"authorization": f"Bearer {secret}"})


def try_credential(caller: Caller, secret: str) -> str:
    """Ask for one day of costs: only an admin key may, and the answer is the smallest there is."""
    query = [("start_time", str(int(caller.now().timestamp()) - 86_400)), ("limit", "1")]
    with client(caller, secret) as opened:
        answer = opened.get_json(COSTS_PATH, query)
    Fields.of(answer.body, COSTS_TITLE).objects("data")
    return f"organisation {answer.headers.get('openai-organization') or '(OpenAI does not say which)'}"


def _days_query(days: Days) -> list[tuple[str, str]]:
    """Return the query for a run's days, a bucket each. OpenAI's end is exclusive."""
    return [
        ("start_time", str(int(days.start.timestamp()))),
        ("end_time", str(int(days.end.timestamp()))),
        ("bucket_width", "1d"),
    ]


API_SOURCE = "api_source"
"""Which of OpenAI's products made the calls: in its SDK 3.57.0, and not in the OpenAPI document 2.3.0."""


def _grouped(
    context: StepContext,
    client: ProviderClient,
    path: str,
    query: Sequence[tuple[str, str]],
    group_by: Sequence[str],
    title: str,
) -> Iterator[tuple[Fields, Mapping[str, str]]]:
    """Yield the pages of a report by dimensions; without ``api_source`` where OpenAI does not take it.

    Only the first page decides: a report that changed its dimensions on the way would count usage twice.
    """
    begun = False
    try:
        for page in pages(client, path, [*query, *(("group_by[]", value) for value in group_by)], title):
            begun = True
            yield page
        return
    except ProviderRefusedError as error:
        if begun or error.status != 400 or API_SOURCE not in group_by or API_SOURCE not in str(error):
            raise
    context.info(f"{title}: OpenAI does not report the {API_SOURCE} to this organisation: read without it.")
    fewer = [("group_by[]", value) for value in group_by if value != API_SOURCE]
    yield from pages(client, path, [*query, *fewer], title)


def _account(context: StepContext, headers: Mapping[str, str]) -> str:
    """Return the organisation's id, which is in a header of the answer alone; the credential's id without one."""
    return headers.get("openai-organization") or context.credential_id


# Tokens. The field texts and the example of the OpenAPI document add up like this:
#
#   input_tokens  = input_uncached_tokens + input_cached_tokens + input_cache_write_tokens
#   uncached      = input_text_tokens + input_audio_tokens + input_image_tokens
#   cached        = input_cached_text_tokens + input_cached_audio_tokens + input_cached_image_tokens
#   output_tokens = output_text_tokens + output_audio_tokens + output_image_tokens
#   cache-write   = input_cache_write_30m_tokens + input_cache_write_12h_tokens (SDK 3.57.0)
#
# Only input_tokens and output_tokens are required, so they are what the meters always add up to. Priced whole,
# input_tokens would count cached tokens twice.

Unexplained = Callable[[str, int], None]
"""Called with a meter and the tokens counted on it that a total includes and none of its parts does."""


@dataclass(frozen=True, slots=True)
class Meter:
    """How much of what was used."""

    name: str
    quantity: Decimal
    unit: str = "Tokens"


class PartsExceedTotalError(Exception):
    """The parts of a total add up to more than it: nobody can tell which of the figures is right."""


_MODALITIES = ("text", "audio", "image")
_RETENTIONS = ("input_cache_write_30m_tokens", "input_cache_write_12h_tokens")
TOKEN_METERS = (
    *(f"{prefix}_{modality}" for prefix in ("input", "input_cached", "output") for modality in _MODALITIES),
    "input_cache_write",
    *(name.removesuffix("_tokens") for name in _RETENTIONS),
)
"""What ``token_meters`` can yield."""


def token_meters(result: Fields, unexplained: Unexplained) -> Iterator[Meter]:
    """Yield the meters of a result; they add up to its ``input_tokens`` and ``output_tokens``.

    A part that is absent is what the others leave of its total (all of it text if no modality is given). If the parts
    are given and leave a remainder, it is counted as text and reported to ``unexplained``.
    Raises PartsExceedTotalError.
    """
    total = result.whole("input_tokens")
    cached = _given_or_sum(result, "input_cached_tokens", _modalities("input_cached"))
    written = _given_or_sum(result, "input_cache_write_tokens", _RETENTIONS)
    uncached = _left(total, {"input_cached_tokens": cached, "input_cache_write_tokens": written}, "input_tokens")
    stated = result.optional_whole("input_uncached_tokens")
    yield from _by_modality(result, "input", uncached, uncached if stated is None else stated, unexplained)
    yield from _by_modality(result, "input_cached", cached, cached, unexplained)
    yield from _by_retention(result, written, unexplained)
    output = result.whole("output_tokens")
    yield from _by_modality(result, "output", output, output, unexplained)


def _modalities(prefix: str) -> tuple[str, ...]:
    return tuple(f"{prefix}_{modality}_tokens" for modality in _MODALITIES)


def _given_or_sum(result: Fields, name: str, parts: tuple[str, ...]) -> int:
    given = result.optional_whole(name)
    return sum(result.optional_whole(part) or 0 for part in parts) if given is None else given


def _by_modality(result: Fields, prefix: str, amount: int, stated: int, unexplained: Unexplained) -> Iterator[Meter]:
    """Split ``amount`` into text, audio and image. ``stated`` is OpenAI's own sum, used if there is no text part."""
    text, audio, image = _modalities(prefix)
    others = {name: result.optional_whole(name) or 0 for name in (audio, image)}
    left = _left(amount, others, f"{prefix}_tokens")
    given = result.optional_whole(text)
    expected = _left(stated, others, f"{prefix}_tokens") if given is None else given
    remainder = _left(left, {text: expected}, f"the text part of {prefix}_tokens")
    if remainder:
        unexplained(f"{prefix}_text", remainder)
    for meter, tokens in (("text", left), ("audio", others[audio]), ("image", others[image])):
        yield Meter(f"{prefix}_{meter}", Decimal(tokens))


def _by_retention(result: Fields, written: int, unexplained: Unexplained) -> Iterator[Meter]:
    """Split the cache-write tokens by how long they are kept, where the endpoint says: each has its own price."""
    parts = {name: result.optional_whole(name) or 0 for name in _RETENTIONS}
    left = _left(written, parts, "input_cache_write_tokens")
    if left and any(parts.values()):
        unexplained("input_cache_write", left)
    yield Meter("input_cache_write", Decimal(left))
    for name, tokens in parts.items():
        yield Meter(name.removesuffix("_tokens"), Decimal(tokens))


def _left(total: int, parts: dict[str, int], name: str) -> int:
    """Return what the parts leave of a total, or raise PartsExceedTotalError."""
    left = total - sum(parts.values())
    if left < 0:
        listed = " + ".join(f"{part} {tokens}" for part, tokens in parts.items() if tokens)
        raise PartsExceedTotalError(f"{listed} is {-left} more than {name}, {total}.")
    return left


# Usage

MetersOf = Callable[[Fields, Unexplained], Iterator[Meter]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How one endpoint is asked, and what its results count: ``meters`` yields them, ``names`` are all it can yield.

    ``group_by`` holds every documented value except ``user_id``, which OpenAI refuses together with ``project_id``
    depending on organisation and time range (SDK 3.52.0), and which names people. An ``optional`` endpoint is left
    out where it answers 404.
    """

    result: str
    group_by: tuple[str, ...]
    meters: MetersOf
    names: tuple[str, ...]
    optional: bool = False


def _counting(field: str, meter: str, unit: str, group_by: tuple[str, ...], *, result: str) -> Endpoint:
    """Return an endpoint whose results count one thing."""

    def meters(result: Fields, _unexplained: Unexplained) -> Iterator[Meter]:
        yield Meter(meter, result.number(field), unit)

    return Endpoint(result, group_by, meters, (meter,))


_BY_MODEL = ("project_id", "api_key_id", "model")
_BY_TIER = (*_BY_MODEL, "batch", "service_tier", API_SOURCE)

ENDPOINTS: Mapping[str, Endpoint] = {
    "completions": Endpoint("completions", _BY_TIER, token_meters, TOKEN_METERS),
    "embeddings": _counting("input_tokens", "input_text", "Tokens", _BY_MODEL, result="embeddings"),
    "moderations": _counting("input_tokens", "input_text", "Tokens", _BY_MODEL, result="moderations"),
    "images": _counting("images", "images", "Images", (*_BY_MODEL, "size", "source"), result="images"),
    "audio_speeches": _counting("characters", "characters", "Characters", _BY_MODEL, result="audio_speeches"),
    "audio_transcriptions": _counting("seconds", "seconds", "Seconds", _BY_MODEL, result="audio_transcriptions"),
    "vector_stores": _counting("usage_bytes", "stored_bytes", "Bytes", ("project_id",), result="vector_stores"),
    "code_interpreter_sessions": _counting(
        "num_sessions", "sessions", "Sessions", ("project_id",), result="code_interpreter_sessions"
    ),
    # The result objects of the two searches are not called as their endpoints are (OpenAPI document 2.3.0).
    "file_search_calls": _counting(
        "num_requests",
        "file_searches",
        "Calls",
        ("project_id", "api_key_id", "vector_store_id"),
        result="file_searches",
    ),
    "web_search_calls": _counting(
        "num_requests", "web_searches", "Calls", (*_BY_MODEL, "context_level"), result="web_searches"
    ),
    # In the SDK alone, and in no public document: an organisation that does not have it gets a 404.
    "decisions": Endpoint("decisions", _BY_TIER, token_meters, TOKEN_METERS, optional=True),
}

_COLUMNS = ("project_id", "user_id", "api_key_id", "model", "service_tier")
_ATTRIBUTES = ("size", "source", "vector_store_id", "context_level", API_SOURCE)


def usage(context: StepContext, endpoints: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of each page of each endpoint, from the first to the last day of the context.

    Raises TransientError for an answer of unexpected shape and PermanentError for one whose numbers contradict each
    other, besides what ProviderClient raises.
    """
    discrepancies = _Discrepancies()
    with client(context, context.secret()) as opened:
        for name in endpoints:
            try:
                yield from _EndpointReader(context, opened, name, discrepancies).pages()
            except ProviderNotFoundError:
                if not ENDPOINTS[name].optional:
                    raise
                context.info(f"OpenAI has no usage endpoint {name!r} for this organisation: left out.")
    for text in discrepancies.texts():
        context.warn(text)


@dataclass(slots=True)
class _Discrepancies:
    """Results whose parts do not add up, by endpoint, model and meter: one warning each, however many there are."""

    cases: dict[tuple[str, str | None, str], list[tuple[date, int]]] = field(default_factory=dict)

    def add(self, key: tuple[str, str | None, str], day: date, tokens: int) -> None:
        self.cases.setdefault(key, []).append((day, tokens))

    def texts(self) -> Iterator[str]:
        for (endpoint, model, meter), cases in self.cases.items():
            yield (
                f"OpenAI {endpoint}, model {model or 'none'}: the parts of {len(cases)} results do not add up to their "
                f"totals (first on {min(day for day, _ in cases)}). The {sum(n for _, n in cases)} tokens in no part "
                f"are counted as {meter}; compare the cost with OpenAI's invoice."
            )


class _EndpointReader:
    """One endpoint's buckets, day after day and page after page."""

    def __init__(self, context: StepContext, client: ProviderClient, name: str, discrepancies: _Discrepancies) -> None:
        self._context, self._client, self._discrepancies = context, client, discrepancies
        self._name, self._endpoint = name, ENDPOINTS[name]
        self._title = f"OpenAI {name}"
        self._days = Days(context.start_date, context.end_date)

    def pages(self) -> Iterator[list[dict[str, Any]]]:
        query = [*_days_query(self._days), ("limit", str(USAGE_PAGE_DAYS))]
        path, group_by = f"/organization/usage/{self._name}", self._endpoint.group_by
        for body, headers in _grouped(self._context, self._client, path, query, group_by, self._title):
            account = _account(self._context, headers)
            yield [row for bucket in body.objects("data") for row in self._rows(bucket, account)]
        self._days.require_all(self._title, self._context.now())

    def _rows(self, bucket: Fields, account: str) -> Iterator[dict[str, Any]]:
        begins, ends = bucket.unix_time("start_time"), bucket.unix_time("end_time")
        self._days.take(bucket, begins, ends, start="start_time", end="end_time")
        for result in bucket.objects("results"):
            row = self._dimensions(result) | {
                "provider": API.key,
                "account_id": account,
                "endpoint": self._name,
                "bucket_start": begins,
                "bucket_end": ends,
                "x_pipeline_run_date": begins.date(),
            }
            for meter in self._meters(result, begins.date(), row["model"]):
                yield row | {"meter": meter.name, "quantity": meter.quantity, "unit": meter.unit}

    def _meters(self, result: Fields, day: date, model: str | None) -> Iterator[Meter]:
        def unexplained(meter: str, tokens: int) -> None:
            self._discrepancies.add((self._name, model, meter), day, tokens)

        try:
            yield from (meter for meter in self._endpoint.meters(result, unexplained) if meter.quantity)
        except PartsExceedTotalError as error:
            raise PermanentError(
                f"{self._title}, {day}, model {model or 'none'}: {error} No quantity is guessed. Report it to OpenAI, "
                "or leave the endpoint out: `endpoints` in the step's config."
            ) from None

    def _dimensions(self, result: Fields) -> dict[str, Any]:
        expected = f"organization.usage.{self._endpoint.result}.result"
        if result.text("object") != expected:
            result.wrong("object", repr(expected))
        attributes = {name: value for name in _ATTRIBUTES if (value := result.text(name)) is not None}
        dimensions: dict[str, Any] = {name: result.text(name) for name in _COLUMNS}
        batch = result.flag("batch")
        return dimensions | {
            "batch": batch,
            "price_variant": variant(batch, dimensions["service_tier"]),
            "attributes": json.dumps(attributes, sort_keys=True) if attributes else None,
            "requests": result.optional_whole("num_model_requests"),
        }


# Costs: money by day, project and line item. The line items' forms are those that public code has seen:
# "gpt-5.5-2026-04-23, cached input", "gpt-audio-mini-2025-12-15 audio, input", "priority | gpt-5.6-sol, output, long
# context", "web search tool calls". They are text for people, so one that can't be parsed stays whole in line_item.

_COST_GROUPS = ("project_id", "line_item", API_SOURCE)
"""Not ``api_key_id``: organisations have been refused it with a 400 (PostHog pull request 71784)."""

_LINE_ITEM = re.compile(
    r"(?:(?P<tier>[a-z]+) \| )?(?P<model>[\w.:/-]+)(?: (?P<modality>text|audio|image))?, "
    r"(?P<kind>cached input|cache writes|input|output|input_tokens|output_tokens)(?P<long>, long context)?"
)
_LINE_ITEM_MODEL = re.compile(r"(?:[a-z]+ \| )?(?P<model>[\w.:/-]+)(?: \w+)?, .+")
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
"""An open enum, as the OpenAPI document says: a unit that is not here is kept as it is."""


def costs(context: StepContext, _endpoints: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of each page. Raises TransientError for an answer of unexpected shape, and as ProviderClient."""
    days = Days(context.start_date, context.end_date)
    query = [*_days_query(days), ("limit", str(COSTS_PAGE_DAYS))]
    empty = 0
    with client(context, context.secret()) as opened:
        for body, headers in _grouped(context, opened, COSTS_PATH, query, _COST_GROUPS, COSTS_TITLE):
            account = _account(context, headers)
            rows: list[dict[str, Any]] = []
            for bucket in body.objects("data"):
                begins, ends = bucket.unix_time("start_time"), bucket.unix_time("end_time")
                days.take(bucket, begins, ends, start="start_time", end="end_time")
                when = {"bucket_start": begins, "bucket_end": ends, "x_pipeline_run_date": begins.date()}
                results = [_cost_row(result) for result in bucket.objects("results")]
                empty += results.count(None)
                rows += [row | when | {"account_id": account} for row in results if row is not None]
            yield rows
        days.require_all(COSTS_TITLE, context.now())
    if empty:
        context.warn(
            f"{COSTS_TITLE}: {empty} results have no amount. They are left out; compare with OpenAI's invoice."
        )


def _cost_row(result: Fields) -> dict[str, Any] | None:
    """Return a row without its day; None if there is no amount, which the OpenAPI document allows."""
    if result.text("object") != "organization.costs.result":
        result.wrong("object", "'organization.costs.result'")
    amount = result.optional_object("amount")
    if amount is None:
        return None
    unit = result.text("quantity_unit")
    line_item, source = result.text("line_item"), result.text(API_SOURCE)
    return {
        "provider": API.key,
        "project_id": result.text("project_id"),
        "api_key_id": result.text("api_key_id"),
        "line_item": line_item,
        **_parsed_line_item(line_item or ""),
        "quantity": result.optional_number("quantity"),
        "unit": _UNITS.get(unit or "", unit),
        "amount": amount.amount("value"),  # dollars; Anthropic's are cents
        "currency": amount.required("currency").upper(),
        "attributes": None if source is None else json.dumps({API_SOURCE: source}),
    }


def _parsed_line_item(text: str) -> dict[str, str | None]:
    """Return model, meter and price variant as far as the line item names them."""
    match = _LINE_ITEM.fullmatch(text)
    if match is None:
        tool = next((meter for words, meter in _TOOLS.items() if words in text.lower()), None)
        named = None if tool else _LINE_ITEM_MODEL.fullmatch(text)
        return {"model": named["model"] if named else None, "meter": tool, "price_variant": None}
    kind = _KINDS[match["kind"].removesuffix("_tokens")]
    meter = kind if kind == "input_cache_write" else f"{kind}_{match['modality'] or 'text'}"
    how = variant(None, match["tier"], long_context=match["long"] is not None)
    return {"model": match["model"], "meter": meter, "price_variant": how}


PROVIDER = GenaiProvider(
    names=FocusNames(provider="OpenAI", service="OpenAI API"),
    price_key="openai",
    reports={
        "usage": usage,
        "cost": costs,
        "balance": "OpenAI has no API for balances; what is left of prepaid credits is on platform.openai.com alone.",
    },
    meters={name: endpoint.names for name, endpoint in ENDPOINTS.items()},
    page_days=USAGE_PAGE_DAYS,
    try_credential=try_credential,
)
