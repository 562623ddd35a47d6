"""Google's own SQL analyzer, ZetaSQL, and its reference implementation: what BigQuery says of SQL, without BigQuery.

The PyPI package ``zetasql`` holds both as WebAssembly. It is imported when it is first used, and the product runs
without it: ``is_installed`` says whether it is here. docs/sql-checks.md says what a verdict proves, and what it can't.
"""

from common.adapters.googlesql.catalog import PARTITION_COLUMNS, Catalog, Columns
from common.adapters.googlesql.exempt import EXEMPT, Exemption
from common.adapters.googlesql.scripts import Problem, Report, analyze
from common.adapters.googlesql.service import SqlError, is_installed

__all__ = [
    "EXEMPT",
    "PARTITION_COLUMNS",
    "Catalog",
    "Columns",
    "Exemption",
    "Problem",
    "Report",
    "SqlError",
    "analyze",
    "is_installed",
]
