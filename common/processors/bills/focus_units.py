"""Converts providers' units to FOCUS's Unit Format: ``Hrs`` to Hours, ``GB-Mo`` to GB-Months.

An unknown unit stays as it is, because FOCUS lets the provider name what it counts.
"""

import re
from functools import lru_cache

SIZES = {
    "bit": "b",
    "byte": "B",
    "kilobyte": "KB",
    "megabyte": "MB",
    "gigabyte": "GB",
    "terabyte": "TB",
    "petabyte": "PB",
    "kibibyte": "KiB",
    "mebibyte": "MiB",
    "gibibyte": "GiB",
    "tebibyte": "TiB",
    "pebibyte": "PiB",
} | {size.lower(): size for size in ("KB", "MB", "GB", "TB", "PB", "KiB", "MiB", "GiB", "TiB", "PiB")}

TIMES = {
    "hr": "Hour",
    "hour": "Hour",
    "mo": "Month",
    "month": "Month",
    "day": "Day",
    "min": "Minute",
    "minute": "Minute",
    "sec": "Second",
    "second": "Second",
    "year": "Year",
}

BLOCKS = {"": 1, "k": 1_000, "m": 1_000_000, "b": 1_000_000_000}
WORDS = {"thousand": 1_000, "million": 1_000_000, "billion": 1_000_000_000}

_BLOCK = re.compile(r"(\d{1,12}) ?([kKmMbB]?)(?=$|[ /])", re.ASCII)
_OVER = re.compile(r" per |/", re.IGNORECASE)


@lru_cache(maxsize=1_024)
def focus_unit(text: str) -> str:
    """Return the unit in FOCUS's Unit Format, with the block size of the text: ``1M tokens`` is 1000000 Tokens."""
    rest, block = " ".join(text.split()), 1
    if (match := _BLOCK.match(rest)) is not None:
        rest, block = rest[match.end() :].strip(), int(match[1]) * BLOCKS[match[2].lower()]
    elif (word := rest.partition(" ")[0].lower()) in WORDS:
        rest, block = rest[len(word) :].strip(), WORDS[word]
    unit = _unit(rest)
    return unit if block == 1 else f"{block} {unit}"


def _unit(text: str) -> str:
    what, over, time = _partition(text)
    if over:
        known = _singular(time.strip())
        return f"{_plain(what.strip()) if what.strip() else 'Units'}/{TIMES[known]}" if known in TIMES else text
    what, _, time = text.replace("-", " ").rpartition(" ")
    if what and _singular(time) in TIMES:
        return f"{_plain(what)}-{TIMES[_singular(time)]}s"
    return _plain(text) if text else "Units"


def _partition(text: str) -> tuple[str, str, str]:
    """Split ``GB/Month`` or ``Gigabytes Per Hour`` at the last separator."""
    slashes = list(_OVER.finditer(text))
    return (text[: slashes[-1].start()], "/", text[slashes[-1].end() :]) if slashes else (text, "", "")


def _plain(text: str) -> str:
    name = _singular(text)
    if name in TIMES:
        return f"{TIMES[name]}s"
    if name in SIZES:
        return SIZES[name]
    return text[:1].upper() + text[1:]


def _singular(text: str) -> str:
    return text.lower().removesuffix("s")
