"""The content hash: the sum modulo 2^256 of the SHA-256 of each row's canonical text.

A sum, so that neither the order of rows nor their batches matter, while a doubled or missing row changes it. The
canonical text of a row is made of its values in the order of their columns' names, NULLs left out, so that a column
that is added later changes no hash. A value is ``name:`` and its kind, then

- ``s<bytes>:<text>`` text, and ``j<bytes>:<text>`` a JSON object or list, keys sorted, no blanks;
- ``i…;`` a whole number, ``f…;`` a JSON fraction, ``b1;`` or ``b0;`` a flag;
- ``n<digits>e<exponent>;`` a decimal, without zeros at the end of its digits;
- ``d…;`` a date in days, ``t…;`` a time in microseconds, both since 1970 in UTC.

Nothing in it depends on how a value is stored: 1.50 and 1.5 are one value, and a JSON number is what it says. This
module is the definition, row by row; ``common/writes/spool/fast_hash.py`` does the same column by column.
"""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any

HASH_MODULUS = 2**256
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EPOCH_DAY = EPOCH.toordinal()
MICROSECOND = timedelta(microseconds=1)
MAX_JSON_DEPTH = 500
"""BigQuery's limit on the nesting of JSON."""


def content_hash(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the content hash of rows as a query returns them: JSON parsed, and no lineage but the data date."""
    return hash_text(sum(int.from_bytes(sha256(canonical_row(row)).digest()) for row in rows))


def hash_text(total: int) -> str:
    """Return a sum of row hashes as 64 hexadecimal digits."""
    return f"{total % HASH_MODULUS:064x}"


def canonical_row(row: Mapping[str, Any]) -> bytes:
    """Return the row's canonical text."""
    return "".join([f"{name}:{canonical_value(row[name])}" for name in sorted(row) if row[name] is not None]).encode()


def canonical_value(value: Any) -> str:
    """Return the canonical text of a value that is not NULL. Raises ValueError for JSON that can't be stored."""
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
    text = json.dumps(parsed_json(json.dumps(value)), ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return f"j{len(text.encode())}:{text}"


def canonical_json(text: str) -> str | None:
    """Return the canonical text of a JSON column's value, None if it is JSON's null. Raises ValueError."""
    value = parsed_json(text)
    return None if value is None else canonical_value(value)


def parsed_json(text: str) -> Any:
    """Parse the text, whole numbers as int: in JSON, 1.0 is 1.

    Raises ValueError for a text that is not JSON, is nested too deep or has a number out of range.
    """
    try:
        value = json.loads(text, parse_float=_fraction, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_JSON_DEPTH} levels") from None
    if text.count("[") + text.count("{") > MAX_JSON_DEPTH and _depth(value) > MAX_JSON_DEPTH:
        raise ValueError(f"nested deeper than {MAX_JSON_DEPTH} levels")
    return value


def _fraction(text: str) -> int | float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError("a number beyond the range of a double")
    return int(number) if number.is_integer() else number


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _depth(value: Any) -> int:
    """Return the nesting depth, level by level: the value may be too deep for recursion."""
    depth, level = 0, [value]
    while level := [part for part in level if isinstance(part, dict | list)]:
        depth += 1
        level = [child for part in level for child in (part.values() if isinstance(part, dict) else part)]
    return depth


def _digits(value: Decimal) -> str:
    sign, digits, exponent = value.as_tuple()
    text = "".join(map(str, digits))
    kept = text.rstrip("0")
    if not kept:
        return "0e0"
    assert isinstance(exponent, int)
    return f"{'-' if sign else ''}{kept.lstrip('0')}e{exponent + len(text) - len(kept)}"
