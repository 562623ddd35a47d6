"""Reads bills from CSV and Parquet, gzipped or not, in blocks of records that are bounded in bytes.

A block is an Arrow batch, and can be read again record by record, with the position of each. What Arrow could read
otherwise than Python's csv module does is read record by record from there on: that reader is the definition.

A file is opened through fsspec, whose plug-ins can add ``gs://`` and ``s3://``. A defective file raises PermanentError
with the file, the line and, if there is one, the column. Memory is bounded whatever the file contains.
"""

import codecs
import csv
import gzip
import io
import zlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, cast

from common.platform.errors import PermanentError

if TYPE_CHECKING:
    import pyarrow as pa

GZIP_MAGIC = b"\x1f\x8b"
PARQUET_MAGIC = b"PAR1"
# Of a record, unpacked. A quote that is never closed makes the rest of the file one record: this bounds the memory.
RECORD_BYTES = 16 * 2**20
# Of a block: its columns are in memory several times, as text, converted, as JSON and as the rows of the table.
BLOCK_BYTES = 4 * 2**20
BLOCK_ROWS = 16_384
# BigQuery's own limit; a header is a record, and could hold a million names.
MAX_COLUMNS = 10_000
# Parquet's list of row groups and columns, which is parsed as a whole.
FOOTER_BYTES = 16 * 2**20
# Real bills unpack to 10 to 50 times their size, a file made of one repeated value to a thousand and more.
MAX_RATIO = 500
FREE_BYTES = 256 * 2**20

Format = Literal["auto", "csv", "parquet"]


@dataclass(frozen=True, slots=True)
class BillRecord:
    """One record: its number, counted from 1, and its values by column.

    For messages: ``header`` is the position of the column names, ``where`` that of the record, e.g. ``line 12``.
    """

    header: str
    where: str
    number: int
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive records. ``first`` is the number of the first one, ``header`` the position of the column names.

    ``batch`` has the file's columns: of a CSV file as text, with NULL for ``null_values`` (``nulls_read``: no such text
    is left). Without a batch, the block is the rest of the file, and ``records`` can be called once.
    """

    header: str
    columns: Sequence[str]
    first: int
    batch: "pa.RecordBatch | None"
    records: Callable[[], Iterator[BillRecord]]
    nulls_read: bool = False


def blocks(path: Path, *, file_format: Format, delimiter: str, null_values: Sequence[str]) -> Iterator[Block]:
    """Yield the file's records in order, in blocks."""
    with _opened(path) as raw:
        is_parquet = raw.read(4) == PARQUET_MAGIC
        raw.seek(0)
        if file_format == "parquet" and not is_parquet:
            raise PermanentError(f"{path.name}: not a Parquet file (it does not begin with PAR1).")
        if file_format == "parquet" or (file_format == "auto" and is_parquet):
            yield from _parquet(path, raw)
        else:
            yield from _csv(path, raw, delimiter, null_values)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Open the file, decompressing gzip. Decided by the first bytes, because exports often have misleading names."""
    import fsspec

    try:
        # Not fsspec.open(): it gives "::" and "*" in a file's name a meaning.
        with fsspec.filesystem("file").open(str(path), "rb") as raw:
            packed = raw.read(2) == GZIP_MAGIC
            raw.seek(0)
            yield cast(IO[bytes], _Unpacked(path, raw)) if packed else raw
    except FileNotFoundError as error:
        raise PermanentError(f"{path.name}: there is no such file in the landing folder.") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise PermanentError(
            f"{path.name}: the gzip data ends too early or is damaged ({error}). Fetch the file again."
        ) from error


class Unpacking:
    """Counts what a file unpacks to. Raises PermanentError if that is out of all proportion to its size."""

    def __init__(self, name: str, packed: int) -> None:
        self._name, self._most, self._size = name, max(FREE_BYTES, MAX_RATIO * packed), 0

    def add(self, size: int) -> None:
        self._size += size
        if self._size > self._most:
            raise PermanentError(
                f"{self._name}: unpacks to more than {MAX_RATIO} times its size and more than "
                f"{FREE_BYTES // 2**20} MiB. No bill does: nothing of it is used."
            )


class _Unpacked(gzip.GzipFile):
    def __init__(self, path: Path, raw: IO[bytes]) -> None:
        super().__init__(fileobj=raw)
        self._unpacking = Unpacking(path.name, path.stat().st_size)

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self._unpacking.add(len(data))
        return data

    def readline(self, size: int | None = -1) -> bytes:
        line = super().readline(-1 if size is None else size)
        self._unpacking.add(len(line))
        return line


def csv_records(path: Path, raw: IO[bytes], delimiter: str) -> Iterator[BillRecord]:
    """Yield the records of an opened CSV file; ``path`` names it in messages."""
    header, begin = _csv_header(path, raw, delimiter)
    yield from _csv_rest(path, raw, delimiter, header, begin, 0)


def _csv_header(path: Path, raw: IO[bytes], delimiter: str) -> tuple[list[str], int]:
    """Return the names of the columns, and the number of the line after them."""
    csv.field_size_limit(RECORD_BYTES)  # the default is 128 KiB, and tags in one field can be longer
    lines = _Lines(path, raw)
    header = _next_record(path, lines, csv.reader(lines, delimiter=delimiter, strict=True))
    if header is None:
        raise PermanentError(f"{path.name}: the file is empty.")
    _check_header(path, header, delimiter)
    return header, lines.number + 1


def _csv_rest(
    path: Path, raw: "IO[bytes] | _Rest", delimiter: str, header: Sequence[str], begin: int, number: int
) -> Iterator[BillRecord]:
    """Yield the records from here on: ``begin`` is the number of the line, ``number`` that of the last record."""
    lines = _Lines(path, raw, begin)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while (values := _next_record(path, lines, reader, header)) is not None:
        if not values:  # the csv module returns [] for an empty line
            continue
        number += 1
        if len(values) != len(header):
            raise PermanentError(_wrong_count(path, lines.begin, values, header))
        yield BillRecord("line 1", f"line {lines.begin}", number, dict(zip(header, values, strict=True)))


def _csv(path: Path, raw: IO[bytes], delimiter: str, null_values: Sequence[str]) -> Iterator[Block]:
    header, line = _csv_header(path, raw, delimiter)
    number, left = 0, b""
    while True:
        chunk = raw.read(BLOCK_BYTES)
        data = left + chunk
        if not data:
            return
        end = _record_end(data) if len(chunk) == BLOCK_BYTES else len(data)
        if not end and len(data) <= RECORD_BYTES:
            left = data
            continue
        table = _csv_table(data[:end], header, delimiter, null_values) if 0 < end <= RECORD_BYTES else None
        if table is None:
            rest = _csv_rest(path, _Rest(data, raw), delimiter, header, line, number)
            yield Block("line 1", header, number + 1, None, partial(iter, rest))
            return
        yield from _csv_blocks(path, data[:end], delimiter, header, line, number, table)
        number += table.num_rows
        line += data.count(b"\n", 0, end)
        left = data[end:]


def _record_end(data: bytes) -> int:
    """Return where the last record ends, so far as quotes tell; 0 if that is nowhere."""
    end = data.rfind(b"\n") + 1
    quotes = data.count(b'"', 0, end)
    while end and quotes % 2:  # the line ends within quotes
        before = data.rfind(b"\n", 0, end - 1) + 1
        quotes -= data.count(b'"', before, end)
        end = before
    return end


def _csv_table(data: bytes, header: Sequence[str], delimiter: str, null_values: Sequence[str]) -> "pa.Table | None":
    """Return the records as text; None if the csv module might read them otherwise, or refuse them."""
    import pyarrow as pa
    import pyarrow.csv

    if not delimiter.isascii() or delimiter in '"\r\n' or not _is_regular(data, delimiter.encode()):
        return None
    try:
        return pyarrow.csv.read_csv(
            pa.BufferReader(data),
            pyarrow.csv.ReadOptions(column_names=header, block_size=len(data) + 1),
            pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(header, pa.string()),
                null_values=list(null_values),
                strings_can_be_null=bool(null_values),
            ),
        )
    except pa.ArrowException:
        return None


def _is_regular(data: bytes, delimiter: bytes) -> bool:
    """Whether every quote encloses a whole field or is doubled within one, and lines end with LF or CR LF.

    Elsewhere Arrow and Python's csv differ: in what follows a closing quote, in a CR alone, in a BOM.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if b"\0" in data or data.startswith(codecs.BOM_UTF8):
        return False
    if b"\r" in data and data.count(b"\r") != data.count(b"\r\n"):
        return False
    if b'"' not in data:
        return True
    pieces = pc.list_flatten(pc.split_pattern(pa.array([data], pa.large_binary()), pattern='"'))
    if len(pieces) % 2 == 0:
        return False
    pairs = pa.FixedSizeListArray.from_arrays(pa.concat_arrays([pieces, pa.array([b""], pieces.type)]), 2)
    outside = pc.list_element(pairs, 0)  # between the quoted fields; empty between the two quotes of a doubled one
    is_empty = pc.equal(pc.binary_length(outside), 0)
    begins_line = pc.or_(pc.starts_with(outside, b"\n"), pc.starts_with(outside, b"\r\n"))
    begins = pc.or_(pc.starts_with(outside, delimiter), begins_line)
    ends = pc.or_(pc.ends_with(outside, delimiter), pc.ends_with(outside, b"\n"))
    after_quote = pc.all(pc.or_(is_empty, begins).slice(1)).as_py()
    before_quote = pc.all(pc.or_(is_empty, ends).slice(0, len(outside) - 1)).as_py()
    return bool(after_quote and before_quote)


def _csv_blocks(
    path: Path, data: bytes, delimiter: str, header: Sequence[str], line: int, number: int, table: "pa.Table"
) -> Iterator[Block]:
    for begin in range(0, table.num_rows, BLOCK_ROWS):
        part = table.slice(begin, BLOCK_ROWS).combine_chunks().to_batches()

        def records(begin: int = begin, size: int = sum(len(one) for one in part)) -> Iterator[BillRecord]:
            rest = _csv_rest(path, cast(IO[bytes], io.BytesIO(data)), delimiter, header, line, number)
            return islice(rest, begin, begin + size)

        for batch in part:
            yield Block("line 1", header, number + begin + 1, batch, records, nulls_read=True)


class _Rest:
    """The bytes that were read, and then the rest of the file."""

    def __init__(self, data: bytes, raw: IO[bytes]) -> None:
        self._data, self._raw = io.BytesIO(data), raw

    def readline(self, size: int) -> bytes:
        line = self._data.readline(size)
        if line.endswith(b"\n") or len(line) == size:
            return line
        return line + self._raw.readline(size - len(line))


class _Lines:
    """Counts lines of text: ``begin`` is the first and ``number`` the last line of the current record.

    Decoded line by line, so that a bad byte is reported with its own line and not with that of a buffer.
    """

    def __init__(self, path: Path, raw: "IO[bytes] | _Rest", begin: int = 1) -> None:
        self._path, self._raw = path, raw
        self.number, self.begin = begin - 1, begin
        self.record = io.StringIO()  # not a list: a record of 16 MiB can have 8,000,000 lines
        self._left = RECORD_BYTES

    def begin_record(self) -> None:
        self.begin, self._left = self.number + 1, RECORD_BYTES
        self.record.seek(0)
        self.record.truncate()

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._raw.readline(self._left + 1)
        if not line:
            raise StopIteration
        self.number += 1
        self._left -= len(line)
        if self._left < 0:
            raise PermanentError(
                f"{self._path.name}: line {self.begin}: a record of more than {RECORD_BYTES} bytes. "
                "Is it a CSV file, and is every quote closed?"
            )
        text = (line.removeprefix(codecs.BOM_UTF8) if self.number == 1 else line).decode("utf-8")
        self.record.write(text)
        return text


def _next_record(path: Path, lines: _Lines, reader: Any, header: Sequence[str] = ()) -> list[str] | None:
    """Return the next record, or None at the end. Raises PermanentError with the line for a broken CSV."""
    lines.begin_record()
    try:
        values: list[str] | None = next(reader, None)
    except UnicodeDecodeError as error:
        raise PermanentError(
            f"{path.name}: line {lines.number}: not UTF-8 ({error.reason}). Export the file as UTF-8."
        ) from error
    except csv.Error as error:
        hint = " The file seems cut off: fetch it again." if _at_end(error) else ""
        column = _broken_column(lines.record.getvalue(), reader.dialect.delimiter, header)
        raise PermanentError(f"{path.name}: line {lines.begin}{column}: {error}.{hint}") from error
    if values and any("\0" in value for value in values):
        position = next(i for i, value in enumerate(values) if "\0" in value)
        column = f", column {header[position]}" if position < len(header) else ""
        raise PermanentError(f"{path.name}: line {lines.begin}{column}: holds a NUL byte, so it is no text file.")
    return values


def _broken_column(record: str, delimiter: str, header: Sequence[str]) -> str:
    """Name the column at which parsing a record fails, which the csv module does not report.

    It is the last field of the shortest prefix of the record that makes the reader fail.
    """

    def breaks(size: int) -> bool:
        try:
            next(csv.reader([record[:size]], delimiter=delimiter, strict=True), None)
        except csv.Error as error:
            return not _at_end(error)  # a prefix that ends within quotes is incomplete, not broken
        return False

    size = bisect_left(range(len(record)), True, key=breaks)
    fields = next(csv.reader([record[: size - 1]], delimiter=delimiter), None)
    return f", column {header[len(fields) - 1]}" if fields and len(fields) <= len(header) else ""


def _at_end(error: csv.Error) -> bool:
    return "end of data" in str(error)


def _check_header(path: Path, header: Sequence[str], delimiter: str) -> None:
    if not header:
        raise PermanentError(f"{path.name}: line 1: the line is empty; the names of the columns belong there.")
    _check_count(path, "line 1", len(header))
    for position, name in enumerate(header, 1):
        if not name.strip():
            raise PermanentError(f"{path.name}: line 1: column {position} has no name.")
    _check_names_differ(path, "line 1", header)
    if len(header) == 1:
        other = next((d for d in (",", ";", "\t", "|") if d != delimiter and d in header[0]), None)
        if other is not None:
            raise PermanentError(
                f"{path.name}: line 1: one single column that holds {other!r}: set the step's delimiter to it."
            )


def _check_count(path: Path, where: str, count: int) -> None:
    if count > MAX_COLUMNS:
        raise PermanentError(
            f"{path.name}: {where}: {count} columns, the limit is {MAX_COLUMNS}. Is it a bill, one charge a line?"
        )


def _check_names_differ(path: Path, where: str, names: Sequence[str]) -> None:
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise PermanentError(f"{path.name}: {where}: column {name} is there twice.")


def _wrong_count(path: Path, line: int, values: Sequence[str], header: Sequence[str]) -> str:
    text = f"{path.name}: line {line}: {len(values)} fields, the header has {len(header)}"
    if len(values) < len(header):
        return f"{text}; nothing for column {header[len(values)]}. The line is cut off or a delimiter is missing."
    return f"{text}; the last column is {header[-1]}. A value with a delimiter must be quoted."


def _parquet(path: Path, raw: IO[bytes]) -> Iterator[Block]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    unpacking = Unpacking(path.name, path.stat().st_size)
    try:
        _check_footer(path, raw)
        file = pq.ParquetFile(raw, read_dictionary=_text_columns(pq.ParquetFile(raw)), buffer_size=2**20)
        names = file.schema_arrow.names
        _check_count(path, "schema", len(names))
        if names:
            _check_names_differ(path, "schema", names)
        for group in range(file.num_row_groups):
            for whole in file.iter_batches(_batch_rows(file.metadata.row_group(group)), row_groups=[group]):
                for batch in _bounded(path, whole, number, unpacking):
                    yield Block("schema", names, number + 1, batch, partial(_parquet_records, path, batch, number))
                    number += batch.num_rows
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise _not_parquet(path, number, error) from error


def _check_footer(path: Path, raw: IO[bytes]) -> None:
    raw.seek(-8, io.SEEK_END)
    size, magic = int.from_bytes(raw.read(4), "little"), raw.read(4)
    raw.seek(0)
    if size > FOOTER_BYTES and magic == PARQUET_MAGIC:
        raise PermanentError(
            f"{path.name}: its list of columns has {size} bytes, the limit is {FOOTER_BYTES}. Write it with fewer "
            "columns, or in fewer row groups."
        )


def _text_columns(file: Any) -> list[str]:
    """Return the columns of text that have a dictionary. They are read as such, so that a value is in memory once."""
    meta = file.metadata
    found = {
        meta.schema.column(column).path
        for group in range(meta.num_row_groups)
        for column in range(meta.num_columns)
        if meta.schema.column(column).physical_type == "BYTE_ARRAY"
        and any("DICTIONARY" in encoding for encoding in meta.row_group(group).column(column).encodings)
    }
    return sorted(found)


def _batch_rows(group: Any) -> int:
    """Return how many rows of a row group to decode at a time. Text without a dictionary is as long as in the file."""
    rows: int = BLOCK_BYTES * group.num_rows // max(1, group.total_byte_size)
    return max(1, min(BLOCK_ROWS, rows))


def _bounded(path: Path, batch: "pa.RecordBatch", number: int, unpacking: Unpacking) -> Iterator["pa.RecordBatch"]:
    """Yield a batch in parts that have at most BLOCK_BYTES once their dictionaries are resolved."""
    size = sum(map(expanded_size, batch.columns))
    if batch.num_rows > 1 and size > BLOCK_BYTES:
        half = batch.num_rows // 2
        yield from _bounded(path, batch.slice(0, half), number, unpacking)
        yield from _bounded(path, batch.slice(half), number + half, unpacking)
        return
    if size > RECORD_BYTES:
        raise PermanentError(f"{path.name}: row {number + 1}: a record of more than {RECORD_BYTES} bytes.")
    unpacking.add(size)
    yield batch


def expanded_size(array: "pa.Array") -> int:
    """Return the bytes of an array without its dictionary, in which one long text can stand for thousands."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as kinds

    if kinds.is_dictionary(array.type):
        if kinds.is_primitive(array.type.value_type):
            return len(array) * 16
        return int(pc.sum(pc.binary_length(array.dictionary).take(array.indices)).as_py() or 0)
    if kinds.is_nested(array.type):
        whole = pa.concat_arrays([array])  # without what a slice leaves out
        if kinds.is_struct(array.type):
            return sum(map(expanded_size, whole.flatten()))
        if kinds.is_map(array.type):
            return 4 * len(array) + expanded_size(whole.keys) + expanded_size(whole.items)
        return 4 * len(array) + expanded_size(whole.flatten())
    return int(array.nbytes)


def _parquet_records(path: Path, batch: "pa.RecordBatch", number: int) -> Iterator[BillRecord]:
    import pyarrow as pa

    try:
        for values in batch.to_pylist():
            number += 1
            yield BillRecord("schema", f"row {number}", number, values)
    # ValueError and OverflowError: values that no Python type can hold, such as times with nanoseconds.
    except (pa.ArrowException, ValueError, OverflowError) as error:
        raise _not_parquet(path, number, error) from error


def _not_parquet(path: Path, number: int, error: Exception) -> PermanentError:
    return PermanentError(
        f"{path.name}: after row {number}: not readable as Parquet ({str(error)[:120]}). Fetch the file again."
    )
