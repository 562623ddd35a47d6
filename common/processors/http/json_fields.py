"""Typed access to a provider's JSON: a value of the expected type, or an error with its path."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

from common.platform.errors import TransientError

MOST = Decimal(10) ** 30
"""No provider counts this far: a larger number is a fault, and must not become a row."""
MAX_TEXT = 1_000
# No amount has so many digits: a longer text is a fault.
MAX_NUMBER_TEXT = 100


@dataclass(frozen=True, slots=True)
class Fields:
    """A JSON object and its path in the response. Unknown fields are ignored; null means absent.

    Every method raises TransientError with the field's path if the value is not of the expected type. Transient,
    because the next response may be well-formed again; no row of this one has been written.
    """

    source: str
    path: str
    values: Mapping[str, Any]
    limit: int = MAX_TEXT

    @classmethod
    def of(cls, value: Any, source: str, path: str = "", *, limit: int = MAX_TEXT) -> "Fields":
        """Wrap ``value``, which must be an object; its texts may have at most ``limit`` characters."""
        if not isinstance(value, dict):
            _wrong(source, path or "the answer", "an object", value)
        return cls(source, path, value, limit)

    def objects(self, name: str) -> list["Fields"]:
        """Return a required list of objects."""
        items = self.values.get(name)
        if not isinstance(items, list):
            self.wrong(name, "a list")
        return [Fields.of(item, self.source, f"{self._at(name)}[{n}]") for n, item in enumerate(items)]

    def whole(self, name: str) -> int:
        """Return a required whole number that is not negative."""
        value = self.optional_whole(name)
        return self.wrong(name, "a whole number") if value is None else value

    def optional_whole(self, name: str) -> int | None:
        """Return a whole number that is not negative, or None."""
        value = self.values.get(name)
        if value is None:
            return None
        # bool is an int in Python: true would count as 1.
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST:
            self.wrong(name, "a whole number that is not negative")
        return value

    def number(self, name: str) -> Decimal:
        """Return a required number that is not negative, with all its digits."""
        value = self.values.get(name)
        if isinstance(value, bool) or not isinstance(value, int | Decimal) or not 0 <= value <= MOST:
            self.wrong(name, "a number that is not negative")
        return Decimal(value)

    def optional_number(self, name: str) -> Decimal | None:
        """Return a number that is not negative, or None."""
        return None if self.values.get(name) is None else self.number(name)

    def amount(self, name: str) -> Decimal:
        """Return a required amount of money, given as number or text, with all its digits; credits are negative."""
        value = self.values.get(name)
        # Decimal() would also accept "1_000" and digits of other scripts, which no provider sends.
        if isinstance(value, str) and len(value) <= MAX_NUMBER_TEXT and value.isascii() and "_" not in value:
            try:
                value = Decimal(value)
            except InvalidOperation:
                self.wrong(name, "an amount")
        if isinstance(value, bool) or not isinstance(value, int | Decimal):
            self.wrong(name, "an amount")
        exact = Decimal(value)
        if not exact.is_finite() or abs(exact) > MOST:
            self.wrong(name, "an amount")
        return exact

    def time(self, name: str) -> datetime:
        """Return a required RFC 3339 time, in UTC."""
        value = self.values.get(name)
        try:
            moment = datetime.fromisoformat(value) if isinstance(value, str) else None
            if moment is None or moment.tzinfo is None:
                self.wrong(name, "a time such as 2026-10-01T00:00:00Z")
            return moment.astimezone(UTC)
        except (ValueError, OverflowError):
            self.wrong(name, "a time such as 2026-10-01T00:00:00Z")

    def unix_time(self, name: str) -> datetime:
        """Return a required time in whole unix seconds, as a datetime in UTC."""
        try:
            return datetime.fromtimestamp(self.whole(name), UTC)
        except (ValueError, OverflowError, OSError):
            self.wrong(name, "unix seconds")

    def object(self, name: str) -> "Fields":
        """Return a required object."""
        return Fields.of(self.values.get(name), self.source, self._at(name))

    def optional_object(self, name: str) -> "Fields | None":
        """Return an object, or None."""
        return None if self.values.get(name) is None else self.object(name)

    def required(self, name: str) -> str:
        """Return a required text."""
        return self.text(name) or self.wrong(name, "a text")

    def text(self, name: str) -> str | None:
        """Return a text, or None."""
        value = self.values.get(name)
        if value is not None and not (isinstance(value, str) and len(value) <= self.limit and _is_utf8(value)):
            self.wrong(name, f"a text of at most {self.limit} characters")
        return value

    def flag(self, name: str) -> bool | None:
        """Return true, false, or None."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, bool):
            self.wrong(name, "true or false")
        return value

    def refuse_partial(self, *names: str) -> None:
        """Raise TransientError if one of these fields, by which a list API reports what it left out, is filled.

        Taken as whole, such an answer is a cost that is too low, and deletes rows that were right.
        """
        for name in names:
            if value := self.values.get(name):
                entries = len(value) if isinstance(value, list) else 1
                raise TransientError(
                    f"{self.source}: the answer is partial: {self._at(name)} is filled ({entries} entries). Nothing of "
                    "it is used; the next attempt reads it again."
                )

    def wrong(self, name: str, expected: str) -> NoReturn:
        """Raise the TransientError for a field that is not as expected."""
        _wrong(self.source, self._at(name), expected, self.values.get(name))

    def _at(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name


def _is_utf8(text: str) -> bool:
    """JSON can escape half a surrogate pair, which no column of BigQuery can hold."""
    return text.encode("utf-8", "replace").decode() == text


def _wrong(source: str, path: str, expected: str, value: Any) -> NoReturn:
    shown = type(value).__name__ if isinstance(value, dict | list) else repr(value)[:60]
    raise TransientError(
        f"{source}: unexpected answer: {path} is {shown}, expected {expected}. It is read again in the next attempt; "
        "if that stays so, the provider has changed its API."
    )
