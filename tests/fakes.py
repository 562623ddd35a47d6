"""A clock that stands still, and a processor that does as the test says."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from common.processors.base import Params, StepContext
from common.writes.batch import Batch, Waiting


class FakeClock:
    """The time is what the test says."""

    def __init__(self, now: datetime = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def tick(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class ScriptedParams(Params):
    """``config:`` of a scripted step: the name of its script, and anything to look at."""

    script: str = "ok"
    note: str = ""


class Scripted:
    """Runs a function of the test's, by name. It writes no table, so no warehouse is needed."""

    params_type: ClassVar[type[Params]] = ScriptedParams
    needs_credential: ClassVar[bool] = True
    scripts: ClassVar[dict[str, Callable[[StepContext, ScriptedParams], None]]] = {}

    def run(self, context: StepContext, params: Any) -> Iterator[Batch]:
        self.scripts.get(params.script, lambda _context, _params: None)(context, params)
        return iter(())


class Suspending(Scripted):
    """Waits for a job, until the test says that it is done. ``looks`` are the jobs that it was resumed for."""

    looks: ClassVar[list[str]] = []
    done: ClassVar[bool] = False

    def run(self, context: StepContext, params: Any) -> Iterator[Batch | Waiting]:
        self.looks.append(context.waiting_on)
        if not self.done:
            yield Waiting("job-1", context.now() + timedelta(seconds=30))
        yield Batch([])


class Noop:
    """Does nothing, for the benchmark."""

    params_type: ClassVar[type[Params]] = Params
    needs_credential: ClassVar[bool] = False

    def run(self, _context: StepContext, _params: Any) -> Iterator[Batch]:
        return iter(())
