"""Runs that wait for a slot: whose turn it is. Standard library only, no clock, no I/O.

Slots go round the organisations by weight (start-time fair queueing): each has a turn, a virtual time that moves on by
1/weight with each of its runs that is admitted from the queue, and the lowest goes next. One that begins to wait
starts at the lowest turn of those already waiting, so that an organisation that never queued has no credit. Within an
organisation live work goes before backfills, then the run that has waited longest.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

TURN = 1_000_000_000
"""How far a run moves the turn of an organisation of weight 1. Large, because turns are integers divided by weights."""

Block = tuple[str, str, str]
"""A limit without room: (limit, organisation, route), the latter two empty where the limit spans all of them."""


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
    """An organisation that waits: its turn, and the next run of each of its pipelines, live and backfill."""

    org_slug: str
    turn: int
    heads: tuple[Waiting, ...]


def heads(waiting: Iterable[Waiting]) -> tuple[Waiting, ...]:
    """Return the next run of each pipeline, live and backfill, of an organisation's waiting runs."""
    first: dict[tuple[str, bool], Waiting] = {}
    for run in sorted(waiting, key=lambda run: run.order):
        first.setdefault((run.route, run.backfill), run)
    return tuple(first.values())


def choose(queues: Iterable[Queue], blocked: Collection[Block]) -> tuple[Queue, Waiting] | None:
    """Return the run whose turn it is among those that nothing blocks, with its organisation; None if all are."""
    best: tuple[Queue, Waiting] | None = None
    for queue in queues:
        free = [run for run in queue.heads if not blocks(queue.org_slug, run.route).intersection(blocked)]
        if not free:
            continue
        first = min(free, key=lambda run: run.order)
        if best is None or (queue.turn, first.since, queue.org_slug) < (best[0].turn, best[1].since, best[0].org_slug):
            best = queue, first
    return best


def block(limit: str, org_slug: str, route: str) -> Block:
    """Return what is full, once a run of this organisation and route has met this limit."""
    if limit == "global":
        return limit, "", ""
    # Another pipeline's run may be cheap enough for what is left of the money.
    return (limit, org_slug, route) if limit in ("pipeline", "money") else ("organisation", org_slug, "")


def blocks(org_slug: str, route: str) -> set[Block]:
    """Return every block that keeps a run of this organisation and route waiting."""
    return {block(limit, org_slug, route) for limit in ("global", "concurrent", "pipeline", "money")}


def joining_turn(own: int, waiting: Collection[int], others: Iterable[int]) -> int:
    """Return the turn of an organisation that begins to wait, given its last one and those of the others.

    ``waiting`` are the turns of organisations that wait, ``others`` those of all. Where none waits it starts at the
    highest, so that runs admitted while nobody else waited cost nothing.
    """
    return max(own, min(waiting) if waiting else max(others, default=0))


def next_turn(turn: int, weight: int) -> int:
    """Return an organisation's turn after one of its waiting runs was admitted."""
    # At least 1: with a huge weight the turn would stand still, and no other organisation would ever be served.
    return turn + max(1, TURN // weight)
