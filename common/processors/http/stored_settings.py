"""Credentials that are a JSON object: a secret, and the location of the organisation's own data.

Pipelines are the same for every organisation; the bucket or table of a bill is not. So the location is part of the
credential that opens it and is used with no other, so that nobody can name data which only another key may read.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from common.platform.errors import PermanentError, nearest

# A service account's key, the longest usual credential, has about 2,400.
MAX_CHARS = 16_000


class StoredSettings:
    """The fields of one credential. Messages never quote a value: any of them may be the secret."""

    def __init__(self, credential_id: str, secret: str, help_text: str) -> None:
        self._name, self._help = credential_id, help_text
        try:
            values = json.loads(secret) if len(secret) <= MAX_CHARS else None
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            self.wrong("is no JSON object")
        self.values: Mapping[str, Any] = values

    def text(self, name: str, pattern: str = r"[!-~]+") -> str:
        """Return a required field, whose whole text matches the pattern."""
        value = self.optional(name, pattern)
        if value is None:
            close = nearest(name, [key for key in self.values if isinstance(key, str)])
            self.wrong(f"has no {name!r}.{close}")
        return value

    def optional(self, name: str, pattern: str = r"[!-~]+") -> str | None:
        """Return a field as text, or None if it is absent."""
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, str) or not re.fullmatch(pattern, value, re.ASCII):
            self.wrong(f"has in {name!r} what can't be one")
        return value

    def wrong(self, what: str) -> NoReturn:
        """Raise the PermanentError for a credential that can't be used."""
        raise PermanentError(
            f"The credential {self._name!r} {what.rstrip('.')}. {self._help} Replace it: main.py credentials add."
        )
