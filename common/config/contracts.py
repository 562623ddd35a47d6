"""Checks of table contracts (``configs/schemas/*.yml``) that name line and field; ``common.table`` reads them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from common.config.problems import Finding, InvalidFileError, findings_of
from common.config.yaml_source import Source, read
from common.table import LINEAGE, Table


def check_contract(path: Path, name: str) -> None:
    """Raise InvalidFileError with all mistakes of a contract; ``name`` is the path as messages show it."""
    source = read(path, name)
    found = [source.problem(*finding) for finding in _findings(source, path.stem)]
    if found:
        raise InvalidFileError(sorted(found, key=lambda problem: problem.line))


def _findings(source: Source, stem: str) -> Iterator[Finding]:
    try:
        Table.model_validate(source.data)
    except ValidationError as error:
        yield from findings_of(error, Table)
    table = source.data.get("table")
    if isinstance(table, str) and table != stem:
        yield ("table",), f"must be {stem!r}, the name of its file."
    yield from _columns(source.data.get("columns"))


def _columns(columns: Any) -> Iterator[Finding]:
    reserved = {field for field, _ in LINEAGE}
    seen = set[str]()
    for i, column in enumerate(columns if isinstance(columns, list) else ()):
        name = column.get("name") if isinstance(column, dict) else None
        if not isinstance(name, str):
            continue
        folded = name.lower()  # BigQuery's column names differ by more than case
        if folded in reserved:
            yield ("columns", i, "name"), f"{folded} is stamped by the engine on every row. Remove it."
        elif folded in seen:
            yield ("columns", i, "name"), f"column {folded[:80]!r} is there twice. Remove one."
        seen.add(folded)
