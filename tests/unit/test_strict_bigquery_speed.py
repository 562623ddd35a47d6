"""What makes the emulator of the tests faster changes nothing that it answers."""

import pytest
import sqlglot
from sqlglot import exp
from sqlglot.expressions.core import Expr

from infra.local.strict_bigquery import find_all

SQL = """
WITH rows AS (SELECT a, SUM(b) AS b FROM `p.d.t` WHERE c IN UNNEST([1, 2]) GROUP BY a)
SELECT AS STRUCT r.a, IF(r.b > 0, (SELECT MAX(x) FROM `p.d.u` WHERE x < r.b), NULL) FROM rows r ORDER BY 1
"""


@pytest.mark.parametrize("bfs", [True, False])
@pytest.mark.parametrize("types", [(exp.Column,), (exp.Select, exp.Literal), (Expr,)])
def test_nodes_are_found_in_sqlglots_own_order(types: tuple[type[Expr], ...], bfs: bool) -> None:
    tree = sqlglot.parse_one(SQL, dialect="bigquery")
    found = [id(node) for node in find_all(tree, *types, bfs=bfs)]
    assert found == [id(node) for node in tree.find_all(*types, bfs=bfs)] and len(found) > 2
