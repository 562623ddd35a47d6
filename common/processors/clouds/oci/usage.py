"""``OciUsageApi``: Oracle's bill from its usage API, by day, service, SKU, unit and region.

Facts: oci 2.189.0, ``usage_api`` (RequestSummarizedUsages); the header ``opc-next-page`` has the next page's token.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import ClassVar

from common.config.providers import filled
from common.ports.http import Calls
from common.processors.base import Params, StepContext
from common.processors.clouds.oci.bucket import oci_error
from common.processors.clouds.oci.signature import HELP, OciKey, oci_key, signer
from common.processors.clouds.summary_rows import Cloud, Summary, SummaryParams, focus_row
from common.processors.http.client import Api, JsonAnswer, ProviderClient
from common.processors.http.json_fields import Fields
from common.processors.http.pager import follow
from common.processors.http.stored_settings import StoredSettings
from common.writes.batch import Batch, batches

API = Api(
    key="oci",
    name="OCI usage API",
    credential_help="The user's group needs: allow group … to read usage-report in tenancy.",
    error=oci_error,
    later=frozenset({"TooManyRequests"}),
)
CLOUD = Cloud("oci", "Oracle", "Oracle", "Tenancy", "Compartment")
GROUP_BY = ("service", "skuPartNumber", "skuName", "unit", "region")
SOURCE = "OCI RequestSummarizedUsages"
PAGE = 500
MAX_DAYS = 93
"""Oracle's own cost tool asks for no more at once (oracle-samples, showusage.py)."""
MAX_PAGES = 10_000


class OciUsageApi:
    """Reads the days of the run. Raises what ProviderClient raises, and TransientError for an unexpected response."""

    params_type: ClassVar[type[Params]] = SummaryParams
    needs_credential: ClassVar[bool] = True

    def run(self, context: StepContext, params: SummaryParams) -> Iterator[Batch]:
        client, key = _opened(context, context.secret())
        with client:
            summaries = enumerate(_items(client, key, context.start_date, context.end_date), 1)
            yield from batches(
                focus_row(context.configs, CLOUD, SOURCE, number, summary) for number, summary in summaries
            )


def _opened(calls: Calls, secret: str) -> tuple[ProviderClient, OciKey]:
    stored = StoredSettings(calls.credential_id, secret, HELP)
    key, region = oci_key(stored), stored.text("region", r"[a-z0-9-]{1,40}")
    base = filled(calls.provider_url(key.address("usage")), region=region)
    sign = signer(key, calls.now)
    return ProviderClient(calls, API, secret=key.fingerprint, headers={}, base=base, sign=sign), key


def _items(client: ProviderClient, key: OciKey, first: date, last: date) -> Iterator[Summary]:
    while first <= last:
        until = min(last, first + timedelta(days=MAX_DAYS - 1))
        yield from _span(client, key, first, until)
        first = until + timedelta(days=1)


def _span(client: ProviderClient, key: OciKey, first: date, last: date) -> Iterator[Summary]:
    body = {
        "tenantId": key.tenancy,
        "timeUsageStarted": _midnight(first),
        "timeUsageEnded": _midnight(last + timedelta(days=1)),
        "granularity": "DAILY",
        "queryType": "COST",
        "groupBy": list(GROUP_BY),
    }

    def ask(page: str | None) -> JsonAnswer:
        return client.post_json("/20200107/usage", body, [("limit", str(PAGE)), *([("page", page)] if page else [])])

    def following(answer: JsonAnswer) -> str | None:
        return answer.headers.get("opc-next-page")

    for answer in follow(ask, following, api=API.name, field="opc-next-page", most=MAX_PAGES):
        for item in Fields.of(answer.body, API.name).objects("items"):
            summary = _summary(item, key, first, last)
            if summary is not None:
                yield summary


def _midnight(day: date) -> str:
    return datetime.combine(day, time(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _summary(item: Fields, key: OciKey, first: date, last: date) -> Summary | None:
    """Return the sum of one line; None for a forecast, and for a line without cost and currency."""
    if item.flag("isForecast"):  # no charge yet: it would be counted again when it is one
        return None
    amount = Decimal(0) if item.values.get("computedAmount") is None else item.amount("computedAmount")
    currency = (item.text("currency") or "").strip()
    if not currency and not amount:  # FOCUS requires a currency, and there is nothing to count in one
        return None
    day = item.time("timeUsageStarted").date()
    if not first <= day <= last:
        item.wrong("timeUsageStarted", f"a day from {first} to {last}")
    quantity = None if item.values.get("computedQuantity") is None else item.amount("computedQuantity")
    named = {name: value for name in GROUP_BY if (value := item.text(name))}
    return Summary(
        day=day,
        currency=currency or item.wrong("currency", "a currency"),
        billed=amount,
        effective=amount,
        account=key.tenancy,
        service=named.get("service", "OCI"),
        region=named.get("region"),
        sku=named.get("skuPartNumber"),
        description=named.get("skuName"),
        quantity=quantity,
        unit=named.get("unit"),
    )
