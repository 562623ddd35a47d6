"""``make bench-tick``: one tick for 10,000 organisations on a SQLite file, killed half-way with SIGKILL.

python -m tests.bench.tick                    10,000 organisations, killed after 5 s, and continued
python -m tests.bench.tick --orgs 1000 --kill-after 0

Every organisation has a credential and the same daily pipeline, due at the same minute. What is timed is each call of
``cron`` and all of them together; then every organisation is asked for its runs. No test asserts a time.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import click
import pytest

from common.adapters.sql.sqlite import bus
from common.domain.quota import Limits
from common.ports.secrets import CredentialInfo
from common.ports.store import PLANS_PAGE, HistoryQuery
from common.runs.cron import BUDGET_S
from tests.harness import SECRET, Harness, step

SIX = datetime(2026, 11, 20, 6, tzinfo=UTC)


class ManyPlans:
    """Plans of so many organisations, which plans.yml with its 256 KiB does not hold."""

    def __init__(self, orgs: list[str]) -> None:
        self._orgs = orgs

    def limits(self, _org_slug: str) -> Limits:
        """Return the same for all."""
        return Limits("ACTIVE", 1000, 1000, 5)

    def page(self, after: str = "", *, size: int = PLANS_PAGE) -> list[tuple[str, Limits]]:
        """Return a page of them."""
        return [(org, self.limits(org)) for org in self._orgs if org > after][:size]


def main() -> int:
    """Measure and print a table; return 1 if a run is missing or doubled, or a call took more than 60 s."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.tick", description=__doc__)
    parser.add_argument("--orgs", type=int, default=10_000)
    parser.add_argument("--kill-after", type=float, default=5.0, help="seconds; 0: no kill")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-tick-") as folder, pytest.MonkeyPatch.context() as patch:
        harness = Harness(Path(folder), patch)
        orgs = [f"org_{number:05}" for number in range(given.orgs)]
        _prepare(harness, orgs)
        _restart(harness, orgs)
        harness.clock.now = SIX - timedelta(minutes=1)
        harness.engine.tick()
        harness.clock.now = SIX
        calls = []
        if given.kill_after:
            calls.append(("killed", _killed(harness, orgs, given.kill_after)))
        ended = False
        while not ended:
            harness.clock.tick(60)  # Scheduler's next minute; here it does not wait for it
            began = time.monotonic()
            ended = harness.engine.tick().ended
            calls.append(("ended" if ended else f"out of its {BUDGET_S:.0f} s", time.monotonic() - began))
        runs = [len(harness.engine.store.history(HistoryQuery(org, 10)).runs) for org in orgs]
    for what, seconds in calls:
        click.echo(f"call of cron  {seconds:6.1f} s  {what}")
    total = sum(seconds for _, seconds in calls)
    click.echo(f"{len(orgs):,} organisations: {total:.1f} s, {len(orgs) / total:,.0f} a second")
    click.echo(f"runs: {sum(runs):,}; organisations without: {runs.count(0)}, with several: {sum(n > 1 for n in runs)}")
    return 0 if set(runs) == {1} and max(seconds for _, seconds in calls) < 60 else 1


def _prepare(harness: Harness, orgs: list[str]) -> None:
    harness.pipeline(step("only"), schedule="0 6 * * *")
    for org in orgs:
        harness.engine.credentials.add(CredentialInfo(org, "cred_openai", "openai", SIX), SECRET)


def _restart(harness: Harness, orgs: list[str]) -> None:
    harness.restart()
    harness.engine = replace(harness.engine, plans=ManyPlans(orgs))


def _killed(harness: Harness, orgs: list[str], after_s: float) -> float:
    """Make the tick in a process that is killed; return how long it lived."""
    began = time.monotonic()
    _restart(harness, orgs)
    child = os.fork()
    if not child:
        bus.NUMBERS = count(time.time_ns())  # as a process of its own would begin
        try:
            harness.engine.tick()
        finally:
            os._exit(0)  # without the clean-up of the parent's folder
    time.sleep(after_s)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    _restart(harness, orgs)
    return time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main())
