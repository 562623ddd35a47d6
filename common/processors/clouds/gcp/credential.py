"""Credentials for Google Cloud: a service account's key with the location of its data, or our own identity."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from common.platform.errors import PermanentError
from common.processors.base import Caller
from common.processors.http.stored_settings import StoredSettings

HELP = (
    'Paste the JSON key of a service account, or {"service_account": {…}, "project": …, "dataset": …, "table": …}, '
    'or {"type": "application_default"} to read in the name of the function.'
)
KEY_HELP = "It has to be the JSON key of a service account that is enabled. Replace it: main.py credentials add."

PLACES = {
    "project": r"[a-z][a-z0-9-]{4,28}[a-z0-9]",
    "dataset": r"[A-Za-z0-9_]{1,1024}",
    "table": r"[A-Za-z0-9_]{1,1024}",
}
"""Parts of a BigQuery table's name. They become part of SQL text, so each must match its pattern."""


@dataclass(frozen=True, slots=True)
class GoogleCredential:
    """``key`` is a service account's JSON, None for the function's own identity; ``places`` locate its data."""

    key: str | None
    places: dict[str, str]


def google_credential(credential_id: str, secret: str) -> GoogleCredential:
    """Parse a credential. Raises PermanentError if it is not valid.

    Our own identity may also see tables that other organisations have shared with it. So an organisation's credential
    must never choose what it reads: the step's config does, which operators write.
    """
    stored = StoredSettings(credential_id, secret, HELP)
    kind = stored.values.get("type")
    if kind == "application_default":
        if set(stored.values) != {"type"}:
            stored.wrong("names the function's own identity, and more: only the step's config may name what that reads")
        return GoogleCredential(None, {})
    key: Any = stored.values  # the key's file as Google gives it
    places: dict[str, str] = {}
    if kind != "service_account":
        key = stored.values.get("service_account")
        places = {name: value for name, pattern in PLACES.items() if (value := stored.optional(name, pattern))}
    if not isinstance(key, dict) or key.get("type") != "service_account":
        # Other types of credential files can name a command to run or an address to send tokens to.
        stored.wrong("holds no key of a service account")
    return GoogleCredential(json.dumps(key), places)


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """A service account. ``key`` is the text of its key file."""

    email: str
    project_id: str
    key: str = field(repr=False)

    @classmethod
    def of(cls, key: str, credential_id: str) -> "ServiceAccount":
        """Parse a key file, or raise PermanentError, which quotes nothing of it."""
        try:
            data: Any = json.loads(key)
            fields = [data[name] for name in ("client_email", "project_id", "private_key_id", "private_key")]
        except (ValueError, KeyError, TypeError, RecursionError):
            fields = []
        if not fields or not all(isinstance(value, str) and value for value in fields):
            raise PermanentError(
                f"The credential {credential_id!r} is not the JSON key of a Google service account. {KEY_HELP}"
            )
        return cls(fields[0], fields[1], key)


def access_token(caller: Caller, key: str | None, scopes: Sequence[str]) -> str:
    """Return a token for a service account's key, or for our own identity if None. Raises what GoogleCloud raises."""
    try:
        return caller.google().token(key, scopes, timeout_s=caller.remaining_s())
    except PermanentError as error:
        if key is None:
            raise
        raise PermanentError(f"The credential {caller.credential_id!r}: {error} {KEY_HELP}") from None


def table_id(credential: GoogleCredential, configured: Mapping[str, str | None]) -> str | None:
    """Return ``project.dataset.table``, each part from the step's config or else the credential; None if incomplete."""
    parts = [configured[name] or credential.places.get(name) for name in PLACES]
    return None if None in parts else ".".join(str(part) for part in parts)


def unknown_table(credential_id: str, credential: GoogleCredential, configured: Mapping[str, str | None]) -> str:
    """Return the message for a table whose name is incomplete."""
    missing = [name for name in PLACES if not (configured[name] or credential.places.get(name))]
    return (
        f"Which table is to be read? Neither the step's config nor the credential {credential_id!r} names "
        f"its {', '.join(missing)}. {HELP}"
    )
