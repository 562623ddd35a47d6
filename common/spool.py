"""Rows to a bounded Parquet file, checked against their table's contract on the way.

Nothing reaches BigQuery before the last row is good: an error here fails the step with row, column and value, and the
file is thrown away.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from common.domain.model import DEFAULT_WRITE, WriteSpec
from common.errors import PermanentError, TransientError, nearest
from common.processors.base import Batch
from common.table import DATA_DATE, Column, ColumnType, Table

ROWS_PER_GROUP = 10_000
CHARS_PER_GROUP = 16 * 2**20
"""Rows, and characters of text in them, held in memory at a time: more become a row group of the file."""

SHOWN_CHARS = 80
HASH_MODULUS = 2**256
PLAIN = frozenset({str, int, bool})


@dataclass(frozen=True, slots=True)
class SpoolResult:
    """What was spooled. ``rounded`` counts, by column, the values that did not fit and were rounded half-even.

    ``content_hash`` is the sum modulo 2^256 of the SHA-256 of each row, so it does not depend on the order of rows or
    on how they were batched, and a doubled or missing row changes it. ``content_hash()`` finds it again from the rows
    that a query gives.
    """

    rows: int
    content_hash: str
    rounded: Mapping[str, int] = field(default_factory=dict)
    bad_rows: int = 0
    discarded: Mapping[str, int] = field(default_factory=dict)
    added: tuple[Column, ...] = ()
    drift: Mapping[str, Any] = field(default_factory=dict)
    bytes: int = 0


class Spool:
    """Writes rows of one attempt to ``path``.

    Raises PermanentError for a row that does not fit the contract, TransientError if the file can't be written.
    """

    drift: Mapping[str, Any] = {}

    def __init__(
        self,
        path: Path,
        table: Table,
        first_day: date,
        last_day: date,
        decimal_digits: tuple[int, int],
        *,
        write: WriteSpec = DEFAULT_WRITE,
        org_slug: str = "",
    ) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = (*table.columns, Column(name=DATA_DATE, type="DATE", mode="REQUIRED"))
        self._columns = {column.name: column for column in columns}
        self._first_day, self._last_day = first_day, last_day
        self._digits = decimal_digits
        self._exact = Context(prec=decimal_digits[0], rounding=ROUND_HALF_EVEN)
        self._quantum = Decimal(1).scaleb(-decimal_digits[1])
        self._check: dict[ColumnType, Callable[[str, Any], Any]] = {
            "STRING": self._string,
            "INT64": self._int64,
            "BIGNUMERIC": self._bignumeric,
            "BOOL": self._bool,
            "DATE": self._date,
            "TIMESTAMP": self._timestamp,
            "JSON": self._json,
        }
        self._arrow = pa
        self._schema = pa.schema(
            [pa.field(c.name, _arrow_type(c.type, decimal_digits), c.mode == "NULLABLE") for c in columns]
        )
        self._path = path
        with self._writing():
            self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")
        self._pending: dict[str, list[Any]] = {name: [] for name in self._columns}
        self._pending_rows = self._pending_chars = 0
        self._rows = 0
        self._hash = 0
        self._parsed: dict[str, Any] = {}
        self._rounded: dict[str, int] = {}

    def write(self, batch: Batch | Iterable[Mapping[str, Any]]) -> None:
        """Check and keep these rows."""
        for row in batch.rows if isinstance(batch, Batch) else batch:
            self._rows += 1
            for name in row:
                if name not in self._columns:
                    known = nearest(name, self._columns)
                    raise PermanentError(f"Row {self._rows}: the table has no column {_shown(name)}.{known}")
            self._parsed.clear()
            checked = {name: self._value(column, row.get(name)) for name, column in self._columns.items()}
            for values, value in zip(self._pending.values(), checked.values(), strict=True):
                values.append(value)
            self._hash += _row_hash(checked | self._parsed)
            self._pending_rows += 1
            if self._pending_rows >= ROWS_PER_GROUP or self._pending_chars >= CHARS_PER_GROUP:
                self._flush()

    def close(self) -> SpoolResult:
        """Finish the file and tell what is in it."""
        self._flush()
        with self._writing():
            self._writer.close()
        return SpoolResult(self._rows, _hash_text(self._hash), dict(self._rounded))

    def _flush(self) -> None:
        if not self._pending_rows:
            return
        pa = self._arrow
        arrays = [pa.array(self._pending[f.name], f.type) for f in self._schema]
        with self._writing():
            self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        for values in self._pending.values():
            values.clear()
        self._pending_rows = self._pending_chars = 0

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TransientError(
                f"The rows could not be spooled to {self._path.parent}: {error}. Is the disk full? "
                "Free some space (or set TMPDIR to another disk); the step is tried again."
            ) from error

    def _value(self, column: Column, value: Any) -> Any:
        if value is None:
            if column.mode == "REQUIRED":
                raise self._refused(column.name, value, "the column must not be NULL")
            return None
        checked = self._check[column.type](column.name, value)
        if column.name == DATA_DATE and not self._first_day <= checked <= self._last_day:
            raise self._refused(
                column.name,
                value,
                f"outside the run's dates {self._first_day}..{self._last_day}; run with --start-date "
                f"{min(checked, self._first_day)} --end-date {max(checked, self._last_day)}",
            )
        return checked

    def _string(self, name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise self._refused(name, value, "not text")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise self._refused(name, ascii(value), "not valid Unicode") from error
        self._pending_chars += len(value)
        return value

    def _int64(self, name: str, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not -(2**63) <= value < 2**63:
            raise self._refused(name, value, "not a whole number of 64 bits")
        return value

    def _bignumeric(self, name: str, value: Any) -> Decimal:
        if isinstance(value, int) and not isinstance(value, bool):
            value = Decimal(value)
        if not isinstance(value, Decimal):
            raise self._refused(name, value, f"money and quantities must be Decimal, not {type(value).__name__}")
        if not value.is_finite():
            raise self._refused(name, value, "not a number")
        precision, scale = self._digits
        if value and value.adjusted() >= precision - scale:
            raise self._refused(name, value, f"more than {precision - scale} digits before the point")
        exponent = value.as_tuple().exponent
        assert isinstance(exponent, int)
        if -scale <= exponent <= 0:
            return value
        try:
            kept = value.quantize(self._quantum, context=self._exact)
        except InvalidOperation as error:
            raise self._refused(name, value, f"more than {precision - scale} digits before the point") from error
        if kept != value:
            self._rounded[name] = self._rounded.get(name, 0) + 1
        return kept

    def _bool(self, name: str, value: Any) -> bool:
        if not isinstance(value, bool):
            raise self._refused(name, value, "not true or false")
        return value

    def _date(self, name: str, value: Any) -> date:
        if not isinstance(value, date) or isinstance(value, datetime):
            raise self._refused(name, value, "not a date")
        return value

    def _timestamp(self, name: str, value: Any) -> datetime:
        if not isinstance(value, datetime) or value.utcoffset() is None:
            raise self._refused(name, value, "not a time with a time zone")
        try:
            return value.astimezone(UTC)
        except OverflowError as error:
            raise self._refused(name, value, "before the year 1 or after 9999 in UTC") from error

    def _json(self, name: str, value: Any) -> str:
        text = self._string(name, value)
        try:
            self._parsed[name] = _canonical(json.loads(text, parse_constant=_refuse_constant))
        except (ValueError, RecursionError) as error:
            raise self._refused(name, value, f"not JSON ({str(error)[:SHOWN_CHARS]})") from error
        return text

    def _refused(self, name: str, value: Any, why: str) -> PermanentError:
        return PermanentError(f"Row {self._rows}, column {name}: {why} (got {_shown(value)}).")


def _shown(value: Any) -> str:
    try:
        text = "NULL" if value is None else str(value)
    except ValueError:  # Python writes no int of more than 4300 digits
        text = f"{type(value).__name__}, too long to show"
    return repr(text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "…")


def content_hash(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the ``content_hash`` of rows as a query gives them: JSON parsed, and no lineage but the data date."""
    return _hash_text(sum(_row_hash(row) for row in rows))


def _hash_text(total: int) -> str:
    return f"{total % HASH_MODULUS:064x}"


def _row_hash(row: Mapping[str, Any]) -> int:
    """Hash one row. NULLs are left out, so that a column that is added later changes no hash of earlier rows."""
    values = {
        name: value if type(value) in PLAIN else _canonical(value) for name, value in row.items() if value is not None
    }
    encoded = json.dumps(values, ensure_ascii=True, separators=(",", ":"), sort_keys=True)
    return int.from_bytes(hashlib.sha256(encoded.encode()).digest())


def _canonical(value: Any) -> Any:
    """Return JSON that equal values share: decimals without exponent or trailing zeros, times in UTC."""
    if isinstance(value, Decimal):
        # not normalize(): it rounds to the context's precision
        text = f"{value:f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
        return ["n", "0" if text in ("-0", "") else text]
    if isinstance(value, datetime | date):
        return ["t", value.isoformat()]
    if isinstance(value, float) and value.is_integer():  # in JSON, 1.0 is 1
        return int(value)
    if isinstance(value, dict):
        return {name: _canonical(part) for name, part in value.items()}
    return [_canonical(part) for part in value] if isinstance(value, list) else value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _arrow_type(kind: ColumnType, decimal_digits: tuple[int, int]) -> Any:
    import pyarrow as pa

    precision, scale = decimal_digits
    types: dict[ColumnType, Callable[[], Any]] = {
        "STRING": pa.string,
        "INT64": pa.int64,
        "BIGNUMERIC": lambda: pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale),
        "BOOL": pa.bool_,
        "DATE": pa.date32,
        "TIMESTAMP": lambda: pa.timestamp("us", tz="UTC"),
        "JSON": pa.string,
    }
    return types[kind]()
