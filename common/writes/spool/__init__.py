"""Writes rows to a Parquet file in bounded memory, and checks them against their table's contract.

Start reading at ``writer.py``. ``rows.py`` cuts batches into bounded slices; ``columns.py`` and ``arrow.py`` convert
them column by column, ``values.py`` value by value if a column holds anything unusual. ``json_text.py`` writes JSON as
BigQuery does, ``unknown.py`` handles columns that the contract does not have, ``hashing.py`` the content hash,
``files.py`` the Parquet files.

pyarrow is imported only when a spool is created, so that functions that write nothing start without it.
"""

from common.writes.spool.writer import Spool, SpoolResult

__all__ = ["Spool", "SpoolResult"]
