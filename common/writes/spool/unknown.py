"""Columns that rows bring and the contract does not have: what the table's ``unknown_columns`` does with them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from common.platform.errors import nearest
from common.tables.contract import LINEAGE, Column, ColumnType
from common.writes.bad_rows import shown
from common.writes.spool.values import type_name

MAX_ADDED = 100
"""Columns that one step may add to a table."""

RESERVED = re.compile(r"(_TABLE_|_FILE_|_PARTITION|_ROW_TIMESTAMP|__ROOT__|_COLIDENTIFIER)", re.IGNORECASE)
"""Beginnings of names that BigQuery keeps for itself."""

LINEAGE_NAMES = frozenset(name for name, _ in LINEAGE)


def refusal(name: Any, columns: Mapping[str, Column]) -> str:
    """Say that there is no such column, and which is like it."""
    return f"the table has no column {shown(name)}.{nearest(str(name), columns)}"


def why_not_added(name: Any, columns: Iterable[str], added: int) -> str:
    """Return why a column of this name can't be added to the table, or an empty text."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,127}", name) or RESERVED.match(name):
        return "BigQuery takes no column of such a name"
    if name in LINEAGE_NAMES:
        return "the engine stamps it"
    same = next((known for known in columns if known.lower() == name.lower()), None)
    if same is not None:
        return f"BigQuery does not tell it from {same}"
    return f"a step may add {MAX_ADDED} columns" if added >= MAX_ADDED else ""


def inferred(values: Sequence[Any]) -> ColumnType | None:
    """Return the type of a column of such values, None if all are NULL.

    The first value decides; whole numbers among decimals are decimals. What has no type of its own (a float, bytes)
    becomes BIGNUMERIC or STRING, which then refuses it with the reason.
    """
    first = next((value for value in values if value is not None), None)
    match first:
        case None:
            return None
        case bool():
            return "BOOL"
        case int():
            return "BIGNUMERIC" if any(isinstance(value, Decimal) for value in values) else "INT64"
        case Decimal() | float():
            return "BIGNUMERIC"
        case datetime():
            return "TIMESTAMP"
        case date():
            return "DATE"
        case dict() | list():
            return "JSON"
    return "STRING"


def told_type(values: Sequence[Any]) -> str:
    """Return the type of the first value that is not NULL, as drift tells it."""
    return next((type_name(value) for value in values if value is not None), "")
