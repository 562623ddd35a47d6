"""Encodes runs and steps as Firestore documents, and back; usage has a module of its own.

``runs/{run_id}`` and ``runs/{run_id}/steps/{step_id}``. ``body`` holds the whole value as JSON; the other fields are
for queries. ``commit`` is new with each write: Firestore keeps the update time when a write changes nothing, and the
update time is the version.

``infra/firestore.indexes.json`` has the indexes that queries need beyond the automatic ones, and exempts from those the
fields that no query names: large ones, and maps, of which Firestore would index each entry.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from heapq import merge
from typing import Any

from common.adapters.google.firestore_client import version
from common.domain.graph import spec_of
from common.domain.model import Run, Step
from common.domain.state import Change, Transition
from common.runs.codec import decode_changes, decode_run, decode_step, encode_changes, encode_run, encode_step

SEQUENCE_DIGITS = 20


def run_fields(run: Run, commit: str) -> dict[str, Any]:
    """Return the fields of a run's document that change."""
    return {"status": str(run.status), "wake_at": run.wake_at, "commit": commit, "body": encode_run(run).decode()}


def fixed_run_fields(run: Run) -> dict[str, Any]:
    """Return the fields of a run's document that never change."""
    request = run.request
    return {"org_slug": request.org_slug, "route": request.route, "requested_at": request.requested_at}


def step_fields(run_id: str, step: Step, commit: str) -> dict[str, Any]:
    """Return a step's document, without its changes."""
    return {
        "run_id": run_id,
        "step_id": step.step_id,
        "ended": step.status.is_terminal,
        "deadline": step.due_at,
        "commit": commit,
        "body": encode_step(step).decode(),
    }


def read_run(snapshot: Any) -> Run:
    """Return the run of a document, without steps."""
    return decode_run(snapshot.get("body"), version(snapshot.update_time))


def read_steps(run: Run, snapshots: Iterable[Any]) -> dict[str, Step]:
    """Return the steps of these documents by id; steps that the run's pipeline does not have are left out."""
    steps: dict[str, Step] = {}
    for one in snapshots:
        spec = spec_of(run, one.id)
        if spec is not None:
            steps[one.id] = decode_step(one.get("body"), version(one.update_time), spec)
    return steps


def change_entries(transition: Transition, now_ns: Callable[[], int] = time.time_ns) -> dict[str, list[str]]:
    """Return the entries of ``changes`` by step id ("": the run's document), each prefixed with its sort key.

    A change is stored in its step's document, so that no document grows with the number of steps (it may hold 1 MiB);
    if this transition does not write that document, in the run's. The sort key is this function's clock, and clocks of
    functions differ: see ``read_changes``.
    """
    first, entries = now_ns(), dict[str, list[str]]()
    home = "" if transition.header else next(iter(transition.touched), "")
    for number, change in enumerate(transition.changes):
        place = change.step_id if change.step_id in transition.touched else home
        body = encode_changes((change,)).decode()
        entries.setdefault(place, []).append(f"{first + number:0{SEQUENCE_DIGITS}d}{body}")
    return entries


def read_changes(documents: Iterable[Sequence[str]]) -> list[Change]:
    """Merge the changes of these documents by time; within a document, the order of its array wins over clocks."""
    entries = merge(*documents, key=lambda entry: entry[:SEQUENCE_DIGITS])
    return [change for entry in entries for change in decode_changes(entry[SEQUENCE_DIGITS:])]
