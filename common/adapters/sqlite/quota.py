"""The quota part of the run store on SQLite: reservations, counts, money and queues. Its caller has the transaction."""

import sqlite3
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from functools import cache

from common.adapters.sqlite.database import from_micros, to_micros
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

RESERVE = """
UPDATE usage SET admitted = admitted + 1{take}
WHERE org_slug = :org AND period IN (:day, :month)
  AND NOT EXISTS (SELECT 1 FROM usage WHERE org_slug = :org AND period = :day AND admitted >= :daily)
  AND NOT EXISTS (SELECT 1 FROM usage WHERE org_slug = :org AND period = :month AND admitted >= :monthly)
"""
"""Check and take in one statement: it changes both rows, or none when any limit is used up."""

TAKE_MONEY = ", reserved = reserved + CASE period WHEN :month THEN :cost ELSE 0 END"
HAS_MONEY = """
  AND NOT EXISTS (
    SELECT 1 FROM usage WHERE org_slug = :org AND period = :month AND spent + reserved + MAX(:cost, 1) > :money
  )
"""

WHOSE = {
    "pipeline": "org_slug = :org AND route = :route",
    "concurrent": "org_slug = :org",
    "global": "TRUE",
}
"""Of which runs a slot of each scope is."""

LIVE = {scope: f"(SELECT COUNT(*) FROM reservations WHERE {whose})" for scope, whose in WHOSE.items()}  # noqa: S608
AHEAD = {
    scope: f"(SELECT COUNT(*) FROM waiting WHERE {whose} AND waits_for IN ({str(wider(scope)).strip('(,)')}))"  # noqa: S608
    for scope, whose in WHOSE.items()
}

HEADS = """
SELECT org_slug, run_id, route, waits_for, backfill, since, turn FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY org_slug, route, backfill ORDER BY since, run_id) AS place FROM waiting
  WHERE :org IS NULL OR org_slug = :org
) JOIN turns USING (org_slug) WHERE place = 1
"""

PLACE = """
SELECT COUNT(*) FILTER (WHERE (a.backfill, a.since, a.run_id) <= (mine.backfill, mine.since, mine.run_id)), COUNT(*)
FROM waiting AS mine JOIN waiting AS a USING (org_slug) WHERE mine.org_slug = ? AND mine.run_id = ?
"""

COUNTS = """
SELECT period, admitted, completed, failed, cancelled, spent, reserved FROM usage
WHERE org_slug = ? AND period IN (?, ?)
"""


@cache
def _reserve(money: bool, scopes: tuple[str, ...], waited: bool) -> str:
    """Return the statement that checks these limits beside the day's and the month's, and takes."""
    checks = [HAS_MONEY] if money else []
    for scope in scopes:
        taken = LIVE[scope] if waited else f"{LIVE[scope]} + {AHEAD[scope]}"
        checks.append(f"  AND {taken} < :{scope}\n")
    return RESERVE.format(take=TAKE_MONEY if money else "") + "".join(checks)


def hold(db: sqlite3.Connection, run: Run, limits: Limits, *, waited: bool) -> None:
    """Hold the run's quota, or raise QuotaExceededError. ``waited``: it comes out of the queue."""
    now, org, route = run.admitted_at, run.request.org_slug, run.request.route
    assert now is not None and run.expires_at is not None
    most = {"pipeline": limits.pipeline, "concurrent": limits.concurrent, "global": limits.global_concurrent}
    whose, mine = ("TRUE", ()) if limits.global_concurrent is not None else ("org_slug = ?", (org,))
    db.execute(f"DELETE FROM reservations WHERE expires_at <= ? AND {whose}", (to_micros(now), *mine))  # noqa: S608
    day, month = day_of(now), month_of(now)
    db.executemany("INSERT OR IGNORE INTO usage (org_slug, period) VALUES (?, ?)", [(org, day), (org, month)])
    cost = run.estimate.usd if run.estimate else Decimal(0)
    values = {"org": org, "day": day, "month": month, "daily": limits.daily, "monthly": limits.monthly, **most}
    if limits.money_usd is not None or run.estimate:
        money = 2**62 if limits.money_usd is None else to_micro_usd(limits.money_usd)
        values |= {"cost": to_micro_usd(cost), "money": money}
    scopes = tuple(scope for scope in SCOPES if most[scope] is not None)
    taken = db.execute(_reserve("money" in values, scopes, waited), {**values, "route": route})
    if taken.rowcount != 2:
        hit = exceeded(limits, usage(db, org, now, route), now, cost_usd=cost, waited=waited)
        assert hit is not None, "the reservation was refused though no limit is used up"
        raise QuotaExceededError(**hit._asdict())
    db.execute(
        "INSERT INTO reservations (org_slug, run_id, route, expires_at) VALUES (?, ?, ?, ?)",
        (org, run.run_id, route, to_micros(run.expires_at + RESERVATION_GRACE)),
    )
    if waited:
        turn = next_turn(_turn(db, org), limits.weight)
        db.execute("UPDATE turns SET turn = ? WHERE org_slug = ?", (turn, org))


def check_queue(db: sqlite3.Connection, org_slug: str) -> None:
    """Raise QuotaExceededError if the organisation's queue is full."""
    hit = queue_full(db.execute("SELECT COUNT(*) FROM waiting WHERE org_slug = ?", (org_slug,)).fetchone()[0])
    if hit is not None:
        raise QuotaExceededError(**hit._asdict())


def extend(db: sqlite3.Connection, run: Run) -> None:
    """Keep the run's reservation in step with the run."""
    if run.expires_at is not None:
        slot = (to_micros(run.expires_at + RESERVATION_GRACE), run.request.org_slug, run.run_id)
        db.execute("UPDATE reservations SET expires_at = ? WHERE org_slug = ? AND run_id = ?", slot)


def carry_out(db: sqlite3.Connection, run: Run, commands: Iterable[Command]) -> None:
    """Do what is for the quota to do."""
    for command in commands:
        match command:
            case SettleReservation():
                _settle(db, run, command)
            case SettleMoney():
                _settle_money(db, run, command)
            case MoveInQueue():
                _move(db, run, command)


def _settle(db: sqlite3.Connection, run: Run, command: SettleReservation) -> None:
    """Free the slot and count the outcome in the month that admitted the run."""
    slot = (run.request.org_slug, command.run_id)
    db.execute("DELETE FROM reservations WHERE org_slug = ? AND run_id = ?", slot)
    outcome = command.outcome.value
    assert run.admitted_at is not None
    db.execute(
        f"UPDATE usage SET {outcome} = {outcome} + 1 WHERE org_slug = ? AND period IN (?, ?)",  # noqa: S608
        (run.request.org_slug, day_of(run.admitted_at), month_of(run.admitted_at)),
    )


def _settle_money(db: sqlite3.Connection, run: Run, command: SettleMoney) -> None:
    assert run.admitted_at is not None
    org, cost = run.request.org_slug, to_micro_usd(command.cost_usd)
    db.execute(
        "UPDATE usage SET reserved = reserved - ?, spent = spent + ? WHERE org_slug = ? AND period = ?",
        (to_micro_usd(command.estimated_usd), cost, org, month_of(run.admitted_at)),
    )
    if command.known:
        db.execute(
            "INSERT OR REPLACE INTO costs (org_slug, route, cost) VALUES (?, ?, ?)", (org, run.request.route, cost)
        )


def _move(db: sqlite3.Connection, run: Run, command: MoveInQueue) -> None:
    request = run.request
    if not command.before:
        _join(db, request.org_slug)
        row = (
            request.org_slug,
            run.run_id,
            request.route,
            command.after,
            request.backfill,
            to_micros(request.requested_at),
        )
        db.execute(
            "INSERT INTO waiting (org_slug, run_id, route, waits_for, backfill, since) VALUES (?, ?, ?, ?, ?, ?)", row
        )
    elif command.after:
        values = (command.after, request.org_slug, run.run_id)
        db.execute("UPDATE waiting SET waits_for = ? WHERE org_slug = ? AND run_id = ?", values)
    else:
        db.execute("DELETE FROM waiting WHERE org_slug = ? AND run_id = ?", (request.org_slug, run.run_id))


def _join(db: sqlite3.Connection, org_slug: str) -> None:
    """Give an organisation that begins to wait its turn."""
    turns = dict(db.execute("SELECT org_slug, turn FROM turns").fetchall())
    waiting = {org for (org,) in db.execute("SELECT DISTINCT org_slug FROM waiting")}
    if org_slug not in waiting:
        turn = joining_turn(turns.get(org_slug, 0), [turns[org] for org in waiting], turns.values())
        db.execute("INSERT OR REPLACE INTO turns (org_slug, turn) VALUES (?, ?)", (org_slug, turn))


def _turn(db: sqlite3.Connection, org_slug: str) -> int:
    turn: int = db.execute("SELECT turn FROM turns WHERE org_slug = ?", (org_slug,)).fetchone()[0]
    return turn


def usage(db: sqlite3.Connection, org_slug: str, now: datetime, route: str = "") -> Usage:
    """Return what counts against the organisation's limits; with ``route`` also what one of its runs is checked on."""
    counts = {period: rest for period, *rest in db.execute(COUNTS, (org_slug, day_of(now), month_of(now)))}
    nothing = (0, 0, 0, 0, 0, 0)
    monthly, completed, failed, cancelled, spent, reserved = counts.get(month_of(now), nothing)
    values = {"org": org_slug, "route": route, "now": to_micros(now)}

    def count(query: str) -> int:
        number: int = db.execute(f"SELECT {query}", values).fetchone()[0]
        return number

    live = {
        scope: count(f"{LIVE[scope][:-1]} AND expires_at > :now)") for scope in SCOPES if route or scope == "concurrent"
    }
    return Usage(
        counts.get(day_of(now), nothing)[0],
        monthly,
        live["concurrent"],
        completed,
        failed,
        cancelled,
        from_micro_usd(spent),
        from_micro_usd(reserved),
        count("(SELECT COUNT(*) FROM waiting WHERE org_slug = :org)"),
        live.get("pipeline", 0),
        live.get("global", 0),
        {scope: count(AHEAD[scope]) for scope in SCOPES} if route else {},
    )


def queues(db: sqlite3.Connection, ended: Run | None) -> Sequence[Queue]:
    """Return the queues that have runs in them."""
    org = None if ended is None or ended.global_slot else ended.request.org_slug
    found: dict[str, tuple[int, list[Waiting]]] = {}
    for org_slug, run_id, route, waits_for, backfill, since, turn in db.execute(HEADS, {"org": org}):
        head = Waiting(run_id, route, waits_for, bool(backfill), from_micros(since))
        found.setdefault(org_slug, (turn, []))[1].append(head)
    return [Queue(org_slug, turn, tuple(heads)) for org_slug, (turn, heads) in found.items()]


def place(db: sqlite3.Connection, run: Run) -> Place | None:
    """Return where the run stands in its organisation's queue."""
    row = db.execute(PLACE, (run.request.org_slug, run.run_id)).fetchone()
    return Place(*row) if row[1] else None


def last_cost(db: sqlite3.Connection, org_slug: str, route: str) -> Decimal | None:
    """Return what the pipeline's last run of known cost has cost."""
    row = db.execute("SELECT cost FROM costs WHERE org_slug = ? AND route = ?", (org_slug, route)).fetchone()
    return from_micro_usd(row[0]) if row else None
