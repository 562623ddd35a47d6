"""Checks of table contracts that report line and field; ``common.tables.contract`` reads the contracts.

Contracts of data tables are in ``configs/schemas/*.yml``, those of meta tables in ``configs/schemas/meta/*.yml``.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from common.config.problems import Finding, InvalidFileError, findings_of
from common.config.yaml_source import YamlFile, read
from common.platform.errors import nearest
from common.tables.contract import LINEAGE, META_PREFIX, MetaTable, Table

META_FOLDER = "meta"

RESERVED_PREFIXES = ("_table_", "_file_", "_partition", "_row_timestamp", "__root__", "_colidentifier", "_change_")
"""Prefixes that BigQuery reserves (docs: "Specifying a schema", column names; and change history)."""


def check_contract(path: Path, name: str) -> None:
    """Raise InvalidFileError with every problem of a contract; ``name`` is the path as messages show it."""
    source = read(path, name)
    is_meta = path.parent.name == META_FOLDER
    problems = [source.problem(*finding) for finding in _findings(source, path.stem, is_meta=is_meta)]
    if problems:
        raise InvalidFileError(sorted(problems, key=lambda problem: problem.line))


def _findings(source: YamlFile, stem: str, *, is_meta: bool) -> Iterator[Finding]:
    model = MetaTable if is_meta else Table
    try:
        model.model_validate(source.data)
    except ValidationError as error:
        yield from findings_of(error, model)
    table = source.data.get("table")
    if isinstance(table, str):
        yield from _name(table, stem, is_meta=is_meta)
    yield from _columns(source.data.get("columns"), is_meta=is_meta)
    yield from _currencies(source.data.get("columns"))
    yield from _billed(source.data)
    if is_meta:
        yield from _layout(source.data)


def _name(table: str, stem: str, *, is_meta: bool) -> Iterator[Finding]:
    if table != stem:
        yield ("table",), f"must be {stem!r}, the name of its file."
    elif "__" in table:  # t__commits, t__quarantine and t__stage_... belong to the table t
        yield ("table",), "'__' is reserved for the engine's own tables beside a table. Use a single '_'."
    elif table.startswith(META_PREFIX) and not is_meta:
        yield ("table",), f"{META_PREFIX}* names are for meta tables in schemas/{META_FOLDER}. Rename the table."
    elif is_meta and not table.startswith(META_PREFIX):
        yield ("table",), f"meta tables are named {META_PREFIX}*. Rename the table, or move the file one folder up."


def _columns(columns: Any, *, is_meta: bool) -> Iterator[Finding]:
    reserved = set() if is_meta else {field for field, _ in LINEAGE}
    seen = set[str]()
    for i, column in enumerate(columns if isinstance(columns, list) else ()):
        name = column.get("name") if isinstance(column, dict) else None
        if not isinstance(name, str):
            continue
        folded = name.lower()  # BigQuery's column names are not case-sensitive
        if folded in reserved:
            yield ("columns", i, "name"), f"the engine sets {folded} on every row. Remove the column."
        elif folded in seen:
            yield ("columns", i, "name"), f"column {folded[:80]!r} is listed twice. Remove one."
        elif folded.startswith(RESERVED_PREFIXES):
            yield ("columns", i, "name"), f"BigQuery reserves names like {name[:80]!r}. Rename the column."
        seen.add(folded)
        if column.get("mode") == "REQUIRED" and column.get("policy") == "discard_value":
            yield (
                ("columns", i, "policy"),
                "a discarded value becomes NULL, which a REQUIRED column refuses. Use discard_row, or mode NULLABLE.",
            )


def _currencies(columns: Any) -> Iterator[Finding]:
    listed = [c if isinstance(c, dict) else {} for c in columns] if isinstance(columns, list) else []
    types = {column["name"]: column.get("type") for column in listed if isinstance(column.get("name"), str)}
    for i, column in enumerate(listed):
        name = column.get("currency")
        if not isinstance(name, str) or not name:
            continue
        if types.get(name) != "STRING":
            yield ("columns", i, "currency"), f"no STRING column is named {name[:80]!r}.{nearest(name, types)}"
        elif column.get("type") != "BIGNUMERIC":
            yield (
                ("columns", i, "currency"),
                "only an amount of money (BIGNUMERIC) has a currency. Remove the currency.",
            )


def _billed(data: Mapping[str, Any]) -> Iterator[Finding]:
    name, columns = data.get("billed"), data.get("columns")
    listed = [column for column in columns if isinstance(column, dict)] if isinstance(columns, list) else []
    amounts = [column["name"] for column in listed if column.get("currency") and isinstance(column.get("name"), str)]
    if isinstance(name, str) and name and name not in amounts:
        yield ("billed",), f"no column with a currency is named {name[:80]!r}.{nearest(name, amounts)}"
    credits_name = data.get("billed_credits")
    if not isinstance(credits_name, str) or not credits_name:
        return
    lists = [
        column["name"] for column in listed if column.get("type") == "JSON" and isinstance(column.get("name"), str)
    ]
    if credits_name not in lists:
        yield ("billed_credits",), f"no JSON column is named {credits_name[:80]!r}.{nearest(credits_name, lists)}"
    elif not name:
        yield ("billed_credits",), "needs billed, the column of the cost that credits add to. Add it, or remove this."


def _layout(data: Mapping[str, Any]) -> Iterator[Finding]:
    columns = data.get("columns")
    listed = [column for column in columns if isinstance(column, dict)] if isinstance(columns, list) else []
    types = {column["name"]: column.get("type") for column in listed if isinstance(column.get("name"), str)}
    by = data.get("partition_by")
    if isinstance(by, str) and by not in types:
        yield ("partition_by",), f"no column is named {by[:80]!r}.{nearest(by, types)}"
    elif isinstance(by, str) and types[by] not in ("DATE", "TIMESTAMP"):
        yield ("partition_by",), f"{by} is {str(types[by])[:40]}: partitions are by day. Use a DATE or TIMESTAMP."
    clusters = data.get("cluster_by")
    for i, name in enumerate(clusters if isinstance(clusters, list) else ()):
        if isinstance(name, str) and name not in types:
            yield ("cluster_by", i), f"no column is named {name[:80]!r}.{nearest(name, types)}"
        elif isinstance(name, str) and types[name] == "JSON":
            yield ("cluster_by", i), f"{name} is JSON, which BigQuery can't cluster by. Use another column."
