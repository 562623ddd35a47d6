"""Gemini: tokens from Cloud Monitoring, with a service account. Google has no usage or cost API for it.

Google offers two other sources: Cloud Monitoring counts tokens, without money, and keeps them for about six weeks;
Cloud Billing exports money to BigQuery (the pipeline cloud/gcp/cost/billing). Metric names come from Google's list and
from public code that reads them. Neither source separates cached or thinking tokens, so the cost here is an estimate.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from common.platform.errors import PermanentError
from common.processors.base import Caller, StepContext
from common.processors.clouds.gcp.credential import ServiceAccount, access_token
from common.processors.genai.prices import BATCH, FREE, STANDARD
from common.processors.genai.provider import FocusNames, GenaiProvider
from common.processors.http.client import Api, ProviderClient, ProviderNotFoundError
from common.processors.http.json_fields import Fields
from common.processors.http.pager import follow
from common.processors.http.report_pages import DAY, midnight

API = Api(
    key="gemini",
    name="Google Cloud Monitoring",
    credential_help="It must be the JSON key of a service account with the role Monitoring Viewer in the project "
    "that uses Gemini.",
)
SCOPE = "https://www.googleapis.com/auth/monitoring.read"
KEPT_DAYS = 41
"""Cloud Monitoring keeps metrics for six weeks; an expired day must not be written as a day without usage."""
PAGE_SIZE = 1_000
"""Points per page: bounds the size of one response of a busy project."""
PARTIAL = ("executionErrors", "unreachable")
"""Fields of ListTimeSeriesResponse that are filled if series are missing (discovery document of monitoring v3)."""

DEVELOPER, VERTEX = "generative_language", "vertex_ai"
TIERS = ("free_tier", "paid_tier", "paid_tier_2", "paid_tier_3")
_INPUT = "generativelanguage.googleapis.com/quota/generate_content_{}_input_token_count/usage"
_OUTPUT = "generativelanguage.googleapis.com/generate_content_usage_output_token_count"
_TOKENS = "aiplatform.googleapis.com/publisher/online_serving/token_count"
_PROJECT = re.compile(r"[a-z][a-z0-9.:-]{1,62}", re.ASCII)
# Google bills pages of documents as images.
_MODALITIES = {"TEXT": "text", "AUDIO": "audio", "IMAGE": "image", "DOCUMENT": "image", "VIDEO": "video"}
_OTHER = "other"
_DIRECTIONS = ("input", "output")
_VERTEX_METERS = tuple(f"{way}_{of}" for way in _DIRECTIONS for of in dict.fromkeys((*_MODALITIES.values(), _OTHER)))


@dataclass(frozen=True, slots=True)
class Point:
    """The tokens of one day of one series."""

    day: date
    metric: Fields
    resource: Fields
    tokens: int


def usage(context: StepContext, endpoints: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    """Yield each endpoint's rows. Raises PermanentError for days that have expired, and as ProviderClient does."""
    oldest = context.now().date() - timedelta(days=KEPT_DAYS)
    if context.start_date < oldest:
        raise PermanentError(
            f"Cloud Monitoring keeps metrics for six weeks: {context.start_date} is gone, the oldest day is {oldest}. "
            "Stored rows of earlier days are kept; their cost is in the Cloud Billing export."
        )
    account = ServiceAccount.of(context.secret(), context.credential_id)
    project = _project(account)
    with _client(context, account) as client:
        reader = _Reader(context, client, project)
        for endpoint in endpoints:
            yield reader.developer_rows() if endpoint == DEVELOPER else reader.vertex_rows()
    if not reader.has_metrics:
        context.warn(
            f"Cloud Monitoring of project {account.project_id} has no Gemini metric at all. Is Gemini used there?"
        )


def try_credential(caller: Caller, secret: str) -> str:
    """Get an access token and request one metric's descriptor."""
    account = ServiceAccount.of(secret, caller.credential_id)
    project = _project(account)
    query = [("filter", f'metric.type = "{_TOKENS}"'), ("pageSize", "1")]
    with _client(caller, account) as client:
        Fields.of(client.get_json(f"/v3/projects/{project}/metricDescriptors", query).body, API.name)
    return f"service account {account.email} of project {account.project_id}"


def _client(caller: Caller, account: ServiceAccount) -> ProviderClient:
    token = access_token(caller, account.key, (SCOPE,))
    return ProviderClient(caller, API, secret=token, headers={"authorization": f"Bearer {token}"})


def _project(account: ServiceAccount) -> str:
    if not _PROJECT.fullmatch(account.project_id):
        # It becomes part of a URL's path.
        raise PermanentError(f"The key file's project_id is not a valid project id. {API.credential_help}")
    return account.project_id


@dataclass(slots=True)
class _Tiers:
    """The tiers of a model's input on a day; the output metric has no tier."""

    tiers: set[str] = field(default_factory=set)

    @property
    def variant(self) -> str:
        """Return the price variant of output: free if all input was, else the standard price."""
        return FREE if self.tiers == {"free_tier"} else STANDARD


class _Reader:
    """The metrics of one project and the days of one run."""

    def __init__(self, context: StepContext, client: ProviderClient, project: str) -> None:
        self._context, self._client, self._project = context, client, project
        self._start, self._end = midnight(context.start_date), midnight(context.end_date + DAY)
        self.has_metrics = False

    def developer_rows(self) -> list[dict[str, Any]]:
        """Return the rows of the Gemini API: input by tier, output without a tier."""
        rows: list[dict[str, Any]] = []
        by_model: dict[tuple[date, str | None, str], _Tiers] = {}
        for tier in TIERS:
            for point in self._points(_INPUT.format(tier)):
                row = self._row(DEVELOPER, point, point.metric.text("model"))
                by_model.setdefault(_model_day(row), _Tiers()).tiers.add(tier)
                processing = {"service_tier": tier, "price_variant": FREE if tier == "free_tier" else STANDARD}
                rows.append(row | processing | {"meter": "input_text"})
        for point in self._points(_OUTPUT):
            row = self._row(DEVELOPER, point, point.metric.text("model"), "thinking_enabled")
            tiers = by_model.get(_model_day(row), _Tiers())
            if len(tiers.tiers) > 1 and "free_tier" in tiers.tiers:
                self._context.warn(
                    f"{row['model']} was used by free and paid tiers on {point.day}, and its output has no tier: "
                    "all of it is priced as paid, which may be too much."
                )
            rows.append(row | {"price_variant": tiers.variant, "meter": "output_text"})
        return rows

    def vertex_rows(self) -> list[dict[str, Any]]:
        """Return the rows of Vertex AI: models of Google and of other publishers."""
        rows = []
        for point in self._points(_TOKENS):
            direction, modality = point.metric.text("type"), point.metric.text("modality")
            if direction not in _DIRECTIONS:
                point.metric.wrong("type", " or ".join(_DIRECTIONS))
            of = _MODALITIES.get((modality or "TEXT").upper(), _OTHER)
            labels = ("request_type", "explicit_caching", "source", *(("modality",) if of == _OTHER else ()))
            row = self._row(VERTEX, point, point.resource.text("model_user_id"), *labels)
            publisher, location = point.resource.text("publisher"), point.resource.text("location")
            rows.append(
                row
                | {
                    "meter": f"{direction}_{of}",
                    "region": None if location in (None, "global") else location,
                    "publisher": None if publisher in (None, "google") else publisher,
                    "price_variant": _vertex_variant(point.metric),
                }
            )
        return rows

    def _row(self, endpoint: str, point: Point, model: str | None, *labels: str) -> dict[str, Any]:
        attributes = {name: value for name in labels if (value := point.metric.text(name)) is not None}
        project = (
            point.resource.text("project_id") or (point.resource.text("resource_container") or "").rpartition("/")[2]
        )
        return {
            "provider": API.key,
            "account_id": self._project,
            "endpoint": endpoint,
            "bucket_start": midnight(point.day),
            "bucket_end": midnight(point.day + DAY),
            "project_id": project or self._project,
            "model": model,
            "attributes": json.dumps(attributes, sort_keys=True) if attributes else None,
            "quantity": Decimal(point.tokens),
            "unit": "Tokens",
            "x_pipeline_run_date": point.day,
        }

    def _points(self, metric: str) -> Iterator[Point]:
        """Yield the daily sums of a metric; none if the project does not have it."""
        query = [
            ("filter", f'metric.type="{metric}"'),
            ("interval.startTime", _stamp(self._start)),
            ("interval.endTime", _stamp(self._end)),
            # Periods are aligned to endTime, which is midnight UTC, so each is a UTC day.
            ("aggregation.alignmentPeriod", "86400s"),
            ("aggregation.perSeriesAligner", "ALIGN_SUM"),
            ("pageSize", str(PAGE_SIZE)),
        ]
        try:
            for body in self._pages(query):
                body.refuse_partial(*PARTIAL)
                self.has_metrics = True
                for series in body.objects("timeSeries") if "timeSeries" in body.values else []:
                    yield from self._series(series)
        except ProviderNotFoundError:
            self._context.info(f"Project {self._project} has no metric {metric}: skipped.")

    def _pages(self, query: Sequence[tuple[str, str]]) -> Iterator[Fields]:
        def fetch(token: str | None) -> Fields:
            params = query if token is None else [*query, ("pageToken", token)]
            return Fields.of(self._client.get_json(f"/v3/projects/{self._project}/timeSeries", params).body, API.name)

        return follow(fetch, lambda body: body.text("nextPageToken"), api=API.name, field="nextPageToken")

    def _series(self, series: Fields) -> Iterator[Point]:
        metric, resource = series.object("metric").optional_object("labels"), series.object("resource").object("labels")
        no_labels = Fields.of({}, series.source, series.path)
        days: set[date] = set()
        for point in series.objects("points"):
            ends = point.object("interval").time("endTime")
            day = (ends - DAY).date()
            if not self._start < ends <= self._end or ends != midnight(ends.date()):
                point.wrong("interval", f"a day from {self._start:%Y-%m-%d} to before {self._end:%Y-%m-%d}")
            if day in days:
                point.wrong("interval", "a day that the series has not returned before")  # it would be counted twice
            days.add(day)
            tokens = _count(point.object("value"))
            if tokens:
                yield Point(day, metric or no_labels, resource, tokens)


def _count(value: Fields) -> int:
    """Return an ``int64Value``, which Google's JSON has as text because a JSON number holds 53 bits."""
    text = value.text("int64Value") or ""
    if not (text.isascii() and text.isdigit() and len(text) <= 30):
        value.wrong("int64Value", "a whole number in quotes that is not negative")
    return int(text)


def _model_day(row: dict[str, Any]) -> tuple[date, str | None, str]:
    return row["x_pipeline_run_date"], row["model"], row["project_id"]


def _vertex_variant(metric: Fields) -> str:
    """Return the price variant. Provisioned throughput is paid by the month: its tokens have no price of their own."""
    if metric.text("request_type") == "dedicated":
        return "dedicated"
    return BATCH if (metric.text("source") or "").startswith("batch_") else STANDARD


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


PROVIDER = GenaiProvider(
    names=FocusNames(provider="Google", service="Gemini API", account="Project", services={VERTEX: "Vertex AI"}),
    price_key="google",
    reports={
        "usage": usage,
        "cost": "Google has no cost API for Gemini: its cost is in the Cloud Billing export, which the pipeline "
        "cloud/gcp/cost/billing reads.",
        "balance": "Google has no balance API for Gemini: only aistudio.google.com shows prepaid credits.",
    },
    meters={DEVELOPER: ("input_text", "output_text"), VERTEX: _VERTEX_METERS},
    try_credential=try_credential,
)
