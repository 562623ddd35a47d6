"""``GcpApiExtractor``: reads a list from any paged REST API of Google Cloud, as its step's config describes.

A response is a JSON object with a list of items and the next page's token. The API's address comes from the registry
(``urls`` of the provider ``gcp``), never from a config, so that no config can send a token elsewhere. A config names
the path, the parameters, and the item's field for each column.
"""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, StringConstraints, model_validator

from common.platform.errors import PermanentError, TransientError, nearest
from common.ports.http import Calls
from common.processors.base import Params, StepContext, TableParams
from common.processors.bills.cells import CONVERT, UNREADABLE, WANTED, timestamp
from common.processors.clouds.gcp.credential import access_token, google_credential
from common.processors.http.client import Api, ErrorBody, ProviderClient, json_error
from common.processors.http.json_fields import Fields
from common.processors.http.pager import follow
from common.tables.contract import DATA_DATE, Column, Table, load_table
from common.writes.bad_rows import BadRow, row_text, shown
from common.writes.batch import Batch, Row

READ_ONLY = "https://www.googleapis.com/auth/cloud-platform.read-only"
NANOS = Decimal(10) ** 9
PARTIAL = (
    "unreachable",  # AIP-217; the others are of older APIs
    "unreachables",
    "unreachableLocations",
    "unreachableInstancePartitions",
    "failedLocation",
    "failedLocations",
    "executionErrors",
    "partialErrors",
    "incompleteSearch",
)
"""The fields by which Google's list APIs report what an answer lacks, in all discovery documents of November 2026."""

Path = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_@][A-Za-z0-9_@-]*(\.[A-Za-z_@][A-Za-z0-9_@-]*){0,14}$")]
Scope = Annotated[str, StringConstraints(pattern=r"^https://www\.googleapis\.com/auth/[a-z0-9._-]+$")]

_SEGMENT = re.compile(r"(/[A-Za-z0-9._~:@!$&'()*+,;=-]+)+")


def _google_error(body: bytes) -> ErrorBody:
    """Read an error body; the code is its first ``reason``: Google's older APIs send rate limits as a 403 with one."""
    error = json_error(body)
    try:
        reasons = [str(item["reason"]) for item in json.loads(body)["error"]["errors"]]
    except (ValueError, RecursionError, LookupError, TypeError):
        return error
    return ErrorBody(reasons[0] if reasons else error.code, error.message)


class GcpApiParams(TableParams):
    """``config:`` of the step."""

    api: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="Which API: a name in `urls` of the provider gcp.")
    path: str = Field(min_length=2, max_length=500, description="Path of the request, e.g. /v1/services.")
    parameters: Mapping[str, str | tuple[str, ...]] = Field(
        default_factory=dict, description="Parameters of each request, apart from the page token."
    )
    items: Path = Field(description="Where the list is in a response, by dotted path, e.g. services.")
    page_parameter: str = Field("pageToken", description="Parameter that takes the token of the next page.")
    next_page: Path = Field("nextPageToken", description="Where a response has the token of the next page.")
    columns: Mapping[str, Path] = Field(
        min_length=1, description="Columns of the destination, and the item's field for each by dotted path."
    )
    day_column: Path | None = Field(
        None, description="Field whose UTC day is the day an item belongs to; the run's last day if left out."
    )
    scopes: tuple[Scope, ...] = Field((READ_ONLY,), min_length=1, description="OAuth scopes of the token.")

    @model_validator(mode="after")
    def _plain_path(self) -> Self:
        if not _SEGMENT.fullmatch(self.path) or ".." in self.path.split("/"):
            raise ValueError("path: must be /parts/of/a/path, without a query, a host or '..'.")
        return self


class GcpApiExtractor:
    """Reads all pages. Raises what ProviderClient raises, and TransientError for a response of unexpected shape."""

    params_type: ClassVar[type[Params]] = GcpApiParams
    needs_credential: ClassVar[bool] = True

    def run(self, context: StepContext, params: GcpApiParams) -> Iterator[Batch]:
        token = _token(context, context.secret(), params)
        rows = _Rows(params, load_table(context.configs, params.destination_table), context)
        with _client(context, params, token) as client:
            for items in _pages(client, params):
                yield rows.batch(items)
        if rows.outside:
            context.info(f"{rows.outside} items are of days outside the run's, and left out.")


def _token(context: StepContext, secret: str, params: GcpApiParams) -> str:
    credential = google_credential(context.credential_id, secret)
    return access_token(context, credential.key, params.scopes)


def _client(calls: Calls, params: GcpApiParams, token: str) -> ProviderClient:
    api = Api(
        key="gcp",
        name=f"Google's {params.api}",
        credential_help="Has the service account a role that may read this, and is the API enabled in its project?",
        error=_google_error,
        later=frozenset({"rateLimitExceeded", "userRateLimitExceeded"}),
    )
    base = calls.provider_url(f"gcp.{params.api}")
    return ProviderClient(calls, api, secret=token, headers={"authorization": f"Bearer {token}"}, base=base)


def _pages(client: ProviderClient, params: GcpApiParams) -> Iterator[list[Any]]:
    fixed = [
        (name, value)
        for name, values in params.parameters.items()
        for value in ((values,) if isinstance(values, str) else values)
    ]
    api = f"Google's {params.api}{params.path}"

    def ask(token: str | None) -> Any:
        query = fixed if token is None else [*fixed, (params.page_parameter, token)]
        return client.get_json(params.path, query).body

    def following(body: Any) -> str | None:
        token = _at(body, params.next_page)
        if token and not isinstance(token, str):
            raise TransientError(f"{api}: {params.next_page} is no text. It is read anew.")
        return token or None

    for body in follow(ask, following, api=api, field=params.next_page):
        Fields.of(body, api).refuse_partial(*PARTIAL)
        items = _at(body, params.items)
        if items is not None and not isinstance(items, list):
            raise TransientError(f"{api}: {params.items} is no list. It is read anew.")
        yield items or []  # Google omits an empty list


def _at(value: Any, path: str) -> Any:
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


class _Rows:
    """Converts items to rows of the contract's types."""

    def __init__(self, params: GcpApiParams, table: Table, context: StepContext) -> None:
        known = {column.name: column for column in table.columns}
        for name in params.columns:
            if name not in known:
                raise PermanentError(f"columns.{name}: table {table.table} has no such column.{nearest(name, known)}")
        self._columns = [(known[name], path) for name, path in params.columns.items()]
        self._params, self._first, self._last = params, context.start_date, context.end_date
        self._read = 0
        self.outside = 0

    def batch(self, items: list[Any]) -> Batch:
        """Return a page's rows; an item that can't be read is a bad row."""
        rows: list[Row] = []
        bad: list[BadRow] = []
        for item in items:
            self._read += 1
            try:
                day = self._day(item)
                if self._first <= day <= self._last:
                    rows.append({DATA_DATE: day, **{c.name: self._value(item, c, path) for c, path in self._columns}})
                else:
                    self.outside += 1
            except _UnreadableError as error:
                text = row_text(item if isinstance(item, Mapping) else {"item": item})
                bad.append(BadRow(error.reason, f"{self._params.path}: item {self._read}", text, error.column))
        return Batch(rows, bad)

    def _day(self, item: Any) -> date:
        path = self._params.day_column
        if path is None:  # a list of what there is now, such as prices, belongs to no day of its own
            return self._last
        value = _at(item, path)
        try:
            return timestamp(value).date()
        except UNREADABLE:
            raise _UnreadableError(path, value, WANTED["TIMESTAMP"]) from None

    def _value(self, item: Any, column: Column, path: str) -> Any:
        value = _at(item, path)
        if value is None:
            return None
        try:
            if column.type == "BIGNUMERIC" and isinstance(value, Mapping):
                return _money(value)
            return CONVERT[column.type](value)
        except UNREADABLE:
            raise _UnreadableError(path, value, WANTED[column.type]) from None


class _UnreadableError(Exception):
    """A field of an item can't be read."""

    def __init__(self, column: str, value: Any, wanted: str) -> None:
        super().__init__(column)
        self.column, self.reason = column, f"{shown(value)} is not {wanted}"


def _money(value: Mapping[str, Any]) -> Decimal:
    """Read Google's Money exactly: whole ``units`` (int64, so as text in JSON) and ``nanos``. Either may be absent."""
    if not {"units", "nanos"} & set(value):
        raise ValueError(value)
    return Decimal(str(value.get("units") or 0)) + Decimal(int(value.get("nanos") or 0)) / NANOS
