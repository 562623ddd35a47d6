"""Runs, steps and usage as Firestore documents, and back.

``runs/{run_id}``, ``runs/{run_id}/steps/{step_id}`` and ``usage/{org_slug}``. ``body`` holds the whole value as JSON;
the fields beside it are there to be queried. ``commit`` is made anew for each write: Firestore leaves the update time
alone when a write changes nothing, and the update time is the version.

Queries need these indexes beyond the automatic ones: composite on ``runs`` (``org_slug``, ``requested_at`` descending),
the same with ``route`` and with ``status`` between the two; of the collection group ``steps`` the single fields
``run_id`` and ``deadline``. ``body``, ``changes``, ``commit`` and all of ``usage`` need none, and are cheaper without.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from heapq import merge
from typing import Any, Self

from common.adapters.google.firestore_client import USUAL_ID, version
from common.codec import decode_changes, decode_run, decode_step, encode_changes, encode_run, encode_step
from common.domain.draft import Change, Transition
from common.domain.model import Run, RunStatus, Step
from common.domain.plan import spec_of
from common.domain.quota import Usage, day_of, month_of
from common.errors import RequestError

RESERVATION_GRACE = timedelta(minutes=5)
"""A reservation outlives its run's ``expires_at`` by some sweeps: the sweep that ends the run settles it."""

KEPT_DAYS = 62
KEPT_MONTHS = 24
SEQUENCE_DIGITS = 20


def run_fields(run: Run, commit: str) -> dict[str, Any]:
    """Return what changes of a run's document."""
    return {"status": str(run.status), "wake_at": run.wake_at, "commit": commit, "body": encode_run(run).decode()}


def fixed_run_fields(run: Run) -> dict[str, Any]:
    """Return what never changes of a run's document."""
    request = run.request
    return {"org_slug": request.org_slug, "route": request.route, "requested_at": request.requested_at}


def step_fields(run_id: str, step: Step, commit: str) -> dict[str, Any]:
    """Return a step's document, without its changes."""
    return {
        "run_id": run_id,
        "step_id": step.step_id,
        "ended": step.status.is_terminal,
        "deadline": step.deadline,
        "commit": commit,
        "body": encode_step(step).decode(),
    }


def read_run(snapshot: Any) -> Run:
    """Return the run of a document, without steps."""
    return decode_run(snapshot.get("body"), version(snapshot.update_time))


def read_steps(run: Run, snapshots: Iterable[Any]) -> dict[str, Step]:
    """Return the steps of these documents by id, as far as the run's pipeline has them."""
    found: dict[str, Step] = {}
    for one in snapshots:
        spec = spec_of(run, one.id)
        if spec is not None:
            found[one.id] = decode_step(one.get("body"), version(one.update_time), spec)
    return found


def change_entries(transition: Transition, now_ns: Callable[[], int] = time.time_ns) -> dict[str, list[str]]:
    """Return the entries of ``changes`` by step id ("": the run's document), each with its place in the order.

    A change is kept in the document of what it is about, so that none grows with the number of steps; that of a step
    whose record this transition does not write, with the run. Clocks of functions may differ: see ``read_changes``.
    """
    first, entries = now_ns(), dict[str, list[str]]()
    home = "" if transition.header else next(iter(transition.touched), "")
    for number, change in enumerate(transition.changes):
        place = change.step_id if change.step_id in transition.touched else home
        body = encode_changes((change,)).decode()
        entries.setdefault(place, []).append(f"{first + number:0{SEQUENCE_DIGITS}d}{body}")
    return entries


def read_changes(documents: Iterable[Sequence[str]]) -> list[Change]:
    """Return the changes of these documents in one order, which is that of the array within each document."""
    told = merge(*documents, key=lambda entry: entry[:SEQUENCE_DIGITS])
    return [change for entry in told for change in decode_changes(entry[SEQUENCE_DIGITS:])]


@dataclass(frozen=True, slots=True)
class Book:
    """An organisation's usage: admitted runs a day, admitted and ended runs a month, and the slots that are held."""

    days: Mapping[str, int]
    months: Mapping[str, Mapping[str, int]]
    reservations: Mapping[str, datetime]

    @classmethod
    def read(cls, snapshot: Any | None) -> Self:
        """Return the book of a document, or an empty one."""
        data: dict[str, Any] = snapshot.to_dict() if snapshot is not None else {}
        return cls(data.get("days", {}), data.get("months", {}), data.get("reservations", {}))

    def usage(self, now: datetime) -> Usage:
        """Return what counts at ``now``. Stale reservations don't."""
        month = self.months.get(month_of(now), {})
        live = sum(until > now for until in self.reservations.values())
        ended = (month.get(str(status), 0) for status in (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED))
        return Usage(self.days.get(day_of(now), 0), month.get("admitted", 0), live, *ended)

    def admitting(self, run: Run) -> Self:
        """Return the book with this run counted and its slot held, and without what is stale or long past."""
        now = run.request.requested_at
        day, month = day_of(now), month_of(now)
        counts = self.months.get(month, {})
        months = {**self.months, month: {**counts, "admitted": counts.get("admitted", 0) + 1}}
        held = {run_id: until for run_id, until in self.reservations.items() if until > now}
        return replace(
            self,
            days=_latest({**self.days, day: self.days.get(day, 0) + 1}, KEPT_DAYS),
            months=_latest(months, KEPT_MONTHS),
            reservations=held | held_until(run),
        )

    def fields(self) -> dict[str, Any]:
        """Return the document."""
        return {"days": self.days, "months": self.months, "reservations": self.reservations}


def _latest[T](periods: Mapping[str, T], count: int) -> dict[str, T]:
    return {period: periods[period] for period in sorted(periods)[-count:]}


def held_until(run: Run) -> dict[str, datetime]:
    """Return the run's entry of ``reservations``; none of a run that has ended."""
    return {run.run_id: run.expires_at + RESERVATION_GRACE} if run.expires_at else {}


def moves_reservation(transition: Transition) -> bool:
    """Return whether this transition of a running run may have moved its ``expires_at``.

    The run's own transitions do, and those that let a step rest. A sweep that only sets its next time does not, and
    spares the write.
    """
    run = transition.run
    if not transition.header or run.expires_at is None:
        return False
    steps = (run.steps[step_id] for step_id in transition.touched)
    return any(not change.step_id for change in transition.changes) or any(step.not_before for step in steps)


def encode_cursor(run: Run) -> str:
    """Return the cursor of the page after this run."""
    return json.dumps([run.request.requested_at.astimezone(UTC).isoformat(), run.run_id])


def decode_cursor(cursor: str) -> tuple[datetime, str]:
    """Return (requested_at, run id) of a cursor that ``encode_cursor`` made. Raises RequestError."""
    try:
        at, run_id = json.loads(cursor)
        if not USUAL_ID.fullmatch(run_id):
            raise ValueError(run_id)
        return datetime.fromisoformat(at).astimezone(UTC), run_id
    except (ValueError, TypeError, OverflowError) as error:
        raise RequestError(
            "cursor: not one that this API gave out; leave it away to start at the newest run."
        ) from error
