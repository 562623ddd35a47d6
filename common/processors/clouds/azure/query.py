"""``AzureCostQuery``: Azure's bill from Cost Management's summary API, by day and two dimensions.

Actual and amortised cost are two queries: BilledCost comes from the first, EffectiveCost from the second. According to
Microsoft, neither has taxes, credits and support charges.

Facts: azure-mgmt-costmanagement 5.0.0, api-version 2025-03-01; limits (31 days of daily data, two dimensions) as in
docs/providers-cloud.md.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar, Self
from urllib.parse import parse_qs, urlsplit

from pydantic import Field, model_validator

from common.platform.errors import PermanentError, TransientError
from common.ports.http import Calls
from common.processors.base import Caller, Params, StepContext
from common.processors.clouds.azure.login import HELP, MANAGEMENT, azure_client, token
from common.processors.clouds.summary_rows import Cloud, Summary, SummaryParams, focus_row
from common.processors.http.client import Api, ProviderClient
from common.processors.http.pager import follow
from common.processors.http.stored_settings import StoredSettings
from common.writes.batch import Batch, batches

API = Api(
    key="azure",
    name="Azure Cost Management",
    credential_help="The app registration needs the role Cost Management Reader on the scope.",
)
CLOUD = Cloud("azure", "Microsoft", "Microsoft", "Billing Account", "Subscription")
VERSION = "2025-03-01"
MAX_DAYS = 31  # of one query with daily data; the API refuses more
# The quota is the tenant's, some 600 queries an hour: tokens without an end would use up everybody's.
MAX_PAGES = 1_000
SOURCE = "Azure Cost Management query"
SCOPE = r"/(subscriptions|providers)/[0-9A-Za-z/._:-]{1,400}"

CATEGORIES = {"Usage": "Usage", "Purchase": "Purchase", "Refund": "Purchase", "Tax": "Tax", "Credit": "Credit"}
UNUSED = {"UnusedReservation": "unknown reservation", "UnusedSavingsPlan": "unknown savings plan"}
"""Charge types of the amortised view alone: the part of a benefit that nobody used, and what its row calls it."""


Key = tuple[int, str, tuple[str, ...]]
"""Day as yyyymmdd, currency and the dimensions' values."""


class AzureQueryParams(SummaryParams):
    """``config:`` of the step."""

    dimensions: tuple[str, ...] = Field(
        ("ServiceName", "ChargeType"), min_length=1, max_length=2, description="Dimensions to group by, at most two."
    )

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len(set(self.dimensions)) < len(self.dimensions):
            raise ValueError("dimensions: name each once.")
        return self


@dataclass(slots=True)
class _Costs:
    """Billed and effective cost of one key."""

    billed: Decimal = field(default_factory=Decimal)
    effective: Decimal = field(default_factory=Decimal)


class AzureCostQuery:
    """Queries 31 days at a time. Raises what ProviderClient raises, and TransientError for an unexpected response."""

    params_type: ClassVar[type[Params]] = AzureQueryParams
    needs_credential: ClassVar[bool] = True
    credential_field: ClassVar[str] = "scope"

    def run(self, context: StepContext, params: AzureQueryParams) -> Iterator[Batch]:
        stored = StoredSettings(context.credential_id, context.secret(), HELP)
        scope = stored.text("scope", SCOPE).rstrip("/")
        with _client(context, stored) as client:
            summaries = enumerate(self._summaries(context, params, client, scope), 1)
            yield from batches(
                focus_row(context.configs, CLOUD, SOURCE, number, summary) for number, summary in summaries
            )

    @staticmethod
    def _summaries(
        context: StepContext, params: AzureQueryParams, client: ProviderClient, scope: str
    ) -> Iterator[Summary]:
        for first, last in _spans(context.start_date, context.end_date):
            query = _Query(client, scope, params.dimensions, first, last)
            sums: dict[Key, _Costs] = defaultdict(_Costs)
            for key, amount in query.costs("ActualCost"):
                sums[key].billed += amount
            for key, amount in query.costs("AmortizedCost"):
                sums[key].effective += amount
            for key, costs in sorted(sums.items()):
                yield _summary(scope, params.dimensions, key, costs)
            context.remaining_s()

    def try_credential(self, caller: Caller, secret: str, configured: Sequence[Params]) -> str:
        """Get a token, query yesterday's cost, and return a summary. Raises what ``run`` raises."""
        stored = StoredSettings(caller.credential_id, secret, HELP)
        scope = stored.text("scope", SCOPE).rstrip("/")
        day = caller.now().date() - timedelta(days=1)
        with _client(caller, stored) as client:
            services = list(_Query(client, scope, ("ServiceName",), day, day).costs("ActualCost"))
        return f"{scope}: {len(services)} services had costs on {day}"


def _client(calls: Calls, stored: StoredSettings) -> ProviderClient:
    client = azure_client(stored)
    bearer = token(calls, client, MANAGEMENT[client.cloud])
    base = calls.provider_url(client.address("management"))
    return ProviderClient(calls, API, secret=bearer, headers={"authorization": f"Bearer {bearer}"}, base=base)


def _spans(first: date, last: date) -> Iterator[tuple[date, date]]:
    while first <= last:
        until = min(last, first + timedelta(days=MAX_DAYS - 1))
        yield first, until
        first = until + timedelta(days=1)


@dataclass(frozen=True, slots=True)
class _Query:
    """A query that is sent once for each kind of cost."""

    client: ProviderClient
    scope: str
    dimensions: Sequence[str]
    first: date
    last: date

    def costs(self, kind: str) -> Iterator[tuple[Key, Decimal]]:
        """Yield the amounts of all pages."""
        path = f"{self.scope}/providers/Microsoft.CostManagement/query"
        body = {
            "type": kind,
            "timeframe": "Custom",
            "timePeriod": {"from": f"{self.first}T00:00:00Z", "to": f"{self.last}T23:59:59Z"},
            "dataset": {
                "granularity": "Daily",
                "aggregation": {"Cost": {"name": "Cost", "function": "Sum"}},
                "grouping": [{"type": "Dimension", "name": name} for name in self.dimensions],
            },
        }

        def ask(skip: str | None) -> dict[str, Any] | None:
            params = [("api-version", VERSION), *([("$skiptoken", skip)] if skip else [])]
            answer = self.client.post_json(path, body, params)
            return None if answer.body is None else _page(answer.body)  # 204: no costs in these days

        def following(page: dict[str, Any] | None) -> str | None:
            return None if page is None else _skip_token(page.get("nextLink"))

        for page in follow(ask, following, api=API.name, field="nextLink", most=MAX_PAGES):
            if page is not None:
                yield from self._rows(page)

    def _rows(self, page: dict[str, Any]) -> Iterator[tuple[Key, Decimal]]:
        """Yield the page's rows. Columns are found by name, because their order is not fixed."""
        names = [column.get("name") for column in page["columns"]]
        try:
            cost, day, currency, *others = (names.index(n) for n in ("Cost", "UsageDate", "Currency", *self.dimensions))
            for row in page["rows"]:
                amount = row[cost]
                if isinstance(amount, bool) or not isinstance(amount, int | Decimal):
                    raise ValueError(amount)
                yield (int(row[day]), str(row[currency]), tuple(str(row[n] or "") for n in others)), Decimal(amount)
        except (ValueError, LookupError, TypeError):
            raise TransientError(
                "Azure Cost Management: a row without Cost, UsageDate, Currency or a dimension. The next attempt "
                "queries again; if this persists, the API has changed."
            ) from None


def _page(body: Any) -> dict[str, Any]:
    page = body.get("properties") if isinstance(body, dict) else None
    if not isinstance(page, dict) or not all(isinstance(page.get(name), list) for name in ("columns", "rows")):
        raise TransientError("Azure Cost Management: a response lacks columns or rows. The next attempt queries again.")
    return page


def _skip_token(link: Any) -> str | None:
    """Return only the token of the next page's URL: requests, with our token, go to the registry's address alone."""
    if not link:
        return None
    tokens = parse_qs(urlsplit(str(link)).query).get("$skiptoken")
    if not tokens:
        raise TransientError("Azure Cost Management: a nextLink without a $skiptoken. The next attempt queries again.")
    return tokens[0]


def _summary(scope: str, dimensions: Sequence[str], key: Key, costs: _Costs) -> Summary:
    day, currency, values = key
    named = dict(zip(dimensions, values, strict=True))
    try:
        at = datetime.strptime(str(day), "%Y%m%d").date()  # noqa: DTZ007 - a day of UTC
    except ValueError:
        raise PermanentError(f"Azure Cost Management: {day} is not a day such as 20261001.") from None
    category = CATEGORIES.get(named.get("ChargeType", "Usage"), "Usage" if "ChargeType" not in named else "Adjustment")
    unused = UNUSED.get(named.get("ChargeType", ""), "")
    subscription = named.get("SubscriptionId") or (scope.split("/")[2] if scope.startswith("/subscriptions/") else None)
    return Summary(
        day=at,
        currency=currency,
        billed=costs.billed,
        # The amortised view has no benefit purchases: what it has of a purchase is an ordinary one's cost.
        effective=costs.effective,
        account=scope,
        service=named.get("ServiceName") or named.get("MeterCategory") or "Azure",
        category="Usage" if unused else category,
        unused=unused,
        sub_account=subscription,
        region=named.get("ResourceLocation") or None,
        dimensions={name: value for name, value in named.items() if value},
    )
