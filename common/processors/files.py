"""Reads bills from CSV and Parquet, gzip or not: records with their position, as text or typed values.

A file is opened through fsspec, so that ``gs://`` and ``s3://`` come with its plug-ins. Whatever is wrong with a file
is a PermanentError that names the file, the line and, where there is one, the column.
"""

import codecs
import csv
import gzip
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, cast

from common.errors import PermanentError

GZIP_MAGIC = b"\x1f\x8b"
PARQUET_MAGIC = b"PAR1"
FIELD_BYTES = 16 * 1024 * 1024
BATCH_ROWS = 5_000

Format = Literal["auto", "csv", "parquet"]


@dataclass(frozen=True, slots=True)
class Record:
    """One record: ``where`` for messages (``line 12`` or ``row 12``), its number from 1, its values by column."""

    where: str
    number: int
    values: Mapping[str, Any]


def records(path: Path, *, file_format: Format, delimiter: str) -> Iterator[Record]:
    """Yield the file's records in order. CSV values are text; Parquet values are typed."""
    with _opened(path) as raw:
        is_parquet = raw.read(4) == PARQUET_MAGIC
        raw.seek(0)
        if file_format == "parquet" and not is_parquet:
            raise PermanentError(f"{path.name}: not a Parquet file (it does not begin with PAR1).")
        if file_format == "parquet" or (file_format == "auto" and is_parquet):
            yield from _parquet(path, raw)
        else:
            yield from _csv(path, raw, delimiter)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Open the file, unpacked if its first bytes say gzip: names lie."""
    import fsspec

    try:
        with fsspec.open(str(path), "rb").open() as raw:
            packed = raw.read(2) == GZIP_MAGIC
            raw.seek(0)
            yield cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if packed else raw
    except FileNotFoundError as error:
        raise PermanentError(f"{path.name}: there is no such file in the landing folder.") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise PermanentError(
            f"{path.name}: the gzip data ends too early or is damaged ({error}). Fetch the file again."
        ) from error


def _csv(path: Path, raw: IO[bytes], delimiter: str) -> Iterator[Record]:
    csv.field_size_limit(FIELD_BYTES)
    lines = _Lines(raw)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header = _next_record(path, lines, reader)
    if not header:
        raise PermanentError(f"{path.name}: the file is empty.")
    _check_header(path, header, delimiter)
    number = 0
    while True:
        begins = lines.number + 1
        values = _next_record(path, lines, reader, header)
        if values is None:
            return
        if not values:  # an empty line
            continue
        number += 1
        if len(values) != len(header):
            raise PermanentError(_wrong_count(path, begins, values, header))
        yield Record(f"line {begins}", number, dict(zip(header, values, strict=True)))


class _Lines:
    """Lines of text with the number of the last one read: a record may span several.

    Decoded line by line, so that a bad byte is told with its own line and not with that of a buffer.
    """

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw, self.number = raw, 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._raw.readline()
        if not line:
            raise StopIteration
        self.number += 1
        return (line.removeprefix(codecs.BOM_UTF8) if self.number == 1 else line).decode("utf-8")


def _next_record(path: Path, lines: _Lines, reader: Any, header: Sequence[str] = ()) -> list[str] | None:
    """Return the next record, None at the end. Every way a CSV can be broken becomes a message with its line."""
    begins = lines.number + 1
    try:
        values: list[str] | None = next(reader, None)
    except UnicodeDecodeError as error:
        raise PermanentError(
            f"{path.name}: line {lines.number}: not UTF-8 ({error.reason}). Export the file as UTF-8."
        ) from error
    except csv.Error as error:
        at_end = "end of data" in str(error)
        hint = " The file seems cut off: fetch it again." if at_end else ""
        column = f", column {header[0]} or after" if header else ""
        raise PermanentError(f"{path.name}: line {begins}{column}: {error}.{hint}") from error
    if values and any("\0" in value for value in values):
        position = next(i for i, value in enumerate(values) if "\0" in value)
        column = f", column {header[position]}" if position < len(header) else ""
        raise PermanentError(f"{path.name}: line {begins}{column}: holds a NUL byte, so it is no text file.")
    return values


def _check_header(path: Path, header: Sequence[str], delimiter: str) -> None:
    seen: set[str] = set()
    for name in header:
        if not name.strip():
            raise PermanentError(f"{path.name}: line 1: column {len(seen) + 1} has no name.")
        if name in seen:
            raise PermanentError(f"{path.name}: line 1: column {name} is there twice.")
        seen.add(name)
    if len(header) == 1:
        other = next((d for d in (",", ";", "\t", "|") if d != delimiter and d in header[0]), None)
        if other is not None:
            raise PermanentError(
                f"{path.name}: line 1: one single column that holds {other!r}: set the step's delimiter to it."
            )


def _wrong_count(path: Path, line: int, values: Sequence[str], header: Sequence[str]) -> str:
    text = f"{path.name}: line {line}: {len(values)} fields, the header has {len(header)}"
    if len(values) < len(header):
        return f"{text}; nothing for column {header[len(values)]}. The line is cut off or a delimiter is missing."
    return f"{text}; the last column is {header[-1]}. A value with a delimiter must be quoted."


def _parquet(path: Path, raw: IO[bytes]) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        for batch in pq.ParquetFile(raw).iter_batches(batch_size=BATCH_ROWS):
            for values in batch.to_pylist():
                number += 1
                yield Record(f"row {number}", number, values)
    except (pa.ArrowException, OSError) as error:
        raise PermanentError(
            f"{path.name}: after row {number}: not readable as Parquet ({str(error)[:120]}). Fetch the file again."
        ) from error
