"""Rules of ``write:`` blocks, which must fit the contract of the step's table.

They read plain data, as ``rules.py`` does, so that one problem does not hide the next.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.config.model import WriteConfig
from common.config.problems import Finding, InvalidFileError, Location
from common.config.yaml_source import read
from common.platform.errors import nearest
from common.tables.contract import LINEAGE

DEFAULT_MODE: str = WriteConfig().mode
_LINEAGE_NAMES = frozenset(name for name, _ in LINEAGE)

Steps = Iterable[tuple[Location, Mapping[str, Any]]]
"""Steps with their location in the file."""


@dataclass(frozen=True, slots=True)
class TableMode:
    """The mode in which one step writes its table, and its location in the file."""

    table: str
    mode: str
    place: Location


def write_findings(steps: Steps, root: Path) -> Iterator[Finding]:
    """Yield the problems of each step's ``write:`` that its model does not check; contracts are below ``root``."""
    for location, step in steps:
        write = step.get("write")
        if not isinstance(write, dict):
            continue
        place, table = (*location, "write"), destination(step)
        if table is None and not _is_part(step):
            yield place, "is set, but the step has no destination_table. Remove it, or add one."
            continue
        if table is None:
            continue
        keys = write.get("keys")
        if write.get("mode") == "merge" and not keys:
            missing = (*place, "keys") if "keys" in write else (*place, "mode")
            yield missing, "merge needs the columns that identify a row. Add keys: [column, ...]"
        if write.get("mode") == "truncate_partition" and step.get("map") is not None:
            yield (
                (*place, "mode"),
                "truncate_partition can't be used in a step with map: each item would replace the rows of the items "
                "before it. Use replace_key.",
            )
        if isinstance(keys, list):
            yield from _key_findings(keys, _columns(root, table), table, (*place, "keys"))


def _key_findings(keys: list[Any], types: Mapping[str, Any], table: str, place: Location) -> Iterator[Finding]:
    for i, name in enumerate(keys):
        if not isinstance(name, str):  # reported by the model
            continue
        if name in keys[:i]:
            yield (*place, i), f"{name[:80]!r} is listed twice. Remove one."
        elif name.lower() in _LINEAGE_NAMES:
            yield (*place, i), f"{name} is already part of every row's key, or the same in all rows. Remove it."
        elif types and name not in types:
            listed = ", ".join(sorted(types)[:20])
            yield (*place, i), f"table {table} has no column {name[:80]!r}.{nearest(name, types)} Columns: {listed}."
        elif types.get(name) == "JSON":
            yield (*place, i), f"{name} is JSON, which BigQuery can't compare. Use columns of other types."


def _columns(root: Path, table: str) -> dict[str, Any]:
    """Return the types of the table's columns by name; empty if its contract is invalid, which ``rules`` reports."""
    try:
        columns = read(root / "schemas" / f"{table}.yml", table).data.get("columns")
    except InvalidFileError:
        return {}
    listed = [column for column in columns if isinstance(column, dict)] if isinstance(columns, list) else []
    return {column["name"]: column.get("type") for column in listed if isinstance(column.get("name"), str)}


def _is_part(step: Mapping[str, Any]) -> bool:
    """Whether the step stages a part of a delivery, of which ``max_bad_rows`` limits the bad rows."""
    config = step.get("config")
    return isinstance(config, dict) and config.get("task") == "part"


def destination(step: Mapping[str, Any]) -> str | None:
    """Return the table that a step's plain data names as its destination, or None."""
    config = step.get("config")
    table = config.get("destination_table") if isinstance(config, dict) else None
    return table if isinstance(table, str) else None


def table_modes(data: Mapping[str, Any]) -> Iterator[TableMode]:
    """Yield the mode of each step of a pipeline's plain data that writes a table; invalid steps are ignored."""
    steps = data.get("steps")
    for i, step in enumerate(steps if isinstance(steps, list) else ()):
        table = destination(step) if isinstance(step, dict) else None
        if table is None:
            continue
        write = step.get("write")
        is_explicit = isinstance(write, dict) and "mode" in write
        mode = write["mode"] if is_explicit else DEFAULT_MODE
        if isinstance(mode, str):
            where = ("write", "mode") if is_explicit else ("config", "destination_table")
            place: Location = ("steps", i, *where)
            yield TableMode(table, mode, place)
