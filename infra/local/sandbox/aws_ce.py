"""AWS Cost Explorer's GetCostAndUsage, over the same made-up bill as the export's, as botocore's service model has it.

Signatures are checked, unknown fields refused. Made up: pages of ``PAGE`` days.
"""

import json
from collections import defaultdict
from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from infra.local.sandbox import bills
from infra.local.sandbox.aws_signature import ACCESS_KEY, SECRET_KEY, problem
from infra.local.sandbox.exchange import Answer, Request

PAGE = 4
ACCOUNT = "100000000001"
TARGET = "AWSInsightsIndexService.GetCostAndUsage"
FEES = {"Recurring": "Recurring", "One-Time": "Upfront"}
"""Record types of purchases by their ChargeFrequency, as Cost Explorer names them."""
DIMENSIONS = {"SERVICE": "ServiceName", "RECORD_TYPE": "ChargeCategory", "REGION": "RegionId"}
METRICS = {"UnblendedCost": "BilledCost", "AmortizedCost": "EffectiveCost", "UsageQuantity": "ConsumedQuantity"}
FIELDS = frozenset({"TimePeriod", "Granularity", "Metrics", "GroupBy", "NextPageToken"})


class CostExplorerSandbox:
    """The one endpoint."""

    key = "aws_ce"
    base = "/aws-ce"
    prefixes: tuple[str, ...] = ("/aws-ce",)
    secret = json.dumps({"access_key_id": ACCESS_KEY, "secret_access_key": SECRET_KEY, "account": ACCOUNT})
    settled = True

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def refuse(self, request: Request) -> Answer | None:
        wrong = problem(request, region="us-east-1", service="ce")
        return None if wrong is None else _error(wrong[0], wrong[1])

    def rate_limited(self) -> Answer:
        return _error("LimitExceededException", "You made too many calls in a short period of time. Try again later.")

    def answer(self, request: Request) -> Answer:
        if request.headers.get("x-amz-target") != TARGET or request.method != "POST":
            return _error("UnknownOperationException", "")
        if request.headers.get("content-type") != "application/x-amz-json-1.1":
            return _error("SerializationException", "The content type is not application/x-amz-json-1.1.")
        try:
            return self._costs(json.loads(request.body))
        except (ValueError, LookupError, TypeError) as error:
            return _error("ValidationException", f"The request is not valid: {error}.")

    def _costs(self, query: Mapping[str, Any]) -> Answer:
        if set(query) - FIELDS or query["Granularity"] != "DAILY" or len(query["GroupBy"]) > 2:
            raise ValueError("an unknown field, granularity or more than two groups")
        if not query["Metrics"] or set(query["Metrics"]) - set(METRICS):
            raise ValueError("an unknown metric")
        names = [DIMENSIONS[group["Key"]] for group in query["GroupBy"] if group["Type"] == "DIMENSION"]
        first, end = (date.fromisoformat(query["TimePeriod"][name]) for name in ("Start", "End"))
        days = [first + timedelta(days=n) for n in range((end - first).days)]
        at = int(query.get("NextPageToken") or 0)
        body: dict[str, Any] = {
            "GroupDefinitions": query["GroupBy"],
            "ResultsByTime": [self._day(day, names, query["Metrics"]) for day in days[at : at + PAGE]],
        }
        if at + PAGE < len(days):
            body["NextPageToken"] = str(at + PAGE)
        return Answer(200, body, {"content-type": "application/x-amz-json-1.1"})

    def _day(self, day: date, names: list[str], metrics: list[str]) -> dict[str, Any]:
        sums: dict[tuple[str, ...], dict[str, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
        units: dict[tuple[str, ...], set[str]] = defaultdict(set)
        for row in bills.rows_of("aws", self._seed, day, settled=self.settled):
            key = tuple(_record_type(row) if n == "ChargeCategory" else row[n] for n in names)
            for metric in metrics:
                sums[key][metric] += Decimal(row[METRICS[metric]] or 0)
            units[key].add(row["ConsumedUnit"])
        return {
            "TimePeriod": {"Start": str(day), "End": str(day + timedelta(days=1))},
            "Total": {},
            "Groups": [
                {"Keys": list(key), "Metrics": {m: _metric(m, v, units[key]) for m, v in amounts.items()}}
                for key, amounts in sorted(sums.items())
            ],
            "Estimated": day.month == bills.today().month,
        }


def _record_type(row: Mapping[str, str]) -> str:
    return FEES[row["ChargeFrequency"]] if row["ChargeCategory"] == "Purchase" else row["ChargeCategory"]


def _metric(name: str, amount: Decimal, units: set[str]) -> dict[str, str]:
    if name != "UsageQuantity":
        return {"Amount": f"{amount:f}", "Unit": "USD"}
    return {"Amount": f"{amount:f}", "Unit": next(iter(units)) if len(units) == 1 and "" not in units else "N/A"}


def _error(code: str, message: str) -> Answer:
    return Answer(400, {"__type": f"com.amazonaws.ce#{code}", "message": message})
