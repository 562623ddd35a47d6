"""The plan limits port on PostgreSQL: queries of the view ``organisation_limits``."""

from collections.abc import Sequence
from typing import Any

from common.adapters.sql.dialect import Transaction
from common.adapters.sql.postgres.client import Postgres
from common.domain.quota import Limits
from common.platform.errors import NotFoundError
from common.ports.store import PLANS_PAGE

COLUMNS = "status, daily, monthly, concurrent, money_usd, weight, global_concurrent"
SELECT = f"SELECT {COLUMNS} FROM organisation_limits WHERE org_slug = :org"  # noqa: S608 - constants
# In ASCII order, as the file lists them: by the database's own collation, _ may come before or after a letter.
PAGE = f"""
SELECT org_slug, {COLUMNS} FROM organisation_limits
WHERE org_slug COLLATE "C" > :after ORDER BY org_slug COLLATE "C" LIMIT :size
"""  # noqa: S608 - constants


class PostgresPlans:
    """Queries the database on every call: wrap it in ``CachedPlans``."""

    def __init__(self, database: Postgres) -> None:
        self._database = database

    def limits(self, org_slug: str) -> Limits:
        """Return the organisation's limits, or raise NotFoundError, which names no other organisation."""

        def select(transaction: Transaction) -> Limits | None:
            row = transaction.execute(SELECT, {"org": org_slug}).fetchone()
            return None if row is None else _limits(row)

        limits = self._database.read(select)
        if limits is None:
            raise NotFoundError(f"There is no organisation {org_slug!r}.")
        return limits

    def page(self, after: str = "", *, size: int = PLANS_PAGE) -> Sequence[tuple[str, Limits]]:
        rows = self._database.read(lambda db: db.execute(PAGE, {"after": after, "size": size}).fetchall())
        return [(name, _limits(row)) for name, *row in rows]


def _limits(row: Sequence[Any]) -> Limits:
    status, daily, monthly, concurrent, money_usd, weight, global_concurrent = row
    return Limits(
        status,
        daily,
        monthly,
        concurrent,
        money_usd=money_usd,
        weight=weight,
        global_concurrent=global_concurrent,
    )
