"""DeepSeek: the balance from its API; usage and cost from the export that a person downloads from its console.

The documented API has the balance alone (api-docs.deepseek.com/api/get-user-balance). The console's own addresses need
a web login and are not documented: they are not used.

The export is a ZIP with ``amount-….csv`` (tokens and prices) and ``cost-….csv`` (money), by UTC day. Nothing documents
its layout; this is the layout of real exports in public code. An unknown column fails the file, so that a new layout
is reported instead of half read. The column ``api_key`` is never read: in some exports it holds the whole key.
"""

import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from itertools import batched
from pathlib import Path
from typing import Any, NoReturn

from common.platform.errors import PermanentError, nearest
from common.ports.http import Calls
from common.processors.base import Caller, StepContext
from common.processors.bills.file_extractor import inside
from common.processors.bills.files import BillRecord, csv_records
from common.processors.genai.prices import STANDARD
from common.processors.genai.provider import FocusNames, GenaiProvider
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
    "DeepSeek has no API for usage or cost, only one for the balance. Download the export on "
    "platform.deepseek.com (Usage, Export) and run the pipeline with --source usage_data_….zip."
)


def _balances(calls: Calls, secret: str) -> tuple[Fields, list[Fields]]:
    with ProviderClient(calls, API, secret=secret, headers={"authorization": f"Bearer {secret}"}) as client:
        body = Fields.of(client.get_json("/user/balance").body, "DeepSeek balance")
    return body, body.objects("balance_infos")


def try_credential(caller: Caller, secret: str) -> str:
    """Ask for the balance, the only thing that the API has."""
    _, infos = _balances(caller, secret)
    return f"account in {', '.join(info.required('currency') for info in infos) or 'no currency'}"


def balance(context: StepContext, _endpoints: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    """Yield the balance of now as a row of the run's last day; nothing for an older day, whose balance is gone.

    Puts out ``export``: whether the run was given an export to read. Raises as ProviderClient.
    """
    context.put_out("export", context.source is not None)
    now = context.now()
    if context.end_date < now.date() - timedelta(days=1):
        context.info(f"The API has today's balance only: no balance is kept for {context.end_date}.")
        return
    body, infos = _balances(context, context.secret())
    is_available = body.flag("is_available")
    if is_available is None:
        body.wrong("is_available", "true or false")
    if not is_available:
        context.warn("DeepSeek refuses further calls from this account: its balance is used up. Top it up.")
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


# The export

MAX_BYTES = 32 * 2**20
"""Unpacked, all files together; a month of a busy account has a few megabytes."""

MAX_PACKED_BYTES = 8 * 2**20
"""Of the ZIP: its list of files, which is read as a whole, can be nearly as long."""

MAX_RECORDS = 200_000
"""All of them are in memory at once, each some ten times as large as its line."""

PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""The packings of ZIP that unpack a bounded piece at a time. DeepSeek uses no other."""

AMOUNT_COLUMNS = frozenset({"user_id", "utc_date", "model", "api_key_name", "api_key", "type", "price", "amount"})
COST_COLUMNS = frozenset({"user_id", "utc_date", "model", "wallet_type", "cost", "currency"})
METERS = {
    "input_cache_hit_tokens": "input_cached_text",
    "input_cache_miss_tokens": "input_text",
    "input_tokens": "input_text",  # of older API keys, which have no cache
    "output_tokens": "output_text",
}
REQUESTS = "request_count"
WALLETS = {"paid": False, "granted": True}
"""Whether the wallet's share is a credit. The export writes Paid and granted: the case differs."""


@dataclass(frozen=True, slots=True)
class Amount:
    """Tokens of one kind at one price. A day can have two prices, because DeepSeek charges more at peak hours."""

    day: date
    user: str | None
    model: str
    key_name: str | None
    meter: str
    quantity: Decimal
    price: Decimal


@dataclass(frozen=True, slots=True)
class Cost:
    """What a model cost on a day, paid from one wallet."""

    day: date
    user: str | None
    model: str
    wallet: str
    is_credit: bool
    cost: Decimal
    currency: str


@dataclass(frozen=True, slots=True)
class Export:
    """A whole export. ``requests`` counts calls by day, model and key."""

    amounts: tuple[Amount, ...]
    requests: Mapping[tuple[date, str, str | None], int]
    costs: tuple[Cost, ...]

    @property
    def days(self) -> tuple[date, date]:
        """The first and the last day with an amount or a cost."""
        days = [amount.day for amount in self.amounts] + [cost.day for cost in self.costs]
        return min(days), max(days)

    def currency(self, day: date, model: str) -> str:
        """Return the currency of a model's prices on a day. Raises PermanentError if the costs leave it open.

        The amounts have prices and no currency, and an account can have a wallet in USD and one in CNY.
        """
        same = {c.currency for c in self.costs if (c.day, c.model) == (day, model)} or {c.currency for c in self.costs}
        if len(same) != 1:
            raise PermanentError(
                f"The export does not say in which currency {model} is priced on {day} "
                f"(found: {', '.join(sorted(same)) or 'none'}). Export one account and one currency at a time."
            )
        return same.pop()


def read_export(path: Path) -> Export:
    """Read the ZIP. Raises PermanentError that names the file, the line and the column of what is wrong."""
    amounts: list[Amount] = []
    requests: dict[tuple[date, str, str | None], int] = {}
    costs: list[Cost] = []
    for number, (name, record) in enumerate(_records(path)):
        if number >= MAX_RECORDS:
            raise PermanentError(f"{path.name}: has more than {MAX_RECORDS} records. Export fewer days.")
        line = _Line(f"{path.name}: {name}: {record.where}", record)
        if name.rpartition("/")[2].startswith("cost"):
            line.require_columns(COST_COLUMNS, optional={"user_id"})
            costs.append(_cost(line))
            continue
        line.require_columns(AMOUNT_COLUMNS, optional={"user_id", "api_key", "api_key_name"})
        if line.text("type") == REQUESTS:
            key = (line.day(), line.required("model"), line.text("api_key_name"))
            requests[key] = requests.get(key, 0) + int(line.number("amount"))
        else:
            amounts.append(_amount(line))
    if not amounts or not costs:
        raise PermanentError(f"{path.name}: has no {'cost' if amounts else 'amount'} row. Export the days once more.")
    return Export(tuple(amounts), requests, tuple(costs))


def _records(path: Path) -> Iterator[tuple[str, BillRecord]]:
    """Yield the records of all members, each with its member's name."""
    with _opened(path) as archive:
        for member in _members(path, archive):
            try:
                # zipfile gives no more bytes than the member's declared size, and checks its CRC at the end.
                with archive.open(member) as raw:
                    yield from ((member.filename, record) for record in csv_records(Path(member.filename), raw, ","))
            except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
                raise PermanentError(
                    f"{path.name}: {member.filename}: the file is damaged or locked ({type(error).__name__}). Download "
                    "the export once more, and leave it as it is."
                ) from error


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    if path.stat().st_size > MAX_PACKED_BYTES:
        raise PermanentError(f"{path.name}: has more than {MAX_PACKED_BYTES // 2**20} MiB. Export fewer days.")
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError) as error:
        raise PermanentError(
            f"{path.name}: not a whole ZIP file ({type(error).__name__}). It has to be the export of "
            "platform.deepseek.com as it was downloaded."
        ) from error
    with archive:
        yield archive


def _members(path: Path, archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    members = [i for i in archive.infolist() if not i.is_dir() and i.filename.lower().endswith(".csv")]
    names = [item.filename for item in members]
    kinds = [next((k for k in ("amount", "cost") if n.rpartition("/")[2].startswith(k)), None) for n in names]
    if sum(item.file_size for item in members) > MAX_BYTES:
        raise PermanentError(f"{path.name}: unpacks to more than {MAX_BYTES // 2**20} MiB. Export fewer days.")
    if None in kinds or set(kinds) != {"amount", "cost"}:
        raise PermanentError(
            f"{path.name}: holds {', '.join(names[:10]) or 'no CSV file'}; an export has amount-….csv and cost-….csv."
        )
    other = next((item for item in members if item.compress_type not in PLAIN), None)
    if other is not None:
        raise PermanentError(f"{path.name}: {other.filename}: packed as DeepSeek packs nothing. Download it once more.")
    return members


class _Line:
    """One record and where it is. Every value that can't be read is a PermanentError."""

    def __init__(self, where: str, record: BillRecord) -> None:
        self._where, self._values = where, record.values

    def require_columns(self, known: frozenset[str], optional: set[str]) -> None:
        for name in self._values:
            if name not in known:
                raise PermanentError(
                    f"{self._where}: column {name[:80]!r} is not known.{nearest(name, known)} DeepSeek has changed its "
                    "export: nothing of it is used."
                )
        for name in sorted(known - optional):
            if name not in self._values:
                raise PermanentError(f"{self._where}: column {name} is missing: nothing of the export is used.")

    def text(self, name: str) -> str | None:
        return self._values.get(name) or None

    def required(self, name: str) -> str:
        return self.text(name) or self._wrong(name, "a text")

    def number(self, name: str) -> Decimal:
        text = self.text(name) or ""
        try:
            number = Decimal(text) if text.isascii() and "_" not in text and len(text) <= 60 else Decimal("NaN")
        except InvalidOperation:
            number = Decimal("NaN")
        if not number.is_finite() or not 0 <= number <= Decimal(10) ** 30:
            self._wrong(name, "a number that is not negative")
        return number

    def day(self) -> date:
        text = self.required("utc_date")
        for form in ("%Y-%m-%d", "%Y%m%d"):  # both are real
            try:
                return datetime.strptime(text, form).date()  # noqa: DTZ007 - a UTC day, not a moment
            except ValueError:
                continue
        self._wrong("utc_date", "a day such as 2026-06-03")

    def one_of[T](self, name: str, known: Mapping[str, T], of: Callable[[str], str] = str) -> T:
        text = of(self.required(name))
        if text not in known:
            self._wrong(name, f"one of {', '.join(known)}")
        return known[text]

    def _wrong(self, name: str, expected: str) -> NoReturn:
        raise PermanentError(f"{self._where}, column {name}: {(self.text(name) or '')[:60]!r} is not {expected}.")


def _amount(line: _Line) -> Amount:
    quantity = line.number("amount")
    if quantity != quantity.to_integral_value():
        raise PermanentError(f"{quantity} tokens: only whole tokens can be counted. Export the days once more.")
    return Amount(
        day=line.day(),
        user=line.text("user_id"),
        model=line.required("model"),
        key_name=line.text("api_key_name"),
        meter=line.one_of("type", METERS),
        quantity=quantity,
        price=line.number("price"),
    )


def _cost(line: _Line) -> Cost:
    return Cost(
        day=line.day(),
        user=line.text("user_id"),
        model=line.required("model"),
        wallet=line.required("wallet_type"),
        is_credit=line.one_of("wallet_type", WALLETS, str.lower),
        cost=line.number("cost"),
        currency=line.required("currency").upper(),
    )


# Its rows


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


PROVIDER = GenaiProvider(
    names=FocusNames(provider="DeepSeek", service="DeepSeek API", account="Account", project="API Key"),
    price_key="deepseek",
    reports={"usage": usage, "cost": costs, "balance": balance},
    meters={"export": tuple(dict.fromkeys(METERS.values()))},
    try_credential=try_credential,
    file_days=file_days,
)
