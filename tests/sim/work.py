"""What stands for processors and the warehouse: attempts that take time, fail in every way, wait, and write rows."""

from collections.abc import Callable
from datetime import timedelta

from common.domain.messages import AttemptFailed, AttemptSucceeded, AttemptSuspended
from common.domain.model import ErrorKind, Receipt, Run, Step
from common.platform.errors import LostLeaseError, StepTimeoutError, SupersededError
from common.runs.attempt import Result, _unexpected
from tests.sim.invariants import CANARY, Rules
from tests.sim.kernel import Kernel, Killed
from tests.sim.ledger import SimLedger

WEIGHTS = {  # succeed, fail for now, fail for good, take too long, wait for a job
    "steady": (1, 0, 0, 0, 0),
    "flaky": (5, 5, 0, 0, 0),
    "slow": (4, 1, 0, 4, 0),
    "waits": (2, 1, 0, 0, 4),
    "broken": (1, 3, 3, 1, 0),
    "mixed": (6, 2, 1, 1, 2),
}


class Work:
    """In the place of AttemptRunner. Held to ``timeout_seconds``, as the real one and the platform are."""

    def __init__(self, world: Kernel, rules: Rules) -> None:
        self._world, self._rules, self._ledger = world, rules, SimLedger()

    def run(self, order: Run, step: Step, still_ours: Callable[[], bool]) -> Result:
        self._rules.attempt_began(order, step)
        try:
            result = self._run(order, step, still_ours)
            self._rules.attempt_ended(order, step, result)
            return result
        finally:
            self._rules.attempt_stopped(order, step)

    def _run(self, order: Run, step: Step, still_ours: Callable[[], bool]) -> Result:
        world, rng = self._world, self._world.rng
        ends = world.seconds + step.spec.timeout_seconds
        kind = rng.choices(("ok", "fail", "bad", "long", "wait"), WEIGHTS[step.spec.config["mood"]])[0]
        world.trace(f"works on {step.step_id}/{step.attempt}: {kind}")
        if kind == "long":
            return self._too_long(step, ends)
        world.pause(rng.choice((0.01, 1, 10, 25)) * rng.random())
        if world.chance(world.faults.killed):
            raise Killed
        name = f"attempt {step.attempt} of {step.step_id}"
        if kind == "wait":
            look_at = world.now() + timedelta(seconds=rng.choice((1, 30, 200)))
            return AttemptSuspended(step.step_id, step.attempt, f"job_{step.step_id}", look_at)
        if kind == "bad":
            return AttemptFailed(step.step_id, step.attempt, f"{name}: no such report")
        if kind == "fail":
            return self._failed(step, name)
        return self._commit(order, step, still_ours, ends)

    def _too_long(self, step: Step, ends: float) -> Result:
        self._world.pause(ends - self._world.seconds)
        if self._world.rng.random() < 0.4:  # the platform ends the instance: nobody says so
            raise Killed
        text = f"attempt {step.attempt} of {step.step_id} used up its time"
        return AttemptFailed(step.step_id, step.attempt, text, ErrorKind.TIMEOUT)

    def _failed(self, step: Step, name: str) -> Result:
        rng = self._world.rng
        kind = rng.choice(list(ErrorKind))
        if kind is ErrorKind.UNEXPECTED:
            text = f"{name}: {_unexpected(ValueError(f'could not log in with {CANARY}'))}"
            return AttemptFailed(step.step_id, step.attempt, text, kind)
        rest = rng.choice((0.0, 5.0, 90.0, 900.0)) if kind is ErrorKind.RATE_LIMIT else 0.0
        return AttemptFailed(step.step_id, step.attempt, f"{name}: {kind}", kind, rest)

    def _commit(self, order: Run, step: Step, still_ours: Callable[[], bool], ends: float) -> Result:
        world, rng, config = self._world, self._world.rng, step.spec.config
        rows = rng.randrange(0, 10)
        if config["writes"]:
            if not still_ours():
                raise LostLeaseError(f"Attempt {step.attempt} of {step.step_id} was superseded.")
            # Between the look at the lease and the warehouse's commit anything may happen.
            world.pause(rng.random() * rng.choice((0.1, 5, step.spec.timeout_seconds)))
            if world.chance(5 * world.faults.stalled):
                self._rules.attempt_stopped(order, step)  # for all that anybody can see
                world.pause(rng.random() * rng.choice((60, 600, 3600)))
                world.trace(f"zombie {step.step_id}/{step.attempt} wakes up")
            elif world.seconds >= ends:
                return self._too_long(step, ends)
            if not self._write(order, step):
                return AttemptFailed(step.step_id, step.attempt, f"attempt {step.attempt}: refused by the ledger")
            if world.chance(world.faults.killed):
                raise Killed
            if world.chance(world.faults.reply_lost) and self._write(order, step):  # the client sends it again
                text = f"attempt {step.attempt} of {step.step_id}: no answer"
                return AttemptFailed(step.step_id, step.attempt, text, ErrorKind.UNAVAILABLE)
        day, size = order.request.start_date, config["list"]
        outputs = {"items": list(range(size)), "days": [(day + timedelta(days=n)).isoformat() for n in range(size)]}
        name = f"{order.run_id}/{step.step_id}/{step.attempt}"
        return AttemptSucceeded(step.step_id, step.attempt, Receipt(rows, content_hash=name, outputs=outputs))

    def _write(self, order: Run, step: Step) -> bool:
        """Commit, and return whether the rows are there; a repeat finds them and writes nothing."""
        days = self._rules.days_of(order, step)
        try:
            if self._ledger.commit(step, (order.run_id, step.step_id, step.attempt), days, self._world.now()):
                self._rules.wrote_rows(order, step)
        except (SupersededError, StepTimeoutError) as error:
            self._world.trace(f"{step.step_id}/{step.attempt} is refused: {error}")
            return False
        return True
