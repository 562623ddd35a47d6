"""The first definition of the content hash, of receipts that say no version: their rows are read and hashed here.

As in ``hashing.py``, but JSON numbers are what they say (1.0 is 1), a JSON text or number is hashed as a text or
number, and a decimal is ``n<digits>e<exponent>;``, which GoogleSQL can't say.
"""

import json
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from hashlib import sha256
from typing import Any

from common.writes.spool.hashing import EPOCH, EPOCH_DAY, HASH_MODULUS, MICROSECOND


def content_hash(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the content hash of rows as a query returns them: JSON parsed, and no lineage but the data date."""
    total = sum(int.from_bytes(sha256(canonical_row(row)).digest()) for row in rows)
    return f"{total % HASH_MODULUS:064x}"


def canonical_row(row: Mapping[str, Any]) -> bytes:
    """Return the row's canonical text."""
    return "".join([f"{name}:{canonical_value(row[name])}" for name in sorted(row) if row[name] is not None]).encode()


def canonical_value(value: Any) -> str:
    """Return the canonical text of a value that is not NULL."""
    match value:
        case str():
            return f"s{len(value.encode())}:{value}"
        case bool():
            return f"b{value:d};"
        case int():
            return f"i{value};"
        case Decimal():
            return f"n{_digits(value)};"
        case datetime():
            return f"t{(value - EPOCH) // MICROSECOND};"
        case date():
            return f"d{value.toordinal() - EPOCH_DAY};"
        case float():
            return f"i{int(value)};" if value.is_integer() else f"f{value!r};"
    # Through text and back, because only the parser normalises every number inside (1.0 is 1).
    parsed = json.loads(json.dumps(value), parse_float=_fraction)
    text = json.dumps(parsed, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return f"j{len(text.encode())}:{text}"


def _fraction(text: str) -> int | float:
    number = float(text)
    return int(number) if number.is_integer() else number


def _digits(value: Decimal) -> str:
    sign, digits, exponent = value.as_tuple()
    text = "".join(map(str, digits))
    kept = text.rstrip("0")
    if not kept:
        return "0e0"
    assert isinstance(exponent, int)
    return f"{'-' if sign else ''}{kept.lstrip('0')}e{exponent + len(text) - len(kept)}"
