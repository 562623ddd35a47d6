"""``ExternalBqExtractor``: rows of another project's or dataset's table in BigQuery, such as Google's billing export.

A row belongs to the day of ``day_column``. The table is read with filters on that day and on the partitions in which
such rows can be, a page at a time. Rows that come later than their day are found by ``ExternalBqChangedDays``.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import Field, StringConstraints, TypeAdapter, ValidationError, ValidationInfo, model_validator

from common.config.yaml_source import read
from common.platform.errors import ConfigError, PermanentError, nearest
from common.ports.google import SourceTable
from common.processors.base import Params, StepContext, TableParams
from common.processors.clouds.gcp.credential import PLACES, GoogleCredential, google_credential, table_id
from common.processors.sql.computed_columns import Categorise, Computed, Product, Quotient, check_operands
from common.processors.sql.external_sql import Source
from common.tables.contract import Column, Table, load_table
from common.writes.batch import Batch

GIB = 2**30

FieldPath = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*){0,14}$")]
Columns = Mapping[str, FieldPath | Product | Quotient]
Texts = Annotated[tuple[str, ...], Field(min_length=1, max_length=1_000)]


class ExternalTableParams(Params):
    """Which rows of which table. Where the table is stands here or in the credential."""

    project: str | None = Field(None, pattern=f"^{PLACES['project']}$", description="Project of the table.")
    dataset: str | None = Field(None, pattern=f"^{PLACES['dataset']}$", description="Dataset of the table.")
    table: str | None = Field(None, pattern=f"^{PLACES['table']}$", description="Name of the table or view.")
    day_column: FieldPath = Field(description="Field whose UTC day is the day a row belongs to.")
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
    max_gib_billed: int = Field(100, ge=1, le=100_000, description="A query that would read more is refused.")

    def source(self, context: StepContext, credential: GoogleCredential) -> Source:
        """Look at the table. Raises PermanentError if it is not there."""
        name = table_id(context, credential, {part: getattr(self, part) for part in PLACES})
        table = context.google().find_table(credential.key, name)
        if table is None:
            raise PermanentError(
                f"There is no table {name}. A billing export takes some hours after it was switched on; "
                "else check the names."
            )
        if not table.partition:
            context.info(f"{name} has no partitions (a view?): each query reads all of it.")
        return Source(name, table, self.day_column, self.equal, self.unequal, self.label_column, self.labels)


class ExternalBqParams(ExternalTableParams, TableParams):
    """``config:`` of the step."""

    columns: Columns = Field(
        default_factory=dict,
        description="Columns of the destination: the table's field for each by dotted path, or a product or quotient "
        "of two; the columns of the same names if left out.",
    )
    columns_from: str | None = Field(
        None, pattern=r"^[a-z][a-z0-9_]*$", description="Take them from configs/system/columns/<this>.yml instead."
    )
    categorise: Categorise | None = Field(None, description="Fill the columns of FOCUS's service categories.")

    units: tuple[str, ...] = Field((), description="Columns of this step with units, to be said in FOCUS's words.")

    @model_validator(mode="after")
    def _columns_fit(self, info: ValidationInfo) -> Self:
        if self.columns and self.columns_from:
            raise ValueError("columns and columns_from: name one of the two.")
        if self.columns_from and not (info.context and "configs" in info.context):
            return self  # nobody said where configs are: the step itself reads the file, with the same checks
        columns = self.all_columns(info.context["configs"] if info.context else Path())
        check_operands(columns)
        for name in self.units:
            if not isinstance(columns.get(name), str):
                raise ValueError(f"units: {name!r} is no column of this step that is read.")
        return self

    def all_columns(self, configs: Path) -> Columns:
        """Return the columns of the step, or of the file that ``columns_from`` names.

        Raises ValueError for a file that is missing or wrong.
        """
        if self.columns_from is None:
            return self.columns
        path = configs / "system" / "columns" / f"{self.columns_from}.yml"
        try:
            return TypeAdapter(dict[str, Columns]).validate_python(read(path, path.name).data)["columns"]
        except (ConfigError, ValidationError, KeyError) as error:
            raise ValueError(f"columns_from: {path.name}: {error}") from None


class ExternalBqExtractor:
    """Reads the days of the run. Raises PermanentError for a table or field that is not there."""

    params_type: ClassVar[type[Params]] = ExternalBqParams
    needs_credential: ClassVar[bool] = True

    def run(self, context: StepContext, params: ExternalBqParams) -> Iterator[Batch]:
        credential = google_credential(context.credential_id, context.secret())
        source = params.source(context, credential)
        contract = load_table(context.configs, params.destination_table)
        select = source.rows(
            _columns(contract, params, source.table, context.configs), context.start_date, context.end_date
        )
        compute = Computed(context.configs, params.all_columns(context.configs), params.categorise, params.units)
        limit = params.max_gib_billed * GIB
        for rows in context.google().read(credential.key, select.sql, select.params, max_bytes=limit):
            context.remaining_s()
            if rows.num_rows:
                yield Batch(compute(rows))
        for text in compute.told():
            context.info(text)


def check(context: StepContext, params: ExternalTableParams) -> str:
    """Ask for the table's description, the least there is to ask; return what was found. Raises as ``run`` does."""
    source = params.source(context, google_credential(context.credential_id, context.secret()))
    return f"{source.table_id}: {len(source.table.fields)} fields, partitioned by {source.table.partition or 'nothing'}"


def _columns(
    contract: Table, params: ExternalBqParams, table: SourceTable, configs: Path
) -> list[tuple[Column, str | None]]:
    """Each column that is read, with the table's field for it.

    A table may lack fields that a newer one has (Google's has got new ones again and again). Where the contract allows
    it, the column is then NULL.
    """
    known = {column.name: column for column in contract.columns}
    paths = params.all_columns(configs) or {name: name for name in known}
    found: list[tuple[Column, str | None]] = []
    for name, path in paths.items():
        if name not in known:
            raise PermanentError(f"columns.{name}: table {contract.table} has no such column.{nearest(name, known)}")
        if not isinstance(path, str):
            continue
        is_there = path in table.fields
        if not is_there and known[name].mode == "REQUIRED":
            raise PermanentError(
                f"The table has no field {path!r}, which {name} needs.{nearest(path, table.fields)} "
                "Is it the export that the step's config is for?"
            )
        found.append((known[name], path if is_there else None))
    return found
