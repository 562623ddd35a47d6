"""The order of a pinned pipeline's steps. Pure queries; nothing here changes a run.

An item of a map, ``load[3]``, is a step of its own: it starts when the item ``max_parallel`` places before it has
ended, so that at most that many run at the same time.
"""

import re
from collections.abc import Iterator, Mapping
from copy import replace
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

from common.domain.condition import ConditionError, parse
from common.domain.mapping import item_config
from common.domain.model import Run, Step, StepSpec, StepStatus

RUN_END = ""
"""The end of the run, in a list of the ids that a step's end may unlock."""

MAX_ITEMS = 1_000
ITEM_ID = re.compile(r"^(.+)\[(\d+)\]$")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do with a step now. ``unknown`` holds the ids of steps whose state must be read to decide."""

    kind: Literal["wait", "unknown", "queue", "expand", "skip", "omit", "fail"]
    reason: str = ""
    unknown: tuple[str, ...] = ()
    items: tuple[Any, ...] = ()


def item_id(step_id: str, index: int) -> str:
    """Return the id of one item's step."""
    return f"{step_id}[{index}]"


def map_of(step_id: str) -> tuple[str, int] | None:
    """Return (map step, index) of an item's step, or None for any other."""
    match = ITEM_ID.match(step_id) if step_id.endswith("]") else None
    return (match[1], int(match[2])) if match else None


def spec_of(run: Run, step_id: str) -> StepSpec | None:
    """Return the spec of a step, or of an item's step before ``{item}`` is replaced; None if there is none.

    Conditions and tolerance are the map's: a failed item fails the map, and that may be tolerated.
    """
    base = map_of(step_id)
    name = base[0] if base else step_id
    spec = next((spec for spec in run.specs if spec.step_id == name), None)
    if spec is None or base is None:
        return spec
    return replace(spec, step_id=step_id, map=None, condition="", allow_failure=False)


def work_order(run: Run, step: Step) -> Run:
    """Return the run reduced to one attempt: no other step, and the config and dates of its item."""
    spec, request = step.spec, run.request
    base = map_of(step.step_id)
    if base:
        parent = run.steps[base[0]]
        item = parent.items[base[1]]
        spec = replace(spec, config=item_config(spec.config, item))
        if parent.spec.map and parent.spec.map.dates:
            day = date.fromisoformat(item)
            request = replace(request, start_date=day, end_date=day)
    # What an attempt does not need is cleared: this travels in the message, which has to stay small.
    return replace(
        run,
        request=request,
        version=0,
        specs=(spec,),
        steps={},
        reason="",
        since=None,
        wake_at=None,
        expires_at=None,
        admitted_at=None,
        global_slot=False,
        estimate=None,
    )


def unlocked_by(run: Run, step_id: str) -> tuple[str, ...]:
    """Return what may start, or end, once this step has ended."""
    base = map_of(step_id)
    if base:
        parent = run.steps[base[0]]
        following = base[1] + _lanes(parent)
        return (item_id(base[0], following), base[0]) if following < len(parent.items) else (base[0],)
    after = tuple(spec.step_id for spec in run.specs if step_id in spec.depends_on)
    return after or (RUN_END,)


def sinks(run: Run) -> tuple[str, ...]:
    """Return the steps that nothing depends on: the run ends with the last of them."""
    needed = {name for spec in run.specs for name in spec.depends_on}
    return tuple(spec.step_id for spec in run.specs if spec.step_id not in needed)


def item_ids(step: Step) -> Iterator[str]:
    """Yield the ids of a map's items."""
    return (item_id(step.step_id, index) for index in range(len(step.items)))


def not_ended(run: Run, step_ids: tuple[str, ...]) -> tuple[bool, tuple[str, ...]]:
    """Return whether a loaded one of these steps is open, and the ids of those that were not loaded."""
    known = [run.steps.get(step_id) for step_id in step_ids]
    unknown = tuple(step_id for step_id, step in zip(step_ids, known, strict=True) if step is None)
    return any(step is not None and not step.status.is_terminal for step in known), unknown


def verdict(run: Run, step_id: str) -> Verdict:
    """Return what to do with a step that has no record yet."""
    base = map_of(step_id)
    if base:
        return _item_verdict(run, *base)
    spec = spec_of(run, step_id)
    assert spec is not None
    is_open, unknown = not_ended(run, spec.depends_on)
    if is_open:
        return Verdict("wait")
    if unknown:
        return Verdict("unknown", unknown=unknown)
    lost = [name for name in spec.depends_on if not run.steps[name].is_done]
    if lost and not spec.always:
        return Verdict("omit", f"{', '.join(lost)} did not succeed")
    return _startable(run, spec)


def _startable(run: Run, spec: StepSpec) -> Verdict:
    if spec.condition:
        try:
            if not parse(spec.condition).holds(_values(run, spec)):
                return Verdict("skip", f"its condition does not hold: {spec.condition}")
        except ConditionError as error:
            return Verdict("fail", f"its condition can't be answered: {error}")
    if spec.map is None:
        return Verdict("queue")
    step_id, _, name = spec.map.over.split(".")
    items = run.steps[step_id].receipt.outputs.get(name)
    problem = _items_problem(items, dates=spec.map.dates)
    if problem:
        return Verdict("fail", f"{spec.map.over} {problem}")
    assert isinstance(items, list | tuple)
    return Verdict("expand", f"{len(items)} items of {spec.map.over}", items=tuple(items))


def _items_problem(items: Any, *, dates: bool) -> str:
    if not isinstance(items, list | tuple):
        return "is not a list: the step did not put it out."
    if len(items) > MAX_ITEMS:
        return f"has {len(items)} items, a map takes at most {MAX_ITEMS}."
    if dates:
        for item in items:
            try:
                date.fromisoformat(item)
            except (ValueError, TypeError):
                return "holds an item that is no date (YYYY-MM-DD)."
        if len(set(items)) < len(items):
            return "holds a date twice: its items would replace each other's rows."
    return ""


def _item_verdict(run: Run, map_id: str, index: int) -> Verdict:
    parent = run.steps.get(map_id)
    if parent is None:
        return Verdict("unknown", unknown=(map_id,))
    before = index - _lanes(parent)  # waiting for one item needs no count of those that run
    if before < 0:
        return Verdict("queue")
    is_open, unknown = not_ended(run, (item_id(map_id, before),))
    if is_open:
        return Verdict("wait")
    return Verdict("unknown", unknown=unknown) if unknown else Verdict("queue")


def _lanes(parent: Step) -> int:
    return parent.spec.map.max_parallel if parent.spec.map else 1


def _values(run: Run, spec: StepSpec) -> Mapping[str, Any]:
    """Return the values that a condition may use: those of the run and of the steps that the step depends on."""
    request = run.request
    values: dict[str, Any] = {
        "run.start_date": request.start_date.isoformat(),
        "run.end_date": request.end_date.isoformat(),
        "run.org_slug": request.org_slug,
        "run.credential_id": run.credential_id,
        "run.trigger": request.trigger,
        "run.pipeline_id": run.pipeline_id,
    }
    for name in spec.depends_on:
        step = run.steps[name]
        values[f"steps.{name}.rows"] = step.receipt.rows
        values[f"steps.{name}.status"] = str(step.status)
        values |= {f"steps.{name}.outputs.{key}": value for key, value in step.receipt.outputs.items()}
    return values


def blocked_by(run: Run, step: Step) -> tuple[str, ...]:
    """Return the steps that a waiting step waits for, of a run that was loaded whole."""
    if step.status is not StepStatus.WAITING:
        return ()
    base = map_of(step.step_id)
    if base:
        before = base[1] - _lanes(run.steps[base[0]])
        return (item_id(base[0], before),) if before >= 0 else ()
    return tuple(name for name in step.spec.depends_on if not run.steps[name].status.is_terminal)


def whole(run: Run, records: Mapping[str, Step]) -> Run:
    """Return the run with every step: those with a record, and the others as these imply.

    A step that could start is ``queued``: its message is on its way since the last of those it waited for ended.
    """
    steps: dict[str, Step] = {}
    for spec in run.specs:
        steps[spec.step_id] = parent = records.get(spec.step_id) or unstarted(run, spec)
        if parent.items:
            part = spec_of(run, item_id(spec.step_id, 0))
            assert part is not None
            for name in item_ids(parent):
                steps[name] = records.get(name) or Step(replace(part, step_id=name), since=parent.since)
    full = replace(run, steps=steps)
    for step in list(steps.values()) if not run.status.is_terminal and run.started_at else ():
        if step.status is StepStatus.WAITING and verdict(full, step.step_id).kind == "queue":
            steps[step.step_id] = queued(step, _turn(full, step))
    return full


def queued(step: Step, since: datetime | None) -> Step:
    """Return the step as it is while the message of its first attempt is on its way."""
    return replace(step, status=StepStatus.QUEUED, attempt=1, since=since, reason="waits for its function")


def _turn(run: Run, step: Step) -> datetime | None:
    """Return when the last of what the step waited for ended."""
    base = map_of(step.step_id)
    before = [base[0]] if base else step.spec.depends_on
    if base and base[1] >= _lanes(run.steps[base[0]]):
        before = [item_id(base[0], base[1] - _lanes(run.steps[base[0]]))]
    ends = [s.ended_at or s.since for name in before if (s := run.steps.get(name))]
    return max((at for at in ends if at is not None), default=run.started_at)


def unstarted(run: Run, spec: StepSpec) -> Step:
    """Return a step that has not started."""
    return Step(spec, since=run.started_at, reason=f"waits for {', '.join(spec.depends_on)}")
