"""Credentials that are a JSON object: a secret and, beside it, where the organisation's own data is.

Pipelines are the same for every organisation; the bucket or table of a bill is not. So it stands in the credential that
opens it, and is used with nothing else.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from common.platform.errors import PermanentError, nearest

MAX_CHARS = 16_000


class StoredSettings:
    """The fields of one credential. No message repeats a value: any of them may be the secret."""

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
        """Return a field that has to be there, as text that matches the pattern whole."""
        text = self.optional(name, pattern)
        if text is None:
            close = nearest(name, [key for key in self.values if isinstance(key, str)])
            self.wrong(f"has no {name!r}.{close}")
        return text

    def optional(self, name: str, pattern: str = r"[!-~]+") -> str | None:
        """Return a field as text, or None if it is not there."""
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, str) or not re.fullmatch(pattern, value, re.ASCII):
            self.wrong(f"has in {name!r} what can't be one")
        return value

    def wrong(self, what: str) -> NoReturn:
        """Raise the PermanentError of a credential that is not as it should be."""
        raise PermanentError(
            f"The credential {self._name!r} {what.rstrip('.')}. {self._help} Replace it: main.py credentials add."
        )
