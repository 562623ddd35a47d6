"""Rows to a bounded Parquet file, checked against their table's contract on the way.

``writer.py`` is the way in. ``rows.py`` cuts batches into bounded stretches, ``columns.py`` and ``arrow.py`` convert
them column by column, ``values.py`` value by value where something is odd; ``unknown.py`` is about columns that the
contract does not have, ``hashing.py`` about the content hash, ``files.py`` about the Parquet files.

Nothing here imports pyarrow before a spool is made: functions that write nothing start without it.
"""

from common.writes.spool.hashing import content_hash
from common.writes.spool.writer import Spool, SpoolResult

__all__ = ["Spool", "SpoolResult", "content_hash"]
