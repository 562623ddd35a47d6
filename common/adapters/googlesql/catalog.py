"""What a statement can name: tables with their columns, INFORMATION_SCHEMA, procedures, and the variables in scope."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from common.adapters.googlesql.options import language_options
from common.adapters.googlesql.service import SqlError, service

Columns = tuple[tuple[str, str], ...]
"""Names and types of columns, as SQL writes the types."""

PARTITION_COLUMNS: Columns = (("_PARTITIONTIME", "TIMESTAMP"), ("_PARTITIONDATE", "DATE"))
"""Pseudo columns of a table that is partitioned by ingestion time: ``SELECT *`` leaves them out."""

INFORMATION_SCHEMA: Mapping[str, Columns] = {
    "TABLES": (
        *((name, "STRING") for name in ("table_catalog", "table_schema", "table_name", "table_type")),
        *(
            (name, "STRING")
            for name in ("managed_table_type", "is_insertable_into", "is_fine_grained_mutations_enabled")
        ),
        *((name, "STRING") for name in ("is_typed", "is_change_history_enabled")),
        ("creation_time", "TIMESTAMP"),
        *((name, "STRING") for name in ("base_table_catalog", "base_table_schema", "base_table_name")),
        ("snapshot_time_ms", "TIMESTAMP"),
        ("ddl", "STRING"),
        ("default_collation_name", "STRING"),
        ("upsert_stream_apply_watermark", "TIMESTAMP"),
    ),
    "COLUMNS": (
        *((name, "STRING") for name in ("table_catalog", "table_schema", "table_name", "column_name")),
        ("ordinal_position", "INT64"),
        *((name, "STRING") for name in ("is_nullable", "data_type", "is_generated", "generation_expression")),
        *((name, "STRING") for name in ("is_stored", "is_hidden", "is_updatable", "is_system_defined")),
        ("is_partitioning_column", "STRING"),
        ("clustering_ordinal_position", "INT64"),
        *((name, "STRING") for name in ("collation_name", "column_default", "rounding_mode", "policy_tags")),
    ),
    "PARTITIONS": (
        *((name, "STRING") for name in ("table_catalog", "table_schema", "table_name", "partition_id")),
        *((name, "INT64") for name in ("total_rows", "total_logical_bytes", "total_billable_bytes")),
        ("last_modified_time", "TIMESTAMP"),
        ("storage_tier", "STRING"),
    ),
}
"""Columns of the views of a dataset's INFORMATION_SCHEMA that are known here, by BigQuery's documentation."""

SYSTEM_VARIABLES: Columns = (
    *((f"error.{name}", "STRING") for name in ("message", "statement_text", "formatted_stack_trace")),
    *((name, "STRING") for name in ("project_id", "dataset_id", "time_zone", "session_id", "current_job_id")),
    *((name, "STRING") for name in ("last_job_id", "script.job_id", "query_label")),
    *((name, "INT64") for name in ("row_count", "script.bytes_billed", "script.bytes_processed", "script.slot_ms")),
)

SIMPLE = re.compile(r"[A-Z][A-Z0-9]*")
ALIASES = {"INTEGER": "INT64", "FLOAT64": "DOUBLE", "FLOAT": "DOUBLE", "BOOLEAN": "BOOL", "DECIMAL": "NUMERIC"}


@dataclass(eq=False, slots=True)
class Variable:
    """A variable of a script, or an argument of a procedure. ``value`` is None where it is not known before a run."""

    name: str
    type: Any
    value: Any = None


@dataclass(slots=True)
class Procedure:
    """A procedure's arguments as names and types, and its body where the script itself has created it."""

    arguments: Columns
    body: Any = None


def _nothing(_: str) -> None:
    return None


@dataclass(slots=True)
class Catalog:
    """Tables and procedures by their full names, ``project.dataset.name``. DDL in a script changes its copy alone.

    ``find`` and ``find_procedure`` look up what was there before; ``dataset`` completes shorter names. ``listed`` are
    the tables' names for SQL that asks INFORMATION_SCHEMA.TABLES; None if they are known to a run alone.
    """

    find: Callable[[str], Columns | None] = _nothing
    find_procedure: Callable[[str], Columns | None] = _nothing
    project: str = "project"
    dataset: str = ""
    listed: tuple[str, ...] | None = None
    _made: dict[str, Columns | None] = field(default_factory=dict)
    _procedures: dict[str, Procedure] = field(default_factory=dict)

    def copy(self) -> "Catalog":
        """Return a catalog whose changes do not come back to this one."""
        return replace(self, _made=dict(self._made), _procedures=dict(self._procedures))

    def full_name(self, path: Sequence[str]) -> str:
        """Return a path of names as ``project.dataset.name``; a temporary table has one name alone."""
        parts = ".".join(path).split(".")
        if len(parts) == 1 and self.dataset and parts[0] not in self._made:
            parts = [*self.dataset.split("."), *parts]
        return ".".join([self.project, *parts] if len(parts) == 2 else parts)

    def columns(self, path: Sequence[str]) -> Columns | None:
        """Return the columns of a table, or None if there is no such table."""
        parts = ".".join(path).split(".")
        if "INFORMATION_SCHEMA" in parts:
            return INFORMATION_SCHEMA.get(parts[-1])
        name = self.full_name(path)
        return self._made[name] if name in self._made else self.find(name)

    def rows(self, path: Sequence[str]) -> list[dict[str, Any]] | None:
        """Return the rows of a table that are known before a run: those of INFORMATION_SCHEMA.TABLES."""
        if self.listed is None or list(path[-2:]) != ["INFORMATION_SCHEMA", "TABLES"]:
            return None
        return [{"table_name": name, "table_type": "BASE TABLE"} for name in self.listed]

    def make(self, path: Sequence[str], columns: Columns) -> None:
        """Add a table, or replace it."""
        self._made[self.full_name(path)] = columns

    def drop(self, path: Sequence[str]) -> None:
        """Forget a table."""
        self._made[self.full_name(path)] = None

    def make_procedure(self, path: Sequence[str], procedure: Procedure) -> None:
        """Add a procedure, or replace it."""
        self._procedures[self.full_name(path)] = procedure

    def procedure(self, path: Sequence[str]) -> Procedure | None:
        """Return a procedure, or None if there is none of that name."""
        name = self.full_name(path)
        if name not in self._procedures and (arguments := self.find_procedure(name)) is not None:
            return Procedure(arguments)
        return self._procedures.get(name)


def catalog_proto(tables: Mapping[tuple[str, ...], Columns], variables: Iterable[Variable] = ()) -> Any:
    """Return a catalog as the analyzer wants it, with BigQuery's functions.

    Variables are constants in it: a column of the same name wins over a constant, as it wins over a variable.
    """
    from zetasql.wasi._pb2.zetasql.proto.simple_catalog_pb2 import SimpleCatalogProto

    catalog = SimpleCatalogProto(name="catalog")
    catalog.builtin_function_options.language_options.CopyFrom(language_options())
    for path, columns in tables.items():
        holder = catalog
        for name in path[:-1]:
            holder = next((c for c in holder.catalog if c.name == name), None) or holder.catalog.add(name=name)
        table = holder.table.add(name=path[-1], full_name=".".join(path))
        for name, kind in columns:
            pseudo = (name, kind) in PARTITION_COLUMNS
            table.column.add(name=name, type=sql_type(kind), is_pseudo_column=pseudo, is_writable_column=not pseudo)
    for variable in variables:
        catalog.constant.add(name_path=[variable.name], type=variable.type, value=variable.value)
    for name in ("max_by", "min_by"):
        _add_extreme(catalog, name)
    return catalog


def _add_extreme(catalog: Any, name: str) -> None:
    """Add MAX_BY or MIN_BY, which BigQuery has and this build of ZetaSQL lacks: the first argument's type comes out."""
    from zetasql.wasi._pb2.zetasql.public import function_pb2 as public

    function = catalog.custom_function.add(
        name_path=[name], group="BigQuery", mode=public.FunctionEnums.AGGREGATE, statement_context=0
    )
    signature = function.signature.add(context_id=0)
    signature.return_type.kind = public.ARG_TYPE_ANY_1
    signature.return_type.num_occurrences = 1
    for kind in (public.ARG_TYPE_ANY_1, public.ARG_TYPE_ANY_2):
        signature.argument.add(kind=kind, num_occurrences=1)


@lru_cache(maxsize=1)
def _functions_alone() -> int:
    return service().register(catalog_proto({}))


@lru_cache(maxsize=1024)
def sql_type(text: str) -> Any:
    """Return the type that SQL writes like this. Raises SqlError for what is no type."""
    from zetasql.wasi._pb2.zetasql.public import type_pb2

    name = ALIASES.get(text.upper(), text.upper())
    if SIMPLE.fullmatch(name) and f"TYPE_{name}" in type_pb2.TypeKind.keys():  # noqa: SIM118 - not a dict
        return type_pb2.TypeProto(type_kind=f"TYPE_{name}")
    try:
        resolved = service().analyze(f"SELECT CAST(NULL AS {text})", _functions_alone(), analyzer_options())
    except SqlError as error:
        raise SqlError(f"{text} is no type: {error.message}") from error
    return unwrap(resolved).output_column_list[0].column.type


def analyzer_options(*, system_variables: bool = True) -> Any:
    """Return options that make errors say where. An evaluation would need values of the system variables."""
    from zetasql.wasi._pb2.zetasql.proto.options_pb2 import AnalyzerOptionsProto
    from zetasql.wasi._pb2.zetasql.public import options_pb2 as public

    options = AnalyzerOptionsProto(
        language_options=language_options(), error_message_mode=public.ERROR_MESSAGE_ONE_LINE, default_timezone="UTC"
    )
    for name, kind in SYSTEM_VARIABLES if system_variables else ():
        options.system_variables.add(name_path=name.split("."), type=sql_type(kind))
    return options


def unwrap(node: Any) -> Any:
    """Return the message inside ZetaSQL's nested unions (``Any…Proto``)."""
    while node.DESCRIPTOR.name.startswith("Any"):
        chosen = node.WhichOneof("node")
        if chosen is None:
            raise SqlError("the analyzer answers with a statement of a kind that its Python classes do not know.")
        node = getattr(node, chosen)
    return node


def dialect_type(kind: Any) -> str:
    """Return a type as BigQuery's SQL writes it."""
    from zetasql.wasi._pb2.zetasql.public import type_pb2

    name = type_pb2.TypeKind.Name(kind.type_kind).removeprefix("TYPE_")
    if name == "ARRAY":
        return f"ARRAY<{dialect_type(kind.array_type.element_type)}>"
    if name == "STRUCT":
        fields = kind.struct_type.field
        return f"STRUCT<{', '.join(f'{f.field_name} {dialect_type(f.field_type)}'.strip() for f in fields)}>"
    if name == "RANGE":
        return f"RANGE<{dialect_type(kind.range_type.element_type)}>"
    return "FLOAT64" if name == "DOUBLE" else name
