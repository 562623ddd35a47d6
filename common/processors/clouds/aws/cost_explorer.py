"""``AwsCostExplorer``: AWS's bill from the summary API GetCostAndUsage, by day and two dimensions.

AWS charges US$ 0.01 a request (aws.amazon.com/aws-cost-management/aws-cost-explorer/pricing), each page included.

Facts: botocore 1.44.5, service model ce 2017-10-25.
"""

import json
import re
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from common.ports.http import Calls
from common.processors.base import Caller, Params, StepContext
from common.processors.clouds.aws.cur_layout import DISCOUNT, KINDS, Kind
from common.processors.clouds.aws.export import aws_keys
from common.processors.clouds.aws.partitions import address, cost_explorer_region, partition
from common.processors.clouds.aws.sigv4 import CredentialScope, signer
from common.processors.clouds.summary_rows import Cloud, Summary, SummaryParams, focus_row
from common.processors.http.client import Api, ErrorBody, ProviderClient
from common.processors.http.json_fields import Fields
from common.processors.http.pager import follow
from common.processors.http.stored_settings import StoredSettings
from common.writes.batch import Batch, batches

HELP = (
    'Paste {"access_key_id": …, "secret_access_key": …, "account": …}: the keys of an IAM user that may call '
    'ce:GetCostAndUsage, and the payer\'s account number; in China and other parts of AWS a "region" of theirs, too.'
)
CLOUD = Cloud("aws", "AWS", "Amazon Web Services, Inc.", "Payer Account", "Linked Account")
SOURCE = "AWS GetCostAndUsage"
HEADERS = {
    "content-type": "application/x-amz-json-1.1",
    "x-amz-target": "AWSInsightsIndexService.GetCostAndUsage",
}
METRICS = ("UnblendedCost", "AmortizedCost", "UsageQuantity")
# US$ 10 for one step: tokens without an end would cost money, not only time.
MAX_PAGES = 1_000
_RECURRING = Kind("Purchase", "Recurring", "Bought")
_UPFRONT = Kind("Purchase", "One-Time", "Bought")
RECORDS = KINDS | {
    "Recurring": _RECURRING,
    "Recurring reservation fee": _RECURRING,
    "Upfront": _UPFRONT,
    "Upfront reservation fee": _UPFRONT,
    "Support": Kind("Purchase", "Recurring"),
    "Support fee": Kind("Purchase", "Recurring"),
    "Other out-of-cycle charges": Kind("Purchase", "One-Time"),
    "Bundled Discount": DISCOUNT,
    "BundledDiscount": DISCOUNT,
    "Discount": DISCOUNT,
    "Distributor Discount": DISCOUNT,
    "EdpDiscount": DISCOUNT,
    "Enterprise Discount Program Discount": DISCOUNT,
    "Private Rate Card Discount": DISCOUNT,
    "PrivateRateDiscount": DISCOUNT,
    "Solution Provider Program Discount": DISCOUNT,
}
"""Values of RECORD_TYPE, which differ from the line item types of the Cost and Usage Report and are in no model.

Sources: turbot/steampipe-plugin-aws pull request 950 (rows of a real account), and filters of public scripts; some
accounts see the names of AWS's console (``Recurring reservation fee``). The amortised cost of a commitment's fee
("Bought") is that of its unused part.
"""


COMMITMENT_SERVICES = re.compile(
    r"Savings Plan|Elastic Compute Cloud|EC2|Relational Database|ElastiCache|OpenSearch|Elasticsearch|Redshift|DynamoDB"
    r"|MemoryDB|ElastiCache|SageMaker",
)
"""Services that sell reservations or savings plans (docs.aws.amazon.com/awsaccountbilling, "Reserved Instances" and
"Savings Plans"). A sum has no ARN: the service is all that it refers to."""


def _is_commitment_fee(kind: Kind, service: str | None) -> bool:
    """Whether a sum is a commitment's fee. Other services have recurring and upfront fees, too: those of a Marketplace
    contract are cost when they are billed. Without the dimension SERVICE nothing tells them apart."""
    return kind.commitment == "Bought" and (service is None or COMMITMENT_SERVICES.search(service) is not None)


def _json_error(body: bytes) -> ErrorBody:
    """Read ``{"__type": "…#Code", "message": …}``."""
    try:
        values = json.loads(body)
        message = values.get("message") or values.get("Message") or ""
        return ErrorBody(str(values.get("__type", "")).rpartition("#")[2], str(message))
    except (ValueError, RecursionError, AttributeError):
        return ErrorBody()


API = Api(
    key="aws",
    name="AWS Cost Explorer",
    credential_help="It needs the permission ce:GetCostAndUsage.",
    error=_json_error,
    # Most of these come with status 400.
    later=frozenset({"LimitExceededException", "ThrottlingException", "RequestLimitExceeded", "InternalFailure"}),
)


class CostExplorerParams(SummaryParams):
    """``config:`` of the step."""

    dimensions: tuple[str, ...] = Field(
        ("SERVICE", "RECORD_TYPE"), min_length=1, max_length=2, description="Dimensions to group by, at most two."
    )

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len(set(self.dimensions)) < len(self.dimensions):
            raise ValueError("dimensions: name each once.")
        return self


class AwsCostExplorer:
    """Reads the days of the run. Raises what ProviderClient raises, and TransientError for an unexpected response."""

    params_type: ClassVar[type[Params]] = CostExplorerParams
    needs_credential: ClassVar[bool] = True
    credential_field: ClassVar[str] = "account"

    def run(self, context: StepContext, params: CostExplorerParams) -> Iterator[Batch]:
        stored = StoredSettings(context.credential_id, context.secret(), HELP)
        account = stored.text("account", r"[0-9]{12}")
        with _client(context, stored) as client:
            reader = _Reader(client, params.dimensions, account, context.start_date, context.end_date)
            summaries = enumerate(reader.summaries(), 1)
            yield from batches(
                focus_row(context.configs, CLOUD, SOURCE, number, summary) for number, summary in summaries
            )
        context.info(f"{reader.requests} requests, for which AWS charges about US$ {reader.requests / 100:.2f}.")
        if reader.unknown:
            context.warn(
                f"AWS reports record types that are not known here: {', '.join(sorted(reader.unknown))}. Their costs "
                "are counted as Adjustment, which may be the wrong category; the sums are right."
            )
        if reader.estimated:
            context.info(f"AWS's figures since {min(reader.estimated)} are estimates: the month is not closed.")

    def try_credential(self, caller: Caller, secret: str, configured: Sequence[Params]) -> str:
        """Query yesterday's cost, for US$ 0.01, and return a summary. Raises what ``run`` raises."""
        stored = StoredSettings(caller.credential_id, secret, HELP)
        account, day = stored.text("account", r"[0-9]{12}"), caller.now().date() - timedelta(days=1)
        with _client(caller, stored) as client:
            costs = list(_Reader(client, ("SERVICE",), account, day, day).summaries())
        return f"{account}: {len(costs)} services had costs on {day}"


def _client(calls: Calls, stored: StoredSettings) -> ProviderClient:
    keys = aws_keys(stored)
    # The public cloud's, unless the credential names a region of another part of AWS.
    part = partition(stored.optional("region", r"[a-z0-9-]{1,40}"))
    sign = signer(keys, CredentialScope(cost_explorer_region(part), "ce"), calls.now, HEADERS)
    base = calls.provider_url(address("ce", part))
    return ProviderClient(calls, API, secret=keys.secret_access_key, headers={}, base=base, sign=sign)


class _Reader:
    """One query and its pages. A token is valid for unchanged parameters only (RequestChangedException)."""

    def __init__(
        self, client: ProviderClient, dimensions: Sequence[str], account: str, first: date, last: date
    ) -> None:
        self._client, self._dimensions, self._account = client, dimensions, account
        self._first, self._last = first, last
        self.requests = 0
        self.estimated: set[date] = set()
        self.unknown: set[str] = set()

    def summaries(self) -> Iterator[Summary]:
        """Yield the sums of all days."""
        for result in self._results():
            day = self._day(result.object("TimePeriod"))
            if result.flag("Estimated"):
                self.estimated.add(day)
            for group in result.objects("Groups"):
                yield from self._of_group(day, group)

    def _results(self) -> Iterator[Fields]:
        body: dict[str, Any] = {
            "TimePeriod": {"Start": str(self._first), "End": str(self._last + timedelta(days=1))},  # End is exclusive
            "Granularity": "DAILY",
            "Metrics": list(METRICS),
            "GroupBy": [{"Type": "DIMENSION", "Key": name} for name in self._dimensions],
        }

        def ask(token: str | None) -> Fields:
            request = body if token is None else body | {"NextPageToken": token}
            self.requests += 1
            return Fields.of(self._client.post_json("/", request, headers=HEADERS).body, API.name)

        def following(page: Fields) -> str | None:
            token = page.values.get("NextPageToken")  # not text(): a token can have thousands of characters
            return str(token) if token else None

        for page in follow(ask, following, api=API.name, field="NextPageToken", most=MAX_PAGES):
            yield from page.objects("ResultsByTime")

    def _day(self, period: Fields) -> date:
        text = period.text("Start") or ""
        try:
            day = date.fromisoformat(text)
        except ValueError:
            period.wrong("Start", "a day such as 2026-10-01")
        if not self._first <= day <= self._last:
            period.wrong("Start", f"a day from {self._first} to {self._last}")
        return day

    def _of_group(self, day: date, group: Fields) -> Iterator[Summary]:
        keys = group.values.get("Keys")
        if not isinstance(keys, list) or len(keys) != len(self._dimensions):
            group.wrong("Keys", f"{len(self._dimensions)} texts")
        named = dict(zip(self._dimensions, map(str, keys), strict=True))
        metrics = group.object("Metrics")
        billed, amortised = metrics.object("UnblendedCost"), metrics.object("AmortizedCost").amount("Amount")
        usage = metrics.object("UsageQuantity")
        record = named.get("RECORD_TYPE", "Usage")
        kind = RECORDS.get(record, DISCOUNT)
        if record not in RECORDS:
            self.unknown.add(record)
        unit = usage.text("Unit")
        is_fee = _is_commitment_fee(kind, named.get("SERVICE"))
        summary = Summary(
            day=day,
            currency=billed.required("Unit"),
            billed=billed.amount("Amount"),
            # The usage that a commitment covers carries its cost; on both it would be in EffectiveCost twice.
            effective=Decimal(0) if is_fee else amortised,
            account=self._account,
            service=named.get("SERVICE") or "AWS",
            category=kind.category,
            frequency=kind.frequency,
            sub_account=named.get("LINKED_ACCOUNT"),
            region=named.get("REGION"),
            quantity=usage.amount("Amount"),
            unit=None if unit in (None, "", "N/A") else unit,  # N/A: several units were added up
            description=named.get("USAGE_TYPE"),
            dimensions=named,
        )
        yield summary
        if is_fee and amortised:
            yield _unused(summary, amortised)


def _unused(fee: Summary, amortised: Decimal) -> Summary:
    """Return the row of a commitment's unused part: billed with the fee, so BilledCost 0, with its EffectiveCost."""
    return Summary(
        day=fee.day,
        currency=fee.currency,
        billed=Decimal(0),
        effective=amortised,
        account=fee.account,
        service=fee.service,
        sub_account=fee.sub_account,
        region=fee.region,
        description="Unused part of commitments",
        unused="unknown commitment",
        dimensions=fee.dimensions,
    )
