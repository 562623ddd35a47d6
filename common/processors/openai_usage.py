"""OpenAI's organisation usage API, read into the long format of ``genai_payg_usage``.

Facts (paths, fields, group_by values, arithmetic) are those of OpenAI's OpenAPI document 2.3.0, and of its SDK 3.52.0
for ``decisions``, which only the SDK describes.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from common.platform.errors import PermanentError
from common.ports.http import Calls
from common.processors.base import StepContext
from common.processors.genai.prices import variant
from common.processors.http.client import Api, ProviderClient, ProviderNotFoundError
from common.processors.http.json_fields import Fields
from common.processors.http.report_pages import Days, pages
from common.processors.openai_tokens import Meter, PartsExceedTotalError, Unexplained, token_meters

API = Api(
    key="openai",
    name="OpenAI",
    credential_help="It has to be an admin key (sk-admin-...) with the scope api.usage.read; "
    "a project's key can't read the organisation's usage.",
)
PAGE_DAYS = 7
"""Buckets a page: OpenAI's default. It allows 31, but a page is one batch in memory, and busy days are large."""

MetersOf = Callable[[Fields, Unexplained], Iterator[Meter]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How one endpoint is asked, and what its results count.

    ``group_by`` holds every documented value except ``user_id``, which OpenAI refuses together with ``project_id``
    depending on organisation and time range (SDK 3.52.0), and which names people.
    """

    result: str
    group_by: tuple[str, ...]
    meters: MetersOf
    optional: bool = False


def _counted(field: str, meter: str, unit: str) -> MetersOf:
    """Return the meters of a result that counts one thing."""

    def meters(result: Fields, _unexplained: Unexplained) -> Iterator[Meter]:
        yield Meter(meter, result.number(field), unit)

    return meters


_BY_MODEL = ("project_id", "api_key_id", "model")
_BY_TIER = (*_BY_MODEL, "batch", "service_tier")
_INPUT = _counted("input_tokens", "input_text", "Tokens")

ENDPOINTS: Mapping[str, Endpoint] = {
    "completions": Endpoint("completions", _BY_TIER, token_meters),
    "embeddings": Endpoint("embeddings", _BY_MODEL, _INPUT),
    "moderations": Endpoint("moderations", _BY_MODEL, _INPUT),
    "images": Endpoint("images", (*_BY_MODEL, "size", "source"), _counted("images", "images", "Images")),
    "audio_speeches": Endpoint("audio_speeches", _BY_MODEL, _counted("characters", "characters", "Characters")),
    "audio_transcriptions": Endpoint("audio_transcriptions", _BY_MODEL, _counted("seconds", "seconds", "Seconds")),
    "vector_stores": Endpoint("vector_stores", ("project_id",), _counted("usage_bytes", "stored_bytes", "Bytes")),
    "code_interpreter_sessions": Endpoint(
        "code_interpreter_sessions", ("project_id",), _counted("num_sessions", "sessions", "Sessions")
    ),
    "file_search_calls": Endpoint(
        "file_searches",
        ("project_id", "api_key_id", "vector_store_id"),
        _counted("num_requests", "file_searches", "Calls"),
    ),
    "web_search_calls": Endpoint(
        "web_searches", (*_BY_MODEL, "context_level"), _counted("num_requests", "web_searches", "Calls")
    ),
    "decisions": Endpoint("decisions", (*_BY_TIER, "api_source"), token_meters, optional=True),
}

_COLUMNS = ("project_id", "user_id", "api_key_id", "model", "service_tier")
_ATTRIBUTES = ("size", "source", "vector_store_id", "context_level", "api_source")


def client(context: Calls, secret: str) -> ProviderClient:
    """Return a client that sends the admin key."""
    return ProviderClient(context, API, secret=secret, headers={"authorization": f"Bearer {secret}"})


def usage(context: StepContext, endpoints: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of each page of each endpoint, from the first to the last day of the context.

    Raises TransientError for an answer of unexpected shape and PermanentError for one whose numbers contradict each
    other, besides what ProviderClient raises.
    """
    findings = _Findings()
    with client(context, context.secret()) as opened:
        for name in endpoints:
            try:
                yield from _Walk(context, opened, name, findings).pages()
            except ProviderNotFoundError:
                if not ENDPOINTS[name].optional:
                    raise
                context.info(f"OpenAI has no usage endpoint {name!r} for this organisation: left out.")
    for text in findings.texts():
        context.warn(text)


def span(days: Days) -> list[tuple[str, str]]:
    """Return the query for a run's days, a bucket each. OpenAI's end is exclusive."""
    return [
        ("start_time", str(int(days.start.timestamp()))),
        ("end_time", str(int(days.end.timestamp()))),
        ("bucket_width", "1d"),
    ]


def account(context: StepContext, headers: Mapping[str, str]) -> str:
    """Return the organisation's id, which OpenAI tells in a header; the credential's where it does not."""
    return headers.get("openai-organization") or context.credential_id


@dataclass(slots=True)
class _Findings:
    """Results whose parts do not add up, by endpoint, model and meter: one warning each, however many there are."""

    found: dict[tuple[str, str | None, str], list[tuple[date, int]]] = field(default_factory=dict)

    def add(self, key: tuple[str, str | None, str], day: date, tokens: int) -> None:
        self.found.setdefault(key, []).append((day, tokens))

    def texts(self) -> Iterator[str]:
        for (endpoint, model, meter), cases in self.found.items():
            yield (
                f"OpenAI {endpoint}, model {model or 'none'}: the parts of {len(cases)} results do not add up to their "
                f"totals (first on {min(day for day, _ in cases)}). The {sum(n for _, n in cases)} tokens in no part "
                f"are counted as {meter}; compare the cost with OpenAI's invoice."
            )


class _Walk:
    """One endpoint's buckets, day after day and page after page."""

    def __init__(self, context: StepContext, client: ProviderClient, name: str, findings: _Findings) -> None:
        self._context, self._client, self._findings = context, client, findings
        self._name, self._endpoint = name, ENDPOINTS[name]
        self._source = f"OpenAI {name}"
        self._days = Days(context.start_date, context.end_date)

    def pages(self) -> Iterator[list[dict[str, Any]]]:
        groups = [("group_by[]", value) for value in self._endpoint.group_by]
        query = [*span(self._days), ("limit", str(PAGE_DAYS)), *groups]
        for body, headers in pages(self._client, f"/organization/usage/{self._name}", query, self._source):
            owner = account(self._context, headers)
            yield [row for bucket in body.objects("data") for row in self._rows(bucket, owner)]

    def _rows(self, bucket: Fields, account: str) -> Iterator[dict[str, Any]]:
        begins, ends = bucket.unix_time("start_time"), bucket.unix_time("end_time")
        self._days.take(bucket, begins, ends, start="start_time", end="end_time")
        for result in bucket.objects("results"):
            row = self._dimensions(result) | {
                "provider": "openai",
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
            self._findings.add((self._name, model, meter), day, tokens)

        try:
            yield from (meter for meter in self._endpoint.meters(result, unexplained) if meter.quantity)
        except PartsExceedTotalError as error:
            raise PermanentError(
                f"{self._source}, {day}, model {model or 'none'}: {error} No quantity is guessed. Report it to OpenAI, "
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
