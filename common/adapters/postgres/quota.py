"""The quota part of the run store on PostgreSQL: reservations, counts, money, queues. Its caller has the transaction.

In READ COMMITTED a statement that has waited for a row sees that row as it is by then, but everything else, the
reservations that it counts among them, as it was before. So the row of the organisation (and that of the deployment)
is locked by a statement of its own, and the one that counts and takes begins after it. All locks are taken in one
order: a run's row, its steps, ``turns`` (the deployment's first), reservations, usage.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any

from common.adapters.postgres.client import AgainError, utc
from common.domain.messages import Command, MoveInQueue, SettleMoney, SettleReservation
from common.domain.model import Run
from common.domain.queueing import Place, Queue, Waiting, joining_turn, next_turn
from common.domain.quota import (
    RESERVATION_GRACE,
    SCOPES,
    Limits,
    Usage,
    day_of,
    exceeded,
    from_micro_usd,
    month_of,
    queue_full,
    to_micro_usd,
    wider,
)
from common.platform.errors import QuotaExceededError

if TYPE_CHECKING:
    from common.adapters.postgres.client import Cursor

DEPLOYMENT = "*"
"""The row of ``turns`` that stands for all organisations. No organisation has this name, and it sorts before theirs."""

LOCK = "SELECT turn FROM pipeline_ops.turns WHERE org_slug = ANY(%s) ORDER BY org_slug FOR UPDATE"
MAKE_ROWS = "INSERT INTO pipeline_ops.turns (org_slug) SELECT unnest(%s::text[]) ON CONFLICT DO NOTHING"

RESERVE = """
UPDATE pipeline_ops.usage SET admitted = admitted + 1{take}
WHERE org_slug = %(org)s AND period IN (%(day)s, %(month)s)
  AND NOT EXISTS (
    SELECT FROM pipeline_ops.usage WHERE org_slug = %(org)s AND period = %(day)s AND admitted >= %(daily)s
  )
  AND NOT EXISTS (
    SELECT FROM pipeline_ops.usage WHERE org_slug = %(org)s AND period = %(month)s AND admitted >= %(monthly)s
  )
"""
"""Check and take in one statement: it changes both rows, or none when any limit is used up."""

TAKE_MONEY = ", reserved = reserved + CASE period WHEN %(month)s THEN %(cost)s::bigint ELSE 0 END"
HAS_MONEY = """
  AND NOT EXISTS (
    SELECT FROM pipeline_ops.usage
    WHERE org_slug = %(org)s AND period = %(month)s AND spent + reserved + GREATEST(%(cost)s, 1) > %(money)s
  )
"""

WHOSE = {
    "pipeline": "org_slug = %(org)s AND route = %(route)s",
    "concurrent": "org_slug = %(org)s",
    "global": "TRUE",
}
"""Of which runs a slot of each scope is."""

LIVE = {
    scope: f"(SELECT COUNT(*) FROM pipeline_ops.reservations WHERE {whose} AND expires_at > %(now)s)"  # noqa: S608
    for scope, whose in WHOSE.items()
}
AHEAD = {
    scope: "(SELECT COUNT(*) FROM pipeline_ops.waiting "  # noqa: S608
    f"WHERE {whose} AND waits_for IN ({str(wider(scope)).strip('(,)')}))"
    for scope, whose in WHOSE.items()
}
NONE = "0::bigint"

USAGE = """
SELECT COALESCE(d.admitted, 0), COALESCE(m.admitted, 0), COALESCE(m.completed, 0), COALESCE(m.failed, 0),
  COALESCE(m.cancelled, 0), COALESCE(m.spent, 0), COALESCE(m.reserved, 0),
  (SELECT COUNT(*) FROM pipeline_ops.waiting WHERE org_slug = %(org)s),
  {counts}
FROM (SELECT) AS one
LEFT JOIN pipeline_ops.usage AS d ON d.org_slug = %(org)s AND d.period = %(day)s
LEFT JOIN pipeline_ops.usage AS m ON m.org_slug = %(org)s AND m.period = %(month)s
"""

HEADS = """
SELECT org_slug, run_id, route, waits_for, backfill, since, turn FROM (
  SELECT DISTINCT ON (org_slug, route, backfill) * FROM pipeline_ops.waiting
  WHERE %(org)s::text IS NULL OR org_slug = %(org)s ORDER BY org_slug, route, backfill, since, run_id
) AS heads JOIN pipeline_ops.turns USING (org_slug)
"""

PLACE = """
SELECT COUNT(*) FILTER (WHERE (a.backfill, a.since, a.run_id) <= (mine.backfill, mine.since, mine.run_id)), COUNT(*)
FROM pipeline_ops.waiting AS mine JOIN pipeline_ops.waiting AS a USING (org_slug)
WHERE mine.org_slug = %s AND mine.run_id = %s
"""

TURNS = """
SELECT org_slug, turn, EXISTS (SELECT FROM pipeline_ops.waiting AS w WHERE w.org_slug = t.org_slug)
FROM pipeline_ops.turns AS t
"""

KEEP_COST = """
INSERT INTO pipeline_ops.costs (org_slug, route, cost) VALUES (%s, %s, %s)
ON CONFLICT (org_slug, route) DO UPDATE SET cost = EXCLUDED.cost
"""


@cache
def _reserve(money: bool, scopes: tuple[str, ...], waited: bool) -> str:
    """Return the statement that checks these limits beside the day's and the month's, and takes."""
    checks = [HAS_MONEY] if money else []
    for scope in scopes:
        taken = LIVE[scope] if waited else f"{LIVE[scope]} + {AHEAD[scope]}"
        checks.append(f"  AND {taken} < %({scope})s\n")
    return RESERVE.format(take=TAKE_MONEY if money else "") + "".join(checks)


@cache
def _usage(scopes: tuple[str, ...]) -> str:
    """Return the query of what counts, with live and waiting runs in these scopes."""
    live = ", ".join(LIVE[scope] if scope in scopes or scope == "concurrent" else NONE for scope in SCOPES)
    ahead = ", ".join(AHEAD[scope] if scope in scopes else NONE for scope in SCOPES)
    return USAGE.format(counts=f"{live}, {ahead}")


def refuse_early(cursor: "Cursor", run: Run, limits: Limits) -> None:
    """Raise QuotaExceededError if there is no room by now, before anything is locked.

    What is admitted is decided in ``hold``. But while an organisation asks for far more than it gets, its requests
    would queue for its row, each with a connection that others need.
    """
    _refuse(cursor, run, limits, waited=False)


def hold(cursor: "Cursor", run: Run, limits: Limits, *, waited: bool) -> None:
    """Hold the run's quota, or raise QuotaExceededError. ``waited``: it comes out of the queue."""
    now, org, route = run.admitted_at, run.request.org_slug, run.request.route
    assert now is not None and run.expires_at is not None
    all_of_them = limits.global_concurrent is not None
    turn = _lock(cursor, (DEPLOYMENT, org) if all_of_them else (org,))
    whose, mine = ("TRUE", ()) if all_of_them else ("org_slug = %s", (org,))
    cursor.execute(
        f"DELETE FROM pipeline_ops.reservations WHERE expires_at <= %s AND {whose}",  # noqa: S608
        (now, *mine),
    )
    day, month, scopes = day_of(now), month_of(now), _scopes(limits)
    cursor.execute(
        "INSERT INTO pipeline_ops.usage (org_slug, period) VALUES (%s, %s), (%s, %s) ON CONFLICT DO NOTHING",
        (org, day, org, month),
    )
    values = _values(run, now) | {"daily": limits.daily, "monthly": limits.monthly, **_most(limits)}
    has_money = limits.money_usd is not None or run.estimate is not None
    if has_money:
        money = 2**62 if limits.money_usd is None else to_micro_usd(limits.money_usd)
        values |= {"cost": to_micro_usd(_cost(run)), "money": money}
    if cursor.execute(_reserve(has_money, scopes, waited), values).rowcount != 2:
        _refuse(cursor, run, limits, waited=waited)
        raise AgainError("a slot came free between the refusal and its reason")
    # A reservation that is there already is that of a run of this id, and its caller will meet the run.
    cursor.execute(
        "INSERT INTO pipeline_ops.reservations (org_slug, run_id, route, expires_at) VALUES (%s, %s, %s, %s)"
        " ON CONFLICT DO NOTHING",
        (org, run.run_id, route, run.expires_at + RESERVATION_GRACE),
    )
    if waited:
        change = "UPDATE pipeline_ops.turns SET turn = %s WHERE org_slug = %s"
        cursor.execute(change, (next_turn(turn, limits.weight), org))


def _lock(cursor: "Cursor", names: Sequence[str]) -> int:
    """Lock these rows of ``turns``; return the turn of the last. What is read from now on is what others have left."""
    found = cursor.execute(LOCK, (list(names),)).fetchall()
    while len(found) < len(names):
        cursor.execute(MAKE_ROWS, (list(names),))
        found = cursor.execute(LOCK, (list(names),)).fetchall()
    turn: int = found[-1][0]
    return turn


def _refuse(cursor: "Cursor", run: Run, limits: Limits, *, waited: bool) -> None:
    """Raise QuotaExceededError if a limit leaves no room."""
    assert run.admitted_at is not None
    counted = _read_usage(cursor, _scopes(limits), _values(run, run.admitted_at))
    hit = exceeded(limits, counted, run.admitted_at, cost_usd=_cost(run), waited=waited)
    if hit is not None:
        raise QuotaExceededError(**hit._asdict())


def _most(limits: Limits) -> dict[str, int | None]:
    return {"pipeline": limits.pipeline, "concurrent": limits.concurrent, "global": limits.global_concurrent}


def _scopes(limits: Limits) -> tuple[str, ...]:
    most = _most(limits)
    return tuple(scope for scope in SCOPES if most[scope] is not None)


def _cost(run: Run) -> Decimal:
    return run.estimate.usd if run.estimate else Decimal(0)


def _values(run: Run, now: datetime) -> dict[str, Any]:
    request = run.request
    return {"org": request.org_slug, "route": request.route, "now": now, "day": day_of(now), "month": month_of(now)}


def _read_usage(cursor: "Cursor", scopes: tuple[str, ...], values: dict[str, Any]) -> Usage:
    row = cursor.execute(_usage(scopes), values).fetchone()
    assert row is not None
    daily, monthly, completed, failed, cancelled, spent, reserved, waiting, *slots = row
    pipeline, concurrent, deployment, *ahead = slots
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
    )


def usage(cursor: "Cursor", org_slug: str, now: datetime) -> Usage:
    """Return what counts against the organisation's limits."""
    return _read_usage(cursor, (), {"org": org_slug, "now": now, "day": day_of(now), "month": month_of(now)})


def check_queue(cursor: "Cursor", org_slug: str) -> None:
    """Raise QuotaExceededError if the organisation's queue is full. Nobody else joins it in this transaction."""
    _lock(cursor, (org_slug,))
    row = cursor.execute("SELECT COUNT(*) FROM pipeline_ops.waiting WHERE org_slug = %s", (org_slug,)).fetchone()
    assert row is not None
    hit = queue_full(row[0])
    if hit is not None:
        raise QuotaExceededError(**hit._asdict())


def extend(cursor: "Cursor", run: Run) -> None:
    """Keep the run's reservation in step with the run."""
    if run.expires_at is not None and not run.waits_for:
        cursor.execute(
            "UPDATE pipeline_ops.reservations SET expires_at = %(until)s"
            " WHERE org_slug = %(org)s AND run_id = %(run)s AND expires_at <> %(until)s",
            {"until": run.expires_at + RESERVATION_GRACE, "org": run.request.org_slug, "run": run.run_id},
        )


def carry_out(cursor: "Cursor", run: Run, commands: Iterable[Command]) -> None:
    """Do what is for the quota to do."""
    for command in commands:
        match command:
            case SettleReservation():
                _settle(cursor, run, command)
            case SettleMoney():
                _settle_money(cursor, run, command)
            case MoveInQueue():
                _move(cursor, run, command)


def _settle(cursor: "Cursor", run: Run, command: SettleReservation) -> None:
    """Free the slot and count the outcome in the month that admitted the run."""
    org, outcome = run.request.org_slug, command.outcome.value
    delete = "DELETE FROM pipeline_ops.reservations WHERE org_slug = %s AND run_id = %s"
    cursor.execute(delete, (org, command.run_id))
    assert run.admitted_at is not None
    cursor.execute(
        f"UPDATE pipeline_ops.usage SET {outcome} = {outcome} + 1 WHERE org_slug = %s AND period = %s",  # noqa: S608
        (org, month_of(run.admitted_at)),
    )


def _settle_money(cursor: "Cursor", run: Run, command: SettleMoney) -> None:
    assert run.admitted_at is not None
    org, cost = run.request.org_slug, to_micro_usd(command.cost_usd)
    cursor.execute(
        "UPDATE pipeline_ops.usage SET reserved = reserved - %s, spent = spent + %s"
        " WHERE org_slug = %s AND period = %s",
        (to_micro_usd(command.estimated_usd), cost, org, month_of(run.admitted_at)),
    )
    if command.known:
        cursor.execute(KEEP_COST, (org, run.request.route, cost))


def _move(cursor: "Cursor", run: Run, command: MoveInQueue) -> None:
    request = run.request
    if not command.before:
        _join(cursor, request.org_slug)
        cursor.execute(
            "INSERT INTO pipeline_ops.waiting (org_slug, run_id, route, waits_for, backfill, since)"
            " VALUES (%s, %s, %s, %s, %s, %s)",
            (request.org_slug, run.run_id, request.route, command.after, request.backfill, request.requested_at),
        )
    elif command.after:
        change = "UPDATE pipeline_ops.waiting SET waits_for = %s WHERE org_slug = %s AND run_id = %s"
        cursor.execute(change, (command.after, request.org_slug, run.run_id))
    else:
        delete = "DELETE FROM pipeline_ops.waiting WHERE org_slug = %s AND run_id = %s"
        cursor.execute(delete, (request.org_slug, run.run_id))


def _join(cursor: "Cursor", org_slug: str) -> None:
    """Give an organisation that begins to wait its turn. ``check_queue`` has locked its row."""
    turns = {org: (turn, waits) for org, turn, waits in cursor.execute(TURNS)}
    own, waits = turns[org_slug]
    if not waits:
        waiting = [turn for turn, its_waits in turns.values() if its_waits]
        turn = joining_turn(own, waiting, [turn for turn, _ in turns.values()])
        cursor.execute("UPDATE pipeline_ops.turns SET turn = %s WHERE org_slug = %s", (turn, org_slug))


def queues(cursor: "Cursor", ended: Run | None) -> Sequence[Queue]:
    """Return the queues that have runs in them."""
    org = None if ended is None or ended.global_slot else ended.request.org_slug
    found: dict[str, tuple[int, list[Waiting]]] = {}
    for org_slug, run_id, route, waits_for, backfill, since, turn in cursor.execute(HEADS, {"org": org}):
        head = Waiting(run_id, route, waits_for, backfill, utc(since))
        found.setdefault(org_slug, (turn, []))[1].append(head)
    return [Queue(org_slug, turn, tuple(heads)) for org_slug, (turn, heads) in found.items()]


def place(cursor: "Cursor", run: Run) -> Place | None:
    """Return where the run stands in its organisation's queue."""
    row = cursor.execute(PLACE, (run.request.org_slug, run.run_id)).fetchone()
    return Place(*row) if row and row[1] else None


def last_cost(cursor: "Cursor", org_slug: str, route: str) -> Decimal | None:
    """Return what the pipeline's last run of known cost has cost."""
    select = "SELECT cost FROM pipeline_ops.costs WHERE org_slug = %s AND route = %s"
    row = cursor.execute(select, (org_slug, route)).fetchone()
    return from_micro_usd(row[0]) if row else None
