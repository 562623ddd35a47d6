"""The content hash: the sum modulo 2^256 of the SHA-256 of each row's text, computed here and by BigQuery alike.

A sum, so that neither the order of rows nor their batches matter, while a doubled or missing row changes it. The text
of a row is made of its values in the order of their columns' names, NULLs left out, so that a column that is added
later changes no hash. A value is ``name:``, its kind and its text:

- ``s<bytes>:<text>`` text;
- ``j<bytes>:<text>`` JSON, as BigQuery prints it (``json_text.py``); JSON's null counts as NULL;
- ``i…;`` a whole number, ``btrue;`` or ``bfalse;`` a flag;
- ``n…;`` a decimal without an exponent and without zeros at the end: 100, -1.5;
- ``d…;`` a date in days, ``t…;`` a time in microseconds, both since 1970 in UTC.

The text needs nothing that GoogleSQL could not say, so one aggregate gives the hash of stored rows (``row_hash_sql``,
``SUMS``): a sum of 256 bits fits no type of BigQuery's, hence eight sums of 32 bits each, which ``total`` puts
together. They may not be XORed instead: two equal rows would cancel.

``canonical_row`` is the definition, row by row; ``fast_hash.py`` does the same column by column. A hash begins with the
number of this definition. One without it is of the first definition (``hashing_v1.py``).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any

from common.writes.spool.json_text import json_text

VERSION = "2:"
HASH_MODULUS = 2**256
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EPOCH_DAY = EPOCH.toordinal()
MICROSECOND = timedelta(microseconds=1)

ROW_HASH = "row_hash_"
"""The name that ``SUMS`` expect ``row_hash_sql`` to have."""
SUM_NAMES = tuple(f"sum{number}_" for number in range(8))
SUMS = ", ".join(
    f"SUM(CAST(CONCAT('0x', SUBSTR({ROW_HASH}, {8 * number + 1}, 8)) AS INT64)) AS {name}"
    for number, name in enumerate(SUM_NAMES)
)
"""The aggregate: sums of eight hexadecimal digits each, which an INT64 holds for two thousand million rows."""

DECIMAL_TEXT = """IF(
  STRPOS(CAST({0} AS STRING), '.') > 0, RTRIM(RTRIM(CAST({0} AS STRING), '0'), '.'), CAST({0} AS STRING)
)"""
"""A decimal's text in GoogleSQL: the emulator writes zeros at the end, BigQuery does not."""

KINDS = {
    "STRING": "s', CAST(BYTE_LENGTH({0}) AS STRING), ':', {0}",
    "JSON": "j', CAST(BYTE_LENGTH({0}) AS STRING), ':', {0}",
    "INT64": "i', CAST({0} AS STRING), ';'",
    "BIGNUMERIC": "n', {0}, ';'",
    "BOOL": "b', CAST({0} AS STRING), ';'",
    "DATE": "d', CAST(UNIX_DATE({0}) AS STRING), ';'",
    "TIMESTAMP": "t', CAST(UNIX_MICROS({0}) AS STRING), ';'",
}
"""A value's kind and text in GoogleSQL, by the type of its column. Columns of other types are not ours."""

VALUES = {
    "JSON": "NULLIF(TO_JSON_STRING({0}), 'null')",
    "BIGNUMERIC": DECIMAL_TEXT,
}


def row_hash_sql(columns: Mapping[str, str]) -> str:
    """Return GoogleSQL for a row's hash as hexadecimal digits. ``columns`` are names and types."""
    parts = [
        f"IFNULL(CONCAT('{name}:{KINDS[kind].format(VALUES.get(kind, '{0}').format(f'`{name}`'))}), '')"
        for name, kind in sorted(columns.items())
        if kind in KINDS
    ]
    return f"TO_HEX(SHA256(CONCAT({', '.join(parts)})))"


def total(sums: Iterable[Sequence[int]]) -> int:
    """Return the sum of row hashes that these results of ``SUMS`` add up to."""
    return sum(part << 32 * (7 - number) for each in sums for number, part in enumerate(each))


def content_hash(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """Return the content hash of rows as a query returns them: JSON parsed. ``columns`` are names and types."""
    return hash_text(sum(int.from_bytes(sha256(canonical_row(row, columns)).digest()) for row in rows))


def hash_text(total: int) -> str:
    """Return a sum of row hashes as text."""
    return f"{VERSION}{total % HASH_MODULUS:064x}"


def canonical_row(row: Mapping[str, Any], columns: Mapping[str, str]) -> bytes:
    """Return the row's text."""
    values = [(name, columns[name], row[name]) for name in sorted(columns) if row.get(name) is not None]
    return "".join([f"{name}:{_canonical(kind, value)}" for name, kind, value in values if kind in KINDS]).encode()


def _canonical(kind: str, value: Any) -> str:
    match kind:
        case "STRING":
            return f"s{len(value.encode())}:{value}"
        case "JSON":
            text = json_text(json.dumps(value))
            return f"j{len(text.encode())}:{text}"
        case "INT64":
            return f"i{value};"
        case "BIGNUMERIC":
            return f"n{_decimal(value)};"
        case "BOOL":
            return f"b{str(value).lower()};"
        case "DATE":
            return f"d{value.toordinal() - EPOCH_DAY};"
    return f"t{(value - EPOCH) // MICROSECOND};"


def _decimal(value: Decimal) -> str:
    text = f"{value:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text
