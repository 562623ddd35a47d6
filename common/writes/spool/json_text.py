"""The text that BigQuery makes of a JSON value: what ``TO_JSON_STRING(PARSE_JSON(text, 'round'))`` returns.

Keys are sorted, of a key that comes twice the first one counts, and numbers are 64-bit integers or doubles. The spool
stores this text, so that the warehouse and the emulator hold the same, and the content hash is of it (``hashing.py``).
"""

import json
import struct
from collections.abc import Iterable
from functools import cache
from typing import Any

MAX_JSON_DEPTH = 500
"""BigQuery's limit on the nesting of JSON."""

FEWEST_DIGITS = -4
MOST_DIGITS = 15
"""Numbers whose decimal point lies within these digits are printed without an exponent."""


def json_text(text: str) -> str:
    """Return BigQuery's text of a JSON value.

    Raises ValueError for a text that is not JSON, is nested too deep or has a number beyond a double.
    """
    try:
        value = json.loads(
            text, parse_int=_whole, parse_float=_Double, parse_constant=_no_constant, object_pairs_hook=_first_wins
        )
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_JSON_DEPTH} levels") from None
    if text.count("[") + text.count("{") > MAX_JSON_DEPTH and _depth(value) > MAX_JSON_DEPTH:
        raise ValueError(f"nested deeper than {MAX_JSON_DEPTH} levels")
    try:
        written = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    except TypeError:  # a double, which the standard library would write its own way
        written = _written(value)
    written.encode()  # raises for a lone surrogate
    return written


class _Double:
    """A fraction. Not a float, so that ``json.dumps`` stops at it."""

    def __init__(self, text: str) -> None:
        self.text = double_text(float(text))


def _whole(text: str) -> "int | _Double":
    number = int(text)
    return number if -(2**63) <= number < 2**64 else _Double(text)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _first_wins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(reversed(pairs))


def _written(value: Any) -> str:
    match value:
        case _Double():
            return value.text
        case dict():
            return "{" + ",".join([f"{_written(key)}:{_written(value[key])}" for key in sorted(value)]) + "}"
        case list():
            return "[" + ",".join([_written(item) for item in value]) + "]"
    return json.dumps(value, ensure_ascii=False)


def _depth(value: Any) -> int:
    """Return the nesting depth, level by level: the value may be too deep for recursion."""
    depth, level = 0, [value]
    while level := [part for part in level if isinstance(part, dict | list)]:
        depth += 1
        level = [child for part in level for child in _children(part)]
    return depth


def _children(part: Any) -> Iterable[Any]:
    return part.values() if isinstance(part, dict) else part


def double_text(value: float) -> str:
    """Return a double as BigQuery's JSON prints it. Raises ValueError for infinity."""
    if value in (float("inf"), float("-inf")):
        raise ValueError("a number beyond the range of a double")
    sign = "-" if struct.pack(">d", value)[0] >> 7 else ""
    if value == 0:
        return f"{sign}0.0"
    digits, exponent = _grisu2(abs(value))
    point = len(digits) + exponent  # how many digits stand before the decimal point
    if len(digits) <= point <= MOST_DIGITS:
        return f"{sign}{digits}{'0' * exponent}.0"
    if 0 < point <= MOST_DIGITS:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if FEWEST_DIGITS < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    fraction = f".{digits[1:]}" if digits[1:] else ""
    return f"{sign}{digits[0]}{fraction}e{'-' if point < 1 else '+'}{abs(point - 1):02}"


def _grisu2(value: float) -> tuple[str, int]:
    """Return digits and decimal exponent by Grisu2 (F. Loitsch, PLDI 2010), the algorithm of ZetaSQL's JSON library.

    Python's ``repr`` is always the shortest text; Grisu2 is not for one double in a thousand (1e23 becomes
    9.999999999999999e+22), and the hash is of the very text.
    """
    bits = struct.unpack(">Q", struct.pack(">d", value))[0]
    biased, fraction = bits >> 52, bits & (2**52 - 1)
    significand, exponent = (fraction, -1074) if not biased else (fraction | 2**52, biased - 1075)
    closer = not fraction and biased > 1  # the neighbour below is half as far away
    upper, top = _normalised(2 * significand + 1, exponent - 1)
    lower = (4 * significand - 1) << (exponent - 2 - top) if closer else (2 * significand - 1) << (exponent - 1 - top)
    middle, _ = _normalised(significand, exponent)

    scale = -61 - top
    estimate = abs(scale) * 78913 >> 18  # of log10(2), rounded towards zero
    power = -300 + 8 * ((307 + (estimate + 1 if scale > 0 else -estimate)) // 8)
    factor, factor_exponent = _power_of_ten(power)
    low, mid, high = (((number * factor + 2**63) >> 64) for number in (lower, middle, upper))
    low, high = low + 1, high - 1
    shift = -(top + factor_exponent + 64)
    delta, distance, one = high - low, high - mid, 1 << shift

    whole, rest = high >> shift, high & (one - 1)
    digits = str(whole)
    for kept in range(1, len(digits) + 1):
        left = len(digits) - kept
        over = (whole % 10**left << shift) + rest
        if over <= delta:
            return _rounded(digits[:kept], distance, delta, over, 10**left << shift), left - power
    while True:
        rest, delta, distance, power = rest * 10, delta * 10, distance * 10, power + 1
        digits, rest = digits + str(rest >> shift), rest & (one - 1)
        if rest <= delta:
            return _rounded(digits, distance, delta, rest, one), -power


def _rounded(digits: str, distance: int, delta: int, rest: int, unit: int) -> str:
    """Lower the last digit while that comes nearer to the number."""
    last = int(digits[-1])
    while (
        rest < distance
        and delta - rest >= unit
        and (rest + unit < distance or distance - rest > rest + unit - distance)
    ):
        last, rest = last - 1, rest + unit
    return digits[:-1] + str(last)


def _normalised(significand: int, exponent: int) -> tuple[int, int]:
    shift = 64 - significand.bit_length()
    return significand << shift, exponent - shift


@cache
def _power_of_ten(power: int) -> tuple[int, int]:
    """Return 10^power as a significand of 64 bits, rounded, and its binary exponent."""
    numerator, denominator = 10 ** max(power, 0), 10 ** max(-power, 0)
    exponent = numerator.bit_length() - denominator.bit_length() - 64
    up, down = max(-exponent, 0), max(exponent, 0)
    significand = ((numerator << up + 1) // (denominator << down) + 1) >> 1
    if significand.bit_length() > 64:
        return ((numerator << up) // (denominator << down) + 1) >> 1, exponent + 1
    if significand.bit_length() < 64:
        return ((numerator << up + 2) // (denominator << down) + 1) >> 1, exponent - 1
    return significand, exponent
