"""``ExternalBqExtractor``: reads a BigQuery table of another project or dataset, such as Google's billing export.

A row belongs to the day of ``day_column``. The query filters that day and the partitions that can have its rows, and is
read a page at a time. ``ExternalBqChangedDays`` finds rows that arrive after their day.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import Field, StringConstraints, TypeAdapter, ValidationError, ValidationInfo, model_validator

from common.config.yaml_source import read
from common.platform.errors import ConfigError, PermanentError, nearest
from common.ports.google import SourceTable
from common.processors.base import Caller, Params, StepContext, TableParams
from common.processors.clouds.gcp.credential import (
    PLACES,
    GoogleCredential,
    ServiceAccount,
    access_token,
    google_credential,
    table_id,
    unknown_table,
)
from common.processors.sql.computed_columns import Categorise, Computed, Product, Quotient, check_operands
from common.processors.sql.external_sql import ExternalTable
from common.tables.contract import Column, Table, load_table
from common.writes.batch import Batch

GIB = 2**30
BIGQUERY_READ = "https://www.googleapis.com/auth/bigquery.readonly"

FieldPath = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*){0,14}$")]
Columns = Mapping[str, FieldPath | Product | Quotient]
Texts = Annotated[tuple[str, ...], Field(min_length=1, max_length=1_000)]


class ExternalTableParams(Params):
    """Selects a table and its rows. The table's name comes from here or from the credential."""

    project: str | None = Field(None, pattern=f"^{PLACES['project']}$", description="Project of the table.")
    dataset: str | None = Field(None, pattern=f"^{PLACES['dataset']}$", description="Dataset of the table.")
    table: str | None = Field(None, pattern=f"^{PLACES['table']}$", description="Name of the table or view.")
    day_column: FieldPath = Field(description="Field whose UTC day is a row's day.")
    equal: Mapping[FieldPath, Texts] = Field(
        default_factory=dict, description="Only rows with one of these values, by field."
    )
    unequal: Mapping[FieldPath, Texts] = Field(
        default_factory=dict, description="Only rows without these values, by field."
    )
    labels: Mapping[str, Texts] = Field(
        default_factory=dict, description="Only rows with one of these values, by label."
    )
    label_column: FieldPath = Field("labels", description="Repeated field of records with `key` and `value`.")
    max_gib_billed: int = Field(100, ge=1, le=100_000, description="BigQuery refuses a query that would bill more GiB.")

    @property
    def places(self) -> dict[str, str | None]:
        """The parts of the table's name that the step has."""
        return {part: getattr(self, part) for part in PLACES}

    def external_table(self, caller: Caller, credential: GoogleCredential) -> ExternalTable:
        """Read the table's description. Raises PermanentError if no table is named, or it does not exist."""
        name = table_id(credential, self.places)
        if name is None:
            raise PermanentError(unknown_table(caller.credential_id, credential, self.places))
        table = _existing(caller, credential, name)
        if not table.partition:
            caller.info(f"{name} has no partitions (is it a view?): each query reads the whole table.")
        return self.described(name, table)

    def described(self, name: str, table: SourceTable) -> ExternalTable:
        """Return the table with this description and the step's filters."""
        return ExternalTable(name, table, self.day_column, self.equal, self.unequal, self.label_column, self.labels)

    def check_fields(self, external: ExternalTable, day: date, configs: Path) -> list[str]:
        """Return optional fields that the table lacks. Raises PermanentError if a required field is missing."""
        external.rows([], day, day)
        return []


class ExternalBqParams(ExternalTableParams, TableParams):
    """``config:`` of the step."""

    columns: Columns = Field(
        default_factory=dict,
        description="Columns of the destination: the table's field for each by dotted path, or a product or quotient "
        "of two columns. Default: fields of the same names.",
    )
    columns_from: str | None = Field(
        None, pattern=r"^[a-z][a-z0-9_]*$", description="Read columns from configs/system/columns/<name>.yml instead."
    )
    categorise: Categorise | None = Field(None, description="Fill the columns of FOCUS's service categories.")

    units: tuple[str, ...] = Field((), description="Columns of this step with units, to convert to FOCUS's unit names.")

    @model_validator(mode="after")
    def _columns_fit(self, info: ValidationInfo) -> Self:
        if self.columns and self.columns_from:
            raise ValueError("columns and columns_from: use one of the two.")
        if self.columns_from and not (info.context and "configs" in info.context):
            return self  # the configs' folder is unknown here: the step reads the file, with the same checks
        columns = self.all_columns(info.context["configs"] if info.context else Path())
        check_operands(columns)
        for name in self.units:
            if not isinstance(columns.get(name), str):
                raise ValueError(f"units: {name!r} is not a column that this step reads.")
        return self

    def check_fields(self, external: ExternalTable, day: date, configs: Path) -> list[str]:
        columns = _columns(load_table(configs, self.destination_table), self, external.table, configs)
        external.rows(columns, day, day)  # raises for a field that the query can't read
        paths = self.all_columns(configs)
        return [str(paths[column.name]) for column, path in columns if path is None]

    def all_columns(self, configs: Path) -> Columns:
        """Return the columns of the step, or of the file that ``columns_from`` names.

        Raises ValueError if the file is missing or invalid.
        """
        if self.columns_from is None:
            return self.columns
        path = configs / "system" / "columns" / f"{self.columns_from}.yml"
        try:
            return TypeAdapter(dict[str, Columns]).validate_python(read(path, path.name).data)["columns"]
        except (ConfigError, ValidationError, KeyError) as error:
            raise ValueError(f"columns_from: {path.name}: {error}") from None


class ExternalBqExtractor:
    """Reads the days of the run. Raises PermanentError for a missing table or field."""

    params_type: ClassVar[type[Params]] = ExternalBqParams
    needs_credential: ClassVar[bool] = True
    credential_field: ClassVar[str] = ""

    def run(self, context: StepContext, params: ExternalBqParams) -> Iterator[Batch]:
        credential = google_credential(context.credential_id, context.secret())
        external = params.external_table(context, credential)
        contract = load_table(context.configs, params.destination_table)
        columns = _columns(contract, params, external.table, context.configs)
        select = external.rows(columns, context.start_date, context.end_date)
        compute = Computed(context.configs, params.all_columns(context.configs), params.categorise, params.units)
        limit = params.max_gib_billed * GIB
        for rows in context.google().read(credential.key, select.sql, select.params, max_bytes=limit):
            context.remaining_s()  # raises when the attempt's time is over, between pages
            if rows.num_rows:
                yield Batch(compute(rows))
        for line in compute.log_lines():
            context.info(line)

    def try_credential(self, caller: Caller, secret: str, configured: Sequence[Params]) -> str:
        """Get an access token and the description of each table that steps read with this credential.

        Tables are checked if the configs or the credential name them in full. Raises as ``run`` does.
        """
        credential = google_credential(caller.credential_id, secret)
        opened = ["the function's own identity"]
        if credential.key is not None:
            account = ServiceAccount.of(credential.key, caller.credential_id)
            access_token(caller, account.key, (BIGQUERY_READ,))
            opened = [f"service account {account.email}"]
        by_table: dict[str | None, list[ExternalTableParams]] = {}
        for params in configured:
            if isinstance(params, ExternalTableParams):
                by_table.setdefault(table_id(credential, params.places), []).append(params)
        opened += [
            _check_table(caller, credential, name, steps) for name, steps in by_table.items() if name is not None
        ]
        if credential.key is None and len(opened) == 1:
            return f"{opened[0]}: nothing to check"
        if None in by_table:
            opened.append("no table was checked, because neither the credential nor a config names one in full")
        return "; ".join(opened)


def _existing(caller: Caller, credential: GoogleCredential, name: str) -> SourceTable:
    table = caller.google().find_table(credential.key, name)
    if table is None:
        raise PermanentError(
            f"There is no table {name}. A billing export appears some hours after it is enabled; "
            "otherwise check the names."
        )
    return table


def _check_table(caller: Caller, credential: GoogleCredential, name: str, steps: Sequence[ExternalTableParams]) -> str:
    """Get a table's description, which is a free call, and compare it with the fields that the steps read."""
    table = _existing(caller, credential, name)
    day = caller.now().date()
    missing = dict.fromkeys(
        field for step in steps for field in step.check_fields(step.described(name, table), day, caller.configs)
    )
    text = f"{name}: {len(table.fields)} fields, partitioned by {table.partition or 'nothing'}"
    if missing:
        text += f", without {', '.join(missing)} (their columns stay NULL)"
    return text


def _columns(
    contract: Table, params: ExternalBqParams, table: SourceTable, configs: Path
) -> list[tuple[Column, str | None]]:
    """Return each column that is read, with its field in the table.

    A table may lack fields that newer ones have: Google has added fields to its export several times. The column is
    then NULL if the contract allows it.
    """
    known = {column.name: column for column in contract.columns}
    paths = params.all_columns(configs) or {name: name for name in known}
    selected: list[tuple[Column, str | None]] = []
    for name, path in paths.items():
        if name not in known:
            raise PermanentError(f"columns.{name}: table {contract.table} has no such column.{nearest(name, known)}")
        if not isinstance(path, str):
            continue
        exists = path in table.fields
        if not exists and known[name].mode == "REQUIRED":
            raise PermanentError(
                f"The table has no field {path!r}, which {name} needs.{nearest(path, table.fields)} "
                "Is it the export that the step's config is for?"
            )
        selected.append((known[name], path if exists else None))
    return selected
