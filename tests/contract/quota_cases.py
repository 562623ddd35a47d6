"""The quota rule as a table: what was admitted and waits, what is asked for, what the answer is, what counts after.

``test_quota_rule.py`` holds the pure rule and every run store to each line.
"""

from collections.abc import Callable
from copy import replace
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from common.domain import state
from common.domain.messages import (
    AttemptClaimed,
    AttemptSucceeded,
    CancelRequested,
    Event,
    JobsCost,
    RunAdmitted,
    RunAnnounced,
    RunKeptWaiting,
    RunRejected,
    RunValidated,
)
from common.domain.model import Estimate, Pipeline, Receipt, StepSpec
from common.domain.quota import LimitExceeded, Limits, Outcomes, Usage
from common.domain.state import Transition
from common.ports.store import RunStore
from tests.contract.stores import T0, WIDE, new_run

SHARED = replace(WIDE, global_concurrent=10_000)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
TO_MIDNIGHT, TO_DECEMBER = 18 * 3600, (9 * 24 + 18) * 3600
"""Seconds from ``T0``, a 21 November at 6:00, to when the day's and the month's counts start anew."""

LAST_OF_NOVEMBER, DECEMBER = datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)
START = timedelta(hours=1, minutes=5)
"""A run that is not started holds its slot for an hour and five minutes of grace."""

Op = Callable[[RunStore], object]


@dataclass(frozen=True)
class Asks:
    """A run that asks for its quota: with what estimate, and whether it comes out of the queue."""

    number: int = 9
    org: str = "acme"
    route: str = "a/b/c"
    at: datetime = T0
    usd: str | None = None
    waited: bool = False

    @property
    def run_id(self) -> str:
        return f"run_{self.number:032x}"

    @property
    def cost_usd(self) -> Decimal:
        return Decimal(self.usd or 0)

    def new(self, limits: Limits) -> Transition:
        new = new_run(self.number, self.org, self.at, self.route)
        estimate = None if self.usd is None else Estimate(Decimal(self.usd), Decimal(0), "a test")
        return replace(new, run=replace(new.run, estimate=estimate, global_slot=limits.global_concurrent is not None))

    def take(self, store: RunStore, limits: Limits) -> None:
        """Ask: as a new run, or as one that is let out of the queue."""
        if not self.waited:
            store.create(self.new(limits), limits)
            return
        run = store.load(self.run_id, ())
        admitted = state.apply(run, RunAdmitted(limits.global_concurrent is not None), self.at)
        if admitted.writes:
            store.admit(admitted, limits)


def runs(number: int, limits: Limits = WIDE, **asked: object) -> Op:
    """A run is admitted."""
    return lambda store: Asks(number, **asked).take(store, limits)  # type: ignore[arg-type]


def waits(number: int, limit: str = "concurrent", **asked: object) -> Op:
    """A run begins to wait for this limit."""

    def play(store: RunStore) -> None:
        new = Asks(number, **asked).new(WIDE)  # type: ignore[arg-type]
        run = replace(new.run, request=replace(new.run.request, queue=True))
        store.create(state.waiting(replace(new, run=run), limit, "it is full"), WIDE)

    return play


def let_in(number: int, limits: Limits = WIDE, at: datetime = T0) -> Op:
    """A run that waits is admitted."""
    return lambda store: Asks(number, at=at, waited=True).take(store, limits)


def happens(number: int, at: datetime, *events: Event) -> Op:
    """These events of a run are applied, one after the other."""

    def play(store: RunStore) -> None:
        for event in events:
            store.commit(state.apply(store.load(f"run_{number:032x}"), event, at))

    return play


def fails(number: int, at: datetime = T0) -> Op:
    return happens(number, at, RunRejected("no"))


def is_cancelled(number: int, at: datetime = T0) -> Op:
    return happens(number, at, CancelRequested("me", "so"))


def begins(number: int, at: datetime = T0, timeout_s: int = 60) -> Op:
    """A run's step is queued: from now on its slot is held as long as the step may take, and six hours."""
    return happens(number, at, RunValidated(Pipeline("p", "x", (StepSpec("a", "noop", (), timeout_s),), "h"), "c"))


def completes(number: int, at: datetime = T0) -> Op:
    validated = RunValidated(Pipeline("p", "x", (StepSpec("a", "noop"),), "hash"), "cred")
    return happens(number, at, validated, AttemptClaimed("a", 1, "me"), AttemptSucceeded("a", 1, Receipt()))


def costs(number: int, usd: str | None, at: datetime = T0) -> Op:
    """An ended run's cost becomes known, or will not be."""
    return happens(number, at, RunAnnounced(None if usd is None else JobsCost(Decimal(usd), True)))


def used(
    daily: int = 0,
    monthly: int | None = None,
    concurrent: int = 0,
    *,
    failed: int = 0,
    today: int | None = None,
    reserved: str = "0",
    spent: str = "0",
    waiting: int = 0,
    pipeline: int = 0,
    everywhere: int = 0,
    ahead: dict[str, int] | None = None,
) -> Usage:
    """What counts: ``failed`` runs of the month, of which ``today`` (all of them) of the day."""
    return Usage(
        daily,
        daily if monthly is None else monthly,
        concurrent,
        0,
        failed,
        0,
        Decimal(spent),
        Decimal(reserved),
        waiting,
        pipeline,
        everywhere,
        ahead or {},
        Outcomes(failed=failed if today is None else today),
    )


@dataclass(frozen=True)
class Case:
    """One line: the run that ``asks`` is ``refused`` by a limit, and nothing changes; or it is admitted.

    ``before`` says all that the rule looks at; a store shows it without ``pipeline``, ``everywhere`` and ``ahead``.
    """

    name: str
    limits: Limits
    given: tuple[Op, ...] = ()
    before: Usage = used()  # noqa: RUF009 - a value
    asks: Asks = Asks()
    refused: LimitExceeded | None = None
    after: Usage | None = None


def limits(**fields: object) -> Limits:
    return replace(WIDE, **fields)  # type: ignore[arg-type]


USD = Decimal
FULL_DAY = (runs(1), fails(1))

CASES = (
    Case("the first run of an organisation is admitted", WIDE, after=used(1, concurrent=1)),
    Case(
        "the last run of a day is admitted",
        limits(daily=2),
        FULL_DAY,
        used(1, failed=1),
        after=used(2, concurrent=1, failed=1),
    ),
    Case(
        "a run beyond the day's is refused until midnight, though none is live",
        limits(daily=1),
        FULL_DAY,
        used(1, failed=1),
        refused=LimitExceeded("daily", 1, 1, TO_MIDNIGHT),
    ),
    Case(
        "another day of the month has its own runs",
        limits(daily=1),
        (runs(1, at=T0 - DAY), fails(1)),
        used(0, 1, failed=1, today=0),
        after=used(1, 2, 1, failed=1, today=0),
    ),
    Case(
        "a run beyond the month's is refused until the next month",
        limits(monthly=1),
        (runs(1, at=T0 - DAY), fails(1)),
        used(0, 1, failed=1, today=0),
        refused=LimitExceeded("monthly", 1, 1, TO_DECEMBER),
    ),
    Case(
        "the first moment of a month starts anew",
        limits(daily=1, monthly=1),
        (runs(1, at=LAST_OF_NOVEMBER), fails(1, LAST_OF_NOVEMBER)),
        asks=Asks(at=DECEMBER),
        after=used(1, concurrent=1),
    ),
    Case(
        "the last second of a month is still of it",
        limits(daily=1, monthly=1),
        (runs(1, at=T0), fails(1)),
        used(0, 1, failed=1, today=0),
        Asks(at=LAST_OF_NOVEMBER),
        LimitExceeded("monthly", 1, 1, 1),
    ),
    Case(
        "the limit that lasts longest is named: the month before the day",
        limits(daily=0, monthly=0, money_usd=USD(0), concurrent=0),
        refused=LimitExceeded("monthly", 0, 0, TO_DECEMBER),
    ),
    Case(
        "the day before money",
        limits(daily=0, money_usd=USD(0), concurrent=0),
        refused=LimitExceeded("daily", 0, 0, TO_MIDNIGHT),
    ),
    Case(
        "money before slots",
        limits(money_usd=USD(0), pipeline=0, concurrent=0, global_concurrent=0),
        refused=LimitExceeded("money", USD(0), USD(0), TO_DECEMBER),
    ),
    Case(
        "the narrowest slot first: the pipeline's",
        limits(pipeline=0, concurrent=0, global_concurrent=0),
        refused=LimitExceeded("pipeline", 0, 0, 30),
    ),
    Case(
        "the organisation's slot before the deployment's",
        limits(concurrent=0, global_concurrent=0),
        refused=LimitExceeded("concurrent", 0, 0, 30),
    ),
    Case(
        "limits that were read before their source went away say so",
        limits(concurrent=0, as_of=T0 - HOUR),
        refused=LimitExceeded("concurrent", 0, 0, 30, 0, T0 - HOUR),
    ),
    Case(
        "as many runs are live as there are slots",
        limits(concurrent=2),
        (runs(1), runs(2)),
        used(2, concurrent=2, pipeline=2, everywhere=2),
        refused=LimitExceeded("concurrent", 2, 2, 30),
    ),
    Case(
        "one slot is left",
        limits(concurrent=2, pipeline=2, global_concurrent=2),
        (runs(1, SHARED), runs(2, SHARED), fails(2)),
        used(2, concurrent=1, failed=1, pipeline=1, everywhere=1),
        after=used(3, concurrent=2, failed=1),
    ),
    Case(
        "a pipeline's runs take its slots, and another organisation's runs of it do not",
        limits(pipeline=1),
        (runs(1), runs(2, org="globex"), runs(3, route="x/y/z")),
        used(2, concurrent=2, pipeline=1, everywhere=3),
        refused=LimitExceeded("pipeline", 1, 1, 30),
    ),
    Case(
        "another pipeline's runs take none of its slots",
        limits(pipeline=1),
        (runs(1), runs(2, org="globex")),
        used(1, concurrent=1, everywhere=2),
        Asks(route="x/y/z"),
        after=used(2, concurrent=2),
    ),
    Case(
        "the runs of all organisations take the deployment's slots",
        limits(global_concurrent=2),
        (runs(1, SHARED, org="globex"), runs(2, SHARED, org="third")),
        used(everywhere=2),
        refused=LimitExceeded("global", 2, 2, 30),
    ),
    Case(
        "where the deployment has no limit its slots are not counted",
        limits(concurrent=1),
        (runs(1, SHARED, org="globex"),),
        used(everywhere=1),
        after=used(1, concurrent=1),
    ),
    Case(
        "a slot whose time is over is free",
        limits(concurrent=1, pipeline=1, global_concurrent=1),
        (runs(1, SHARED, at=T0 - START),),
        used(1),
        after=used(2, concurrent=1),
    ),
    Case(
        "a slot is held until its last moment",
        limits(concurrent=1),
        (runs(1, at=T0 - START + timedelta(microseconds=1)),),
        used(1, concurrent=1, pipeline=1, everywhere=1),
        refused=LimitExceeded("concurrent", 1, 1, 30),
    ),
    Case(
        "another organisation's vanished run gives its slot of the deployment back",
        limits(global_concurrent=1),
        (runs(1, SHARED, org="globex", at=T0 - START),),
        after=used(1, concurrent=1),
    ),
    Case(
        "money is reserved up to the last millionth",
        limits(money_usd=USD("1.00")),
        (runs(1, usd="0.4"),),
        used(1, concurrent=1, reserved="0.4", pipeline=1, everywhere=1),
        Asks(usd="0.6"),
        after=used(2, concurrent=2, reserved="1"),
    ),
    Case(
        "a run that would go a millionth beyond the month's money is refused",
        limits(money_usd=USD("1.00")),
        (runs(1, usd="0.4"),),
        used(1, concurrent=1, reserved="0.4", pipeline=1, everywhere=1),
        Asks(usd="0.6000001"),
        LimitExceeded("money", USD("1.00"), USD("0.4"), TO_DECEMBER),
    ),
    Case(
        "money that is used up admits not even what costs nothing",
        limits(money_usd=USD("0.4")),
        (runs(1, usd="0.4"),),
        used(1, concurrent=1, reserved="0.4", pipeline=1, everywhere=1),
        Asks(usd="0"),
        LimitExceeded("money", USD("0.4"), USD("0.4"), TO_DECEMBER),
    ),
    Case(
        "what runs have cost counts, though it was estimated to be less",
        limits(money_usd=USD("1.00")),
        (runs(1, usd="0.1"), fails(1), costs(1, "0.9")),
        used(1, failed=1, spent="0.9"),
        Asks(usd="0.2"),
        LimitExceeded("money", USD("1.00"), USD("0.9"), TO_DECEMBER),
    ),
    Case(
        "an estimate is reserved where money has no limit, too",
        WIDE,
        asks=Asks(usd="0.0000001"),
        after=used(1, concurrent=1, reserved="0.000001"),
    ),
    Case(
        "a new run comes after one that waits for the same slot",
        limits(concurrent=1),
        (waits(1),),
        used(waiting=1, ahead={"pipeline": 1, "concurrent": 1}),
        refused=LimitExceeded("concurrent", 1, 0, 30, 1),
    ),
    Case(
        "there is a slot for who waits and for a new run",
        limits(concurrent=2),
        (waits(1),),
        used(waiting=1, ahead={"pipeline": 1, "concurrent": 1}),
        after=used(1, concurrent=1, waiting=1),
    ),
    Case(
        "who waits for a wider slot will take a narrower one too",
        limits(pipeline=1),
        (waits(1, "global"), waits(2, "concurrent", route="x/y/z")),
        used(waiting=2, ahead={"pipeline": 1, "concurrent": 2, "global": 1}),
        refused=LimitExceeded("pipeline", 1, 0, 30, 1),
    ),
    Case(
        "who waits for a narrow slot takes no wider one",
        limits(concurrent=1, global_concurrent=1),
        (waits(1, "pipeline"), waits(2, "concurrent", org="globex")),
        used(waiting=1, ahead={"pipeline": 1}),
        Asks(route="x/y/z"),
        after=used(1, concurrent=1, waiting=1),
    ),
    Case(
        "who waits for the deployment's slot is before every organisation's new runs",
        limits(global_concurrent=1),
        (waits(1, "global", org="globex"), waits(2, "daily", org="third")),
        used(ahead={"global": 1}),
        refused=LimitExceeded("global", 1, 0, 30, 1),
    ),
    Case(
        "a run that waits is not kept by those that wait beside it",
        limits(concurrent=1),
        (waits(1), waits(9)),
        used(waiting=2, ahead={"pipeline": 2, "concurrent": 2}),
        Asks(waited=True),
        after=used(1, concurrent=1, waiting=1),
    ),
    Case(
        "a run that waits is kept by those that are live",
        limits(concurrent=1),
        (runs(1), waits(9)),
        used(1, concurrent=1, waiting=1, pipeline=1, everywhere=1, ahead={"pipeline": 1, "concurrent": 1}),
        Asks(waited=True),
        LimitExceeded("concurrent", 1, 1, 30),
    ),
    Case(
        "a run that waited is counted on the day on which it is admitted",
        limits(daily=1, monthly=1),
        (runs(1), fails(1), waits(9)),
        used(waiting=1, ahead={"pipeline": 1, "concurrent": 1}),
        Asks(waited=True, at=DECEMBER),
        after=used(1, concurrent=1),
    ),
    Case(
        "a day that is used up keeps a run waiting",
        limits(daily=1),
        (*FULL_DAY, waits(9)),
        used(1, failed=1, waiting=1, ahead={"pipeline": 1, "concurrent": 1}),
        Asks(waited=True),
        LimitExceeded("daily", 1, 1, TO_MIDNIGHT),
    ),
)


@dataclass(frozen=True)
class Course:
    """What happens, and what counts after: (organisation, when, usage)."""

    name: str
    events: tuple[Op, ...]
    counts: tuple[tuple[str, datetime, Usage], ...]


def ended(**outcomes: int) -> Usage:
    """One run of the day and month that has ended so."""
    return replace(used(1), ended_today=Outcomes(**outcomes), **outcomes)


COURSES = (
    *(
        Course(f"a run that {what} is counted so, in its day and in its month", (runs(1), op), (("acme", T0, counts),))
        for what, op, counts in (
            ("completed", completes(1), ended(completed=1)),
            ("failed", fails(1), ended(failed=1)),
            ("was cancelled", is_cancelled(1), ended(cancelled=1)),
        )
    ),
    Course(
        "a run's end is counted in the day and month of its admission",
        (runs(1, at=LAST_OF_NOVEMBER), fails(1, DECEMBER)),
        (("acme", LAST_OF_NOVEMBER, used(1, failed=1)), ("acme", DECEMBER, used())),
    ),
    Course(
        "one that waited was admitted when it was let in",
        (waits(1, at=LAST_OF_NOVEMBER), let_in(1, at=DECEMBER), fails(1, DECEMBER)),
        (("acme", LAST_OF_NOVEMBER, used()), ("acme", DECEMBER, used(1, failed=1))),
    ),
    Course(
        "a run's money is settled in the month of its admission, and once",
        (runs(1, at=LAST_OF_NOVEMBER, usd="0.5"), fails(1, DECEMBER), costs(1, "0.7", DECEMBER)),
        (("acme", LAST_OF_NOVEMBER, used(1, failed=1, spent="0.7")), ("acme", DECEMBER, used())),
    ),
    Course(
        "an estimate stays reserved until it is settled, not until the run ends",
        (runs(1, usd="0.5"), fails(1)),
        (("acme", T0, used(1, failed=1, reserved="0.5")),),
    ),
    Course(
        "what is not known costs what was estimated",
        (runs(1, usd="0.5"), fails(1), costs(1, None)),
        (("acme", T0, used(1, failed=1, spent="0.5")),),
    ),
    Course(
        "a run that was never let in counts nowhere, nor does its money",
        (waits(1, usd="0.5"), is_cancelled(1), costs(1, None)),
        (("acme", T0, used()),),
    ),
    Course(
        "a run that goes on waiting holds no slot, whatever else it waits for",
        (waits(1), happens(1, T0, RunKeptWaiting("global", "it is full"))),
        (("acme", T0, used(waiting=1)),),
    ),
    Course(
        "a slot is held as long as the run may take",
        (runs(1), begins(1, timeout_s=7200)),
        (("acme", T0 + 8 * HOUR, used(1, concurrent=1)), ("acme", T0 + 9 * HOUR, used(1))),
    ),
    Course(
        "a run that comes late to a slot that nobody took holds it again",
        (runs(1), begins(1, T0 + 2 * HOUR)),
        (("acme", T0 + 3 * HOUR, used(1, concurrent=1)),),
    ),
    Course(
        "a run that comes too late does not take back the slot that another one got meanwhile",
        (runs(1), runs(2, limits(concurrent=1), at=T0 + 2 * HOUR), begins(1, T0 + 2 * HOUR)),
        (("acme", T0 + 2 * HOUR, used(2, concurrent=1)),),
    ),
    Course(
        "nor the slot of the deployment",
        (
            runs(1, SHARED),
            runs(2, limits(global_concurrent=1), org="globex", at=T0 + 2 * HOUR),
            begins(1, T0 + 2 * HOUR),
            runs(3, limits(global_concurrent=2), org="third", at=T0 + 2 * HOUR),
        ),
        (("third", T0 + 2 * HOUR, used(1, concurrent=1)),),
    ),
    Course(
        "a slot of the deployment is held as long as the run may take, and given back with its end",
        (
            runs(1, SHARED),
            begins(1, timeout_s=7200),
            is_cancelled(1, T0 + 2 * HOUR),
            runs(2, limits(global_concurrent=1), org="globex", at=T0 + 2 * HOUR),
        ),
        (("acme", T0 + 2 * HOUR, ended(cancelled=1)), ("globex", T0 + 2 * HOUR, used(1, concurrent=1))),
    ),
)
