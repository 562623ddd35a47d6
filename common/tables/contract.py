"""Contracts of target tables, read from ``configs/schemas/<table>.yml``."""

from functools import lru_cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError

from common.platform.errors import ConfigError, nearest
from common.platform.strict import StrictModel

ColumnType = Literal["STRING", "INT64", "BIGNUMERIC", "BOOL", "DATE", "TIMESTAMP", "JSON"]

LINEAGE: tuple[tuple[str, ColumnType], ...] = (
    ("x_org_slug", "STRING"),
    ("x_pipeline_id", "STRING"),
    ("x_credential_id", "STRING"),
    ("x_pipeline_run_date", "DATE"),
    ("x_run_id", "STRING"),
    ("x_ingested_at", "TIMESTAMP"),
    ("x_ingestion_date", "DATE"),
)
"""The seven fields of FR-PIP-007, stamped on every output row by the engine."""

DATA_DATE = "x_pipeline_run_date"
"""The one lineage field that the row itself provides: the day it belongs to."""

LINEAGE_TEXTS = {
    "x_org_slug": "Organisation that the row belongs to",
    "x_pipeline_id": "Pipeline that brought the row",
    "x_credential_id": "Credential that it was brought with; none where the pipeline needs none",
    "x_pipeline_run_date": "Day that the row belongs to",
    "x_run_id": "Run that wrote the row",
    "x_ingested_at": "When the row was written: one stamp for each commit",
    "x_ingestion_date": "Day it was written; the table is partitioned by it",
}

Policy = Literal["evolve", "freeze", "discard_value", "discard_row"]
"""What happens to a value that does not fit the contract, or to its row."""


PREVIEW = "__preview_"


class Column(StrictModel):
    """One column: its BigQuery type, whether it may be NULL, and the policy for values of another type."""

    name: str = Field(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$",
        description="Name in BigQuery. Two columns may not differ by case alone.",
    )
    type: ColumnType = Field(description="Type in BigQuery. Money and quantities are BIGNUMERIC, never a float.")
    mode: Literal["NULLABLE", "REQUIRED"] = Field(
        default="NULLABLE",
        description="REQUIRED: a row without a value fails. It can be relaxed later, never tightened.",
    )
    description: str = Field(default="", description="What it holds, for people: it becomes BigQuery's description.")
    policy: Literal["freeze", "discard_value", "discard_row"] = Field(
        default="freeze",
        description="What a value does that is not of the type. freeze: fail the step. discard_value: become NULL. "
        "discard_row: send its row to the quarantine table.",
    )
    currency: str = Field(
        default="",
        description="Of an amount of money: the column that holds its currency. A preview tells the difference in it.",
    )


class Table(StrictModel):
    """A target table without its lineage fields, which every table has.

    ``unknown_columns`` is the policy for columns of rows that the contract does not name.
    """

    table: str = Field(pattern=r"^[a-z][a-z0-9_]{0,127}$", description="Name of the table, and of this file.")
    version: int = Field(
        default=1, strict=True, ge=1, description="Version of the columns: one more with each change of a column."
    )
    description: str = Field(description="What a row is, for people: it becomes BigQuery's description.")
    unknown_columns: Policy = Field(
        default="freeze",
        description="What a column does that rows bring and this file does not name. freeze: fail the step. evolve: be "
        "added as NULLABLE. discard_value: be left out. discard_row: send its rows to the quarantine table.",
    )
    billed: str = Field(
        default="",
        description="Of a table that FOCUS rows are made from: the column whose sum is that of BilledCost. It needs a "
        "currency. main.py conform compares the two.",
    )
    billed_credits: str = Field(
        default="",
        description="The JSON column with a list of credits, each with an `amount`, that are billed beside `billed`.",
    )
    columns: tuple[Column, ...] = Field(min_length=1, description="The columns in order, without the lineage fields.")

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in order, without the lineage fields."""
        return tuple(c.name for c in self.columns)

    @property
    def all_columns(self) -> tuple[Column, ...]:
        """Every column that the table has in BigQuery, in order."""
        lineage = (Column(name=name, type=kind, description=LINEAGE_TEXTS[name]) for name, kind in LINEAGE)
        return (*self.columns, *lineage)

    @property
    def partitioned_by(self) -> str:
        """The column whose days are the table's partitions."""
        return "x_ingestion_date"

    @property
    def clustered_by(self) -> tuple[str, ...]:
        """The clustering columns."""
        return ("x_org_slug", "x_pipeline_id", "x_credential_id", DATA_DATE)


class MetaTable(Table):
    """A table about runs (``configs/schemas/meta/``): the engine writes it, and its rows have no lineage fields."""

    partition_by: str = Field(description="DATE or TIMESTAMP column whose days are the table's partitions.")
    cluster_by: tuple[str, ...] = Field(
        min_length=1, max_length=4, description="Columns that rows lie sorted by: those that queries filter by."
    )

    @property
    def all_columns(self) -> tuple[Column, ...]:
        return self.columns

    @property
    def partitioned_by(self) -> str:
        return self.partition_by

    @property
    def clustered_by(self) -> tuple[str, ...]:
        return self.cluster_by


def preview_name(table: str, run_id: str) -> str:
    """Return the name of the table that a preview writes instead of ``table``."""
    return f"{table}{PREVIEW}{run_id.removeprefix('run_')}"


def _schemas_dir(configs: Path) -> Path:
    return configs / "schemas"


META_PREFIX = "org_meta_"


def load_meta_table(configs: Path, name: str) -> MetaTable:
    """Read the contract of a meta table, or raise ConfigError."""
    path = _schemas_dir(configs) / "meta" / f"{name}.yml"
    try:
        return MetaTable.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise ConfigError(f"schemas/meta/{name}.yml: {error}. See: main.py validate") from error


def every_table(configs: Path) -> list[Table]:
    """Read all contracts, meta tables last. Raises ConfigError."""
    data = [load_table(configs, path.stem) for path in sorted(_schemas_dir(configs).glob("*.yml"))]
    meta = [load_meta_table(configs, path.stem) for path in sorted((_schemas_dir(configs) / "meta").glob("*.yml"))]
    return [*data, *meta]


@lru_cache(maxsize=256)
def load_table(configs: Path, name: str) -> Table:
    """Read a table's contract. Raises ConfigError, which names the nearest known table."""
    path = _schemas_dir(configs) / f"{name}.yml"
    if not path.is_file():
        known = [p.stem for p in _schemas_dir(configs).glob("*.yml")]
        raise ConfigError(
            f"{path}: no contract for table {name!r}.{nearest(name, known)} "
            f"Known: {', '.join(sorted(known)) or 'none'}."
        )
    try:
        table = Table.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except (yaml.YAMLError, ValidationError) as error:
        raise ConfigError(f"{path}: {error}") from error
    reserved = {field for field, _ in LINEAGE} & set(table.names)
    if reserved or table.table != name:
        raise ConfigError(
            f"{path}: the file must declare table {name!r} and none of the lineage fields "
            f"(found {table.table!r}, {sorted(reserved)})."
        )
    return table
