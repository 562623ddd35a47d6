"""The spool's two Parquet files, for good and for bad rows, written in row groups to bound memory."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from common.platform.errors import PermanentError, TransientError
from common.writes.bad_rows import BadRow
from common.writes.spool.fast_hash import WIDE_ROW_BYTES

ROWS_PER_GROUP = 50_000
BYTES_PER_GROUP = 16 * 2**20
"""Most rows, and most bytes, held in memory: beyond either, they are written as a row group."""

MAX_BYTES = 8 * 2**30
"""Of a spool. A function's disk is its memory, and a load job takes files up to 15 TB: what is larger belongs into
several steps."""

BAD_PER_GROUP = 1_000
BAD_SCHEMA = pa.schema([pa.field(name, pa.string()) for name in ("reason", "column", "source", "row")])


class RowFile:
    """File of good rows. A column that is added later is NULL in earlier rows.

    A row group is packed on a second core while the next one is collected, because Arrow packs without the GIL. So a
    full disk is reported one row group later, at the latest by ``close``.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path, self._schema = path, schema
        self._packer = ThreadPoolExecutor(1, "spool")
        self._packing: Future[None] | None = None
        self._older: list[Path] = []
        self._pending: list[pa.Table] = []
        self._rows = self._bytes = self._groups = 0
        self._writer = self._opened()

    def write(self, table: pa.Table) -> None:
        """Add these rows, which have the file's current columns."""
        self._pending.append(table)
        self._rows += table.num_rows
        self._bytes += table.nbytes
        if self._rows >= ROWS_PER_GROUP or self._bytes >= BYTES_PER_GROUP:
            self._flush()

    def extend(self, column: pa.Field) -> None:
        """Add a column. A Parquet file's columns are fixed from its start, so the rows so far become an older part."""
        self._end_part()
        self._schema = self._schema.append(column)
        self._writer = self._opened()

    def close(self) -> int:
        """Finish the file, rewriting it if it is in parts; return its size in bytes."""
        if self._older:
            self._end_part()
            self._writer = self._opened()
            for part in self._older:
                self._copy(part)
        self._flush()
        self._packed()
        self._packer.shutdown()
        with writing(self._path):
            self._writer.close()
        return self._path.stat().st_size

    def _opened(self) -> pq.ParquetWriter:
        with writing(self._path):
            return pq.ParquetWriter(self._path, self._schema, compression="zstd", write_statistics=False)

    def _end_part(self) -> None:
        self._flush()
        self._packed()
        with writing(self._path):
            self._writer.close()
            if self._groups:
                self._older.append(self._path.rename(self._path.with_suffix(f".{len(self._older)}.part")))
        self._groups = 0

    def _copy(self, part: Path) -> None:
        with writing(self._path), pq.ParquetFile(part) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                for column in self._schema:
                    if column.name not in table.column_names:
                        table = table.append_column(column, pa.nulls(table.num_rows, column.type))
                self._writer.write_table(table)
        part.unlink()

    def _flush(self) -> None:
        if not self._rows:
            return
        table = pa.concat_tables(self._pending)
        self._pending.clear()
        self._rows = self._bytes = 0
        self._groups += 1
        self._packed()  # one at a time: memory stays bounded, and the writer is not shared
        self._packing = self._packer.submit(self._pack, table)
        if table.nbytes > WIDE_ROW_BYTES * table.num_rows:
            self._packed()  # the next row may be of 16 MiB, too: memory has room for one

    def _packed(self) -> None:
        """Wait for the row group that is being packed. Raises what packing it raised."""
        packing, self._packing = self._packing, None
        if packing is not None:
            packing.result()

    def _pack(self, table: pa.Table) -> None:
        with writing(self._path):
            self._writer.write_table(table, row_group_size=ROWS_PER_GROUP)
        size = sum(path.stat().st_size for path in (self._path, *self._older))
        if size > MAX_BYTES:
            raise PermanentError(
                f"The step's rows take more than {MAX_BYTES // 2**20} MiB, packed. Run fewer days at once, or map over "
                "the parts of the source."
            )


class BadFile:
    """File of bad rows: ``reason``, ``column``, ``source`` and ``row``, all STRING. Created with the first bad row."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pending: list[BadRow] = []
        self._writer: pq.ParquetWriter | None = None
        self.rows = 0

    def write(self, bad: BadRow) -> None:
        """Add one row."""
        self.rows += 1
        self._pending.append(bad)
        if len(self._pending) >= BAD_PER_GROUP:
            self._flush()

    def close(self) -> None:
        """Finish the file."""
        self._flush()
        if self._writer is not None:
            with writing(self._path):
                self._writer.close()

    def _flush(self) -> None:
        if not self._pending:
            return
        columns = {name: [getattr(bad, name) or None for bad in self._pending] for name in BAD_SCHEMA.names}
        self._pending.clear()
        with writing(self._path):
            if self._writer is None:
                self._writer = pq.ParquetWriter(self._path, BAD_SCHEMA, compression="zstd")
            self._writer.write_table(pa.Table.from_pydict(columns, BAD_SCHEMA))


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise TransientError instead of an OSError: a full disk may have room at the next attempt."""
    try:
        yield
    except OSError as error:
        raise TransientError(
            f"The rows could not be spooled to {path.parent}: {error}. Is the disk full? "
            "Free some space (or set TMPDIR to another disk); the step is tried again."
        ) from error
