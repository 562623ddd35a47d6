"""Runs that wait for a slot: whose turn it is. Standard library only, no clock, no I/O.

Slots go round the organisations by weight (start-time fair queueing): each has a turn, a virtual time that moves on by
1/weight with each of its runs that is admitted from the queue, and the lowest goes next. One that begins to wait
starts at the turn of those that wait already, so that nobody saves up turns by not waiting. Within an organisation
live work goes before backfills, then whoever has waited longest.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

WAIT_AT_MOST = timedelta(hours=24)
"""A run that gets no slot for this long fails, and counts against no limit."""

TURN = 1_000_000_000
"""By this much the turn of an organisation of weight 1 moves on with a run."""

Block = tuple[str, str, str]
"""Something that has no room now: (limit, organisation, route), empty where the limit is not of one."""


class Place(NamedTuple):
    """Where a run stands in its organisation's queue, from 1, and how many wait there."""

    place: int
    of: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """A run that waits: for which limit, and since when."""

    run_id: str
    route: str
    waits_for: str
    backfill: bool
    since: datetime

    @property
    def order(self) -> tuple[bool, datetime, str]:
        """Its place among the runs of its organisation: the lowest goes first."""
        return self.backfill, self.since, self.run_id


@dataclass(frozen=True, slots=True)
class Queue:
    """An organisation that waits: its turn, and the next of its runs, of each pipeline, live and backfill."""

    org_slug: str
    turn: int
    heads: tuple[Waiting, ...]


def heads(waiting: Iterable[Waiting]) -> tuple[Waiting, ...]:
    """Return the next run of each pipeline, live and backfill, of all that wait in one organisation."""
    first: dict[tuple[str, bool], Waiting] = {}
    for one in sorted(waiting, key=lambda one: one.order):
        first.setdefault((one.route, one.backfill), one)
    return tuple(first.values())


def choose(queues: Iterable[Queue], blocked: Collection[Block]) -> tuple[Queue, Waiting] | None:
    """Return the run whose turn it is among those that nothing blocks, with its organisation; None if all are."""
    best: tuple[Queue, Waiting] | None = None
    for queue in queues:
        free = [one for one in queue.heads if not blocks(queue.org_slug, one.route).intersection(blocked)]
        if not free:
            continue
        first = min(free, key=lambda one: one.order)
        if best is None or (queue.turn, first.since, queue.org_slug) < (best[0].turn, best[1].since, best[0].org_slug):
            best = queue, first
    return best


def block(limit: str, org_slug: str, route: str) -> Block:
    """Return what has no room, after a run of this organisation and route has met this limit."""
    if limit == "global":
        return limit, "", ""
    # Another pipeline's run may be cheap enough for what is left of the money.
    return (limit, org_slug, route) if limit in ("pipeline", "money") else ("organisation", org_slug, "")


def blocks(org_slug: str, route: str) -> set[Block]:
    """Return all that keeps a run of this organisation and route waiting."""
    return {block(limit, org_slug, route) for limit in ("global", "concurrent", "pipeline", "money")}


def joining_turn(own: int, waiting: Collection[int], others: Iterable[int]) -> int:
    """Return the turn of an organisation that begins to wait, from its own of before and those of the others.

    ``waiting`` are the turns of those that wait, ``others`` those of all there are: none waits, then nobody is ahead.
    """
    return max(own, min(waiting) if waiting else max(others, default=0))


def next_turn(turn: int, weight: int) -> int:
    """Return the turn of an organisation of which a waiting run was admitted."""
    return turn + max(1, TURN // weight)
