"""The quota rule in SQL: reservations, counts, money and queues. The caller owns the transaction.

``common/domain/quota.py`` is the rule. ``RESERVE`` is ``exceeded`` of that module as one UPDATE, without a reason: if
it changes no row, ``exceeded`` gives the reason.

In PostgreSQL's READ COMMITTED, a statement that waited for a row sees that row's new version, but everything else, the
reservations that it counts included, as of its own start. So a statement of its own locks the organisation's row (and
the deployment's) in ``turns``, and the statement that counts and takes starts after it. All transactions lock in one
order, so that none deadlock: a run's row, its steps, ``turns`` (the deployment's first), reservations, usage.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import Any

from common.adapters.sql.dialect import Dialect, Transaction
from common.domain.messages import Command
from common.domain.model import ErrorKind, Run
from common.domain.queueing import Place, Queue, Waiting, joining_turn, next_turn
from common.domain.quota import (
    SCOPES,
    CostKnown,
    Counted,
    Demand,
    LimitExceeded,
    Limits,
    Outcomes,
    QueueMoved,
    ReservationExtended,
    ReservationFreed,
    Usage,
    changes,
    day_of,
    from_micro_usd,
    month_of,
    queue_full,
    to_micro_usd,
    wider,
)
from common.platform.errors import QuotaExceededError, TransientError

DEPLOYMENT = "*"
"""The row of ``turns`` for all organisations. No organisation has this name, and it sorts, so locks, before theirs."""

# Above any sum in micro-USD, and within the 64-bit integers of both databases.
NO_LIMIT = 2**62

DROP_EXPIRED = "DELETE FROM reservations WHERE expires_at <= :now AND org_slug = :org"
DROP_ALL_EXPIRED = "DELETE FROM reservations WHERE expires_at <= :now"
MAKE_PERIODS = "INSERT INTO usage (org_slug, period) VALUES (:org, :day), (:org, :month) ON CONFLICT DO NOTHING"

RESERVE = """
UPDATE usage SET admitted = admitted + 1{take}
WHERE org_slug = :org AND period IN (:day, :month)
  AND NOT EXISTS (SELECT 1 FROM usage WHERE org_slug = :org AND period = :day AND admitted >= :daily)
  AND NOT EXISTS (SELECT 1 FROM usage WHERE org_slug = :org AND period = :month AND admitted >= :monthly)
"""
"""Check and take in one statement: it changes both rows, or neither when a limit is used up."""

TAKE_MONEY = ", reserved = reserved + CASE WHEN period = :month THEN :cost ELSE 0 END"
HAS_MONEY = """
  AND NOT EXISTS (
    SELECT 1 FROM usage WHERE org_slug = :org AND period = :month AND spent + reserved + :needed > :money
  )
"""

WHOSE = {"pipeline": "org_slug = :org AND route = :route", "concurrent": "org_slug = :org", "global": "TRUE"}
"""The runs that share the slots of each scope."""

LIVE = {
    scope: f"(SELECT COUNT(*) FROM reservations WHERE {whose} AND expires_at > :now)"  # noqa: S608 - constants
    for scope, whose in WHOSE.items()
}
AHEAD = {
    scope: f"(SELECT COUNT(*) FROM waiting WHERE {whose} AND waits_for IN ("  # noqa: S608 - constants
    + ", ".join(f"'{wide}'" for wide in wider(scope))
    + "))"
    for scope, whose in WHOSE.items()
}

# A conflict means that a run of this id exists: inserting the run, later in this transaction, fails and says so.
ADD_RESERVATION = """
INSERT INTO reservations (org_slug, run_id, route, expires_at) VALUES (:org, :run, :route, :expires_at)
ON CONFLICT DO NOTHING
"""
EXTEND_RESERVATION = """
UPDATE reservations SET expires_at = :expires_at
WHERE org_slug = :org AND run_id = :run AND expires_at <> :expires_at
"""
FREE_RESERVATION = "DELETE FROM reservations WHERE org_slug = :org AND run_id = :run"

KEEP_COST = """
INSERT INTO costs (org_slug, route, cost) VALUES (:org, :route, :cost)
ON CONFLICT (org_slug, route) DO UPDATE SET cost = EXCLUDED.cost
"""

USAGE = """
SELECT COALESCE(d.admitted, 0), COALESCE(m.admitted, 0), COALESCE(m.completed, 0), COALESCE(m.failed, 0),
  COALESCE(m.cancelled, 0), COALESCE(m.spent, 0), COALESCE(m.reserved, 0),
  (SELECT COUNT(*) FROM waiting WHERE org_slug = :org),
  COALESCE(d.completed, 0), COALESCE(d.failed, 0), COALESCE(d.cancelled, 0),
  {counts}
FROM (SELECT 1) AS one
LEFT JOIN usage AS d ON d.org_slug = :org AND d.period = :day
LEFT JOIN usage AS m ON m.org_slug = :org AND m.period = :month
"""

JOIN_QUEUE = """
INSERT INTO waiting (org_slug, run_id, route, waits_for, backfill, since)
VALUES (:org, :run, :route, :waits_for, :backfill, :since)
"""
WAIT_FOR = "UPDATE waiting SET waits_for = :waits_for WHERE org_slug = :org AND run_id = :run"
LEAVE_QUEUE = "DELETE FROM waiting WHERE org_slug = :org AND run_id = :run"
QUEUE_LENGTH = "SELECT COUNT(*) FROM waiting WHERE org_slug = :org"

TURNS = """
SELECT org_slug, turn, EXISTS (SELECT 1 FROM waiting AS w WHERE w.org_slug = t.org_slug) FROM turns AS t
"""
SET_TURN = """
INSERT INTO turns (org_slug, turn) VALUES (:org, :turn) ON CONFLICT (org_slug) DO UPDATE SET turn = EXCLUDED.turn
"""
MOVE_TURN = "UPDATE turns SET turn = turn + :step WHERE org_slug = :org"

HEADS = """
SELECT org_slug, run_id, route, waits_for, backfill, since, turn FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY org_slug, route, backfill ORDER BY since, run_id) AS place
  FROM waiting{whose}
) AS heads JOIN turns USING (org_slug) WHERE place = 1
"""
ALL_HEADS, OWN_HEADS = HEADS.format(whose=""), HEADS.format(whose=" WHERE org_slug = :org")

PLACE = """
SELECT COUNT(*) FILTER (WHERE (a.backfill, a.since, a.run_id) <= (mine.backfill, mine.since, mine.run_id)), COUNT(*)
FROM waiting AS mine JOIN waiting AS a USING (org_slug) WHERE mine.org_slug = :org AND mine.run_id = :run
"""

LAST_COST = "SELECT cost FROM costs WHERE org_slug = :org AND route = :route"


@cache
def _reserve(money: bool, scopes: tuple[str, ...], waited: bool) -> str:
    """Return the statement that checks these limits as well as the day's and the month's, and takes the quota."""
    checks = [HAS_MONEY] if money else []
    for scope in scopes:
        taken = LIVE[scope] if waited else f"{LIVE[scope]} + {AHEAD[scope]}"
        checks.append(f"  AND {taken} < :{scope}\n")
    return RESERVE.format(take=TAKE_MONEY if money else "") + "".join(checks)


@cache
def _usage(scopes: tuple[str, ...]) -> str:
    """Return the query for usage, with the live and the waiting runs in these scopes."""
    live = [LIVE[scope] if scope in scopes or scope == "concurrent" else "0" for scope in SCOPES]
    ahead = [AHEAD[scope] if scope in scopes else "0" for scope in SCOPES]
    return USAGE.format(counts=", ".join((*live, *ahead)))


@cache
def _count(counters: tuple[str, ...], periods: int) -> str:
    """Return the statement that adds to these counters in this many periods."""
    added = ", ".join(f"{counter} = {counter} + :{counter}" for counter in counters)
    named = ", ".join(f":period_{number}" for number in range(periods))
    return f"UPDATE usage SET {added} WHERE org_slug = :org AND period IN ({named})"  # noqa: S608 - constants


def hold(transaction: Transaction, dialect: Dialect, demand: Demand, limits: Limits) -> None:
    """Reserve the quota that a run needs, or raise QuotaExceededError."""
    if dialect.REFUSES_EARLY and not demand.waited:
        # A cheap check without the lock; the one that counts is below. Without it, the requests of an organisation far
        # over its limits would queue for its row, each holding one of the process's few connections.
        _refuse(transaction, dialect, demand, limits)
    org, all_of_them = demand.org_slug, limits.global_concurrent is not None
    dialect.lock_turns(transaction, (DEPLOYMENT, org) if all_of_them else (org,))
    values = _values(dialect, demand)
    # A run that vanished frees its slot by expiry. Under a deployment limit the slots of all organisations count.
    transaction.execute(DROP_ALL_EXPIRED if all_of_them else DROP_EXPIRED, values)
    transaction.execute(MAKE_PERIODS, values)
    reserve, asked = _reservation(demand, limits)
    for _ in range(2):
        if transaction.execute(reserve, {**values, **asked}).rowcount == 2:
            break
        # PostgreSQL: a settlement does not take the ``turns`` lock, so it may free a slot after RESERVE refused and
        # before ``_refuse`` reads why. We hold the lock, so nobody else takes that slot: the second try gets it.
        _refuse(transaction, dialect, demand, limits)
    else:
        raise TransientError(
            "The quota kept changing while it was being reserved. Try again.",
            retry_after_s=1.0,
            kind=ErrorKind.CONFLICT,
        )
    values |= {"run": demand.run_id, "expires_at": dialect.time(demand.expires_at)}
    transaction.execute(ADD_RESERVATION, values)
    if demand.waited:
        transaction.execute(MOVE_TURN, {"step": next_turn(0, limits.weight), "org": org})


def _reservation(demand: Demand, limits: Limits) -> tuple[str, dict[str, Any]]:
    """Return the statement that reserves what the run needs, and its limits as parameters."""
    values: dict[str, Any] = {"daily": limits.daily, "monthly": limits.monthly, **limits.slots}
    has_money = limits.money_usd is not None or demand.estimate_usd > 0
    if has_money:
        cost = demand.cost_micro_usd
        money = NO_LIMIT if limits.money_usd is None else to_micro_usd(limits.money_usd)
        # A run estimated at 0 needs a micro-dollar of room too: with the money used up, nothing more is admitted.
        values |= {"cost": cost, "needed": max(cost, 1), "money": money}
    return _reserve(has_money, _scopes(limits), demand.waited), values


def _refuse(transaction: Transaction, dialect: Dialect, demand: Demand, limits: Limits) -> None:
    """Raise QuotaExceededError if a limit leaves no room."""
    usage = _read_usage(transaction, _scopes(limits), _values(dialect, demand))
    _raise(demand.refused(limits, usage))


def _raise(refused: LimitExceeded | None) -> None:
    if refused is not None:
        raise QuotaExceededError(**refused._asdict())


def _scopes(limits: Limits) -> tuple[str, ...]:
    return tuple(scope for scope, slots in limits.slots.items() if slots is not None)


def _values(dialect: Dialect, demand: Demand) -> dict[str, Any]:
    return {"route": demand.route, **_period(dialect, demand.org_slug, demand.at)}


def _period(dialect: Dialect, org_slug: str, now: datetime) -> dict[str, Any]:
    return {"org": org_slug, "now": dialect.time(now), "day": day_of(now), "month": month_of(now)}


def _read_usage(transaction: Transaction, scopes: tuple[str, ...], values: dict[str, Any]) -> Usage:
    daily, monthly, completed, failed, cancelled, spent, reserved, waiting, *rest = transaction.execute(
        _usage(scopes), values
    ).fetchone()
    ended_today, (pipeline, concurrent, deployment), ahead = rest[:3], rest[3:6], rest[6:]
    return Usage(
        daily,
        monthly,
        concurrent,
        completed,
        failed,
        cancelled,
        from_micro_usd(spent),
        from_micro_usd(reserved),
        waiting,
        pipeline,
        deployment,
        dict(zip(SCOPES, ahead, strict=True)) if scopes else {},
        Outcomes(*ended_today),
    )


def usage(transaction: Transaction, dialect: Dialect, org_slug: str, now: datetime) -> Usage:
    """Return what counts against the organisation's limits."""
    return _read_usage(transaction, (), _period(dialect, org_slug, now))


def check_queue(transaction: Transaction, dialect: Dialect, org_slug: str) -> None:
    """Raise QuotaExceededError if the organisation's queue is full. The lock keeps others from joining until commit."""
    dialect.lock_turns(transaction, (org_slug,))
    _raise(queue_full(transaction.execute(QUEUE_LENGTH, {"org": org_slug}).fetchone()[0]))


def carry_out(
    transaction: Transaction, dialect: Dialect, run: Run, commands: Iterable[Command], *, extends: bool
) -> None:
    """Apply a transition's commands to quota, costs and queue."""
    for change in changes(run, commands, extends=extends):
        values: dict[str, Any] = {"org": run.request.org_slug, "run": run.run_id}
        match change:
            case Counted(periods, amounts):
                values |= {f"period_{number}": period for number, period in enumerate(periods)}
                transaction.execute(_count(tuple(amounts), len(periods)), {**values, **amounts})
            case ReservationExtended(expires_at):
                transaction.execute(EXTEND_RESERVATION, {**values, "expires_at": dialect.time(expires_at)})
            case ReservationFreed():
                transaction.execute(FREE_RESERVATION, values)
            case CostKnown(micro_usd):
                transaction.execute(KEEP_COST, {**values, "route": run.request.route, "cost": micro_usd})
            case QueueMoved():
                _move(transaction, dialect, run, change)


def _move(transaction: Transaction, dialect: Dialect, run: Run, move: QueueMoved) -> None:
    request = run.request
    values: dict[str, Any] = {"org": request.org_slug, "run": run.run_id, "waits_for": move.after}
    if not move.before:
        _give_turn(transaction, request.org_slug)
        values |= {"route": request.route, "backfill": request.backfill, "since": dialect.time(request.requested_at)}
        transaction.execute(JOIN_QUEUE, values)
    else:
        transaction.execute(WAIT_FOR if move.after else LEAVE_QUEUE, values)


def _give_turn(transaction: Transaction, org_slug: str) -> None:
    """Set the turn of an organisation that starts to wait. ``check_queue`` holds its lock."""
    turns = {org: (turn, waits) for org, turn, waits in transaction.execute(TURNS).fetchall()}
    own, waits = turns.get(org_slug, (0, False))
    if not waits:
        waiting = [turn for turn, is_waiting in turns.values() if is_waiting]
        turn = joining_turn(own, waiting, [turn for turn, _ in turns.values()])
        transaction.execute(SET_TURN, {"org": org_slug, "turn": turn})


def queues(transaction: Transaction, dialect: Dialect, ended: Run | None) -> Sequence[Queue]:
    """Return the queues that are not empty; after the end of a run, those that can use the slot it freed."""
    # Without a global slot, the run freed slots of its own organisation only: no other queue can move.
    own = ended is not None and not ended.global_slot
    values = {"org": ended.request.org_slug} if ended is not None else {}
    waiting: dict[str, tuple[int, list[Waiting]]] = {}
    rows = transaction.execute(OWN_HEADS if own else ALL_HEADS, values).fetchall()
    for org_slug, run_id, route, waits_for, backfill, since, turn in rows:
        head = Waiting(run_id, route, waits_for, bool(backfill), dialect.from_time(since))
        waiting.setdefault(org_slug, (turn, []))[1].append(head)
    return [Queue(org_slug, turn, tuple(heads)) for org_slug, (turn, heads) in waiting.items()]


def place(transaction: Transaction, run: Run) -> Place | None:
    """Return the run's place in its organisation's queue, None if it does not wait."""
    row = transaction.execute(PLACE, {"org": run.request.org_slug, "run": run.run_id}).fetchone()
    return Place(*row) if row[1] else None


def last_cost(transaction: Transaction, org_slug: str, route: str) -> Decimal | None:
    """Return the cost in USD of the pipeline's last run whose cost is known."""
    row = transaction.execute(LAST_COST, {"org": org_slug, "route": route}).fetchone()
    return from_micro_usd(row[0]) if row else None
