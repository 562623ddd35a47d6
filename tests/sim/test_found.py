"""What the simulation has found, as short as can be."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

from common.domain import state
from common.domain.graph import whole
from common.domain.messages import (
    AttemptClaimed,
    AttemptFailed,
    AttemptSucceeded,
    DispatchStep,
    Event,
    RunValidated,
    Swept,
)
from common.domain.model import MapSpec, Pipeline, Receipt, Run, RunRequest, Step, StepSpec

T0, DAY = datetime(2026, 11, 21, tzinfo=UTC), date(2026, 11, 20)


class Stored:
    """A run as a store keeps it."""

    def __init__(self, new: state.Transition) -> None:
        self.header = replace(new.run, steps={})
        self.records = {name: replace(new.run.steps[name], version=1) for name in new.touched}

    def run(self) -> Run:
        return whole(self.header, self.records)

    def tell(self, event: Event, after_s: float = 0) -> list[str]:
        """Apply an event; return the steps that it sent."""
        done = state.apply(self.run(), event, T0 + timedelta(seconds=after_s))
        self.header = replace(done.run, steps={})
        for name in done.touched:
            step: Step = done.run.steps[name]
            self.records[name] = replace(step, version=step.version + 1)
        return [command.step.step_id for command in done.commands if isinstance(command, DispatchStep)]


def test_a_rerun_of_one_step_leaves_the_items_of_a_kept_map_alone() -> None:
    """A tolerated map that failed is kept; of its items only those that succeeded are: the others ran again."""
    load = StepSpec("load", "noop", ("list",), map=MapSpec("list.outputs.items", 1), allow_failure=True)
    specs = (StepSpec("list", "noop"), load, StepSpec("sum", "noop", ("load",)))
    stored = Stored(state.create(RunRequest("run_1", "acme", "a/b/c", DAY, DAY, T0)))
    stored.tell(RunValidated(Pipeline("p", "x", specs, "hash"), "cred"))
    listed = Receipt(outputs={"items": [1, 2]})
    for step_id, receipt in (("list", listed), ("load[0]", None), ("load[1]", Receipt()), ("sum", Receipt())):
        stored.tell(AttemptClaimed(step_id, 1, "me"))
        ended = AttemptSucceeded(step_id, 1, receipt) if receipt else AttemptFailed(step_id, 1, "no")
        stored.tell(ended)

    old = stored.run()
    again = Stored(state.rerun(old, replace(old.request, run_id="run_2"), "sum", who="me", why="so"))
    again.tell(RunValidated(Pipeline("p", "x", again.header.specs, "hash"), "cred"))
    assert again.tell(Swept(), after_s=130) == ["sum"]
