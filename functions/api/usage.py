"""An organisation's limits and usage."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Literal

from flask import Response
from pydantic import Field

from common.bootstrap import engine
from common.domain.dates import next_month
from common.domain.quota import Limits, Usage
from functions.api.inputs import NoQuery, OrgPath
from functions.api.part import part
from functions.api.views import Time, View

routes = part("usage", __doc__)


class LimitView(View):
    """One limit of runs."""

    limit: Literal["daily", "monthly", "concurrent"]
    value: int
    used: int
    left: int
    resets_at: Annotated[Time, Field(description="When the count restarts at 0; null for concurrent runs.")]


class MoneyView(View):
    """The month's money in US dollars, as text. ``reserved`` is the estimated cost of runs that have not ended."""

    value: str
    spent: str
    reserved: str
    left: str
    resets_at: datetime


class EndedView(View):
    """How many of the month's runs ended in which way."""

    completed: int
    failed: int
    cancelled: int


class UsageView(View):
    """An organisation's usage, compared with its plan."""

    org_slug: str
    subscription: Annotated[str, Field(description="ACTIVE and TRIAL may start runs.")]
    as_of: datetime
    limits_as_of: Annotated[
        Time, Field(description="When the limits were read, if their source has been down since; null if current.")
    ]
    limits: list[LimitView]
    money_usd: Annotated[MoneyView | None, Field(description="Null if the plan does not limit money.")]
    waiting: Annotated[int, Field(description="Runs that wait for a slot.")]
    ended_this_month: EndedView


@routes.get("/pipelines/usage/<org>", responses={200: UsageView})
def usage(path: OrgPath, query: NoQuery) -> Response:
    """Read limits, usage, what is left and when counts restart"""
    built = engine()
    now = built.now()
    limits, used = built.plans.limits(path.org), built.store.usage(path.org, now)
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    tomorrow, month_ends = today + timedelta(days=1), next_month(today)
    view = UsageView(
        org_slug=path.org,
        subscription=limits.status,
        as_of=now,
        limits_as_of=limits.as_of,
        limits=[
            _limit("daily", limits.daily, used.daily, tomorrow),
            _limit("monthly", limits.monthly, used.monthly, month_ends),
            _limit("concurrent", limits.concurrent, used.concurrent, None),
        ],
        money_usd=_money(limits, used, month_ends),
        waiting=used.waiting,
        ended_this_month=EndedView(completed=used.completed, failed=used.failed, cancelled=used.cancelled),
    )
    return view.response()


def _limit(name: Literal["daily", "monthly", "concurrent"], value: int, used: int, resets_at: Time) -> LimitView:
    return LimitView(limit=name, value=value, used=used, left=max(0, value - used), resets_at=resets_at)


def _money(limits: Limits, used: Usage, resets_at: datetime) -> MoneyView | None:
    if limits.money_usd is None:
        return None
    left = max(Decimal(0), limits.money_usd - used.spent_usd - used.reserved_usd)
    return MoneyView(
        value=f"{limits.money_usd:f}",
        spent=f"{used.spent_usd:f}",
        reserved=f"{used.reserved_usd:f}",
        left=f"{left:f}",
        resets_at=resets_at,
    )
