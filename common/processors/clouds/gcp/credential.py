"""The credential of a Google Cloud organisation: a service account's key and where its data is, or our own identity."""

import json
from dataclasses import dataclass
from typing import Any

from common.platform.errors import PermanentError
from common.processors.base import StepContext
from common.processors.http.stored_settings import StoredSettings

HELP = (
    'Paste the JSON key of a service account, or {"service_account": {…}, "project": …, "dataset": …, "table": …}, '
    'or {"type": "application_default"} to read in the name of the function.'
)

PLACES = {
    "project": r"[a-z][a-z0-9-]{4,28}[a-z0-9]",
    "dataset": r"[A-Za-z0-9_]{1,1024}",
    "table": r"[A-Za-z0-9_]{1,1024}",
}
"""What names a table in BigQuery. They become a part of SQL."""


@dataclass(frozen=True, slots=True)
class GoogleCredential:
    """``key`` is a service account's JSON, None for the function's own identity; ``places`` are those of its data."""

    key: str | None
    places: dict[str, str]


def google_credential(credential_id: str, secret: str) -> GoogleCredential:
    """Read a credential. Raises PermanentError in words.

    Our own identity may see what other organisations have opened for it too. So it is never led by what a credential
    says: what it reads has to stand in the step's config, which operators write.
    """
    stored = StoredSettings(credential_id, secret, HELP)
    kind = stored.values.get("type")
    if kind == "application_default":
        if set(stored.values) != {"type"}:
            stored.wrong("names the function's own identity, and more: what that reads stands in the step's config")
        return GoogleCredential(None, {})
    key: Any = stored.values  # the key's file as Google gives it
    places: dict[str, str] = {}
    if kind != "service_account":
        key = stored.values.get("service_account")
        places = {name: value for name, pattern in PLACES.items() if (value := stored.optional(name, pattern))}
    if not isinstance(key, dict) or key.get("type") != "service_account":
        # Other types of credential files can name a command to run or an address to ask.
        stored.wrong("holds no key of a service account")
    return GoogleCredential(json.dumps(key), places)


def table_id(context: StepContext, credential: GoogleCredential, configured: dict[str, str | None]) -> str:
    """Return ``project.dataset.table``: each part from the step's config, else from the credential."""
    parts = {name: configured[name] or credential.places.get(name) for name in PLACES}
    missing = [name for name, value in parts.items() if value is None]
    if missing:
        raise PermanentError(
            f"Which table is to be read? Neither the step's config nor the credential {context.credential_id!r} names "
            f"its {', '.join(missing)}. {HELP}"
        )
    return ".".join(str(value) for value in parts.values())
