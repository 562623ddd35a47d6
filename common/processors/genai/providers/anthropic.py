"""Anthropic: the organisation's usage and cost, with an admin key.

The analytics reports are read (``/v1/organizations/analytics``, in beta; facts: Anthropic's SDK 2.14.0). The Admin
API's usage and cost reports, which are "legacy" since 2026-10-29 (platform.claude.com/docs/en/api/admin), are read only
where the analytics reports are unavailable: the organisation gets a 403 or 404, or they do not go back far enough.
A run reads each report from one of the two, so a day never mixes them, and every row names it (``report`` in its
attributes). Unlike OpenAI's, token counts are separate and not parts of a total, and money is in cents, as text.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from common.platform.errors import TransientError
from common.ports.http import Calls
from common.processors.base import Caller, StepContext
from common.processors.genai.prices import FAST, STANDARD, US, variant
from common.processors.genai.provider import FocusNames, GenaiProvider
from common.processors.http.client import Api, ProviderClient, ProviderRefusedError
from common.processors.http.json_fields import Fields
from common.processors.http.report_pages import DAY, Days, midnight, pages

API = Api(
    key="anthropic",
    name="Anthropic",
    credential_help="It must be an admin key (sk-ant-admin...), which only an organisation's admin can create; "
    "a workspace's key can't read the organisation's reports.",
)
VERSION = "2023-06-01"
PAGE_DAYS = 7
"""Buckets per page of a legacy report: Anthropic's default. It allows 31, but a page is one batch in memory."""

BETA = "analytics-usage-cost-2026-08-24"
"""The analytics reports refuse a request without this header."""
SPAN_DAYS, KEPT_DAYS, FIRST_DAY = 31, 365, date(2026, 1, 1)
"""The analytics reports take at most so many days per request, so many back, and none before this one."""
PAGE_ROWS = 1_000
"""The most that the analytics reports return; a page is one batch in memory."""

USAGE_GROUPS = ("workspace_id", "model", "service_tier", "context_window", "inference_geo")
"""Anthropic accepts five at most (more is a 400, PostHog issue 72556). Four of these decide the price and one the
owner, so there is no room for ``api_key_id`` and ``account_id``. The analytics reports accept five, too; ``speed`` is a
filter there."""

COST_GROUPS = ("workspace_id", "description")
ANALYTICS_COST_GROUPS = (*USAGE_GROUPS, "cost_type", "token_type")
"""The last two do not count towards the five."""
DEFAULT_WORKSPACE = "default"
"""Anthropic's default workspace has no id: its rows have null as ``workspace_id``."""

LONG_WINDOW = "200k-1M"

_CACHE_WRITES = {
    "input_cache_write_5m": "ephemeral_5m_input_tokens",
    "input_cache_write_1h": "ephemeral_1h_input_tokens",
}
_TOKENS = {
    "input_text": "uncached_input_tokens",
    "input_cached_text": "cache_read_input_tokens",
    "output_text": "output_tokens",
}
_METERS = {name: meter for meter, name in _TOKENS.items()} | {
    f"cache_creation.{name}": meter for meter, name in _CACHE_WRITES.items()
}
SEARCHES = "web_searches"
_COST_METERS = {"web_search": SEARCHES}
_NESTED = ("cache_creation", "server_tool_use")
_COUNTERS = (*_TOKENS.values(), "requests", "total_tokens")
_COST_ATTRIBUTES = ("cost_type", "token_type", "context_window", "inference_geo")


Row = dict[str, Any]
_Key = tuple[datetime, tuple[str | None, ...]]
"""A row's day, and its values of the dimensions."""


@dataclass(frozen=True, slots=True)
class _Report:
    """One report in its two forms. ``rows`` makes rows of a result, whose fields are the same in both."""

    title: str
    path: str
    analytics_groups: Sequence[str]
    legacy_path: str
    legacy_groups: Sequence[str]
    rows: Callable[[Fields], Iterator[Row]]


def _client(calls: Calls, secret: str, **more: str) -> ProviderClient:
    headers = {"x-api-key": secret, "anthropic-version": VERSION, **more}
    return ProviderClient(calls, API, secret=secret, headers=headers)


def try_credential(caller: Caller, secret: str) -> str:
    """Request the organisation that the key belongs to."""
    with _client(caller, secret) as client:
        return f"organisation {_organisation(client)}"


def _organisation(client: ProviderClient) -> str:
    path = "/v1/organizations/me"
    return Fields.of(client.get_json(path).body, "Anthropic organization").required("id")


def usage(context: StepContext, _endpoints: Sequence[str]) -> Iterator[list[Row]]:
    """Yield the rows of each page of the usage of messages.

    Raises TransientError for a response of unexpected shape or without one of the days, and as ProviderClient does.
    """
    yield from _read(context, _USAGE)


def costs(context: StepContext, _endpoints: Sequence[str]) -> Iterator[list[Row]]:
    """Yield the rows of each page of the cost; raises as ``usage`` does.

    No legacy report has the cost of the Priority Tier: its usage has the tier ``priority``, and no price.
    """
    yield from _read(context, _COSTS)


def _read(context: StepContext, report: _Report) -> Iterator[list[Row]]:
    oldest = max(FIRST_DAY, context.now().date() - timedelta(days=KEPT_DAYS))
    if context.start_date >= oldest:
        begun = False
        try:
            for rows in _analytics(context, report):
                begun = True
                yield rows
            return
        except ProviderRefusedError as error:
            # After the first page it is too late: the legacy report would count its days a second time.
            if begun or error.status not in (403, 404):
                raise
            why = f"the organisation may not read {report.path} ({error.status})"
    else:
        why = f"{report.path} goes back to {oldest}"
    context.info(f"{report.title}: {why}, so the legacy report {report.legacy_path} is read.")
    yield from _legacy(context, report)


def _analytics(context: StepContext, report: _Report) -> Iterator[list[Row]]:
    with _client(context, context.secret(), **{"anthropic-beta": BETA}) as client:
        account = None
        first = context.start_date
        while first <= context.end_date:
            last = min(context.end_date, first + timedelta(days=SPAN_DAYS - 1))
            reader = _AnalyticsReader(context, client, report, first, last)
            for page in reader.pages():
                # Asked for after the report, so that a refusal is that of the report.
                account = account or _organisation(client)
                yield [{"provider": API.key, "account_id": account} | row for row in page]
            first = last + DAY


class _AnalyticsReader:
    """One request of at most 31 days, and its pages. Days without usage are absent from them.

    Fast mode has its own price, and there is no room for it among the dimensions. So usage is read twice: that of fast
    mode alone, then all, of which the former is taken off.
    """

    def __init__(self, context: StepContext, client: ProviderClient, report: _Report, first: date, last: date) -> None:
        self._client, self._report = client, report
        self._start, self._end = midnight(first), midnight(last + DAY)
        self._today = midnight(context.now().astimezone(UTC).date())

    def pages(self) -> Iterator[list[Row]]:
        is_usage = self._report is _USAGE
        fast = {key: result for page in self._results(("speeds[]", "fast")) for key, result in page} if is_usage else {}
        for page in self._results():
            rows: list[Row] = []
            for key, result in page:
                own = fast.pop(key, None)
                rows += self._rows(key[0], result if own is None else _without(result, own))
                rows += [] if own is None else self._rows(key[0], own)
            yield rows
        if fast:
            raise TransientError(
                f"{self._report.title}: fast mode has usage that the whole does not have. The report has changed while "
                "it was being read; the next attempt reads it again."
            )

    def _rows(self, begins: datetime, result: Fields) -> list[Row]:
        when = {"bucket_start": begins, "bucket_end": begins + DAY, "x_pipeline_run_date": begins.date()}
        return [when | _from_report(row, self._report.path) for row in self._report.rows(result)]

    def _results(self, *filters: tuple[str, str]) -> Iterator[list[tuple[_Key, Fields]]]:
        query = [
            ("starting_at", _stamp(self._start)),
            ("ending_at", _stamp(self._end)),
            ("time_bucket_width", "1d"),
            # By amount, which is the default, a row whose amount changes could move to a page that was read already.
            ("order_by", "time"),
            ("order", "asc"),
            ("limit", str(PAGE_ROWS)),
            *(("group_by[]", group) for group in self._report.analytics_groups),
            *filters,
        ]
        seen: set[_Key] = set()
        for body, _ in pages(self._client, self._report.path, query, self._report.title):
            self._check_refreshed(body)
            page = [self._result(item, fast=bool(filters)) for item in body.objects("data")]
            for key, result in page:
                if key in seen:
                    result.wrong("group", "a combination that has not come yet")
                seen.add(key)
            yield page

    def _check_refreshed(self, body: Fields) -> None:
        """Absent days are quiet ones only as far as the report is refreshed; today may be incomplete."""
        if body.values.get("data_refreshed_at") is None:
            return
        refreshed, complete = body.time("data_refreshed_at"), min(self._end, self._today)
        if refreshed < complete:
            raise TransientError(
                f"{self._report.title}: the report reaches to {refreshed:%Y-%m-%d %H:%M} UTC, so "
                f"{complete - DAY:%Y-%m-%d} is not complete. Nothing of it is used; the next attempt reads it again."
            )

    def _result(self, item: Fields, *, fast: bool) -> tuple[_Key, Fields]:
        """Return a row's key and its fields without the nesting, in which the legacy report has them."""
        begins, ends = item.time("starting_at"), item.time("ending_at")
        if not self._start <= begins < self._end or begins != midnight(begins.date()):
            item.wrong("starting_at", f"a day from {self._start:%Y-%m-%d} to before {self._end:%Y-%m-%d}")
        if ends != begins + DAY:
            item.wrong("ending_at", "a day after starting_at")
        group = item.object("group")
        amounts = item.object("usage" if self._report is _USAGE else "cost")
        values = {**group.values, **amounts.values, **({"speed": FAST} if fast else {})}
        key = (begins, tuple(group.text(name) for name in self._report.analytics_groups))
        return key, Fields(item.source, item.path, values, item.limit)


def _without(whole: Fields, part: Fields) -> Fields:
    """Return usage without that of fast mode; TransientError if that is more."""
    left: dict[str, Any] = {}
    for name, value in whole.values.items():
        if name in _NESTED:
            nested, off = whole.object(name), part.object(name)
            left[name] = {counter: _less(nested, off, counter) for counter in nested.values}
        else:
            left[name] = _less(whole, part, name) if name in _COUNTERS else value
    return Fields(whole.source, whole.path, left, whole.limit)


def _less(whole: Fields, part: Fields, name: str) -> int:
    left = (whole.optional_whole(name) or 0) - (part.optional_whole(name) or 0)
    return left if left >= 0 else whole.wrong(name, "at least as much as in fast mode alone")


def _from_report(row: Row, path: str) -> Row:
    """Return a row that names the report it comes from."""
    attributes = {"report": path.removeprefix("/v1/organizations/"), **row["attributes"]}
    return row | {"attributes": json.dumps(attributes, sort_keys=True)}


def _legacy(context: StepContext, report: _Report) -> Iterator[list[Row]]:
    days = Days(context.start_date, context.end_date)
    query = [
        ("starting_at", _stamp(days.start)),
        # The reference returns buckets that end *before* this, so one more day is requested and its bucket dropped.
        ("ending_at", _stamp(days.end + DAY)),
        ("bucket_width", "1d"),
        ("limit", str(PAGE_DAYS)),
        *(("group_by[]", group) for group in report.legacy_groups),
    ]
    with _client(context, context.secret()) as client:
        account = _organisation(client)
        for body, _ in pages(client, report.legacy_path, query, report.title):
            rows: list[Row] = []
            for bucket in body.objects("data"):
                begins, ends = bucket.time("starting_at"), bucket.time("ending_at")
                results = bucket.objects("results")
                if begins >= days.end:
                    continue
                days.take(bucket, begins, ends, start="starting_at", end="ending_at")
                period = {"bucket_start": begins, "bucket_end": ends, "x_pipeline_run_date": begins.date()}
                owner = {"provider": API.key, "account_id": account}
                rows += [
                    period | owner | _from_report(row, report.legacy_path)
                    for result in results
                    for row in report.rows(result)
                ]
            yield rows
    days.require_all(report.title, context.now())


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _usage_rows(result: Fields) -> Iterator[Row]:
    tier, window, geo = result.text("service_tier"), result.text("context_window"), result.text("inference_geo")
    speed = result.text("speed")
    dimensions = {"context_window": window, "inference_geo": geo, "speed": speed}
    how = FAST if speed == FAST and tier in (None, STANDARD) else tier
    row = {
        "endpoint": "messages",
        "project_id": result.text("workspace_id") or DEFAULT_WORKSPACE,
        "model": result.text("model"),
        "batch": None if tier is None else tier == "batch",
        "service_tier": tier,
        "region": geo if geo == US else None,
        "attributes": {name: value for name, value in dimensions.items() if value},
        "price_variant": variant(None, how, long_context=window == LONG_WINDOW, region=_priced_region(geo)),
        "requests": result.optional_whole("requests"),
    }
    for meter, quantity in _quantities(result):
        if quantity:
            unit = "Calls" if meter == SEARCHES else "Tokens"
            yield row | {"meter": meter, "quantity": Decimal(quantity), "unit": unit}


def _priced_region(geo: str | None) -> str:
    """Return the region if it changes the price; global inference has the standard price."""
    return "" if geo in (None, "global", "not_available") else str(geo)


def _quantities(result: Fields) -> Iterator[tuple[str, int]]:
    for meter, name in _TOKENS.items():
        yield meter, result.whole(name)
    writes = result.object("cache_creation")  # nested, and required: a missing object must not count as 0 tokens
    for meter, name in _CACHE_WRITES.items():
        yield meter, writes.whole(name)
    tools = result.optional_object("server_tool_use")
    yield SEARCHES, 0 if tools is None else tools.optional_whole("web_search_requests") or 0


def _cost_rows(result: Fields) -> Iterator[Row]:
    cost_type, tier, window = result.text("cost_type"), result.text("service_tier"), result.text("context_window")
    attributes = {name: value for name in _COST_ATTRIBUTES if (value := result.text(name)) is not None}
    if result.values.get("list_amount") is not None:
        attributes["list_amount"] = f"{result.amount('list_amount').scaleb(-2):f}"
    token_type, model = result.text("token_type"), result.text("model")
    meter = _METERS.get(token_type or "") or _COST_METERS.get(cost_type or "", cost_type)
    parts = (model, token_type or cost_type, tier, window, result.text("inference_geo"))
    if cost_type not in (None, "tokens") and model is not None:
        # A search costs the same with every model: like our own figure, it is compared without one.
        attributes["model"], model = model, None
    yield {
        "project_id": result.text("workspace_id") or DEFAULT_WORKSPACE,
        # The analytics reports have no description: the line is named by what makes it one.
        "line_item": result.text("description") or ", ".join(part for part in parts if part),
        "model": model,
        "meter": meter,
        "price_variant": None if tier is None else variant(None, tier, long_context=window == LONG_WINDOW),
        "amount": result.amount("amount").scaleb(-2),  # cents
        "currency": result.required("currency").upper(),
        "attributes": attributes,
    }


_USAGE = _Report(
    "Anthropic usage",
    "/v1/organizations/analytics/usage",
    USAGE_GROUPS,
    "/v1/organizations/usage_report/messages",
    USAGE_GROUPS,
    _usage_rows,
)
_COSTS = _Report(
    "Anthropic costs",
    "/v1/organizations/analytics/cost",
    ANALYTICS_COST_GROUPS,
    "/v1/organizations/cost_report",
    COST_GROUPS,
    _cost_rows,
)

PROVIDER = GenaiProvider(
    names=FocusNames(provider="Anthropic", service="Claude API", project="Workspace"),
    price_key="anthropic",
    reports={
        "usage": usage,
        "cost": costs,
        "balance": "Anthropic has no API for balances: only the Claude Console shows the rest of prepaid credits.",
    },
    meters={"messages": (*_TOKENS, *_CACHE_WRITES, SEARCHES)},
    page_days=SPAN_DAYS,
    try_credential=try_credential,
)
