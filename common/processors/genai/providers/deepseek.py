"""DeepSeek: the balance by its API; usage and cost from the export that a person makes in its console.

The documented API tells balances alone (api-docs.deepseek.com/api/get-user-balance). The console's own addresses need
a web login and are not documented: they are not used.
"""

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from itertools import batched
from pathlib import Path
from typing import Any

from common.platform.errors import PermanentError
from common.ports.http import Calls
from common.processors.base import StepContext
from common.processors.bills.file_extractor import inside
from common.processors.deepseek_export import Amount, Cost, Export, read_export
from common.processors.genai.prices import STANDARD
from common.processors.genai.sources import Names, Source
from common.processors.http.client import Api, ProviderClient
from common.processors.http.json_fields import Fields
from common.processors.http.report_pages import DAY, midnight

API = Api(
    key="deepseek",
    name="DeepSeek",
    credential_help="It has to be an API key (sk-...) of the account, from platform.deepseek.com/api_keys.",
)
ROWS = 5_000
NO_API = (
    "DeepSeek has no API for usage or cost, its API tells the balance alone. Download the export on "
    "platform.deepseek.com (Usage, Export) and run the pipeline with --source usage_data_….zip."
)


def _balances(calls: Calls, secret: str) -> tuple[Fields, list[Fields]]:
    with ProviderClient(calls, API, secret=secret, headers={"authorization": f"Bearer {secret}"}) as client:
        body = Fields.of(client.get_json("/user/balance").body, "DeepSeek balance")
    return body, body.objects("balance_infos")


def check(calls: Calls, secret: str) -> str:
    """Ask for the balance, which is the only thing that the API tells."""
    _, infos = _balances(calls, secret)
    return f"account in {', '.join(info.required('currency') for info in infos) or 'no currency'}"


def balance(context: StepContext, _endpoints: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    """Yield what is left now, as a row of the run's last day; nothing if that day is past, since its balance is gone.

    Puts out ``export``: whether the run was given an export to read. Raises as ProviderClient.
    """
    context.put_out("export", context.source is not None)
    now = context.now()
    if context.end_date < now.date() - timedelta(days=1):
        context.info(f"The balance is that of now: nothing is kept for {context.end_date}.")
        return
    body, infos = _balances(context, context.secret())
    is_available = body.flag("is_available")
    if is_available is None:
        body.wrong("is_available", "true or false")
    if not is_available:
        context.warn("DeepSeek takes no calls of this account any more: its balance is used up. Top it up.")
    yield [
        {
            "provider": API.key,
            "account_id": context.credential_id,
            "taken_at": now,
            "currency": info.required("currency").upper(),
            "total": info.amount("total_balance"),
            "granted": info.amount("granted_balance"),
            "topped_up": info.amount("topped_up_balance"),
            "is_available": is_available,
            "x_pipeline_run_date": context.end_date,
        }
        for info in infos
    ]


def usage(context: StepContext, _endpoints: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    """Yield the amounts of the export, each with the price that it states. Raises PermanentError without an export."""
    export = _export(context)
    rows = [_usage_row(context, export, amount) for amount in export.amounts if amount.quantity]
    yield from map(list, batched(rows, ROWS, strict=False))


def costs(context: StepContext, _endpoints: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    """Yield the costs of the export; what granted money paid has a credit beside it. Raises as ``usage``."""
    rows = [_cost_row(context, cost) for cost in _export(context).costs]
    yield from map(list, batched(rows, ROWS, strict=False))


def file_days(path: Path) -> tuple[date, date]:
    """Return the first and the last day of an export."""
    return read_export(path).days


def _export(context: StepContext) -> Export:
    if context.source is None:
        raise PermanentError(NO_API)
    path = inside(context.landing, context.source)
    export = read_export(path)
    first, last = export.days
    if first < context.start_date or last > context.end_date:
        raise PermanentError(
            f"{path.name}: goes from {first} to {last}, beyond the run's dates {context.start_date}.."
            f"{context.end_date}. Run it with --start-date {first} --end-date {last}."
        )
    return export


def _of_day(day: date) -> dict[str, Any]:
    return {"bucket_start": midnight(day), "bucket_end": midnight(day) + DAY, "x_pipeline_run_date": day}


def _usage_row(context: StepContext, export: Export, amount: Amount) -> dict[str, Any]:
    return _of_day(amount.day) | {
        "provider": API.key,
        "account_id": amount.user or context.credential_id,
        "endpoint": "export",
        # No project: what the export says of costs knows no key, so that the two could not be compared by it.
        "api_key_id": amount.key_name,
        "model": amount.model,
        "meter": amount.meter,
        "quantity": amount.quantity,
        "unit": "Tokens",
        "requests": export.requests.get((amount.day, amount.model, amount.key_name)),
        "price_variant": STANDARD,
        "stated_price": amount.price,
        "stated_currency": export.currency(amount.day, amount.model),
    }


def _cost_row(context: StepContext, cost: Cost) -> dict[str, Any]:
    return _of_day(cost.day) | {
        "provider": API.key,
        "account_id": cost.user or context.credential_id,
        "line_item": f"{cost.model}, {cost.wallet}",
        "model": cost.model,
        "amount": cost.cost,
        "credit": -cost.cost if cost.is_credit and cost.cost else None,
        "currency": cost.currency,
    }


SOURCE = Source(
    names=Names(provider="DeepSeek", service="DeepSeek API", account="Account", project="API Key"),
    price_key="deepseek",
    reports={"usage": usage, "cost": costs, "balance": balance},
    endpoints=("export",),
    check=check,
    file_days=file_days,
)
