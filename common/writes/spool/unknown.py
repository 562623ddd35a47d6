"""Columns of rows that the contract does not have, and how the table's ``unknown_columns`` treats them."""

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
"""Most columns that one step may add to a table: names that are really data must not become columns for ever."""

RESERVED = re.compile(r"(_TABLE_|_FILE_|_PARTITION|_ROW_TIMESTAMP|__ROOT__|_COLIDENTIFIER)", re.IGNORECASE)
"""Prefixes of column names that BigQuery reserves."""

LINEAGE_NAMES = frozenset(name for name, _ in LINEAGE)


def refusal(name: Any, columns: Mapping[str, Column]) -> str:
    """Return the message that there is no such column, with the nearest name."""
    return f"the table has no column {shown(name)}.{nearest(str(name), columns)}"


def why_not_added(name: Any, columns: Iterable[str], added: int) -> str:
    """Return why a column of this name can't be added to the table, "" if it can."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,127}", name) or RESERVED.match(name):
        return "BigQuery takes no column of such a name"
    if name in LINEAGE_NAMES:
        return "the engine stamps it"
    same = next((known for known in columns if known.lower() == name.lower()), None)
    if same is not None:
        return f"BigQuery does not tell it from {same}"
    return f"a step may add {MAX_ADDED} columns" if added >= MAX_ADDED else ""


def inferred(values: Sequence[Any]) -> ColumnType | None:
    """Infer a column's type from its values, None if all are NULL.

    The first value decides, but integers mixed with decimals are decimals. A value without a type of its own (a float,
    bytes) makes the column BIGNUMERIC or STRING, which then refuses it with the reason.
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
    """Return the type of the first value that is not NULL, as drift reports it."""
    return next((type_name(value) for value in values if value is not None), "")
