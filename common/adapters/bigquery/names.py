"""Ids, labels and parameters in the forms that BigQuery accepts, or an error."""

import re
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from common.platform.errors import PermanentError

if TYPE_CHECKING:
    from google.cloud import bigquery

TABLE_ID = re.compile(r"[a-z][a-z0-9-]{4,28}[a-z0-9]\.[A-Za-z0-9_]{1,1024}\.[A-Za-z0-9_]{1,1024}")
COLUMN = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,299}")
MAX_ID_CHARS = 1024


def checked(table_id: str) -> str:
    """Return the id of a table or procedure (``project.dataset.name``). Raises PermanentError for any other form."""
    if not TABLE_ID.fullmatch(table_id):
        raise PermanentError(f"{table_id!r} is not a table id of the form project.dataset.name.")
    return table_id


def quoted(table_id: str) -> str:
    """Return the checked id as SQL."""
    return f"`{checked(table_id)}`"


def ledger_of(target: str) -> str:
    """Return the id of a table's ledger of commits."""
    return f"{target}__commits"


def quarantine_of(target: str) -> str:
    """Return the id of the table with the rows that were left out of a table."""
    return f"{target}__quarantine"


def beside(target: str) -> tuple[str, str]:
    """Return the ids of the permanent tables that belong to a table: its ledger and its quarantine."""
    return ledger_of(target), quarantine_of(target)


def column(name: str) -> str:
    """Return a column's name as SQL."""
    if not COLUMN.fullmatch(name):
        raise PermanentError(f"{name!r} is not a column's name: letters, digits and '_', and no digit first.")
    return f"`{name}`"


def safe_job_id(text: str) -> str:
    """Return the text as a job id: unchanged if valid, else with a hash, so that no two texts share an id."""
    if re.fullmatch(rf"[A-Za-z0-9_-]{{1,{MAX_ID_CHARS}}}", text):
        return text
    return f"{re.sub(r'[^A-Za-z0-9_-]', '_', text)[:900]}_{sha256(text.encode()).hexdigest()}"


def label(text: str) -> str:
    """Return the text as a label's value: lower case, at most 63 characters."""
    return re.sub(r"[^a-z0-9_-]", "_", text.lower())[:63]


def parameters(values: Mapping[str, Any]) -> list["bigquery.ScalarQueryParameter"]:
    """Return named query parameters."""
    from google.cloud import bigquery

    return [bigquery.ScalarQueryParameter(name, _parameter_type(value), value) for name, value in values.items()]


def _parameter_type(value: Any) -> str:
    match value:
        case bool():
            return "BOOL"
        case int():
            return "INT64"
        case Decimal():
            return "BIGNUMERIC"
        case datetime():
            return "TIMESTAMP"
        case date():
            return "DATE"
        case None | str():
            return "STRING"
    raise PermanentError(f"A {type(value).__name__} can't be a query parameter.")
