"""The plan limits port on PostgreSQL: one query of the view ``organisation_limits``."""

from common.adapters.sql.dialect import Transaction
from common.adapters.sql.postgres.client import Postgres
from common.domain.quota import Limits
from common.platform.errors import NotFoundError

SELECT = """
SELECT status, daily, monthly, concurrent, money_usd, weight, global_concurrent
FROM organisation_limits WHERE org_slug = :org
"""


class PostgresPlans:
    """Queries the database on every call: wrap it in ``CachedPlans``."""

    def __init__(self, database: Postgres) -> None:
        self._database = database

    def limits(self, org_slug: str) -> Limits:
        """Return the organisation's limits, or raise NotFoundError, which names no other organisation."""

        def select(transaction: Transaction) -> Limits | None:
            row = transaction.execute(SELECT, {"org": org_slug}).fetchone()
            if row is None:
                return None
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

        limits = self._database.read(select)
        if limits is None:
            raise NotFoundError(f"There is no organisation {org_slug!r}.")
        return limits
