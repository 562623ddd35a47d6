"""Evaluates expressions and queries with Google's reference implementation, on rows that are handed in."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    unwrap,
)
from common.adapters.googlesql.service import SqlError, service

EXTREME = re.compile(r"\b(MAX|MIN)_BY\(((?:[^()]|\((?:[^()]|\([^()]*\))*\))*), (\w+)\)")
"""MAX_BY and MIN_BY, which this build can't evaluate: ANY_VALUE with HAVING is the same."""

EPOCH = date(1970, 1, 1)
EXACT = Context(prec=80)
PLAIN = {"STRING": "string", "INT64": "int64", "FLOAT64": "double", "BOOL": "bool", "JSON": "json"}
PLACES = {"NUMERIC": 9, "BIGNUMERIC": 38}


Rows = tuple[Columns, Sequence[Mapping[str, Any]]]


def value_of(sql: str, kind: Any, variables: Iterable[Variable], tables: Mapping[tuple[str, ...], Rows]) -> Any:
    """Return what an expression yields on these tables, as a value of that type; None if a variable is not known."""
    from zetasql.wasi._pb2.zetasql.local_service import local_service_pb2 as messages

    known = [variable for variable in variables if variable.value is not None]
    options = analyzer_options(system_variables=False)
    options.target_column_types.append(kind)
    request = messages.EvaluateQueryRequest(sql=_flat(f"SELECT ({sql}\n)", tables), options=options)
    _add_tables(request, tables, known)
    try:
        return service().evaluate(request).content.table_data.row[0].cell[0]
    except SqlError:  # a variable without a value is not in the catalog; a parameter has none, either
        return None


def _add_tables(request: Any, tables: Mapping[tuple[str, ...], Rows], variables: Iterable[Variable] = ()) -> None:
    flat = {".".join(path): table for path, table in tables.items()}
    for name, (columns, rows) in flat.items():
        data = request.table_content[name].table_data
        for row in rows:
            data.row.add(cell=[to_value(row.get(column), kind) for column, kind in columns])
    request.simple_catalog.CopyFrom(catalog_proto({(name,): columns for name, (columns, _) in flat.items()}, variables))


def _flat(sql: str, paths: Iterable[tuple[str, ...]]) -> str:
    """Return the SQL with each table named by one name: rows are handed over only to those that lie in no catalog."""
    for path in paths:
        if len(path) > 1:
            pattern = r"\.".join(f"`?{re.escape(name)}`?" for name in path)
            sql = re.sub(pattern, f"`{'.'.join(path)}`".replace("\\", r"\\"), sql)
    return sql


Parameters = Mapping[str, tuple[Any, Any]] | Sequence[tuple[Any, Any]]
"""Pairs of type and value, by name or in order. Both may be ZetaSQL's own messages."""


def query(
    sql: str, tables: Mapping[str, Rows], *, parameters: Parameters = (), catalog: Catalog | None = None
) -> list[dict[str, Any]]:
    """Return the rows of a query as Python values. ``tables`` are by full names, INFORMATION_SCHEMA's as well.

    Raises SqlError if it is refused, or fails on these rows.
    """
    names, rows = _evaluated(sql, tables, parameters, catalog or Catalog())
    return [dict(zip(names, row, strict=True)) for row in rows]


def inserted(
    sql: str, tables: Mapping[str, Rows], *, parameters: Parameters = (), catalog: Catalog | None = None
) -> list[dict[str, Any]]:
    """Return the rows that an ``INSERT … SELECT`` would add, by the columns that it names. Raises SqlError."""
    statement = unwrap(service().parse(sql).statement_list_node.statement_list[0])
    if statement.DESCRIPTOR.name != "ASTInsertStatementProto" or not statement.HasField("query"):
        raise SqlError("this is no INSERT with a query.")
    place = statement.query.parent.parent.parse_location_range
    select = sql.encode()[place.start : place.end].decode()
    names = [name.id_string for name in statement.column_list.identifiers]
    _, rows = _evaluated(select, tables, parameters, catalog or Catalog())
    return [dict(zip(names, row, strict=True)) for row in rows]


def _evaluated(
    sql: str, tables: Mapping[str, Rows], parameters: Parameters, catalog: Catalog
) -> tuple[list[str], list[list[Any]]]:
    from zetasql.wasi._pb2.zetasql.local_service import local_service_pb2 as messages

    named = {catalog.full_name(name.split(".")): table for name, table in tables.items()}
    used = {path: named[name] for path in service().table_names(sql) if (name := catalog.full_name(path)) in named}
    if not isinstance(parameters, Mapping):  # the service evaluates with named parameters alone
        sql = _with_names(sql)
        parameters = {f"p{number}": pair for number, pair in enumerate(parameters, 1)}
    request = messages.EvaluateQueryRequest(
        sql=_flat(EXTREME.sub(r"ANY_VALUE(\2 HAVING \1 \3)", sql), used),
        options=analyzer_options(system_variables=False),
    )
    _add_tables(request, used)
    _add_parameters(request, parameters)
    answer = service().evaluate(request)
    columns = answer.prepared.columns
    rows = answer.content.table_data.row
    return [column.name for column in columns], [
        [from_value(cell, column.type) for cell, column in zip(row.cell, columns, strict=True)] for row in rows
    ]


def _add_parameters(request: Any, parameters: Mapping[str, tuple[Any, Any]]) -> None:
    for name, (kind, value) in parameters.items():
        request.options.query_parameters.add(name=name, type=sql_type(kind) if isinstance(kind, str) else kind)
        request.params.add(name=name, value=to_value(value, kind) if isinstance(kind, str) else value)


def _with_names(sql: str) -> str:
    """Return the SQL with ``@p1`` and so on instead of ``?``."""
    found = sorted(_parameters(service().parse(sql)), key=lambda node: -node.position)
    text = sql.encode()
    for node in found:
        place = node.parent
        while place.DESCRIPTOR.name != "ASTNodeProto":
            place = place.parent
        at = place.parse_location_range
        text = text[: at.start] + f"@p{node.position}".encode() + text[at.end :]
    return text.decode()


def _parameters(node: Any) -> Iterator[Any]:
    """Yield the nodes of a parse tree that are positional parameters."""
    if node.DESCRIPTOR.name == "ASTParameterExprProto":
        yield node
        return
    for field, value in node.ListFields():
        if field.message_type is not None:
            for inner in value if field.is_repeated else (value,):
                yield from _parameters(inner)


def to_value(value: Any, kind: str) -> Any:
    """Return a Python value as one of that type."""
    from zetasql.wasi._pb2.zetasql.public.value_pb2 import ValueProto

    made = ValueProto()
    if value is None:
        return made
    if kind in PLAIN:
        setattr(made, f"{PLAIN[kind]}_value", value)
    elif kind == "DATE":
        made.date_value = (value - EPOCH).days
    elif kind == "TIMESTAMP":
        made.timestamp_value.FromDatetime(value.astimezone(UTC))
    elif kind in PLACES:
        scaled = int(EXACT.scaleb(Decimal(value), PLACES[kind]))
        content = scaled.to_bytes((scaled.bit_length() + 8) // 8, "little", signed=True)
        setattr(made, f"{kind.lower()}_value", content)
    elif kind.startswith("ARRAY<"):
        made.array_value.element.extend(to_value(item, kind[6:-1]) for item in value)
    else:
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
