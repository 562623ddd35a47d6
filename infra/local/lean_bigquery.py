"""The BigQuery emulator, which looks up one table without reading the whole catalogue.

local-bigquery asks DuckDB's ``duckdb_tables()`` before each query and for each table that the query names. That
function loads every table of every dataset with its statistics: with 25 tables 100 of the 150 ms of CPU of a query.
Here the same questions go to DuckLake's own tables (https://ducklake.select/docs/stable/specification/tables/overview),
which respond in about a millisecond however many tables there are.

Arguments: those of ``local-bigquery``.
"""

import sys
from typing import Any

TEMPORARY = "SELECT table_name FROM duckdb_tables() WHERE temporary"
"""What local-bigquery asks of a cursor before each query."""

OBJECTS = """
WITH datasets AS (SELECT schema_id FROM {lake}.ducklake_schema WHERE schema_name = $1 AND end_snapshot IS NULL)
SELECT table_name, 'TABLE', coalesce(record_count, 0)
FROM {lake}.ducklake_table JOIN datasets USING (schema_id) LEFT JOIN {lake}.ducklake_table_stats USING (table_id)
WHERE end_snapshot IS NULL AND table_name = coalesce($2, table_name)
UNION ALL
SELECT view_name, 'VIEW', 0
FROM {lake}.ducklake_view JOIN datasets USING (schema_id)
WHERE end_snapshot IS NULL AND view_name = coalesce($2, view_name)
ORDER BY 1
"""

HAS_COLUMN = """
SELECT 1
FROM {lake}.ducklake_schema AS s JOIN {lake}.ducklake_table AS t USING (schema_id)
JOIN {lake}.ducklake_column AS c USING (table_id)
WHERE s.schema_name = $1 AND t.table_name = $2 AND c.column_name = $3 AND c.parent_column IS NULL
  AND s.end_snapshot IS NULL AND t.end_snapshot IS NULL AND c.end_snapshot IS NULL
"""

RESULTS = ("emulator", "_results")
"""Where the emulator keeps the results of queries: tables of DuckDB."""

HAS_DATASET = "SELECT 1 FROM {lake}.ducklake_schema WHERE schema_name = $1 AND end_snapshot IS NULL"


class FreshCursor:
    """A cursor that no session owns: it has no temporary tables yet, so nobody needs to look for them."""

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def sql(self, query: str, **more: Any) -> Any:
        """Run the query, or respond to the one whose result is known."""
        return NoRows() if query == TEMPORARY else self._cursor.sql(query, **more)


class NoRows:
    """The result of a query that returns nothing."""

    def fetchall(self) -> list[Any]:
        """Return no rows."""
        return []


def install() -> None:
    """Put the short look-ups in the place of the emulator's own. Its answers stay the same."""
    from local_bigquery.catalog import datasets
    from local_bigquery.engine import database
    from local_bigquery.jobs import query
    from local_bigquery.sql.rules import partitions

    everything, runs, has_column, has_dataset = database.objects, query.execute, partitions._hidden, datasets.exists

    def objects(project: str, dataset: str, table: str | None = None) -> list[Any]:
        if is_lake(project):
            return ask(project, OBJECTS, dataset, table)
        if (project, dataset) == RESULTS and table:
            return result(table)
        return list(everything(project, dataset, table))

    def exists(project: str, dataset: str) -> bool:
        return bool(ask(project, HAS_DATASET, dataset)) if is_lake(project) else bool(has_dataset(project, dataset))

    def hidden(table: Any) -> bool:
        if not is_lake(table.catalog) or not table.db:
            return bool(has_column(table))
        return bool(ask(table.catalog, HAS_COLUMN, table.db, table.name, partitions.tables.INGESTION_TIME))

    def execute(cur: Any, *rest: Any, session: Any = None, **more: Any) -> Any:
        return runs(cur if session else FreshCursor(cur), *rest, session=session, **more)

    database.objects, query.execute, partitions._hidden, datasets.exists = objects, execute, hidden, exists


def is_lake(project: str) -> bool:
    """Return whether DuckLake keeps the project's tables; others are the emulator's own, or PostgreSQL's."""
    from local_bigquery.engine import database

    return project in database._attached


def ask(project: str, sql: str, *values: str | None) -> list[Any]:
    """Return the rows of a query on DuckLake's own tables of a project."""
    from local_bigquery.engine import database

    rows: list[Any] = database.fetch(sql.format(lake=database.quote(f"__ducklake_metadata_{project}")), list(values))
    return rows


def result(name: str) -> list[Any]:
    """Return the table that holds a query's result, as ``objects`` does."""
    import duckdb
    from local_bigquery.engine import database

    try:
        [(rows,)] = database.fetch(f"FROM {database.quote(*RESULTS, name)} SELECT count(*)")
    except duckdb.CatalogException:  # it has none, or there is no such query
        return []
    return [(name, "TABLE", rows)]


def main() -> None:
    """Serve, as ``local-bigquery`` does."""
    from local_bigquery import cli

    install()
    cli.main(sys.argv[1:])


if __name__ == "__main__":
    main()
