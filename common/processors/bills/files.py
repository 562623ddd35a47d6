"""Reads bills from CSV and Parquet, gzipped or not, as records with their position.

A file is opened through fsspec, whose plug-ins can add ``gs://`` and ``s3://``. A defective file raises PermanentError
with the file, the line and, if there is one, the column. Memory is bounded whatever the file contains.
"""

import codecs
import csv
import gzip
import zlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, cast

from common.platform.errors import PermanentError
from common.writes.batch import BATCH_ROWS

GZIP_MAGIC = b"\x1f\x8b"
PARQUET_MAGIC = b"PAR1"
# Of a record, unpacked. A quote that is never closed makes the rest of the file one record: this bounds the memory.
RECORD_BYTES = 16 * 1024 * 1024

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


def records(path: Path, *, file_format: Format, delimiter: str) -> Iterator[BillRecord]:
    """Yield the file's records in order. CSV values are text; Parquet values are typed."""
    with _opened(path) as raw:
        is_parquet = raw.read(4) == PARQUET_MAGIC
        raw.seek(0)
        if file_format == "parquet" and not is_parquet:
            raise PermanentError(f"{path.name}: not a Parquet file (it does not begin with PAR1).")
        if file_format == "parquet" or (file_format == "auto" and is_parquet):
            yield from _parquet(path, raw)
        else:
            yield from csv_records(path, raw, delimiter)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Open the file, decompressing gzip. Decided by the first bytes, because exports often have misleading names."""
    import fsspec

    try:
        # Not fsspec.open(): it gives "::" and "*" in a file's name a meaning.
        with fsspec.filesystem("file").open(str(path), "rb") as raw:
            packed = raw.read(2) == GZIP_MAGIC
            raw.seek(0)
            yield cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if packed else raw
    except FileNotFoundError as error:
        raise PermanentError(f"{path.name}: there is no such file in the landing folder.") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise PermanentError(
            f"{path.name}: the gzip data ends too early or is damaged ({error}). Fetch the file again."
        ) from error


def csv_records(path: Path, raw: IO[bytes], delimiter: str) -> Iterator[BillRecord]:
    """Yield the records of an opened CSV file; ``path`` names it in messages."""
    csv.field_size_limit(RECORD_BYTES)  # the default is 128 KiB, and tags in one field can be longer
    lines = _Lines(path, raw)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header = _next_record(path, lines, reader)
    if header is None:
        raise PermanentError(f"{path.name}: the file is empty.")
    _check_header(path, header, delimiter)
    number = 0
    while (values := _next_record(path, lines, reader, header)) is not None:
        if not values:  # the csv module returns [] for an empty line
            continue
        number += 1
        if len(values) != len(header):
            raise PermanentError(_wrong_count(path, lines.begin, values, header))
        yield BillRecord("line 1", f"line {lines.begin}", number, dict(zip(header, values, strict=True)))


class _Lines:
    """Counts lines of text: ``begin`` is the first and ``number`` the last line of the current record.

    Decoded line by line, so that a bad byte is reported with its own line and not with that of a buffer.
    """

    def __init__(self, path: Path, raw: IO[bytes]) -> None:
        self._path, self._raw = path, raw
        self.number, self.begin = 0, 1
        self.record: list[str] = []
        self._left = RECORD_BYTES

    def begin_record(self) -> None:
        self.begin, self._left = self.number + 1, RECORD_BYTES
        self.record.clear()

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
        self.record.append((line.removeprefix(codecs.BOM_UTF8) if self.number == 1 else line).decode("utf-8"))
        return self.record[-1]


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
        column = _broken_column("".join(lines.record), reader.dialect.delimiter, header)
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


def _check_names_differ(path: Path, where: str, names: Sequence[str]) -> None:
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise PermanentError(f"{path.name}: {where}: column {name} is there twice.")


def _wrong_count(path: Path, line: int, values: Sequence[str], header: Sequence[str]) -> str:
    text = f"{path.name}: line {line}: {len(values)} fields, the header has {len(header)}"
    if len(values) < len(header):
        return f"{text}; nothing for column {header[len(values)]}. The line is cut off or a delimiter is missing."
    return f"{text}; the last column is {header[-1]}. A value with a delimiter must be quoted."


def _parquet(path: Path, raw: IO[bytes]) -> Iterator[BillRecord]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        file = pq.ParquetFile(raw)
        if file.schema_arrow.names:
            _check_names_differ(path, "schema", file.schema_arrow.names)
        for batch in file.iter_batches(batch_size=BATCH_ROWS):
            for values in batch.to_pylist():
                number += 1
                yield BillRecord("schema", f"row {number}", number, values)
    # ValueError and OverflowError: values that no Python type can hold, such as times with nanoseconds.
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise PermanentError(
            f"{path.name}: after row {number}: not readable as Parquet ({str(error)[:120]}). Fetch the file again."
        ) from error
