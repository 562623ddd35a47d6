"""Killed at random moments, again and again, the stack ends every run, with the rows of an undisturbed one."""

import random
import sys
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from common.adapters.sql.sqlite.bus import SqliteBus
from common.domain.model import Run, RunStatus, StepStatus
from common.domain.state import Change
from common.platform.errors import PipelineOpsError
from common.ports.store import HistoryQuery
from common.runs.engine import Engine
from common.runs.landing import place as land
from infra.local.focus_export import write_focus_export
from infra.local.sandbox.server import SandboxServer
from tests.e2e.kills import Asked, Campaign, Emulator, Place, Served, wait_for_all
from tests.seed import replay, seed

OPENAI, AWS = "genai/payg/openai", "aws/cost/billing"
ACME, GLOBEX = "acme_corp", "globex"
AT_WORK = {ACME: 2, GLOBEX: 1}
FOCUS = "cost_data_standard_1_3"
TABLES = {
    ACME: ("genai_payg_usage", "genai_reported_cost", "genai_payg_cost", "cloud_focus_export", FOCUS),
    GLOBEX: ("cloud_focus_export", FOCUS),
}
LOST = "the process that ran it ended"
KEY = ("x_org_slug", "x_pipeline_id", "x_credential_id", "x_pipeline_run_date")
OF_THE_RUN = ("x_run_id", "x_ingested_at", "x_ingestion_date")
"""Columns that differ from run to run; all others may not."""

Rows = list[dict[str, Any]]

RATE_LIMIT_EVERY = 25


@pytest.fixture
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer(seed=7, rate_limit_every=RATE_LIMIT_EVERY) as sandbox:
        yield sandbox


def test_six_kills_lose_and_double_nothing(tmp_path: Path, sandbox: SandboxServer) -> None:
    kill_and_compare(tmp_path, sandbox, kills=6)


@pytest.mark.slow
def test_twenty_kills_lose_and_double_nothing(tmp_path: Path, sandbox: SandboxServer) -> None:
    kill_and_compare(tmp_path, sandbox, kills=20)


@pytest.mark.slow
def test_two_hundred_kills_lose_and_double_nothing(tmp_path: Path, sandbox: SandboxServer) -> None:
    kill_and_compare(tmp_path, sandbox, kills=200)


def kill_and_compare(folder: Path, sandbox: SandboxServer, kills: int) -> None:
    try:
        _kill_and_compare(folder, sandbox, kills)
    except BaseException as error:
        error.add_note(f"{replay()}; logs are in {folder}")
        raise


def _kill_and_compare(folder: Path, sandbox: SandboxServer, kills: int) -> None:
    killed = Place(folder / "killed", "killed", sandbox.url)
    calm = Place(folder / "calm", "calm", sandbox.url)
    billed = {}
    for place in (killed, calm):
        place.add_credentials(ACME, GLOBEX)
        billed = land_bills(folder, place)
    with Emulator(killed) as emulator:
        campaign = Campaign(killed, emulator, asked(folder), AT_WORK, kills, random.Random(seed()))
        campaign.run()
        play_undisturbed(calm, emulator.url(), folder)
        left = Left(killed.engine(emulator.url()), campaign)
        sys.stdout.write(left.table())
        check_runs(left)
        check_quota(left)
        check_rows(left, calm.engine(emulator.url()), billed)
    assert len(left.hits) >= kills // 4, "too few kills fell while a step was at work"


def land_bills(folder: Path, place: Place) -> dict[str, Decimal]:
    """Make each organisation's bill and land it; return what it adds up to."""
    billed = {}
    for number, org in enumerate((ACME, GLOBEX)):
        bill = folder / f"{org}.csv.gz"
        billed[org] = write_focus_export(bill, seed=number, first_day=date(2026, 11, 1), days=2, rows_per_day=20)
        land(place.settings.landing / org, bill)
    return billed


def bill_of(folder: Path, org: str) -> str:
    """Return the name under which the organisation's bill was landed."""
    (landed,) = (folder / "calm" / "state" / "landing" / org).iterdir()
    return landed.name


def asked(folder: Path) -> list[Asked]:
    """The runs that are asked for while the stack is killed, again and again; some share days."""
    return [
        Asked(ACME, OPENAI, days(1, 1)),
        Asked(ACME, AWS, days(1, 2) | {"source": bill_of(folder, ACME)}),
        Asked(ACME, OPENAI, days(1, 2)),
        Asked(ACME, OPENAI, days(3, 3)),
        Asked(GLOBEX, AWS, days(1, 2) | {"source": bill_of(folder, GLOBEX)}),
    ]


def days(first: int, last: int) -> dict[str, str]:
    return {"start_date": f"2026-11-{first:02}", "end_date": f"2026-11-{last:02}"}


def play_undisturbed(place: Place, bigquery_url: str, folder: Path) -> None:
    """Run the same days of the same pipelines once, and kill nothing."""
    with Served(place, bigquery_url) as stack:
        stack.wait_until_up()
        stack.post(Asked(ACME, OPENAI, days(1, 3)))
        for org in AT_WORK:
            stack.post(Asked(org, AWS, days(1, 2) | {"source": bill_of(folder, org)}))
        wait_for_all(stack, AT_WORK)
        stack.end()


@dataclass(frozen=True)
class Lost:
    """An attempt that ended with its process, and which kill that was."""

    run: Run
    step_id: str
    attempt: int
    kill: int


class Left:
    """What the kills left behind, read when nothing is at work any more."""

    def __init__(self, engine: Engine, campaign: Campaign) -> None:
        self.engine, self.campaign = engine, campaign
        store = engine.store
        self.runs = {org: [store.load(r.run_id) for r in every_run(engine, org)] for org in AT_WORK}
        self.changes = {run.run_id: store.changes(run.run_id) for runs in self.runs.values() for run in runs}
        self.lost = [lost for runs in self.runs.values() for run in runs for lost in self._lost(run)]
        self.hits = {lost.kill for lost in self.lost}

    def _lost(self, run: Run) -> Iterator[Lost]:
        """Each lost attempt died by the first kill after its claim."""
        claims = {}
        for change in self.changes[run.run_id]:
            if change.after == StepStatus.RUNNING:
                claims[change.step_id, change.attempt] = change.at
            elif LOST in change.reason and change.step_id:
                attempt = change.attempt if change.after == StepStatus.FAILED else change.attempt - 1
                kill = bisect_right(self.campaign.killed_at, claims[change.step_id, attempt])
                yield Lost(run, change.step_id, attempt, kill)

    def commits(self) -> Counter[str]:
        """Tell how far the commits of lost attempts had come."""
        return Counter(self._commit(lost) for lost in self.lost)

    def _commit(self, lost: Lost) -> str:
        job_id = f"{lost.run.run_id}_{lost.step_id}_{lost.attempt}_commit_0"
        try:
            done = self.engine.attempts.warehouse().job_done(job_id, 0)
        except PipelineOpsError:
            return "failed"
        return "not begun" if done is None else "done" if done else "cut off"

    def other_failures(self) -> Counter[str]:
        """What else made attempts fail."""
        changes = (c for changes in self.changes.values() for c in changes)
        return Counter(c.reason.partition(" failed: ")[2] for c in changes if _failed(c) and LOST not in c.reason)

    def table(self) -> str:
        campaign, runs = self.campaign, sum(map(len, self.runs.values()))
        lines: list[tuple[str, Any]] = [
            ("seed", seed()),
            ("kills", len(campaign.kinds)),
            *((f"  of {kind}", count) for kind, count in Counter(campaign.kinds).most_common()),
            ("kills while a step was at work", len(self.hits)),
            ("attempts lost", len(self.lost)),
            *(
                (f"  of {route} {step}", count)
                for (route, step), count in sorted(Counter((x.run.request.route, x.step_id) for x in self.lost).items())
            ),
            *((f"  with a commit {how}", count) for how, count in sorted(self.commits().items())),
            *((f"attempts failed: {why[:60]}", count) for why, count in self.other_failures().most_common()),
            ("highest attempt of a step", max(s.attempt for r in _all(self.runs) for s in r.steps.values())),
            ("runs", runs),
            ("requests without an answer", campaign.unanswered),
            ("  stored all the same", runs - len(campaign.promised)),
            ("restarts until all had ended", len(campaign.kinds)),
            ("seconds", f"{campaign.seconds:.1f}"),
        ]
        return "\n" + "".join(f"{name:<62}{value!s:>12}\n" for name, value in lines)


def check_runs(left: Left) -> None:
    """Every promised run is there; each has completed, once, step after step; nothing is left on the bus."""
    assert {run_id for _, run_id in left.campaign.promised} <= set(left.changes)
    for run in _all(left.runs):
        changes = left.changes[run.run_id]
        assert run.status is RunStatus.COMPLETED, (run.run_id, run.error, changes)
        assert [c.after for c in changes if not c.step_id and c.before != c.after] == [
            "pending",
            "validating",
            "running",
            "completed",
        ]
        for spec in run.specs:
            assert run.steps[spec.step_id].status is StepStatus.SUCCEEDED
            mine = [c for c in changes if c.step_id == spec.step_id]
            (succeeded,) = (c for c in mine if c.after == StepStatus.SUCCEEDED)
            assert mine[-1] is succeeded and succeeded.attempt == run.steps[spec.step_id].attempt
            # An attempt that waits for a job goes on under its number: that is no second one.
            claimed = [c.attempt for c in mine if c.after == StepStatus.RUNNING and c.before != StepStatus.SUSPENDED]
            assert claimed == sorted(set(claimed)), "an attempt was made twice"
            begun = changes.index(next(c for c in mine if c.after == StepStatus.RUNNING))
            before = [c.step_id for c in changes[:begun] if c.after == StepStatus.SUCCEEDED]
            assert set(spec.depends_on) <= set(before), f"{spec.step_id} of {run.run_id} began too early"
    bus = left.engine.bus
    assert isinstance(bus, SqliteBus)
    assert bus.dead_letters() == []


def check_quota(left: Left) -> None:
    """No reservation is left; as many runs are counted as there are, and each as completed."""
    asked, promised = left.campaign.unanswered, len(left.campaign.promised)
    assert promised <= sum(map(len, left.runs.values())) <= promised + asked
    for org, runs in left.runs.items():
        usage = left.engine.store.usage(org, datetime.now(UTC))
        assert (usage.concurrent, usage.completed, usage.failed, usage.cancelled) == (0, len(runs), 0, 0), org
        assert usage.monthly == len(runs), org


def check_rows(left: Left, calm: Engine, billed: dict[str, Decimal]) -> None:
    """The tables hold what the undisturbed ones hold, and each key the rows of the attempt that says it wrote them."""
    for org, tables in TABLES.items():
        for table in tables:
            found, wanted = select(left.engine, org, table), select(calm, org, table)
            assert len(found) == len(wanted) > 0, (org, table)
            if table == FOCUS:
                assert money(found) == money(wanted)
                assert money(found)["cloud_aws_cost_billing"] == billed[org]
            assert lasting(found) == lasting(wanted), (org, table)
            check_writers(left, org, table, found)


def check_writers(left: Left, org: str, table: str, found: Rows) -> None:
    """The rows of a key are those of one attempt, whole: the one whose receipt the run keeps."""
    receipts = {
        (run.run_id, step.receipt.ingested_at)
        for run in left.runs[org]
        for step in run.steps.values()
        if step.receipt.table.endswith(f".{table}")
    }
    writers: dict[Any, set[Any]] = {}
    for row in found:
        writers.setdefault(tuple(row[name] for name in KEY), set()).add((row["x_run_id"], row["x_ingested_at"]))
    for key, wrote in writers.items():
        assert len(wrote) == 1, f"{table} holds rows of several attempts for {key}: {wrote}"
        assert wrote <= receipts, f"the rows of {key} in {table} are of an attempt that was superseded: {wrote}"


def lasting(rows: Rows) -> list[tuple[str, ...]]:
    """What may not differ from run to run, in an order of its own."""
    return sorted(tuple(str(value) for name, value in row.items() if name not in OF_THE_RUN) for row in rows)


def money(rows: Rows) -> dict[str, Decimal]:
    sums: dict[str, Decimal] = {}
    for row in rows:
        sums[row["x_pipeline_id"]] = sums.get(row["x_pipeline_id"], Decimal(0)) + row["BilledCost"]
    return sums


def select(engine: Engine, org: str, table: str) -> Rows:
    name = f"{engine.settings.project_id}.{engine.settings.dataset(org)}.{table}"
    return list(engine.attempts.warehouse().query(f"SELECT * FROM `{name}`"))


def every_run(engine: Engine, org: str) -> Iterator[Run]:
    cursor = None
    while True:
        page = engine.store.history(HistoryQuery(org, 200, cursor=cursor))
        yield from page.runs
        cursor = page.next_cursor
        if cursor is None:
            return


def _all(runs: dict[str, list[Run]]) -> list[Run]:
    return [run for found in runs.values() for run in found]


def _failed(change: Change) -> bool:
    return bool(change.step_id) and change.after in (StepStatus.RETRYING, StepStatus.FAILED)
