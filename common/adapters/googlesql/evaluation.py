"""Evaluates expressions and queries with Google's reference implementation, on rows that are handed in."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Context, Decimal
from typing import Any

from common.adapters.googlesql.catalog import (
    Catalog,
    Columns,
    Variable,
    analyzer_options,
    catalog_proto,
    dialect_type,
    sql_type,
)
from common.adapters.googlesql.service import SqlError, service

EPOCH = date(1970, 1, 1)
EXACT = Context(prec=80)
PLACES = {"NUMERIC": 9, "BIGNUMERIC": 38}


def value_of(sql: str, kind: Any, variables: Iterable[Variable]) -> Any:
    """Return what an expression without tables yields, as a value of that type; None if a variable is not known."""
    from zetasql.wasi._pb2.zetasql.local_service import local_service_pb2 as messages

    known = [variable for variable in variables if variable.value is not None]
    options = analyzer_options(system_variables=False)
    options.target_column_types.append(kind)
    request = messages.EvaluateQueryRequest(
        sql=f"SELECT ({sql}\n)", options=options, simple_catalog=catalog_proto({}, known)
    )
    try:
        return service().evaluate(request).content.table_data.row[0].cell[0]
    except SqlError:  # a variable without a value is not in the catalog; a parameter has none, either
        return None


def query(
    sql: str,
    tables: Mapping[str, tuple[Columns, Sequence[Mapping[str, Any]]]],
    *,
    parameters: Mapping[str, tuple[str, Any]] | Sequence[tuple[str, Any]] = (),
    catalog: Catalog | None = None,
) -> list[dict[str, Any]]:
    """Return the rows of a query as Python values. Parameters are pairs of a type and a value.

    Raises SqlError if it is refused, or fails on these rows. INFORMATION_SCHEMA is one of ``tables``, by its full name.
    """
    from zetasql.wasi._pb2.zetasql.local_service import local_service_pb2 as messages

    known = catalog or Catalog()
    named = {known.full_name(name.split(".")): table for name, table in tables.items()}
    used: dict[tuple[str, ...], Columns] = {}
    request = messages.EvaluateQueryRequest(sql=sql, options=analyzer_options(system_variables=False))
    for path in service().table_names(sql):
        found = named.get(known.full_name(path)) or named.get(".".join(path))
        if found is None:
            continue
        columns, rows = found
        used[path] = columns
        data = request.table_content[".".join(path)].table_data
        for row in rows:
            data.row.add(cell=[to_value(row.get(name), kind) for name, kind in columns])
    request.simple_catalog.CopyFrom(catalog_proto(used))
    _add_parameters(request, parameters)
    answer = service().evaluate(request)
    columns = [(column.name, column.type) for column in answer.prepared.columns]
    return [
        {name: from_value(cell, kind) for cell, (name, kind) in zip(row.cell, columns, strict=True)}
        for row in answer.content.table_data.row
    ]


def _add_parameters(request: Any, parameters: Mapping[str, tuple[str, Any]] | Sequence[tuple[str, Any]]) -> None:
    from zetasql.wasi._pb2.zetasql.public import options_pb2 as public

    if isinstance(parameters, Mapping):
        for name, (kind, value) in parameters.items():
            request.options.query_parameters.add(name=name, type=sql_type(kind))
            request.params.add(name=name, value=to_value(value, kind))
        return
    request.options.parameter_mode = public.PARAMETER_POSITIONAL
    for kind, value in parameters:
        request.options.positional_query_parameters.append(sql_type(kind))
        request.params.add(value=to_value(value, kind))


def to_value(value: Any, kind: str) -> Any:
    """Return a Python value as one of that type."""
    from zetasql.wasi._pb2.zetasql.public.value_pb2 import ValueProto

    made = ValueProto()
    if value is None:
        return made
    match kind:
        case "STRING":
            made.string_value = value
        case "INT64":
            made.int64_value = value
        case "FLOAT64":
            made.double_value = value
        case "BOOL":
            made.bool_value = value
        case "JSON":
            made.json_value = value
        case "DATE":
            made.date_value = (value - EPOCH).days
        case "TIMESTAMP":
            made.timestamp_value.FromDatetime(value.astimezone(UTC))
        case "NUMERIC" | "BIGNUMERIC":
            scaled = int(EXACT.scaleb(Decimal(value), PLACES[kind]))
            content = scaled.to_bytes((scaled.bit_length() + 8) // 8 or 1, "little", signed=True)
            setattr(made, f"{kind.lower()}_value", content)
        case _ if kind.startswith("ARRAY<"):
            made.array_value.SetInParent()
            made.array_value.element.extend(to_value(item, kind[6:-1]) for item in value)
        case _:
            raise SqlError(f"a value of type {kind} can't be handed to the reference implementation.")
    return made


def from_value(cell: Any, kind: Any) -> Any:
    """Return a value as Python has it: decimals exact, times with their zone, JSON as its text."""
    chosen = cell.WhichOneof("value")
    if chosen is None:
        return None
    value = getattr(cell, chosen)
    match chosen:
        case "date_value":
            return EPOCH + timedelta(days=value)
        case "timestamp_value":
            return datetime.fromtimestamp(0, UTC) + timedelta(seconds=value.seconds, microseconds=value.nanos // 1000)
        case "numeric_value" | "bignumeric_value":
            places = PLACES[chosen.removesuffix("_value").upper()]
            return EXACT.scaleb(Decimal(int.from_bytes(value, "little", signed=True)), -places).normalize(EXACT)
        case "array_value":
            return [from_value(item, kind.array_type.element_type) for item in value.element]
        case "struct_value":
            fields = kind.struct_type.field
            return {f.field_name: from_value(v, f.field_type) for f, v in zip(fields, value.field, strict=True)}
        case "int64_value" | "double_value" | "bool_value" | "string_value" | "json_value" | "bytes_value":
            return value
    raise SqlError(f"a value of type {dialect_type(kind)} can't be read from the reference implementation.")
